import { readdirSync } from "node:fs"
import { join } from "node:path"
import { UsageError, VerifyError } from "../errors.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { parseCertificateFile } from "../formats/x509/certificate-file.ts"
import { verifyAuthorityItself } from "../verify/certificate-chain.ts"
import type { TpmAuthorities } from "../verify/tpm-certificate.ts"
import { parseFile } from "./input-files.ts"

const MAX_FILE_BYTES = 1024 * 1024
const MAX_CERTIFICATES = 1000

/**
 * The directory of `--tpm-ca`: every file in it holds certificates, PEM or DER. Those that signed themselves are trusted; others
 * only help to get to one of these. Names that begin with a dot, and directories, are passed over; any other file is read, so that
 * a damaged one is noticed.
 * @throws UsageError ERR_TPM_CA; ERR_IO; ParseError with the file's name
 */
export function readTpmAuthorities(directory: string): TpmAuthorities {
  const roots: Certificate[] = []
  const intermediates: Certificate[] = []
  for (const path of filesIn(directory))
    for (const certificate of parseFile(path, MAX_FILE_BYTES, (content) => certificatesIn(content, path))) {
      if (roots.length + intermediates.length === MAX_CERTIFICATES)
        throw new UsageError("ERR_TPM_CA", {
          at: directory,
          expected: `at most ${MAX_CERTIFICATES} certificates`,
          found: "more",
        })
      if (isRoot(certificate)) roots.push(certificate)
      else intermediates.push(certificate)
    }
  if (roots.length > 0) return { roots, intermediates }
  throw new UsageError("ERR_TPM_CA", {
    at: directory,
    expected: "a certificate that signed itself",
    found: intermediates.length === 0 ? "no certificate" : `${intermediates.length} others`,
    hint: "put the root certificate of the TPM's maker there, and those between it and the TPM",
  })
}

function filesIn(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => !entry.name.startsWith(".") && !entry.isDirectory())
      .map(({ name }) => join(directory, name))
      .sort()
  } catch (cause) {
    throw new UsageError("ERR_TPM_CA", {
      at: directory,
      expected: "a directory with certificates",
      found: cause instanceof Error && "code" in cause ? `${cause.code}` : "none",
      hint: "write --tpm-ca DIR",
      cause,
    })
  }
}

function certificatesIn(content: Uint8Array, path: string): Certificate[] {
  return parseCertificateFile(content, "certificate", path).map((der) => parseCertificate(der))
}

/** Whether it is an authority that signed itself. */
function isRoot(certificate: Certificate): boolean {
  try {
    verifyAuthorityItself(certificate)
    return true
  } catch (error) {
    if (error instanceof VerifyError) return false
    throw error
  }
}
