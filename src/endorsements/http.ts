import { CodedError, EndorsementError } from "../errors.ts"

/** What a client needs of the world: handed in, so that tests and `--offline` decide what it can reach. */
export interface Http {
  fetch(
    url: string,
    init: { readonly headers: Readonly<Record<string, string>>; readonly signal: AbortSignal },
  ): Promise<Response>
  /** Ends early, by throwing, when the signal is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  now(): Date
  /** From 0 to 1: spreads the retries of many clients. */
  random(): number
  /** For one attempt, from the request to the last byte. */
  readonly timeoutMs: number
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal
}

export interface HttpRequest {
  readonly url: string
  /** What is asked for, for messages: `VCEK of a Milan chip`. */
  readonly what: string
  readonly accept: string
  /** Of the decoded body. */
  readonly maxBytes: number
  /** Validators of what is held already: unchanged content is not sent again. */
  readonly etag: string | null
  readonly lastModified: string | null
}

/** A successful answer. `body` is null where what is held already is still current. */
export interface HttpAnswer {
  readonly body: Uint8Array | null
  readonly headers: Headers
}

const MAX_ATTEMPTS = 4
const BACKOFF_MS = 500
/** A server that says "too many requests" without saying when to come back. AMD's allows one in some seconds. */
const THROTTLED_MS = 5_000
/** All waiting of one request together. A server that asks for more gets its way: the request fails. */
const MAX_WAIT_MS = 60_000
const TEMPORARY: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504])

/** Why an attempt failed that may succeed later. */
interface Setback {
  readonly error: EndorsementError
  /** Null: not said. */
  readonly retryAfterMs: number | null
  readonly throttled: boolean
}

/**
 * Gets one document. Failures that pass (no connection, 429, 5xx) are tried again, after the time that the server asks for or
 * with growing pauses.
 * @throws EndorsementError ERR_COLLATERAL_UNREACHABLE, ERR_COLLATERAL_RATE_LIMITED, ERR_COLLATERAL_NOT_FOUND,
 *   ERR_COLLATERAL_REFUSED, ERR_TIMEOUT, ERR_TOO_LARGE, ERR_INTERRUPTED
 */
export async function fetchDocument(http: Http, request: HttpRequest): Promise<HttpAnswer> {
  let waited = 0
  for (let attempt = 1; ; attempt++) {
    const outcome = await tryOnce(http, request)
    if (!("error" in outcome)) return outcome
    const wait = outcome.retryAfterMs ?? pauseMs(http, attempt, outcome.throttled)
    waited += wait
    if (attempt === MAX_ATTEMPTS || waited > MAX_WAIT_MS) throw outcome.error
    try {
      await http.sleep(wait, http.signal)
    } catch (cause) {
      if (http.signal.aborted) throw interrupted(request, cause)
      throw cause
    }
  }
}

function pauseMs(http: Http, attempt: number, throttled: boolean): number {
  const base = (throttled ? THROTTLED_MS : BACKOFF_MS) * 2 ** (attempt - 1)
  return Math.round(base * (0.5 + http.random() / 2))
}

async function tryOnce(http: Http, request: HttpRequest): Promise<HttpAnswer | Setback> {
  const controller = new AbortController()
  const stop = () => controller.abort()
  const timer = setTimeout(stop, http.timeoutMs)
  http.signal.addEventListener("abort", stop)
  try {
    if (http.signal.aborted) throw interrupted(request)
    const headers = requestHeaders(request)
    const response = await http.fetch(request.url, { headers, signal: controller.signal })
    return await judgeResponse(http, request, response, controller.signal)
  } catch (cause) {
    if (http.signal.aborted) throw interrupted(request, cause)
    if (cause instanceof CodedError) throw cause
    return {
      error: controller.signal.aborted ? timedOut(http, request) : unreachable(request, cause),
      ...LATER,
    }
  } finally {
    clearTimeout(timer)
    http.signal.removeEventListener("abort", stop)
  }
}

const LATER = { retryAfterMs: null, throttled: false } as const

function requestHeaders({ accept, etag, lastModified }: HttpRequest): Record<string, string> {
  return {
    accept,
    ...(etag === null ? {} : { "if-none-match": etag }),
    ...(lastModified === null ? {} : { "if-modified-since": lastModified }),
  }
}

