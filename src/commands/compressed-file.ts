import { constants, gunzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib"
import { ParseError } from "../errors.ts"
import { isZstd, zstdContentSize } from "../formats/zstd-frame.ts"
import { parseFile } from "./input-files.ts"

/**
 * The text in a file's content: decompressed where it is compressed with zstd or gzip. The content tells, as standard input has
 * no name.
 * @param name what the file is, for messages.
 * @param maxBytes cap of the text; the decompressor stops there.
 * @throws ParseError ERR_COMPRESSION, ERR_UNSUPPORTED, ERR_TOO_LARGE.
 */
export function plainContent(name: string, content: Uint8Array, maxBytes: number): Uint8Array {
  if (isGzip(content)) return decompress(name, content, maxBytes, gunzipSync)
  if (!isZstd(content)) return content
  const stated = zstdContentSize(name, content)
  if (stated !== null && stated > maxBytes) throw tooLarge(name, maxBytes, `${stated} bytes`)
  const plain = decompress(name, content, maxBytes, zstdDecompressSync)
  if (stated !== null && plain.length !== stated)
    throw new ParseError("ERR_COMPRESSION", {
      at: name,
      expected: `${stated} bytes`,
      found: `${plain.length}`,
    })
  return plain
}

/**
 * Reads a file that may be compressed, and parses it; `-` is standard input. What is wrong in it is told with its name.
 * @param maxBytes cap of the file, and of its text.
 * @throws CodedError ERR_IO, ERR_TOO_LARGE; ParseError ERR_COMPRESSION, ERR_UNSUPPORTED and those of `parse`.
 */
export function parsePlainFile<T>(path: string, maxBytes: number, parse: (plain: Uint8Array) => T): T {
  return parseFile(path, maxBytes, (content) => parse(plainContent("content", content, maxBytes)))
}

/** What to write to a file of that name: the text as it is, or compressed where the name ends in `.zst`. */
export function contentFor(path: string, plain: Uint8Array): Uint8Array {
  if (!path.endsWith(".zst")) return plain
  return zstdCompressSync(plain, {
    params: {
      [constants.ZSTD_c_compressionLevel]: 3,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
    pledgedSrcSize: plain.length,
  })
}

/** Source: RFC 1952, section 2.3.1 "Member header and trailer"; 8 is the only method in use. */
function isGzip(content: Uint8Array): boolean {
  return content[0] === 0x1f && content[1] === 0x8b && content[2] === 8
}

function decompress(
  name: string,
  content: Uint8Array,
  maxBytes: number,
  inflate: (content: Uint8Array, options: { maxOutputLength: number }) => Uint8Array,
): Uint8Array {
  try {
    return inflate(content, { maxOutputLength: maxBytes })
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ERR_BUFFER_TOO_LARGE")
      throw tooLarge(name, maxBytes, "more", cause)
    throw new ParseError("ERR_COMPRESSION", {
      at: name,
      hint: "the file is damaged: get it again",
      cause,
    })
  }
}

function tooLarge(
  name: string,
  maxBytes: number,
  found: string,
  cause?: unknown,
): ParseError<"ERR_TOO_LARGE"> {
  return new ParseError("ERR_TOO_LARGE", {
    at: name,
    expected: `at most ${maxBytes} bytes when decompressed`,
    found,
    hint: "check that this is the file you mean",
    cause,
  })
}
