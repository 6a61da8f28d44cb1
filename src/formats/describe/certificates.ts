import { createPublicKey } from "node:crypto"
import { toHex } from "../hex.ts"
import { PCK_OID, parsePckExtension } from "../intel/pck-extension.ts"
import { parseSnpLeaf, SNP_OID } from "../snp/leaf-certificate.ts"
import { type Certificate, type Extension, KEY_USAGE, parseCertificate } from "../x509/certificate.ts"
import { parseCrl } from "../x509/crl.ts"
import { inside, oidText, single, stringValue, TAG } from "../x509/der.ts"
import type { SignatureAlgorithm } from "../x509/signature-algorithm.ts"
import { flags, hexOrNull, plainFields, type Shown, type ShownRecord } from "./shown.ts"

/** Short names of attributes of distinguished names. Source: RFC 4519, section 2; RFC 5280, appendix A. */
const ATTRIBUTES: Readonly<Record<string, string>> = {
  "2.5.4.3": "CN",
  "2.5.4.5": "serialNumber",
  "2.5.4.6": "C",
  "2.5.4.7": "L",
  "2.5.4.8": "ST",
  "2.5.4.10": "O",
  "2.5.4.11": "OU",
}

/** Text types whose content is shown as it is; others are shown in hex. */
const TEXT: ReadonlySet<number> = new Set([TAG.utf8String, TAG.printableString, TAG.ia5String])

/** A certificate, with AMD's and Intel's extensions decoded. @throws ParseError as parseCertificate */
export function describeCertificate(der: Uint8Array): ShownRecord {
  const certificate = parseCertificate(der)
  const { basicConstraints, keyUsage } = certificate
  const usage = keyUsage === null ? null : [...keyUsage].reduce((bits, bit) => bits | (1n << BigInt(bit)), 0n)
  return {
    subject: nameText(certificate.subject.der),
    issuer: nameText(certificate.issuer.der),
    serial: toHex(certificate.serial),
    not_before: certificate.notBefore.toISOString(),
    not_after: certificate.notAfter.toISOString(),
    public_key: keyText(certificate.spki),
    spki: toHex(certificate.spki),
    ca: basicConstraints?.ca ?? false,
    path_length: basicConstraints?.pathLength ?? null,
    key_usage: usage === null ? null : flags(usage, KEY_USAGE),
    signature_algorithm: algorithmText(certificate.signatureAlgorithm),
    signature: toHex(certificate.signature),
    ...vendorFacts(certificate),
    extensions: extensionsOf(certificate.extensions),
  }
}

/** A revocation list. @throws ParseError as parseCrl */
export function describeCrl(der: Uint8Array): ShownRecord {
  const crl = parseCrl(der)
  return {
    issuer: nameText(crl.issuer.der),
    this_update: crl.thisUpdate.toISOString(),
    next_update: crl.nextUpdate?.toISOString() ?? null,
    number: hexOrNull(crl.number),
    revoked_count: crl.revoked.size,
    revoked_serials: [...crl.revoked],
    signature_algorithm: algorithmText(crl.signatureAlgorithm),
    signature: toHex(crl.signature),
    extensions: extensionsOf(crl.extensions),
  }
}

function vendorFacts(certificate: Certificate): ShownRecord {
  if (certificate.extensions.has(SNP_OID.productName)) {
    const { signer, productName, tcb, hwId, cspId } = parseSnpLeaf(certificate)
    const levels = Object.fromEntries(Object.entries(tcb))
    return { amd: { signer, product_name: productName, tcb: levels, hwid: hexOrNull(hwId), csp_id: cspId } }
  }
  if (!certificate.extensions.has(PCK_OID.extension)) return {}
  const platform = parsePckExtension(certificate)
  return { intel: { ...plainFields(platform), components: platform.components } }
}

function extensionsOf(extensions: ReadonlyMap<string, Extension>): Shown {
  return [...extensions].map(([oid, { critical, value }]) => ({ oid, critical, value: toHex(value) }))
}

/** `CN=…, O=…`, in the order of the name. */
function nameText(der: Uint8Array): string {
  const parts: string[] = []
  const name = inside(single(der, TAG.sequence, "name"))
  while (!name.atEnd) {
    const relative = inside(name.next(TAG.set, "relative name"))
    while (!relative.atEnd) {
      const attribute = inside(relative.next(TAG.sequence, "attribute"))
      const type = oidText(attribute.next(TAG.oid, "type"))
      const value = attribute.next(attribute.peek() ?? 0, "value")
      parts.push(`${ATTRIBUTES[type] ?? type}=${TEXT.has(value.tag) ? stringValue(value) : toHex(value.raw)}`)
    }
  }
  return parts.join(", ")
}

function keyText(spki: Uint8Array): string {
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
    const { modulusLength, namedCurve } = key.asymmetricKeyDetails ?? {}
    return `${key.asymmetricKeyType} ${namedCurve ?? modulusLength ?? ""}`.trim()
  } catch {
    // Keys of a kind that OpenSSL does not read are shown as bytes alone.
    return "unknown"
  }
}

function algorithmText(algorithm: SignatureAlgorithm): string {
  const { scheme, hash } = algorithm
  const pss = scheme === "rsassa-pss" ? `, mgf1 ${algorithm.mgfHash}, salt ${algorithm.saltLength}` : ""
  return `${scheme}, ${hash}${pss}`
}
