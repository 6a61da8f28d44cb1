import { AcmeError, CodedError } from "../errors.ts"
import { problemError } from "./problem.ts"

/** What the ACME client needs of the world: handed in, so that tests decide what it can reach and how time passes. */
export interface AcmeNetwork {
  fetch(
    url: string,
    init: {
      readonly method: string
      readonly headers: Readonly<Record<string, string>>
      readonly body: string | null
      readonly signal: AbortSignal
    },
  ): Promise<Response>
  /** Ends early, by throwing, when the signal is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  now(): Date
  /** From 0 up to 1: spreads the requests of many clients. */
  random(): number
  /** For one attempt, from the request to the last byte. */
  readonly timeoutMs: number
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal
}

export interface AcmeRequest {
  readonly method: "GET" | "HEAD" | "POST"
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | null
}

export interface AcmeAnswer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** What `Retry-After` asks for, in milliseconds; null: nothing. */
  readonly retryAfterMs: number | null
  /** A nonce that the server does not take: what that comes to where it happens too often. Null: success. */
  readonly refusal: AcmeError | null
}

/** Largest answer: a chain of some certificates, or an order of a hundred names, is far below. */
const MAX_ANSWER_BYTES = 1024 * 1024
const MAX_ATTEMPTS = 4
const BACKOFF_MS = 500
/** All waiting of one request together. A server that asks for more gets its way: the request fails and says when to come back. */
const MAX_WAIT_MS = 60_000
/** Source: RFC 8555, section 6.5. The library sends such a request again with the nonce of the answer. */
const BAD_NONCE = "urn:ietf:params:acme:error:badNonce"

/**
 * Sends one request. An answer that says "later" (429, 5xx) is waited for as `Retry-After` says, within a minute in all; a read
 * that got no answer is tried again, a write is not: what became of it is found out from its order.
 * @returns success, or the refusal of a nonce, which the library answers.
 * @throws AcmeError ERR_ACME_UNREACHABLE, ERR_ACME_RATE_LIMITED, ERR_ACME_REFUSED and the others of {@link problemError},
 *   ERR_ACME_ANSWER, ERR_TIMEOUT, ERR_TOO_LARGE, ERR_INTERRUPTED
 */
export async function exchange(network: AcmeNetwork, request: AcmeRequest): Promise<AcmeAnswer> {
  requireHttps(request.url)
  let waited = 0
  for (let attempt = 1; ; attempt++) {
    const { error, waitMs, answer } = await tryOnce(network, request)
    if (answer !== null) return answer
    const wait = waitMs ?? Math.round(BACKOFF_MS * 2 ** (attempt - 1) * (0.5 + network.random() / 2))
    waited += wait
    if (attempt === MAX_ATTEMPTS || waited > MAX_WAIT_MS) throw error
    try {
      await network.sleep(wait, network.signal)
    } catch (cause) {
      throw network.signal.aborted ? interrupted(request.url) : cause
    }
  }
}

type Outcome =
  | { readonly answer: AcmeAnswer; readonly error: null; readonly waitMs: null }
  /** May succeed later; null: the server did not say when. */
  | { readonly answer: null; readonly error: CodedError; readonly waitMs: number | null }

async function tryOnce(network: AcmeNetwork, request: AcmeRequest): Promise<Outcome> {
  const { url, method, headers, body } = request
  const controller = new AbortController()
  const stop = () => controller.abort()
  const timer = setTimeout(stop, network.timeoutMs)
  network.signal.addEventListener("abort", stop)
  try {
    if (network.signal.aborted) throw interrupted(url)
    const response = await network.fetch(url, { method, headers, body, signal: controller.signal })
    const text = await readText(url, response)
    if (controller.signal.aborted) throw new Error("aborted")
    return judge(network, url, response, text)
  } catch (cause) {
    if (network.signal.aborted) throw interrupted(url)
    if (cause instanceof CodedError) throw cause
    const error = controller.signal.aborted ? timedOut(network, url) : unreachable(url, cause)
    if (method === "POST") throw error
    return { answer: null, error, waitMs: null }
  } finally {
    clearTimeout(timer)
    network.signal.removeEventListener("abort", stop)
  }
}

function judge(network: AcmeNetwork, url: string, { status, headers }: Response, text: string): Outcome {
  const retryAfterMs = retryAfter(headers.get("retry-after"), network.now())
  const answer = { status, headers, text, retryAfterMs }
  if (status >= 200 && status < 300)
    return { answer: { ...answer, refusal: null }, error: null, waitMs: null }
  const until = retryAfterMs === null ? null : new Date(network.now().getTime() + retryAfterMs)
  const { type, error } = problemError(url, status, text, until)
  if (type === BAD_NONCE) return { answer: { ...answer, refusal: error }, error: null, waitMs: null }
  if (status === 429 || status >= 500) return { answer: null, error, waitMs: retryAfterMs }
  throw error
}

async function readText(url: string, response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.length
    if (size > MAX_ANSWER_BYTES) {
      throw new AcmeError("ERR_TOO_LARGE", {
        at: url,
        expected: `an answer of at most ${MAX_ANSWER_BYTES} bytes`,
        found: "more",
        hint: "check the address of the certificate authority",
      })
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString("utf8")
}

/** Milliseconds of a Retry-After header (seconds or a date); null where it says nothing. Source: RFC 9110, section 10.2.3. */
export function retryAfter(text: string | null, now: Date): number | null {
  if (text === null) return null
  if (/^[0-9]{1,9}$/.test(text)) return Number(text) * 1000
  const date = Date.parse(text)
  return Number.isNaN(date) ? null : Math.max(0, date - now.getTime())
}

/** Each address after the first comes from the server. Source: RFC 8555, section 6.1. */
function requireHttps(url: string): void {
  if (URL.parse(url)?.protocol === "https:") return
  throw new AcmeError("ERR_ACME_ANSWER", {
    at: url,
    expected: "an https:// address",
    found: "another",
    hint: "check the address of the certificate authority",
  })
}

function unreachable(url: string, cause: unknown): AcmeError {
  const code = cause instanceof Error && "code" in cause ? `${cause.code}` : null
  const found = cause instanceof Error ? cause.message : String(cause)
  return new AcmeError("ERR_ACME_UNREACHABLE", {
    at: url,
    expected: "an answer",
    found: code === null ? found : `${code} (${found})`,
    hint: "check the network and --directory; for an authority with a certificate of its own, give --ca-file",
    cause,
  })
}

function timedOut({ timeoutMs }: AcmeNetwork, url: string): AcmeError {
  return new AcmeError("ERR_TIMEOUT", {
    at: url,
    expected: `an answer within ${timeoutMs / 1000} s`,
    found: "no complete one",
    hint: "check the network, and try again",
  })
}

function interrupted(url: string): AcmeError {
  return new AcmeError("ERR_INTERRUPTED", { at: url })
}
