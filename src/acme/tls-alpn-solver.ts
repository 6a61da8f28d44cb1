import { createHash, randomBytes } from "node:crypto"
import type { Socket } from "node:net"
import { createSecureContext, createServer, type SecureContext, type Server } from "node:tls"
import { encodePem } from "../formats/pem.ts"
import { encodeDer, TAG } from "../formats/x509/der.ts"
import { notListening } from "./http-solver.ts"
import type { ChallengeAnswer, Solver } from "./solver.ts"

/** Source: RFC 8737, section 3. */
const PROTOCOL = "acme-tls/1"
const OID_ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"
const HOUR = 3600 * 1000

/** Answers `tls-alpn-01` on a port of its own, by certificates made for the occasion that no browser accepts. */
export class TlsAlpnListener implements Solver {
  readonly type = "tls-alpn-01"
  /** Null: all addresses of this machine. */
  readonly #host: string | null
  readonly #port: number
  readonly #visitors = new Set<Socket>()
  #server: Server | null = null

  /** @param port authorities come to port 443; another one is for a forwarder in front. */
  constructor(host: string | null, port: number) {
    this.#host = host
    this.#port = port
  }

  async present(answers: readonly ChallengeAnswer[]): Promise<void> {
    const contexts = await contextsOf(answers)
    const [first] = contexts.values()
    if (first === undefined) return
    const server = createServer({
      ...first,
      ALPNProtocols: [PROTOCOL],
      SNICallback: (name, reply) => reply(null, contexts.get(name.toLowerCase())?.context),
    })
    this.#server = server
    server.on("connection", (socket: Socket) => {
      this.#visitors.add(socket)
      socket.once("close", () => this.#visitors.delete(socket))
    })
    // The authority reads the certificate and goes; so does everybody else.
    server.on("secureConnection", (socket) => socket.end())
    server.on("tlsClientError", (_error, socket) => socket.destroy())
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const { host, port } = { host: this.#host, port: this.#port }
    server.once("error", (cause) =>
      reject(notListening(host, port, cause, "give --challenge http-01, or stop the server that has it")),
    )
    server.listen({ ...(host === null ? {} : { host }), port, exclusive: true }, () => resolve())
    await promise
  }

  async remove(): Promise<void> {
    const server = this.#server
    this.#server = null
    if (server?.listening !== true) return
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    // Whoever connected and says nothing more would keep it open for as long as they like.
    for (const socket of this.#visitors) socket.destroy()
    await closed
  }
}

async function contextsOf(
  answers: readonly ChallengeAnswer[],
): Promise<Map<string, { key: string; cert: string; context: SecureContext }>> {
  const contexts = new Map<string, { key: string; cert: string; context: SecureContext }>()
  for (const { name, content } of answers) {
    const made = await challengeCertificate(name, content)
    contexts.set(name, { ...made, context: createSecureContext(made) })
  }
  return contexts
}

/**
 * Self-signed, for one name, with the digest of the key authorization in a critical extension. The ACME library makes such a
 * certificate, too, with a key usage that our TLS library refuses to serve.
 * Source: RFC 8737, section 3.
 */
async function challengeCertificate(name: string, content: string): Promise<{ key: string; cert: string }> {
  // The X.509 library does not load without it.
  await import("reflect-metadata")
  const x509 = await import("@peculiar/x509")
  x509.cryptoProvider.set(crypto)
  const algorithm = { name: "ECDSA", namedCurve: "P-256" }
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"])
  const digest = createHash("sha256").update(content).digest()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: `01${randomBytes(15).toString("hex")}`,
    name: "CN=ACME challenge",
    notBefore: new Date(Date.now() - HOUR),
    notAfter: new Date(Date.now() + HOUR),
    keys,
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    extensions: [
      new x509.SubjectAlternativeNameExtension([{ type: "dns", value: name }]),
      new x509.Extension(OID_ACME_IDENTIFIER, true, encodeDer(TAG.octetString, digest).slice()),
    ],
  })
  const key = encodePem(
    "PRIVATE KEY",
    new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey)),
  )
  return { key, cert: certificate.toString("pem") }
}
