/** An HTTPS server in front of a real ACME server: passes everything on, except what a test has it do otherwise. */

import { writeFileSync } from "node:fs"
import type { IncomingMessage, ServerResponse } from "node:http"
import { request as httpsRequest } from "node:https"
import { text } from "node:stream/consumers"
import { httpsServer, serverKey } from "./tls-server.ts"

export interface FrontAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export interface FrontRequest {
  readonly method: string
  readonly path: string
  /** Payload of the signed request, decoded; null where there is none. */
  readonly payload: unknown
}

export interface AcmeFront {
  readonly directory: string
  /** Requests so far. */
  readonly requests: FrontRequest[]
  close(): Promise<void>
}

export interface FrontRules {
  /** An answer in the server's stead; null: the request goes to the server. */
  before?(request: FrontRequest): FrontAnswer | null | Promise<FrontAnswer | null>
  /** The server's answer, changed. */
  after?(request: FrontRequest, answer: FrontAnswer): FrontAnswer
}

/** @param caFile gets the front's certificate. */
export async function acmeFront(
  server: { readonly port: number },
  caFile: string,
  rules: FrontRules,
): Promise<AcmeFront> {
  const key = await serverKey()
  writeFileSync(caFile, key.cert)
  const requests: FrontRequest[] = []
  const front = await httpsServer(key, (request, response) => void answer(request, response))
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request)
    const seen = { method: request.method ?? "", path: request.url ?? "", payload: payloadOf(body) }
    requests.push(seen)
    const own = await rules.before?.(seen)
    const given = own ?? (await forward(server.port, request, body))
    const { status, headers, body: content } = own ?? rules.after?.(seen, given) ?? given
    response.writeHead(status, headers).end(content)
  }
  return {
    directory: `https://127.0.0.1:${front.port}/dir`,
    requests,
    close: () => front.close(),
  }
}

/** The server makes its addresses from the Host header, which stays: so they all lead to the front. */
function forward(port: number, from: IncomingMessage, body: string): Promise<FrontAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<FrontAnswer>()
  const headers = { ...from.headers, connection: "close" }
  const sent = httpsRequest(
    { host: "127.0.0.1", port, method: from.method, path: from.url, headers, rejectUnauthorized: false },
    (answer) => {
      text(answer).then(
        (content) =>
          resolve({ status: answer.statusCode ?? 0, headers: kept(answer.headers), body: content }),
        reject,
      )
    },
  )
  sent.once("error", reject)
  sent.end(body)
  return promise
}

function kept(headers: IncomingMessage["headers"]): Record<string, string> {
  const names = ["content-type", "location", "replay-nonce", "retry-after", "link"]
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = headers[name]
      return value === undefined ? [] : [[name, Array.isArray(value) ? value.join(", ") : value]]
    }),
  )
}

function payloadOf(body: string): unknown {
  if (body === "") return null
  const { payload } = JSON.parse(body) as { payload: string }
  return payload === "" ? null : JSON.parse(Buffer.from(payload, "base64url").toString("utf8"))
}
