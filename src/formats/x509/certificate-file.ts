import { ParseError } from "../../errors.ts"
import { parsePem } from "../pem.ts"

/** Labels under which PEM files hold what is asked for. Source: RFC 7468, sections 5 and 7. */
const LABELS = { certificate: "CERTIFICATE", crl: "X509 CRL" } as const

/**
 * DER of the certificates, or revocation lists, in a file: PEM with any number of them, or one in DER. What is in the DER is
 * for its own parser to tell.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE
 */
export function parseCertificateFile(
  file: Uint8Array,
  kind: keyof typeof LABELS,
  place: string,
): readonly Uint8Array[] {
  const text = Buffer.from(file.subarray(0, 4096)).toString("latin1")
  if (!text.includes("-----BEGIN ")) return [file]
  const blocks = parsePem(Buffer.from(file).toString("latin1"))
  const stranger = blocks.find(({ label }) => label !== LABELS[kind])
  if (stranger !== undefined)
    throw new ParseError("ERR_MALFORMED", { at: place, expected: LABELS[kind], found: stranger.label })
  return blocks.map(({ der }) => der)
}
