/** AMD's and Intel's services on loopback, with the paths, status codes and headers of the real ones. */
import { once } from "node:events"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import type { Http } from "../../src/endorsements/http.ts"
import { encodePem } from "../../src/formats/pem.ts"
import { vector } from "./vectors.ts"

/** What a path answers; without a document the real services say 404. */
export interface Published {
  readonly body: Uint8Array | string
  readonly type: string
  readonly headers?: Readonly<Record<string, string>>
}

/** An answer in place of the next ones: a status with headers, or nothing at all. */
export interface Disturbance {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
}

export interface VendorServices {
  readonly url: string
  readonly documents: Map<string, Published>
  /** Taken from the front, one for each request. */
  readonly disturbances: Disturbance[]
  /** Paths with query, in order. */
  readonly requests: string[]
  /** Of the last request. */
  readonly lastHeaders: IncomingMessage["headers"]
  readonly connections: number
  close(): Promise<void>
}

export async function vendorServices(
  documents: Iterable<readonly [string, Published]>,
): Promise<VendorServices> {
  const state = {
    documents: new Map(documents),
    disturbances: [] as Disturbance[],
    requests: [] as string[],
    lastHeaders: {} as IncomingMessage["headers"],
    connections: 0,
  }
  const server = createServer((request, response) => {
    const path = request.url ?? ""
    state.requests.push(path)
    state.lastHeaders = request.headers
    const disturbance = state.disturbances.shift()
    if (disturbance === undefined) answer(request, response, state.documents.get(path))
    else response.writeHead(disturbance.status, disturbance.headers).end("busy")
  })
  server.on("connection", () => {
    state.connections += 1
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  return Object.assign(state, {
    url: `http://127.0.0.1:${port}`,
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    },
  })
}

function answer(request: IncomingMessage, response: ServerResponse, found: Published | undefined): void {
  if (found === undefined) {
    response.writeHead(404, { "content-type": "text/html" }).end("<html>not found</html>")
    return
  }
  const etag = found.headers?.["etag"]
  const unchanged = etag !== undefined && request.headers["if-none-match"] === etag
  const headers = { "content-type": found.type, ...found.headers }
  if (unchanged) response.writeHead(304, headers).end()
  else response.writeHead(200, headers).end(found.body)
}

/** A client without pauses; `slept` collects how long it would have waited. */
export function testHttp(changes: Partial<Http> = {}): Http & { readonly slept: number[] } {
  const slept: number[] = []
  return {
    fetch: (url, init) => fetch(url, init),
    sleep: async (ms) => void slept.push(ms),
    now: () => new Date(),
    random: () => 1,
    timeoutMs: 5000,
    signal: new AbortController().signal,
    slept,
    ...changes,
  }
}

/** AMD's service for the chip of the test PKI, whose lists exist (AMD's own are nowhere published). */
export function testPkiDocuments(crl = "crl-empty.der"): [string, Published][] {
  const file = (name: string) => vector(`snp-testpki/${name}`)
  const pem = encodePem("CERTIFICATE", file("ask.der")) + encodePem("CERTIFICATE", file("ark.der"))
  return [
    ["/vcek/v1/Milan/cert_chain", { body: pem, type: "application/x-pem-file" }],
    ["/vcek/v1/Milan/crl", { body: file(crl), type: "application/pkix-crl", headers: { etag: `"${crl}"` } }],
  ]
}

/** Intel's service for one platform, from a bundle of the vectors. */
export function pcsDocuments(bundle: Readonly<Record<string, string>>, fmspc: string): [string, Published][] {
  const chain = (name: string) => encodeURIComponent(bundle[`${name}_issuer_chain`] ?? "")
  const common = { "request-id": "0123456789abcdef0123456789abcdef" }
  const json = "application/json"
  return [
    [
      `/tdx/certification/v4/tcb?fmspc=${fmspc}`,
      {
        body: `{"tcbInfo":${bundle["tcb_info"]},"signature":"${bundle["tcb_info_signature"]}"}`,
        type: json,
        headers: { ...common, "TCB-Info-Issuer-Chain": chain("tcb_info") },
      },
    ],
    [
      "/tdx/certification/v4/qe/identity",
      {
        body: `{"enclaveIdentity":${bundle["qe_identity"]},"signature":"${bundle["qe_identity_signature"]}"}`,
        type: json,
        headers: { ...common, "SGX-Enclave-Identity-Issuer-Chain": chain("qe_identity") },
      },
    ],
    [
      "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
      {
        body: Buffer.from(bundle["pck_crl"] ?? "", "hex"),
        type: "application/pkix-crl",
        headers: { ...common, "SGX-PCK-CRL-Issuer-Chain": chain("pck_crl") },
      },
    ],
    // As a caching service has it: hex.
    ["/sgx/certification/v4/rootcacrl", { body: bundle["root_ca_crl"] ?? "", type: "text/plain" }],
  ]
}
