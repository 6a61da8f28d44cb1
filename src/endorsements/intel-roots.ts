import { CodedError, UsageError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { parsePem } from "../formats/pem.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { verifyAuthorityItself } from "../verify/certificate-chain.ts"
import { INTEL_NAME, type IntelAnchor } from "../verify/intel-chain.ts"
import { decodePinnedKey } from "./pinned-key.ts"

/**
 * The key of "Intel SGX Root CA", DER SubjectPublicKeyInfo (EC P-256) in base64, and its SHA-256. Source:
 * https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer. To compare:
 * `openssl x509 -inform der -pubkey -noout | openssl pkey -pubin -outform der | sha256sum`.
 */
const INTEL_SGX_ROOT = {
  spki:
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEC6nEwMDIYZOj/iPWsCzaEKi71OiO" +
    "SLRFhWGjbnBVJfVnkY4u3IjkDYYL0MxO4mqsyYjlBalTVYxFP2sJBK5zlA",
  fingerprint: "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e",
} as const

/** Intel's root, for SGX and TDX alike: what a verification rests on unless the user names another root. */
export const INTEL_ANCHORS: readonly IntelAnchor[] = [
  { name: INTEL_NAME.root, spki: decodePinnedKey(INTEL_NAME.root, INTEL_SGX_ROOT), simulated: false },
]

/**
 * The anchor of `--trust-root FILE`: one self-signed certificate in PEM, named `Intel SGX Root CA` or with a word before
 * that. Whatever it says, what rests on it counts as simulated, unless its key is Intel's own.
 * @throws UsageError ERR_INTEL_TRUST_ROOT
 */
export function intelAnchorFromPem(pem: string): IntelAnchor {
  try {
    const certificates = parsePem(pem).filter(({ label }) => label === "CERTIFICATE")
    const [only] = certificates
    if (only === undefined || certificates.length !== 1)
      throw refused("one PEM certificate", `${certificates.length}`)
    const root = parseCertificate(only.der)
    const name = root.subject.commonName
    if (name === null || !isIntelRootName(name))
      throw refused(`a name ending in ${INTEL_NAME.root}`, JSON.stringify(name))
    verifyAuthorityItself(root)
    const genuine = INTEL_ANCHORS.find(({ spki }) => bytesEqual(spki, root.spki))
    return genuine ?? { name, spki: root.spki, simulated: true }
  } catch (cause) {
    if (cause instanceof UsageError || !(cause instanceof CodedError)) throw cause
    throw refused("the certificate of an Intel SGX root", cause.message, cause)
  }
}

/** Whether a root of that common name is one for {@link intelAnchorFromPem}. */
export function isIntelRootName(name: string): boolean {
  return name === INTEL_NAME.root || name.endsWith(` ${INTEL_NAME.root}`)
}

function refused(expected: string, found: string, cause?: unknown): UsageError {
  return new UsageError("ERR_INTEL_TRUST_ROOT", {
    at: "trust root",
    expected,
    found,
    ...(cause === undefined ? {} : { cause }),
  })
}
