import { ParseError } from "../errors.ts"

/**
 * The outer structure of zstd data: whole frames and nothing after them. The decompressor of the runtime gives out what it has
 * when the data ends too early or goes on after the last frame, and says nothing.
 * Source: RFC 8878, sections 3.1.1 (Zstandard Frames), 3.1.1.1 (Frame Header) and 3.1.1.2 (Blocks).
 */

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd] as const
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const
const RLE_BLOCK = 1
const RESERVED_BLOCK = 3
/** What a decompressor has to keep in memory. Data made with `zstd --long` of more than 27 bits is beyond it. */
const MAX_WINDOW_BYTES = 128 * 1024 * 1024
const BLOCK_HEADER_BYTES = 3
const CHECKSUM_BYTES = 4

/** Whether data begins with a zstd frame. No JSON text does. */
export function isZstd(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, index) => bytes[index] === byte)
}

/**
 * Walks over all frames without decompressing them.
 * @param name what the data is, for messages.
 * @returns the decompressed size in bytes as the frame headers state it; null where one of them states none.
 * @throws ParseError ERR_COMPRESSION for data that is cut off, goes on after its end, or is no zstd; ERR_UNSUPPORTED for a frame
 * that needs a dictionary, or a window of more than 128 MiB.
 */
export function zstdContentSize(name: string, bytes: Uint8Array): number | null {
  let total: number | null = 0
  let at = 0
  do {
    if (!isZstd(bytes.subarray(at, at + MAGIC.length)))
      throw damaged(name, at, "a zstd frame", at === bytes.length ? "nothing" : "other bytes")
    const header = readHeader(name, bytes, at)
    total = total === null || header.contentSize === null ? null : total + header.contentSize
    at = endOfBlocks(name, bytes, header.end) + (header.checksum ? CHECKSUM_BYTES : 0)
    if (at > bytes.length) throw damaged(name, bytes.length, "a checksum", "the end of the data")
  } while (at < bytes.length)
  return total
}

interface FrameHeader {
  readonly end: number
  readonly checksum: boolean
  readonly contentSize: number | null
}

function readHeader(name: string, bytes: Uint8Array, frame: number): FrameHeader {
  const descriptor = bytes[frame + MAGIC.length]
  if (descriptor === undefined) throw damaged(name, bytes.length, "a frame header", "the end of the data")
  if ((descriptor & 0x08) !== 0) throw damaged(name, frame + MAGIC.length, "a reserved bit of zero", "one")
  const singleSegment = (descriptor & 0x20) !== 0
  const dictionaryBytes = DICTIONARY_ID_BYTES[descriptor & 3] ?? 0
  if (dictionaryBytes > 0)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: name,
      expected: "zstd data that needs no dictionary",
      found: "the identifier of one",
      hint: "compress it without a dictionary",
    })
  if (!singleSegment) checkWindow(name, bytes[frame + MAGIC.length + 1] ?? 0)
  const start = frame + MAGIC.length + 1 + (singleSegment ? 0 : 1)
  const sizeFlag = descriptor >> 6
  const sizeBytes = sizeFlag === 0 ? (singleSegment ? 1 : 0) : 2 ** sizeFlag
  let contentSize = sizeBytes === 2 ? 256 : 0
  for (let index = sizeBytes - 1; index >= 0; index--) {
    const byte = bytes[start + index]
    if (byte === undefined) throw damaged(name, bytes.length, "a frame header", "the end of the data")
    contentSize += byte * 2 ** (8 * index)
  }
  const checksum = (descriptor & 0x04) !== 0
  return { end: start + sizeBytes, checksum, contentSize: sizeBytes === 0 ? null : contentSize }
}

/** Source: RFC 8878, section 3.1.1.1.2 (Window_Descriptor). */
function checkWindow(name: string, descriptor: number): void {
  const base = 2 ** (10 + (descriptor >> 3))
  const size = base + (base / 8) * (descriptor & 7)
  if (size > MAX_WINDOW_BYTES)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: name,
      expected: `zstd data with a window of at most ${MAX_WINDOW_BYTES} bytes`,
      found: `${size} bytes`,
      hint: "compress it without --long",
    })
}

/** Offset behind the last block of a frame. */
function endOfBlocks(name: string, bytes: Uint8Array, first: number): number {
  for (let at = first; ; ) {
    const [low, middle, high] = bytes.subarray(at, at + BLOCK_HEADER_BYTES)
    if (low === undefined || middle === undefined || high === undefined)
      throw damaged(name, bytes.length, "another block", "the end of the data")
    const kind = (low >> 1) & 3
    if (kind === RESERVED_BLOCK) throw damaged(name, at, "a block", "a block of a reserved kind")
    const size = (low >> 3) + middle * 2 ** 5 + high * 2 ** 13
    at += BLOCK_HEADER_BYTES + (kind === RLE_BLOCK ? 1 : size)
    if (at > bytes.length) throw damaged(name, bytes.length, "the rest of a block", "the end of the data")
    if ((low & 1) === 1) return at
  }
}

function damaged(name: string, at: number, expected: string, found: string): ParseError<"ERR_COMPRESSION"> {
  return new ParseError("ERR_COMPRESSION", {
    at: `${name}, byte ${at}`,
    expected,
    found,
    hint: "the file is damaged or was cut off: get it again",
  })
}
