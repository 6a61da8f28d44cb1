import { VerifyError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { parseCrl } from "../formats/x509/crl.ts"
import { placeOf } from "./certificate-chain.ts"
import { isRevoked, verifyCrl } from "./crl.ts"
import type { SnpAttestation } from "./snp.ts"
import { markVerified, type Verified } from "./verified.ts"

/** The list that a chain was checked against. */
export interface RevocationList {
  readonly thisUpdate: Date
  readonly nextUpdate: Date | null
  /** CRL number, hex; null where the list has none. */
  readonly number: string | null
}

/**
 * Proves that AMD revoked neither the leaf (VCEK, VLEK) nor the intermediate (ASK, ASVK) of a verified chain. The list has to
 * be signed by the very root that the chain ends at, so that of another product is refused. AMD numbers all VCEKs 0: in
 * practice its list names intermediates.
 * @param crl DER. @param at the time for the list's dates.
 * @returns the attestation with `revocation` set to `checked`.
 * @throws ParseError where the list is malformed; VerifyError ERR_CRL_*, ERR_CERT_REVOKED
 */
export function verifySnpRevocation(
  attestation: Verified<SnpAttestation>,
  crl: Uint8Array,
  at: Date,
): Verified<SnpAttestation> {
  const { path, anchor } = attestation
  const [leaf, intermediate] = path
  const issuer = { spki: anchor.spki, name: intermediate.issuer.der }
  const list = verifyCrl(parseCrl(crl), issuer, at)
  for (const certificate of [leaf, intermediate])
    if (isRevoked(list, certificate.serial))
      throw new VerifyError("ERR_CERT_REVOKED", {
        at: placeOf(certificate),
        expected: `a certificate that the list of ${anchor.name} does not name`,
        found: `serial number ${toHex(certificate.serial)} on the list of ${list.thisUpdate.toISOString()}`,
        hint: "AMD withdrew this key: do not trust what it signed",
      })
  const { thisUpdate, nextUpdate, number } = list
  return markVerified({
    ...attestation,
    revocation: "checked" as const,
    crl: { thisUpdate, nextUpdate, number: number === null ? null : toHex(number) },
  })
}
