import { AMD_ANCHORS, trustAnchorFromPem } from "../endorsements/amd-roots.ts"
import { INTEL_ANCHORS, intelAnchorFromPem, isIntelRootName } from "../endorsements/intel-roots.ts"
import { CodedError } from "../errors.ts"
import { encodePem } from "../formats/pem.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { parseCertificateFile } from "../formats/x509/certificate-file.ts"
import type { IntelAnchor } from "../verify/intel-chain.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import { readInput } from "./input-files.ts"

const MAX_ROOT_BYTES = 64 * 1024

/** Roots that evidence may rest on. */
export interface Anchors {
  readonly amd: readonly TrustAnchor[]
  readonly intel: readonly IntelAnchor[]
}

/**
 * The pinned roots, and those of `--trust-root FILE`: which vendor's a root is goes by its name, and each counts as simulated.
 * @throws UsageError ERR_TRUST_ROOT, ERR_INTEL_TRUST_ROOT; ERR_IO
 */
export function anchorsOf(paths: readonly string[]): Anchors {
  const amd: TrustAnchor[] = []
  const intel: IntelAnchor[] = []
  for (const path of paths) {
    const content = readInput(path, MAX_ROOT_BYTES)
    const isPem = Buffer.from(content).toString("latin1").includes("-----BEGIN ")
    const pem = isPem ? Buffer.from(content).toString("latin1") : encodePem("CERTIFICATE", content)
    if (isIntelRootName(commonNameOf(content) ?? "")) intel.push(intelAnchorFromPem(pem))
    else amd.push(trustAnchorFromPem(pem))
  }
  return { amd: [...AMD_ANCHORS, ...amd], intel: [...INTEL_ANCHORS, ...intel] }
}

/** Null for what is no certificate: whoever reads it next tells why. */
function commonNameOf(content: Uint8Array): string | null {
  try {
    const [der = new Uint8Array()] = parseCertificateFile(content, "certificate", "trust root")
    return parseCertificate(der).subject.commonName
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}
