import { createHash } from "node:crypto"
import { VerifyError } from "../errors.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import { claimsReportData, type RatlsEvidence, ratlsReportData } from "../formats/ratls/evidence.ts"
import type { Certificate } from "../formats/x509/certificate.ts"
import { isSignedBy } from "./certificate-chain.ts"
import { isP256, keyOfSpki } from "./p256.ts"
import { markVerified, type Verified } from "./verified.ts"

/** What may follow the key's hash in the report data: 32 bytes. */
export const EXTRA_DATA_SIZE = 32

/**
 * That a certificate is in date and signed by its own key: whoever made it had that key. Who that is, only its evidence says, and
 * only together with {@link verifyRatlsKey}.
 * @throws VerifyError ERR_RATLS_VALIDITY, ERR_RATLS_SIGNATURE, ERR_CERT_ALGORITHM
 */
export function verifyRatlsCertificate(certificate: Certificate, at: Date): Verified<Certificate> {
  const { notBefore, notAfter, issuer, subject, spki } = certificate
  if (Number.isNaN(at.getTime()))
    throw new VerifyError("ERR_INTERNAL", { at: "time of verification", found: "not a time" })
  if (at < notBefore || at > notAfter)
    throw new VerifyError("ERR_RATLS_VALIDITY", {
      at: "RA-TLS certificate",
      expected: `validity that includes ${at.toISOString()}`,
      found: `${notBefore.toISOString()} to ${notAfter.toISOString()}`,
      hint: at < notBefore ? "check this machine's clock" : "make a new certificate in the VM",
    })
  if (!bytesEqual(issuer.der, subject.der) || !isSignedBy(certificate, spki))
    throw new VerifyError("ERR_RATLS_SIGNATURE", {
      at: "RA-TLS certificate",
      expected: "a certificate that its own key signed",
      found: bytesEqual(issuer.der, subject.der) ? "another signature" : "another issuer",
      hint: "it was changed, or is no RA-TLS certificate: get it again from the server",
    })
  return markVerified(certificate)
}

/**
 * That report data name the certificate's key, and hold the extra data that the verifier expects. The caller has shown that a
 * genuine TEE signed the report data.
 *
 * Extra data that nobody expects are refused and not just shown: the agent's old interface (`/quote/tee`) gives anybody a report
 * over 32 bytes of their choice, which may be the hash of their own key, followed by the hash of the agent's certificate.
 * @param reportData 64 bytes. @param extraData 32 bytes; zeros, unless the verifier knows of others.
 * @throws VerifyError ERR_RATLS_KEY, ERR_RATLS_EXTRA_DATA
 */
export function verifyRatlsKey(
  certificate: Verified<Certificate>,
  { claims }: Pick<RatlsEvidence, "claims">,
  reportData: Uint8Array,
  extraData: Uint8Array,
): void {
  const { spki } = certificate
  if (claims !== null) {
    const { algorithm, value } = claims.pubkeyHash
    const hash = createHash(algorithm).update(spki).digest()
    if (!bytesEqual(hash, value)) throw otherKey(`${algorithm} ${toHex(hash)}`, toHex(value))
  } else if (!isP256(spki) || keyOfSpki(spki) === null)
    throw otherKey("an uncompressed P-256 key", `a key of ${spki.length} bytes of another kind`)
  const expected = claims === null ? ratlsReportData(spki) : claimsReportData(claims.bytes)
  const [key, extra] = halves(reportData)
  const [expectedKey] = halves(expected)
  if (!bytesEqual(key, expectedKey)) throw otherKey(toHex(expectedKey), toHex(key))
  if (!bytesEqual(extra, extraData))
    throw new VerifyError("ERR_RATLS_EXTRA_DATA", {
      at: "report_data",
      expected: extraData.every((byte) => byte === 0) ? "no extra data" : toHex(extraData),
      found: toHex(extra),
      hint: "if you know what they are, say so with --extra-data; a relay can get reports with others",
    })
}

function halves(reportData: Uint8Array): [key: Uint8Array, extra: Uint8Array] {
  return [reportData.subarray(0, -EXTRA_DATA_SIZE), reportData.subarray(-EXTRA_DATA_SIZE)]
}

function otherKey(expected: string, found: string): VerifyError {
  return new VerifyError("ERR_RATLS_KEY", {
    at: "report_data",
    expected,
    found,
    hint: "the evidence was copied from another certificate: whoever has this key is not shown to be in the TEE",
  })
}