async function judgeResponse(
  http: Http,
  request: HttpRequest,
  response: Response,
  signal: AbortSignal,
): Promise<HttpAnswer | Setback> {
  const { status, headers } = response
  if (status === 200) return { body: await readBody(request, response, signal), headers }
  // Nothing is read of an error's body, so the connection is given up.
  await response.body?.cancel()
  const conditional = request.etag !== null || request.lastModified !== null
  if (status === 304 && conditional) return { body: null, headers }
  if (!TEMPORARY.has(status)) throw refused(request, status)
  const retryAfterMs = retryAfter(headers.get("retry-after"), http.now())
  return { error: later(request, status, retryAfterMs), retryAfterMs, throttled: status === 429 }
}

async function readBody(request: HttpRequest, response: Response, signal: AbortSignal): Promise<Uint8Array> {
  const announced = Number(response.headers.get("content-length") ?? "0")
  if (announced > request.maxBytes) {
    await response.body?.cancel()
    throw tooLarge(request, `${announced} bytes`)
  }
  const reader = response.body?.getReader()
  if (reader === undefined) return new Uint8Array(0)
  const stop = () => void reader.cancel().catch(() => undefined)
  signal.addEventListener("abort", stop)
  try {
    const chunks: Uint8Array[] = []
    let size = 0
    for (;;) {
      const { done, value } = await reader.read()
      // A reader that was cancelled says "done": what came so far is not the whole.
      if (signal.aborted) throw new Error("aborted")
      if (done) return Uint8Array.from(Buffer.concat(chunks))
      size += value.length
      if (size > request.maxBytes) {
        stop()
        throw tooLarge(request, "more")
      }
      chunks.push(value)
    }
  } finally {
    signal.removeEventListener("abort", stop)
  }
}

/** Milliseconds of a Retry-After header (seconds or a date); null where it says nothing. Source: RFC 9110, section 10.2.3. */
function retryAfter(text: string | null, now: Date): number | null {
  if (text === null) return null
  if (/^[0-9]{1,9}$/.test(text)) return Number(text) * 1000
  const date = Date.parse(text)
  return Number.isNaN(date) ? null : Math.max(0, date - now.getTime())
}

function later({ url, what }: HttpRequest, status: number, retryAfterMs: number | null): EndorsementError {
  const seconds = retryAfterMs === null ? null : Math.ceil(retryAfterMs / 1000)
  return new EndorsementError(status === 429 ? "ERR_COLLATERAL_RATE_LIMITED" : "ERR_COLLATERAL_UNREACHABLE", {
    at: url,
    expected: what,
    found: `status ${status}`,
    hint: seconds === null ? "try again later" : `try again in ${seconds} seconds`,
  })
}

function refused({ url, what }: HttpRequest, status: number): EndorsementError {
  const absent = status === 404 || status === 410
  return new EndorsementError(absent ? "ERR_COLLATERAL_NOT_FOUND" : "ERR_COLLATERAL_REFUSED", {
    at: url,
    expected: what,
    found: `status ${status}`,
    hint: absent
      ? "the vendor knows no such document: check product, chip and TCB"
      : "check the address of the service, and whether it wants a proxy or a subscription",
  })
}

function unreachable({ url, what }: HttpRequest, cause: unknown): EndorsementError {
  return new EndorsementError("ERR_COLLATERAL_UNREACHABLE", {
    at: url,
    expected: what,
    found: cause instanceof Error ? cause.message : String(cause),
    hint: "check the network and the address of the service; without network: --offline with imported collateral",
    cause,
  })
}

function timedOut({ timeoutMs }: Http, { url, what }: HttpRequest): EndorsementError {
  return new EndorsementError("ERR_TIMEOUT", {
    at: url,
    expected: `${what} within ${timeoutMs / 1000} s`,
    found: "no complete answer",
    hint: "check the network, or allow more time with --timeout",
  })
}

function tooLarge({ url, what, maxBytes }: HttpRequest, found: string): EndorsementError {
  return new EndorsementError("ERR_TOO_LARGE", {
    at: url,
    expected: `${what} of at most ${maxBytes} bytes`,
    found,
    hint: "check the address of the service",
  })
}

function interrupted({ url }: HttpRequest, cause?: unknown): EndorsementError {
  return new EndorsementError("ERR_INTERRUPTED", { at: url, ...(cause === undefined ? {} : { cause }) })
}
