import { closeSync, openSync, readSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import { makePrivateDirectory } from "./atomic-file.ts"

/** Compressed bytes kept in memory; what comes after goes to a file. Enough for about a million files. */
const IN_MEMORY = 48 * 1024 * 1024

type Block = { readonly bytes: Uint8Array } | { readonly offset: number; readonly length: number }

/**
 * The text of a snapshot in compressed blocks. It stays in memory as far as it is small, because a file written and read by
 * root would be measured by some IMA policies and so change what is being recorded. A very large rest goes to a file that
 * has no name, so that nothing is left of it after a crash.
 */
export class SnapshotSpool {
  readonly #directory: string
  readonly #limit: number
  readonly #blocks: Block[] = []
  #inMemory = 0
  #fd: number | null = null
  #fileEnd = 0
  #readers = 0
  #closed = false

  /** @param directory where the rest of a very large snapshot goes. */
  constructor(directory: string, limit: number = IN_MEMORY) {
    this.#directory = directory
    this.#limit = limit
  }

  /** Adds text. */
  addText(text: string): void {
    this.addBlock(Bun.zstdCompressSync(text, { level: 1 }))
  }

  /** Adds text that was compressed by zstd already. */
  addBlock(bytes: Uint8Array): void {
    if (this.#inMemory + bytes.length <= this.#limit) {
      this.#inMemory += bytes.length
      this.#blocks.push({ bytes })
      return
    }
    this.#fd ??= this.#openFile()
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.#fd, bytes, done, bytes.length - done, this.#fileEnd + done)
    this.#blocks.push({ offset: this.#fileEnd, length: bytes.length })
    this.#fileEnd += bytes.length
  }

  /** The whole text, block by block as the reader takes it. Several may read at the same time. */
  stream(): ReadableStream<Uint8Array> {
    let index = 0
    let reading = true
    this.#readers++
    const end = () => {
      if (!reading) return
      reading = false
      this.#readers--
      this.#release()
    }
    return new ReadableStream<Uint8Array>({
      pull: (controller) => {
        const block = this.#blocks[index++]
        if (block !== undefined) return controller.enqueue(Bun.zstdDecompressSync(this.#read(block)))
        end()
        controller.close()
      },
      cancel: end,
    })
  }

  /** Frees everything, after the last reader. */
  close(): void {
    this.#closed = true
    this.#release()
  }

  #release(): void {
    if (!this.#closed || this.#readers > 0) return
    this.#blocks.length = 0
    if (this.#fd !== null) closeSync(this.#fd)
    this.#fd = null
  }

  #read(block: Block): Uint8Array {
    if ("bytes" in block) return block.bytes
    const bytes = new Uint8Array(block.length)
    if (this.#fd === null) return bytes
    for (let done = 0; done < bytes.length; ) {
      const count = readSync(this.#fd, bytes, done, bytes.length - done, block.offset + done)
      if (count === 0) break
      done += count
    }
    return bytes
  }

  #openFile(): number {
    makePrivateDirectory(this.#directory)
    const path = join(this.#directory, `snapshot-${crypto.randomUUID()}`)
    const fd = openSync(path, "wx+", 0o600)
    rmSync(path)
    return fd
  }
}
