import { AMD_ANCHORS, trustAnchorFromPem } from "../endorsements/amd-roots.ts"
import { isNitroRootName, NITRO_ANCHORS, nitroAnchorFromDer } from "../endorsements/aws-roots.ts"
import { INTEL_ANCHORS, intelAnchorFromPem, isIntelRootName } from "../endorsements/intel-roots.ts"
import { CodedError } from "../errors.ts"
import { encodePem } from "../formats/pem.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { parseCertificateFile } from "../formats/x509/certificate-file.ts"
import type { IntelAnchor } from "../verify/intel-chain.ts"
import type { NitroAnchor } from "../verify/nitro-tpm.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import { readInput } from "./input-files.ts"

const MAX_ROOT_BYTES = 64 * 1024

/** Roots that evidence may rest on. */
export interface Anchors {
  readonly amd: readonly TrustAnchor[]
  readonly intel: readonly IntelAnchor[]
  readonly nitro: readonly NitroAnchor[]
}

/**
 * The pinned roots, and those of `--trust-root FILE`: which vendor's a root is goes by its name, and each counts as simulated.
 * @throws UsageError ERR_TRUST_ROOT, ERR_INTEL_TRUST_ROOT; ERR_IO
 */
export function anchorsOf(paths: readonly string[]): Anchors {
  const amd: TrustAnchor[] = []
  const intel: IntelAnchor[] = []
  const nitro: NitroAnchor[] = []
  for (const path of paths) {
    const content = readInput(path, MAX_ROOT_BYTES)
    const isPem = Buffer.from(content).toString("latin1").includes("-----BEGIN ")
    const pem = isPem ? Buffer.from(content).toString("latin1") : encodePem("CERTIFICATE", content)
    const root = rootIn(content)
    const name = root?.subject.commonName ?? ""
    if (isIntelRootName(name)) intel.push(intelAnchorFromPem(pem))
    else if (root !== null && isNitroRootName(name)) nitro.push(nitroAnchorFromDer(root.der))
    else amd.push(trustAnchorFromPem(pem))
  }
  return {
    amd: [...AMD_ANCHORS, ...amd],
    intel: [...INTEL_ANCHORS, ...intel],
    nitro: [...NITRO_ANCHORS, ...nitro],
  }
}

/** Null for what is no certificate: whoever reads it next tells why. */
function rootIn(content: Uint8Array): Certificate | null {
  try {
    const [der = new Uint8Array()] = parseCertificateFile(content, "certificate", "trust root")
    return parseCertificate(der)
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}
