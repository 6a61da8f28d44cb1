import { createHash } from "node:crypto"
import { ParseError } from "../../errors.ts"
import { parseCertificate } from "../x509/certificate.ts"
import { guidText } from "./efi.ts"
import { LogReader } from "./log-reader.ts"

/** A certificate by which UEFI firmware, or shim, lets programs start. */
export interface SignerCertificate {
  /** SHA-256 of its DER, 32 bytes. */
  readonly fingerprint: Uint8Array
  /** Common name of the subject; null where it has none, or cannot be read. May be hostile text. */
  readonly name: string | null
}

/** Content of a signature database. */
export interface SignatureDatabase {
  readonly certificates: readonly SignerCertificate[]
  /** Entries that are digests of programs. */
  readonly hashes: number
  /** Entries of other kinds. */
  readonly others: number
}

export const CERT_X509 = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
/** SHA-1, SHA-256, SHA-384 and SHA-512 of a program. */
const CERT_HASHES: ReadonlySet<string> = new Set([
  "826ca512-cf10-4ac9-b187-be01496631bd",
  "c1c41626-504c-4092-aca9-41f936934328",
  "ff3e5307-9fd0-48c9-85f1-8ad56c701e01",
  "093e0fae-a6c4-4f50-9f1b-d41e2b89c19a",
])
const OWNER_SIZE = 16

/**
 * Reads the lists of a signature database, as PK, KEK, db and dbx hold them.
 * Source: UEFI 2.10, section 32.4.1 "Signature Database", structures EFI_SIGNATURE_LIST and EFI_SIGNATURE_DATA.
 * @throws ParseError ERR_TRUNCATED, ERR_MALFORMED
 */
export function parseSignatureDatabase(value: Uint8Array): SignatureDatabase {
  const reader = new LogReader(value, "signature database")
  const certificates: SignerCertificate[] = []
  let hashes = 0
  let others = 0
  while (reader.left > 0) {
    const type = guidText(reader.take(16, "type of a list"))
    const listSize = reader.u32("size of a list")
    const headerSize = reader.u32("size of a list's header")
    const size = reader.u32("size of an entry")
    const body = listSize - 28 - headerSize
    if (body < 0 || size <= OWNER_SIZE || body % size !== 0)
      throw new ParseError("ERR_MALFORMED", {
        at: "signature database",
        expected: "lists of whole entries",
        found: `a list of ${listSize} bytes, entries of ${size}`,
      })
    reader.take(headerSize, "header of a list")
    for (let entry = 0; entry < body / size; entry++) {
      const signature = reader.take(size, "entry").subarray(OWNER_SIZE)
      if (type === CERT_X509) certificates.push(signerOf(signature))
      else if (CERT_HASHES.has(type)) hashes += 1
      else others += 1
    }
  }
  return { certificates, hashes, others }
}

/**
 * The certificate in the value of an EV_EFI_VARIABLE_AUTHORITY event: an entry of a database with its owner, or, by shim, the
 * certificate alone. Null where it is none: a digest of a program, or settings.
 */
export function authorityCertificate(value: Uint8Array): SignerCertificate | null {
  for (const der of [value.subarray(OWNER_SIZE), value]) if (isCertificate(der)) return signerOf(der)
  return null
}

/** A DER sequence with a length of two bytes that ends where the bytes end. */
function isCertificate(der: Uint8Array): boolean {
  return der[0] === 0x30 && der[1] === 0x82 && (der[2] ?? 0) * 256 + (der[3] ?? 0) + 4 === der.length
}

function signerOf(der: Uint8Array): SignerCertificate {
  return { fingerprint: new Uint8Array(createHash("sha256").update(der).digest()), name: nameOf(der) }
}

/** Firmware takes certificates that are not quite in order; their digest names them all the same. */
function nameOf(der: Uint8Array): string | null {
  try {
    return parseCertificate(der).subject.commonName
  } catch (error) {
    if (error instanceof ParseError) return null
    throw error
  }
}
