import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib"
import { ParseError } from "../errors.ts"
import { isZstd, zstdContentSize } from "../formats/zstd-frame.ts"

/**
 * The text in a file's content: decompressed where it is compressed. The content tells, as standard input has no name.
 * @param name what the file is, for messages.
 * @param maxBytes cap of the text; the decompressor stops there.
 * @throws ParseError ERR_COMPRESSION, ERR_UNSUPPORTED, ERR_TOO_LARGE.
 */
export function plainContent(name: string, content: Uint8Array, maxBytes: number): Uint8Array {
  if (!isZstd(content)) return content
  const stated = zstdContentSize(name, content)
  if (stated !== null && stated > maxBytes) throw tooLarge(name, maxBytes, `${stated} bytes`)
  const plain = decompress(name, content, maxBytes)
  if (stated !== null && plain.length !== stated)
    throw new ParseError("ERR_COMPRESSION", {
      at: name,
      expected: `${stated} bytes`,
      found: `${plain.length}`,
    })
  return plain
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

function decompress(name: string, content: Uint8Array, maxBytes: number): Uint8Array {
  try {
    return zstdDecompressSync(content, { maxOutputLength: maxBytes })
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
