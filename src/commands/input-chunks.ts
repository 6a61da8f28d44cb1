import { createReadStream } from "node:fs"
import type { Transform } from "node:stream"
import { createGunzip, createZstdDecompress } from "node:zlib"
import { CodedError, ParseError } from "../errors.ts"
import { isZstd, ZstdFrames } from "../formats/zstd-frame.ts"
import { ioError } from "./input-files.ts"

const CHUNK_BYTES = 1024 * 1024
const MAGIC_BYTES = 4

/**
 * Content of a file that a user named, in parts; `-` is standard input. Decompressed where it is compressed with gzip or zstd: the
 * content tells.
 * @throws CodedError ERR_IO; ParseError ERR_COMPRESSION, ERR_UNSUPPORTED
 */
export async function* inputChunks(path: string): AsyncGenerator<Uint8Array> {
  const source = rawChunks(path)
  const [start, ended] = await beginning(source)
  const all = ended ? rest([start]) : rest([start], source)
  if (isZstd(start)) yield* decompressed(path, wholeFrames(path, all), createZstdDecompress())
  else if (start[0] === 0x1f && start[1] === 0x8b) yield* decompressed(path, all, createGunzip())
  else yield* all
}

async function* rawChunks(path: string): AsyncGenerator<Uint8Array> {
  const stream = path === "-" ? process.stdin : createReadStream(path, { highWaterMark: CHUNK_BYTES })
  try {
    for await (const chunk of stream) yield chunk
  } catch (error) {
    throw ioError(path, error)
  }
}

/** Enough bytes to tell what they are, and whether that is all. */
async function beginning(source: AsyncIterator<Uint8Array>): Promise<[start: Uint8Array, ended: boolean]> {
  let start = new Uint8Array(0)
  while (start.length < MAGIC_BYTES) {
    const next = await source.next()
    if (next.done === true) return [start, true]
    start = new Uint8Array(Buffer.concat([start, next.value]))
  }
  return [start, false]
}

async function* rest(first: readonly Uint8Array[], source?: AsyncIterable<Uint8Array>) {
  yield* first
  if (source !== undefined) yield* source
}

/** The same chunks, and an error where they are not whole frames: the decompressor would say nothing. */
async function* wholeFrames(path: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const frames = new ZstdFrames(path)
  for await (const chunk of chunks) {
    frames.add(chunk)
    yield chunk
  }
  frames.end()
}

async function* decompressed(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  decompressor: Transform,
): AsyncGenerator<Uint8Array> {
  const fed = feed(chunks, decompressor)
  try {
    for await (const chunk of decompressor) yield chunk
    const failure = await fed
    if (failure !== null) throw failure
  } catch (cause) {
    if (cause instanceof CodedError) throw cause
    throw new ParseError("ERR_COMPRESSION", {
      at: path,
      hint: "the file is damaged or was cut off: get it again",
      cause,
    })
  } finally {
    decompressor.destroy()
  }
}

/**
 * Writes all chunks. The decompressor may be at its end before they are: the rest is looked at all the same.
 * @returns what was wrong with the chunks, or null.
 */
async function feed(chunks: AsyncIterable<Uint8Array>, decompressor: Transform): Promise<unknown> {
  try {
    for await (const chunk of chunks) {
      if (decompressor.errored !== null) return null
      if (decompressor.readableEnded || decompressor.write(chunk)) continue
      await new Promise<void>((resolve) => {
        decompressor.once("drain", resolve)
        decompressor.once("close", resolve)
      })
    }
    decompressor.end()
    return null
  } catch (error) {
    decompressor.destroy(error instanceof Error ? error : new Error(String(error)))
    return error
  }
}
