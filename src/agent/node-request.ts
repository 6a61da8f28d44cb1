/** Between the requests of node:http and those of the Fetch standard, which the agent's app takes. */
import type { IncomingMessage, ServerResponse } from "node:http"

/** The request as the app takes it; null where it is none that an app can answer. Its signal ends with the connection. */
export function requestOf(request: IncomingMessage, response: ServerResponse): Request | null {
  const { method = "", url = "", rawHeaders } = request
  // An absolute URL or `*` would say another host or path than the one that is routed.
  if (!url.startsWith("/")) return null
  const gone = new AbortController()
  response.once("close", () => {
    if (!response.writableFinished) gone.abort()
  })
  try {
    const headers = new Headers()
    for (let at = 0; at + 1 < rawHeaders.length; at += 2)
      headers.append(rawHeaders[at] ?? "", rawHeaders[at + 1] ?? "")
    const hasBody = method !== "GET" && method !== "HEAD"
    return new Request(`https://agent${url}`, {
      method,
      headers,
      signal: gone.signal,
      ...(hasBody ? { body: bodyOf(request), duplex: "half" } : {}),
    })
  } catch (error) {
    // A method or header that the standard does not know.
    if (error instanceof TypeError) return null
    throw error
  }
}

/** Chunk by chunk, as the app takes them: the client is held back meanwhile. */
function bodyOf(request: IncomingMessage): ReadableStream<Uint8Array> {
  const chunks: AsyncIterator<Buffer> = request[Symbol.asyncIterator]()
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await chunks.next()
      if (done === true) controller.close()
      else controller.enqueue(new Uint8Array(value))
    },
  })
}

/**
 * Writes the answer, no faster than the client takes it.
 * @param onTaken called after each part.
 */
export async function send(answer: Response, response: ServerResponse, onTaken: () => void): Promise<void> {
  const headers: Record<string, string> = {}
  answer.headers.forEach((value, name) => {
    headers[name] = value
  })
  const reader = answer.body?.getReader() ?? null
  const first = reader === null ? { done: true, value: undefined } : await reader.read()
  const second = reader === null || first.done ? first : await reader.read()
  const whole = second.done === true
  if (whole && headers["content-length"] === undefined && answer.status !== 204)
    headers["content-length"] = String(first.value?.length ?? 0)
  response.writeHead(answer.status, headers)
  try {
    if (first.value !== undefined) await write(response, first.value, onTaken)
    if (second !== first && second.value !== undefined) await write(response, second.value, onTaken)
    if (reader !== null && !whole)
      for (let part = await reader.read(); !part.done; part = await reader.read())
        await write(response, part.value, onTaken)
    response.end()
  } catch (error) {
    await reader?.cancel()
    throw error
  }
}

async function write(response: ServerResponse, part: Uint8Array, onTaken: () => void): Promise<void> {
  if (response.destroyed) throw new Error("the client went away")
  if (!response.write(part)) {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const gone = () => reject(new Error("the client went away"))
    response.once("drain", resolve)
    response.once("close", gone)
    try {
      await promise
    } finally {
      response.off("drain", resolve)
      response.off("close", gone)
    }
  }
  onTaken()
}
