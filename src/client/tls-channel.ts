import type { X509Certificate } from "node:crypto"
import { isIP } from "node:net"
import { connect, getCACertificates, rootCertificates, type TLSSocket } from "node:tls"
import { AgentError } from "../errors.ts"
import { EXPORTER } from "../formats/channel-binding.ts"
import { type Endpoint, endpointText } from "./endpoint.ts"

/** A TLS connection, and whose key it ends at. */
export interface TlsChannel {
  readonly socket: TLSSocket
  /** DER SubjectPublicKeyInfo of the server's leaf certificate on this very connection. */
  readonly spki: Uint8Array
  /** DER of that certificate. */
  readonly leafDer: Uint8Array
  /** What RFC 9266 takes from this very connection, 32 bytes; null under TLS 1.2. */
  readonly exporter: Uint8Array | null
  /** Whether a web certificate authority vouches for certificate and host name. */
  readonly authorized: boolean
  /** Why not, where it does not. */
  readonly reason: string | null
}

/** Certificate chain and key, both PEM. */
export interface ClientCertificate {
  readonly certificate: string
  readonly key: string
}

export interface TlsOptions {
  /** Ends the attempt. */
  readonly signal?: AbortSignal | undefined
  readonly client?: ClientCertificate | undefined
  /** Protocols to offer; HTTP/1.1 unless said. Empty: the extension is left out. */
  readonly alpn?: readonly string[]
  /** Oldest version; TLS 1.2 unless said. */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3"
}

/**
 * Opens a TLS connection without asking for an authorised certificate: whether there is one is reported, and the key itself is
 * what evidence gets bound to. Only the certificates that come with the program and the operating system vouch for a name.
 * @throws AgentError ERR_CONNECT, ERR_TIMEOUT.
 */
export function openTls(
  endpoint: Endpoint,
  timeoutMs: number,
  options: TlsOptions = {},
): Promise<TlsChannel> {
  const { signal, client, alpn = ["http/1.1"], minVersion = "TLSv1.2" } = options
  const place = endpointText(endpoint)
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: endpoint.host,
      port: endpoint.port,
      // Server name indication is for names; addresses are checked against the certificate as addresses.
      ...(isIP(endpoint.host) === 0 ? { servername: endpoint.host } : {}),
      rejectUnauthorized: false,
      ca: authorities(),
      minVersion,
      ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
      ...(client === undefined ? {} : { cert: client.certificate, key: client.key }),
    })
    const settle = (act: () => void) => {
      clearTimeout(timer)
      signal?.removeEventListener("abort", onAbort)
      socket.removeAllListeners("secureConnect")
      socket.removeListener("close", onClose)
      act()
    }
    const fail = (error: AgentError) => settle(() => reject(error))
    const failAndClose = (error: AgentError) => {
      fail(error)
      socket.destroy()
    }
    const timer = setTimeout(
      () =>
        failAndClose(
          new AgentError("ERR_TIMEOUT", {
            at: place,
            expected: `a TLS connection within ${timeoutMs / 1000} s`,
            hint: "check address and firewall, or raise --timeout",
          }),
        ),
      timeoutMs,
    )
    const onAbort = () => failAndClose(new AgentError("ERR_INTERRUPTED", { at: place }))
    const onClose = () => fail(connectError(place, new Error("the server closed the connection")))
    signal?.addEventListener("abort", onAbort, { once: true })
    // Stays for the life of the socket: an error event without a listener would end the process.
    socket.on("error", (error) => fail(connectError(place, error)))
    socket.once("close", onClose)
    socket.once("secureConnect", () => {
      const certificate = socket.getPeerX509Certificate()
      if (certificate === undefined)
        return failAndClose(connectError(place, new Error("the server presented no certificate")))
      const spki = certificate.publicKey.export({ type: "spki", format: "der" })
      settle(() =>
        resolve({
          socket,
          spki: new Uint8Array(spki),
          leafDer: new Uint8Array(certificate.raw),
          exporter: exporterOf(socket),
          authorized: socket.authorized,
          reason: socket.authorized ? null : reasonOf(socket.authorizationError, certificate),
        }),
      )
    })
  })
}

function exporterOf(socket: TLSSocket): Uint8Array | null {
  if (socket.getProtocol() !== "TLSv1.3") return null
  return new Uint8Array(socket.exportKeyingMaterial(EXPORTER.bytes, EXPORTER.label, Buffer.alloc(0)))
}

/** Loaded once: parsing some hundred certificates costs about 10 ms. */
let known: string[] | null = null

function authorities(): string[] {
  known ??= [...new Set([...rootCertificates, ...getCACertificates("system")])]
  return known
}

function connectError(place: string, error: Error & { code?: string }): AgentError {
  return new AgentError("ERR_CONNECT", {
    at: place,
    expected: "a TLS server",
    found: error.code === undefined ? error.message : `${error.code} (${error.message})`,
    hint: `${hintFor(error.code)}${/:443$/.test(place) ? "; agents listen on port 5555 unless told otherwise" : ""}`,
    cause: error,
  })
}

function hintFor(code: string | undefined): string {
  switch (code) {
    case "ECONNREFUSED":
      return "nothing listens there: check host and port, and that the service is running"
    case "ENOTFOUND":
    case "EAI_AGAIN":
    case "DNS_ENOTFOUND":
      return "check the host name"
    case "ECONNRESET":
    case "EPIPE":
    case "ERR_SSL_WRONG_VERSION_NUMBER":
      return "check that the service on this port speaks TLS"
    default:
      return "check host, port and network"
  }
}

/** In plain words where there are some; the code of the TLS library otherwise. */
function reasonOf(error: unknown, certificate: X509Certificate): string {
  const code = typeof error === "string" ? error : error instanceof Error ? error.message : "unknown reason"
  switch (code) {
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
      return "it is self-signed"
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "UNABLE_TO_GET_ISSUER_CERT":
      return certificate.verify(certificate.publicKey) ? "it is self-signed" : "its issuer is not known"
    case "CERT_HAS_EXPIRED":
      return "it has expired"
    case "CERT_NOT_YET_VALID":
      return "it is not valid yet"
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return "it is for another host name"
    default:
      return code
  }
}
