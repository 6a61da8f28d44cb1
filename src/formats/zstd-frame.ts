import { ParseError } from "../errors.ts"

/**
 * The outer structure of zstd data: whole frames and nothing after them. The decompressor of the runtime gives out what it has
 * when the data ends too early or goes on after the last frame, and says nothing.
 * Source: RFC 8878, sections 3.1.1 (Zstandard Frames), 3.1.1.1 (Frame Header) and 3.1.1.2 (Blocks).
 */

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd] as const
/** The magic number and Frame_Header_Descriptor. */
const DESCRIPTOR_BYTES = 5
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
  const frames = new ZstdFrames(name)
  frames.add(bytes)
  frames.end()
  return frames.contentSize
}

/** The same walk over data that comes in parts. */
export class ZstdFrames {
  /** As the frame headers so far state it; null where one of them states none. */
  contentSize: number | null = 0
  readonly #name: string
  #frames = 0
  /** Offset of the next byte. */
  #at = 0
  /** What comes next, how many bytes of it are wanted, and those that are there. */
  #next: "descriptor" | "header" | "block" = "descriptor"
  #wanted = DESCRIPTOR_BYTES
  #held: number[] = []
  /** Bytes to pass over before that. */
  #skip = 0
  #checksum = false

  constructor(name: string) {
    this.#name = name
  }

  /** @throws ParseError as {@link zstdContentSize} */
  add(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#skip > 0) {
        const passed = Math.min(this.#skip, bytes.length - at)
        this.#skip -= passed
        this.#at += passed
        at += passed
        continue
      }
      this.#held.push(bytes[at] ?? 0)
      this.#at += 1
      at += 1
      if (this.#held.length === this.#wanted) this.#take(this.#held)
    }
  }

  /** Nothing may be missing. @throws ParseError ERR_COMPRESSION */
  end(): void {
    const whole = this.#next === "descriptor" && this.#held.length === 0 && this.#skip === 0
    if (!whole || this.#frames === 0)
      throw damaged(this.#name, this.#at, "whole frames of zstd", "the end of the data")
  }

  #take(held: number[]): void {
    switch (this.#next) {
      case "descriptor":
        this.#wanted = headerSize(this.#name, this.#at, held)
        this.#next = "header"
        if (this.#wanted > held.length) return
        this.#takeHeader(held)
        return
      case "header":
        this.#takeHeader(held)
        return
      case "block":
        this.#takeBlock(held)
    }
  }

  #takeHeader(held: readonly number[]): void {
    const descriptor = held[MAGIC.length] ?? 0
    if (!isSingleSegment(descriptor)) checkWindow(this.#name, held[DESCRIPTOR_BYTES] ?? 0)
    const size = contentSizeOf(held, descriptor)
    this.contentSize = this.contentSize === null || size === null ? null : this.contentSize + size
    this.#checksum = (descriptor & 0x04) !== 0
    this.#frames += 1
    this.#expect("block", BLOCK_HEADER_BYTES)
  }

  #takeBlock([low = 0, middle = 0, high = 0]: readonly number[]): void {
    const kind = (low >> 1) & 3
    if (kind === RESERVED_BLOCK) throw damaged(this.#name, this.#at, "a block", "a block of a reserved kind")
    this.#skip = kind === RLE_BLOCK ? 1 : (low >> 3) + middle * 2 ** 5 + high * 2 ** 13
    if ((low & 1) === 0) this.#expect("block", BLOCK_HEADER_BYTES)
    else {
      this.#skip += this.#checksum ? CHECKSUM_BYTES : 0
      this.#expect("descriptor", DESCRIPTOR_BYTES)
    }
  }

  #expect(next: "descriptor" | "block", wanted: number): void {
    this.#next = next
    this.#wanted = wanted
    this.#held = []
  }
}

/** Size of a frame header that begins with these bytes, magic number included. */
function headerSize(name: string, at: number, start: readonly number[]): number {
  if (!MAGIC.every((byte, index) => start[index] === byte))
    throw damaged(name, at - DESCRIPTOR_BYTES, "a zstd frame", "other bytes")
  const descriptor = start[MAGIC.length] ?? 0
  if ((descriptor & 0x08) !== 0) throw damaged(name, at - 1, "a reserved bit of zero", "one")
  if ((descriptor & 3) !== 0)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: name,
      expected: "zstd data that needs no dictionary",
      found: "the identifier of one",
      hint: "compress it without a dictionary",
    })
  return DESCRIPTOR_BYTES + (isSingleSegment(descriptor) ? 0 : 1) + contentSizeBytes(descriptor)
}

function isSingleSegment(descriptor: number): boolean {
  return (descriptor & 0x20) !== 0
}

function contentSizeBytes(descriptor: number): number {
  const flag = descriptor >> 6
  return flag === 0 ? (isSingleSegment(descriptor) ? 1 : 0) : 2 ** flag
}

function contentSizeOf(header: readonly number[], descriptor: number): number | null {
  const width = contentSizeBytes(descriptor)
  if (width === 0) return null
  const bytes = header.slice(-width)
  return bytes.reduceRight((size, byte) => size * 256 + byte, 0) + (width === 2 ? 256 : 0)
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

function damaged(name: string, at: number, expected: string, found: string): ParseError<"ERR_COMPRESSION"> {
  return new ParseError("ERR_COMPRESSION", {
    at: `${name}, byte ${at}`,
    expected,
    found,
    hint: "the file is damaged or was cut off: get it again",
  })
}
