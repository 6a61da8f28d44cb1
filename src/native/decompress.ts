import { Readable } from "node:stream"
import { createGunzip, createZstdDecompress } from "node:zlib"
import { NativeError } from "../errors.ts"
import { CHILD_ENVIRONMENT } from "../programs.ts"
import { findInstalled } from "./program.ts"

/** Memory that xz may use; what its highest preset asks for is 65 MiB. */
const XZ_MEMORY = "256MiB"

/**
 * Decompresses in pieces. xz has no library in the runtime, so its program is run.
 * @param name what it is, for messages.
 * @param maxBytes cap of what comes out, in all.
 * @throws NativeError ERR_PROGRAM_ABSENT, ERR_COMPRESSION, ERR_TOO_LARGE
 */
export async function* decompressed(
  name: string,
  compression: "none" | "gzip" | "xz" | "zstd",
  content: Uint8Array,
  maxBytes: number,
): AsyncGenerator<Uint8Array> {
  let total = 0
  for await (const piece of pieces(name, compression, content)) {
    total += piece.length
    if (total > maxBytes)
      throw new NativeError("ERR_TOO_LARGE", {
        at: name,
        expected: `at most ${maxBytes} bytes`,
        found: "more",
      })
    yield piece
  }
}

function pieces(
  name: string,
  compression: "none" | "gzip" | "xz" | "zstd",
  content: Uint8Array,
): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  switch (compression) {
    case "none":
      return [content]
    case "gzip":
      return through(name, content, createGunzip())
    case "zstd":
      return through(name, content, createZstdDecompress())
    case "xz":
      return throughXz(name, content)
  }
}

async function* through(
  name: string,
  content: Uint8Array,
  decompressor: NodeJS.ReadWriteStream & AsyncIterable<string | Buffer>,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of Readable.from([content]).pipe(decompressor)) yield Buffer.from(piece)
  } catch (cause) {
    throw damaged(name, cause)
  }
}

async function* throughXz(name: string, content: Uint8Array): AsyncGenerator<Uint8Array> {
  const child = Bun.spawn(
    [findInstalled("xz", "apt-get install xz-utils, or dnf install xz"), "-dc", `--memlimit=${XZ_MEMORY}`],
    { cwd: "/", env: { ...CHILD_ENVIRONMENT }, stdin: content, stdout: "pipe", stderr: "ignore" },
  )
  try {
    yield* child.stdout
    if ((await child.exited) !== 0) throw damaged(name)
  } finally {
    child.kill("SIGKILL")
  }
}

function damaged(name: string, cause?: unknown): NativeError<"ERR_COMPRESSION"> {
  return new NativeError("ERR_COMPRESSION", { at: name, hint: "the file is damaged: get it again", cause })
}
