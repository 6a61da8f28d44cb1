/** A TLS server on loopback whose key tests can change, and which counts connections. */
import { X509Certificate } from "node:crypto"
import { once } from "node:events"
import { createServer as createHttpServer, type RequestListener } from "node:http"
import type { AddressInfo } from "node:net"
import { createServer, type Server, type TLSSocket } from "node:tls"
import { makeSelfSignedCertificate } from "../../src/agent/certificate.ts"

export interface ServerKey {
  readonly key: string
  readonly cert: string
}

export interface TlsServer {
  readonly port: number
  /** Connections accepted so far. */
  readonly connections: number
  /** Serves another key to connections that come from now on. */
  changeKey(key: ServerKey): void
  /** Ends the connections that are open. */
  dropConnections(): void
  close(): Promise<void>
}

/** A new P-256 key with a self-signed certificate for 127.0.0.1; `spki`: its DER SubjectPublicKeyInfo. */
export async function serverKey(): Promise<ServerKey & { readonly spki: Uint8Array }> {
  const now = Date.now()
  const { certificate, privateKey } = await makeSelfSignedCertificate({
    names: ["127.0.0.1"],
    notBefore: new Date(now - 60_000),
    notAfter: new Date(now + 3_600_000),
    privateKey: null,
  })
  const spki = new X509Certificate(certificate).publicKey.export({ type: "spki", format: "der" })
  return { key: privateKey, cert: certificate, spki: new Uint8Array(spki) }
}

/** HTTPS with the given handler. */
export function httpsServer(key: ServerKey, handler: RequestListener): Promise<TlsServer> {
  const http = createHttpServer(handler)
  return tlsServer(key, (socket) => http.emit("connection", socket))
}

/** Bare TLS: the test does what it likes with each connection. */
export async function tlsServer(
  key: ServerKey,
  onConnection: (socket: TLSSocket) => void,
): Promise<TlsServer> {
  const open = new Set<TLSSocket>()
  let connections = 0
  const server: Server = createServer(
    { key: key.key, cert: key.cert, ALPNProtocols: ["http/1.1"] },
    (socket) => {
      connections += 1
      open.add(socket)
      socket.on("error", () => socket.destroy())
      socket.on("close", () => open.delete(socket))
      onConnection(socket)
    },
  )
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const dropConnections = () => {
    for (const socket of open) socket.destroy()
  }
  return {
    port: portOf(server.address()),
    get connections() {
      return connections
    },
    changeKey: (next) => server.setSecureContext(next),
    dropConnections,
    close: async () => {
      dropConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function portOf(address: AddressInfo | string | null): number {
  if (address === null || typeof address === "string") throw new Error("the server has no port")
  return address.port
}
