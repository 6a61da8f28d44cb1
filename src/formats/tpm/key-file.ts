import { ParseError } from "../../errors.ts"
import { parsePem } from "../pem.ts"
import { parsePublic, parseSizedPublic, type TpmPublic } from "./public.ts"

/** A TPM's key as files hold it: with its attributes, or the key alone. */
export type KeyFile =
  | { readonly kind: "tpm-public"; readonly key: TpmPublic }
  /** DER SubjectPublicKeyInfo. */
  | { readonly kind: "bare"; readonly spki: Uint8Array }

const DER_SEQUENCE = 0x30

/**
 * Reads a public key: TPM2B_PUBLIC, TPMT_PUBLIC, or SubjectPublicKeyInfo in PEM or DER. What the bytes begin with tells them
 * apart: a size that is right, a PEM line, a DER sequence.
 * @param name of the key, for messages.
 * @throws ParseError as parsePublic and parsePem, and ERR_MALFORMED where the PEM holds something else
 */
export function parseKeyFile(file: Uint8Array, name = "attestation key"): KeyFile {
  const [high = 0, low = 0] = file
  if (high * 256 + low === file.length - 2) return { kind: "tpm-public", key: parseSizedPublic(file) }
  if (high === DER_SEQUENCE) return { kind: "bare", spki: file }
  const text = Buffer.from(file).toString("latin1")
  if (!text.includes("-----BEGIN ")) return { kind: "tpm-public", key: parsePublic(file) }
  const [block, ...more] = parsePem(text)
  if (block?.label !== "PUBLIC KEY" || more.length > 0)
    throw new ParseError("ERR_MALFORMED", {
      at: name,
      expected: "one PUBLIC KEY in PEM",
      found: more.length > 0 ? `${more.length + 1} blocks` : (block?.label ?? "nothing"),
    })
  return { kind: "bare", spki: block.der }
}
