import { createSecureContext, createServer, type SecureContext, type Server } from "node:tls"
import { loadLibrary } from "./connection.ts"
import { notListening } from "./http-solver.ts"
import { makeKey } from "./keys.ts"
import type { ChallengeAnswer, Solver } from "./solver.ts"

/** Source: RFC 8737, section 3. */
const PROTOCOL = "acme-tls/1"

/** Answers `tls-alpn-01` on a port of its own, by certificates made for the occasion that no browser accepts. */
export class TlsAlpnListener implements Solver {
  readonly type = "tls-alpn-01"
  /** Null: all addresses of this machine. */
  readonly #host: string | null
  readonly #port: number
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
    if (server?.listening === true) await new Promise<void>((resolve) => server.close(() => resolve()))
  }
}

async function contextsOf(
  answers: readonly ChallengeAnswer[],
): Promise<Map<string, { key: string; cert: string; context: SecureContext }>> {
  const { crypto } = await loadLibrary()
  const key = await makeKey("p256")
  const contexts = new Map<string, { key: string; cert: string; context: SecureContext }>()
  for (const { name, content } of answers) {
    const authorization = {
      identifier: { type: "dns", value: name },
      status: "pending",
      challenges: [],
      url: "",
    } as const
    const made = await crypto.createAlpnCertificate({ ...authorization, challenges: [] }, content, key)
    const cert = made[1].toString()
    contexts.set(name, { key, cert, context: createSecureContext({ key, cert }) })
  }
  return contexts
}
