import { request as httpRequest, type IncomingMessage } from "node:http"
import { connect } from "node:net"
import { NativeError, UsageError } from "../errors.ts"
import {
  encodeTdQuoteRequest,
  IMDS_URL,
  MAX_IMDS_ANSWER,
  parseTdQuoteAnswer,
  parseThimCertificates,
  type ThimCertificates,
} from "../formats/azure/imds.ts"

export interface ImdsOptions {
  readonly baseUrl?: string
  /** For one answer, milliseconds. */
  readonly timeoutMs?: number
  readonly pause?: (milliseconds: number) => Promise<void>
}

/** What is asked of Azure's metadata service. It is the host's: what it says is checked by whoever verifies. */
export interface Imds {
  /** Certificates for the SEV-SNP report of this VM. @throws NativeError ERR_IMDS; ParseError */
  certificates(): Promise<ThimCertificates>
  /** TDX quote over a TDREPORT of 1024 bytes. @throws NativeError ERR_IMDS; ParseError */
  tdQuote(tdReport: Uint8Array): Promise<Uint8Array>
}

interface Question {
  readonly method: "GET" | "POST"
  readonly path: string
  readonly body: string | null
}

const TIMEOUT_MS = 30_000
const ATTEMPTS = 4
const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 5_000

/**
 * Client of the metadata service.
 * @throws UsageError ERR_BAD_VALUE where the base URL is none of plain HTTP
 */
export function openImds(options: ImdsOptions = {}): Imds {
  const base = baseOf(options.baseUrl ?? IMDS_URL)
  const ask = (question: Question) =>
    patiently(base, question, options.timeoutMs ?? TIMEOUT_MS, options.pause ?? Bun.sleep)
  return {
    certificates: async () =>
      parseThimCertificates(
        await ask({ method: "GET", path: "/metadata/THIM/amd/certification", body: null }),
      ),
    tdQuote: async (tdReport) =>
      parseTdQuoteAnswer(
        await ask({ method: "POST", path: "/acc/tdquote", body: encodeTdQuoteRequest(tdReport) }),
      ),
  }
}

function baseOf(text: string): URL {
  const url = URL.parse(text)
  if (url?.protocol === "http:" && url.search === "" && url.hash === "" && url.username === "") return url
  throw new UsageError("ERR_BAD_VALUE", {
    at: "metadata service",
    expected: `a URL such as ${IMDS_URL}`,
    found: text,
  })
}

/** The service answers so while it is busy or being updated; Microsoft asks its clients to try again. */
function isPassing(status: number): boolean {
  return status === 410 || status === 429 || status >= 500
}

async function patiently(
  base: URL,
  question: Question,
  timeoutMs: number,
  pause: (milliseconds: number) => Promise<void>,
): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt++) {
    const { status, retryAfterMs, body } = await askOnce(base, question, timeoutMs)
    if (status === 200) return body
    if (!isPassing(status) || attempt === ATTEMPTS) throw refused(base, question, status, body)
    await pause(Math.min(retryAfterMs ?? FIRST_PAUSE_MS * 2 ** (attempt - 1), LONGEST_PAUSE_MS))
  }
}

interface Answer {
  readonly status: number
  readonly retryAfterMs: number | null
  readonly body: Uint8Array
}

/** One request over a socket of its own: no proxy, no redirect, whatever the environment says. */
function askOnce(base: URL, question: Question, timeoutMs: number): Promise<Answer> {
  const { method, path, body } = question
  const place = placeOf(base, question)
  return new Promise((resolve, reject) => {
    const port = base.port === "" ? 80 : Number(base.port)
    const host = base.hostname.replace(/^\[|\]$/g, "")
    const socket = connect({ host, port })
    const outgoing = httpRequest({
      createConnection: () => socket,
      host,
      port,
      method,
      path: `${base.pathname.replace(/\/$/, "")}${path}`,
      headers: {
        host: base.host,
        metadata: "true",
        connection: "close",
        ...(body === null
          ? {}
          : { "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) }),
      },
    })
    const end = () => {
      clearTimeout(timer)
      outgoing.destroy()
      socket.destroy()
    }
    const fail = (error: Error) => {
      end()
      reject(error instanceof NativeError ? error : unreachable(place, error.message, error))
    }
    const timer = setTimeout(() => fail(unreachable(place, `no answer within ${timeoutMs} ms`)), timeoutMs)
    socket.on("error", fail)
    outgoing.on("error", fail)
    outgoing.on("response", (incoming) => {
      collect(incoming, place).then((answer) => {
        end()
        resolve(answer)
      }, fail)
    })
    outgoing.end(body ?? undefined)
  })
}

async function collect(incoming: IncomingMessage, place: string): Promise<Answer> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of incoming) {
    size += part.length
    if (size > MAX_IMDS_ANSWER)
      throw new NativeError("ERR_IMDS", { at: place, expected: `at most ${MAX_IMDS_ANSWER} bytes` })
    parts.push(part)
  }
  if (!incoming.complete) throw new NativeError("ERR_IMDS", { at: place, found: "a part of an answer" })
  const after = incoming.headers["retry-after"] ?? ""
  return {
    status: incoming.statusCode ?? 0,
    retryAfterMs: /^[0-9]{1,4}$/.test(after) ? 1000 * Number(after) : null,
    body: new Uint8Array(Buffer.concat(parts)),
  }
}

function placeOf(base: URL, { method, path }: Question): string {
  return `${method} ${base.origin}${path}`
}

function unreachable(at: string, found: string, cause?: Error): NativeError {
  return new NativeError("ERR_IMDS", {
    at,
    found,
    hint: "the metadata service answers inside Azure's VMs only; a firewall in the VM may stand in between",
    ...(cause === undefined ? {} : { cause }),
  })
}

function refused(base: URL, question: Question, status: number, body: Uint8Array): NativeError {
  const text = Buffer.from(body.subarray(0, 200)).toString("latin1").trim()
  return new NativeError("ERR_IMDS", {
    at: placeOf(base, question),
    expected: "status 200",
    found: `status ${status}${text === "" ? "" : ` (${text})`}`,
    hint: isPassing(status) ? "try again later" : "this VM is of a kind that the service has nothing for",
  })
}
