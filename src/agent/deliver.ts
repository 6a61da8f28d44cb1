import type { MemoryShare } from "./memory-share.ts"

/** Bytes that one chunk is made from. What fits into one is given at once, and not counted: a connection costs as much. */
const CHUNK = 64 * 1024

type Encode = (
  chunk: Uint8Array,
  place: { readonly first: boolean; readonly last: boolean },
) => Uint8Array<ArrayBuffer>

/**
 * The body of a large answer, made chunk by chunk as the client takes it.
 * @param memory where it counts until it was read, or nobody is left to read it. @param signal the client went away.
 * @param encode makes the text of a chunk; absent: the bytes themselves.
 * @throws AgentError ERR_BUSY
 */
export function deliver(
  memory: MemoryShare,
  client: string,
  bytes: Uint8Array,
  signal: AbortSignal,
  encode: Encode = same,
): ReadableStream<Uint8Array> | Uint8Array<ArrayBuffer> {
  if (bytes.length <= CHUNK) return encode(bytes, { first: true, last: true })
  const end = memory.take(client, bytes.length)
  signal.addEventListener("abort", end, { once: true })
  if (signal.aborted) end()
  let offset = 0
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const first = offset === 0
      const chunk = bytes.subarray(offset, offset + CHUNK)
      offset += chunk.length
      const last = offset >= bytes.length
      controller.enqueue(encode(chunk, { first, last }))
      if (!last) return
      end()
      controller.close()
    },
    cancel: end,
  })
}

function same(chunk: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(chunk)
}
