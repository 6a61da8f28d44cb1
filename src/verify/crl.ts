import { VerifyError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { CRL_OID, type Crl } from "../formats/x509/crl.ts"
import { sameName } from "../formats/x509/name.ts"
import { isSigned, publicKeyOf } from "./certificate-chain.ts"
import { markVerified, type Verified } from "./verified.ts"

/** Who has to have signed a list: the authority whose certificates it revokes. */
export interface CrlIssuer {
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array
  /** DER of the authority's distinguished name. */
  readonly name: Uint8Array
}

/**
 * Proves that a list is the complete list of `issuer`, and in force at a time. That `issuer` itself is trusted has to be
 * established by the caller.
 * @throws VerifyError ERR_CRL_ISSUER, ERR_CRL_ALGORITHM, ERR_CRL_SIGNATURE, ERR_CRL_EXTENSION, ERR_CRL_NOT_YET_VALID,
 *   ERR_CRL_EXPIRED
 */
export function verifyCrl(crl: Crl, issuer: CrlIssuer, at: Date): Verified<Crl> {
  const place = placeOfCrl(crl)
  verifyName(crl, issuer, place)
  verifySignature(crl, issuer, place)
  verifyComplete(crl, place)
  verifyDates(crl, place, at)
  return markVerified(crl)
}

/** Whether the list names a certificate. @param serial content of the certificate's DER INTEGER, as `Certificate` has it. */
export function isRevoked(crl: Verified<Crl>, serial: Uint8Array): boolean {
  return crl.revoked.has(toHex(serial))
}

/** For messages: the list comes from the other side, so its name is quoted. */
export function placeOfCrl({ issuer }: Crl): string {
  return `CRL of ${JSON.stringify(issuer.commonName ?? "an issuer without common name")}`
}

function verifyName(crl: Crl, { name }: CrlIssuer, at: string): void {
  if (!sameName(crl.issuer.der, name))
    throw new VerifyError("ERR_CRL_ISSUER", {
      at,
      expected: "the list of the authority that issued the certificate",
      found: "another authority's",
    })
}

/** AMD signs with RSASSA-PSS and SHA-384, Intel with ECDSA on P-256 and SHA-256. Anything else is somebody else's. */
function verifySignature(crl: Crl, { spki }: CrlIssuer, at: string): void {
  const { signatureAlgorithm: algorithm } = crl
  const key = publicKeyOf(spki, `${at}, issuer`)
  const fits =
    algorithm.scheme === "rsassa-pss"
      ? algorithm.hash === "sha384" && algorithm.mgfHash === "sha384" && algorithm.saltLength === 48
      : algorithm.scheme === "ecdsa" &&
        algorithm.hash === "sha256" &&
        key.asymmetricKeyDetails?.namedCurve === "prime256v1"
  if (!fits)
    throw new VerifyError("ERR_CRL_ALGORITHM", {
      at,
      expected: "RSASSA-PSS with SHA-384, or ECDSA on P-256 with SHA-256",
      found: `${algorithm.scheme}, ${algorithm.hash}`,
    })
  if (!isSigned(crl, spki, at))
    throw new VerifyError("ERR_CRL_SIGNATURE", {
      at,
      expected: "a signature by the authority's key",
      found: "another one",
      hint: "the list was altered or made by somebody else: fetch it again from the vendor",
    })
}

/**
 * A list that only names changes, or only some kinds of certificates, says nothing about the others, whether it is
 * marked critical or not. Source: RFC 5280, sections 5.2.4, 5.2.5 and 5.3.
 */
function verifyComplete(crl: Crl, at: string): void {
  const partial = [CRL_OID.deltaIndicator, CRL_OID.issuingDistributionPoint].filter((oid) =>
    crl.extensions.has(oid),
  )
  const critical = [...crl.extensions].filter(
    ([oid, extension]) =>
      extension.critical && oid !== CRL_OID.number && oid !== CRL_OID.authorityKeyIdentifier,
  )
  const [oid] = [...partial, ...critical.map(([id]) => id), ...crl.criticalEntryExtensions]
  if (oid !== undefined)
    throw new VerifyError("ERR_CRL_EXTENSION", {
      at,
      expected: "a complete list with extensions that are understood",
      found: `extension ${oid}`,
    })
}

function verifyDates({ thisUpdate, nextUpdate }: Crl, place: string, at: Date): void {
  if (Number.isNaN(at.getTime()))
    throw new VerifyError("ERR_INTERNAL", { at: "time of verification", found: "not a time" })
  if (at < thisUpdate)
    throw new VerifyError("ERR_CRL_NOT_YET_VALID", {
      at: place,
      expected: `thisUpdate on or before ${at.toISOString()}`,
      found: thisUpdate.toISOString(),
      hint: "check this machine's clock",
    })
  if (nextUpdate === null || at > nextUpdate)
    throw new VerifyError("ERR_CRL_EXPIRED", {
      at: place,
      expected: `nextUpdate on or after ${at.toISOString()}`,
      found: nextUpdate?.toISOString() ?? "no nextUpdate",
      hint: "fetch the current list from the vendor, or check this machine's clock",
    })
}
