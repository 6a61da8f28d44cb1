import { verify } from "node:crypto"
import { CodedError, ParseError, VerifyError } from "../errors.ts"
import { bytesEqual, shortHex } from "../formats/hex.ts"
import { parseSnpLeaf, type SnpLeaf } from "../formats/snp/leaf-certificate.ts"
import { parseSnpReport, type SnpReport } from "../formats/snp/report.ts"
import { parseTcb, type SnpProduct, type Tcb, tcbComponents } from "../formats/snp/tcb.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { isSignedBy, placeOf, publicKeyOf, verifyChain } from "./certificate-chain.ts"
import { type RevocationList, verifySnpRevocation } from "./snp-revocation.ts"
import { markVerified, type Verified } from "./verified.ts"

/** A pinned ARK: the root of one product's chain. */
export interface TrustAnchor {
  readonly product: SnpProduct
  /** Common name: `ARK-Milan`; a simulated root has a word before it. */
  readonly name: string
  /** DER SubjectPublicKeyInfo. This is what is pinned; names and certificates are not. */
  readonly spki: Uint8Array
  /** Not AMD's: everything that rests on it proves nothing about hardware. */
  readonly simulated: boolean
}

/** What a genuine report proves. */
export interface SnpAttestation {
  readonly report: SnpReport
  readonly product: SnpProduct
  readonly signer: "VCEK" | "VLEK"
  readonly anchor: TrustAnchor
  /** The TCB that the signing key was derived from; equal to the certificate's. */
  readonly reportedTcb: Tcb
  readonly committedTcb: Tcb
  readonly currentTcb: Tcb
  readonly launchTcb: Tcb
  /** The cloud provider to whom AMD gave the VLEK; null for a VCEK. */
  readonly cspId: string | null
  /** The chip's identifier; null where a VLEK signed, which proves no chip. */
  readonly chipId: Uint8Array | null
  /** The certificates that vouch for the report: VCEK or VLEK, and the ASK or ASVK above it. */
  readonly path: readonly [leaf: Certificate, intermediate: Certificate]
  /** `not-checked`: there was no revocation list, and nothing is known. */
  readonly revocation: "checked" | "not-checked"
  /** The list that was consulted; null where none was. */
  readonly crl: RevocationList | null
}

/** Host-provided certificates that are looked at. */
const MAX_CERTIFICATES = 16

/**
 * Proves that an AMD processor made a report. The certificates come from the other side and only help to find the chain;
 * trust comes from `anchors` alone. Every step throws at the first fault.
 * @param input.report 1184 bytes. @param input.certificates DER, in any order; those not needed are ignored.
 * @param input.crl the root's revocation list, DER; null leaves `revocation` at `not-checked`, which is for the caller to
 *   judge (`verifySnpRevocation` does it later).
 * @param input.at the time for validity.
 * @throws ParseError where report, leaf certificate or list are malformed
 * @throws VerifyError ERR_CERT_*, ERR_SNP_*, ERR_CRL_*
 */
export function verifySnp(input: {
  report: Uint8Array
  certificates: readonly Uint8Array[]
  anchors: readonly TrustAnchor[]
  crl: Uint8Array | null
  at: Date
}): Verified<SnpAttestation> {
  const report = parseSnpReport(input.report)
  verifyIsSigned(report)
  const pool = parsePool(input.certificates)
  const { certificate: leaf, facts } = findLeaf(pool, report)
  const { intermediate, anchor } = findAuthority(pool, leaf, facts.product, input.anchors)
  verifySnpNames(leaf, intermediate, anchor, facts)
  verifySnpAlgorithms([leaf, intermediate])
  // The anchor was found by the intermediate's signature.
  verifyChain([leaf, intermediate], anchor, input.at, new Set([intermediate]))
  verifyReportMatchesLeaf(report, facts)
  verifyReportSignature(report, leaf)
  const tcb = (raw: Uint8Array) => parseTcb(raw, facts.product)
  const attestation = markVerified<SnpAttestation>({
    report,
    product: facts.product,
    signer: facts.signer,
    anchor,
    reportedTcb: tcb(report.reportedTcb),
    committedTcb: tcb(report.committedTcb),
    currentTcb: tcb(report.currentTcb),
    launchTcb: tcb(report.launchTcb),
    cspId: facts.cspId,
    chipId: facts.hwId === null ? null : report.chipId,
    path: [leaf, intermediate],
    revocation: "not-checked",
    crl: null,
  })
  return input.crl === null ? attestation : verifySnpRevocation(attestation, input.crl, input.at)
}

/** The report claims to be signed, and by an algorithm that exists. */
function verifyIsSigned(report: SnpReport): void {
  if (report.signingKey === "none" || report.maskChipKey)
    throw new VerifyError("ERR_SNP_NOT_SIGNED", {
      at: "snp-report.flags",
      expected: "a report signed by VCEK or VLEK",
      found: report.maskChipKey ? "MASK_CHIP_KEY set" : "SIGNING_KEY none",
      hint: "the host has to allow the firmware to sign reports",
    })
  if (report.signatureAlgo !== 1)
    throw new VerifyError("ERR_SNP_NOT_SIGNED", {
      at: "snp-report.signatureAlgo",
      expected: "1 (ECDSA P-384 with SHA-384)",
      found: `${report.signatureAlgo}`,
    })
}

interface Pool {
  readonly certificates: readonly Certificate[]
  /** Why the first entry that is no certificate could not be read. */
  readonly refused: CodedError | null
}

/**
 * Hosts put other things into the table too (revocation lists), so an entry that is no certificate is passed over. That
 * weakens nothing: a chain has to come out of the rest all the same, and the reason is shown where none does.
 */
function parsePool(ders: readonly Uint8Array[]): Pool {
  if (ders.length > MAX_CERTIFICATES)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "certificates of the report",
      expected: `at most ${MAX_CERTIFICATES}`,
      found: `${ders.length}`,
    })
  const certificates: Certificate[] = []
  let refused: CodedError | null = null
  for (const der of ders) {
    try {
      certificates.push(parseCertificate(der))
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      refused ??= error
    }
  }
  return { certificates, refused }
}

interface Leaf {
  readonly certificate: Certificate
  readonly facts: SnpLeaf
}

/**
 * The certificate of the key that the report says signed it. A host may hold certificates of several TCBs, so one that
 * fits the report is preferred; where none fits, the first is judged, and fails with the reason.
 */
function findLeaf(pool: Pool, report: SnpReport): Leaf {
  const names = pool.certificates.map((certificate) => certificate.subject.commonName ?? "")
  const candidates = pool.certificates.filter((_, index) => /(^| )SEV-V[CL]EK$/.test(names[index] ?? ""))
  const [first] = candidates
  if (first === undefined) throw missing(`the ${report.signingKey}`, names, pool.refused)
  const leaves = candidates.map((certificate) => ({ certificate, facts: parseSnpLeaf(certificate) }))
  const ofKind = leaves.filter(({ facts }) => facts.signer === report.signingKey)
  const chosen = ofKind.find(({ facts }) => reportFits(report, facts)) ?? ofKind[0]
  if (chosen === undefined)
    throw new VerifyError("ERR_SNP_SIGNING_KEY", {
      at: "snp-report.flags",
      expected: `a certificate of the ${report.signingKey} that signed`,
      found: leaves.map(({ facts }) => facts.signer).join(", "),
    })
  return chosen
}

function reportFits(report: SnpReport, facts: SnpLeaf): boolean {
  try {
    verifyReportMatchesLeaf(report, facts)
    return true
  } catch (error) {
    if (error instanceof CodedError) return false
    throw error
  }
}

/** The ASK or ASVK that issued the leaf, and the pinned ARK whose key signed it. */
function findAuthority(
  pool: Pool,
  leaf: Certificate,
  product: SnpProduct,
  anchors: readonly TrustAnchor[],
): { intermediate: Certificate; anchor: TrustAnchor } {
  const issuers = pool.certificates.filter(({ subject }) => bytesEqual(subject.der, leaf.issuer.der))
  const [first] = issuers
  if (first === undefined) {
    const names = pool.certificates.map((certificate) => certificate.subject.commonName ?? "")
    throw missing(`${JSON.stringify(leaf.issuer.commonName)}, the issuer of the leaf`, names, pool.refused)
  }
  for (const intermediate of issuers)
    for (const anchor of anchors)
      if (intermediate.issuer.commonName === anchor.name && isSignedBy(intermediate, anchor.spki))
        return { intermediate, anchor: ofProduct(anchor, product) }
  throw new VerifyError("ERR_CERT_UNTRUSTED", {
    at: placeOf(first),
    expected: `a signature by ${anchors.map(({ name }) => name).join(" or ") || "a pinned root"}`,
    found: `issuer ${JSON.stringify(first.issuer.commonName)} with another key`,
    hint: "the report is not from AMD hardware; for a simulated TEE, name its root with --trust-root",
  })
}

function ofProduct(anchor: TrustAnchor, product: SnpProduct): TrustAnchor {
  if (anchor.product === product) return anchor
  throw new VerifyError("ERR_SNP_PRODUCT", {
    at: "certificate chain",
    expected: `the root of ${product}`,
    found: anchor.name,
  })
}

/** AMD's names say what a key is for: an ASK issues VCEKs and an ASVK issues VLEKs, each for one product. */
function verifySnpNames(
  leaf: Certificate,
  intermediate: Certificate,
  anchor: TrustAnchor,
  facts: SnpLeaf,
): void {
  const prefix = anchor.name.slice(0, -`ARK-${anchor.product}`.length)
  const authority = facts.signer === "VCEK" ? `SEV-${facts.product}` : `SEV-VLEK-${facts.product}`
  for (const [certificate, expected] of [
    [leaf, `${prefix}SEV-${facts.signer}`],
    [intermediate, `${prefix}${authority}`],
  ] as const)
    if (certificate.subject.commonName !== expected)
      throw new VerifyError("ERR_CERT_NAME", {
        at: placeOf(certificate),
        expected: `subject ${JSON.stringify(expected)}`,
        found: JSON.stringify(certificate.subject.commonName),
      })
}

/** All of AMD's signatures are RSASSA-PSS with SHA-384 by 4096-bit keys; anything else is somebody else's. */
function verifySnpAlgorithms(path: readonly Certificate[]): void {
  for (const certificate of path) {
    const algorithm = certificate.signatureAlgorithm
    const fits =
      algorithm.scheme === "rsassa-pss" &&
      algorithm.hash === "sha384" &&
      algorithm.mgfHash === "sha384" &&
      algorithm.saltLength === 48 &&
      certificate.signature.length === 512
    if (!fits)
      throw new VerifyError("ERR_CERT_ALGORITHM", {
        at: placeOf(certificate),
        expected: "RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt 48, 4096 bits",
        found: `${algorithm.scheme}, ${algorithm.hash}, ${8 * certificate.signature.length} bits`,
      })
  }
}

/** Order of the group of P-384. Source: NIST SP 800-186, section 3.2.1.4. */
const P384_ORDER = BigInt(
  "0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
)

function verifyReportSignature(report: SnpReport, leaf: Certificate): void {
  const key = publicKeyOf(leaf.spki, placeOf(leaf))
  if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "secp384r1")
    throw new VerifyError("ERR_CERT_ALGORITHM", {
      at: placeOf(leaf),
      expected: "an EC key on P-384",
      found: key.asymmetricKeyDetails?.namedCurve ?? `${key.asymmetricKeyType}`,
    })
  const signature = Buffer.concat([
    scalar(report.signatureR, "signatureR"),
    scalar(report.signatureS, "signatureS"),
  ])
  if (!verify("sha384", report.signedBytes, { key, dsaEncoding: "ieee-p1363" }, signature))
    throw new VerifyError("ERR_SNP_SIGNATURE", {
      at: "snp-report.signature",
      expected: `a signature by the key of ${placeOf(leaf)}`,
      found: "another one",
      hint: "the report was altered, or it belongs to another certificate",
    })
}

/** 48 bytes big-endian from the report's 72 little-endian ones; from 1 to the group's order less one. */
function scalar(littleEndian: Uint8Array, field: string): Uint8Array {
  const bigEndian = littleEndian.toReversed()
  const value = BigInt(`0x${Buffer.from(bigEndian).toString("hex")}`)
  if (value === 0n || value >= P384_ORDER)
    throw new VerifyError("ERR_SNP_SIGNATURE", {
      at: `snp-report.${field}`,
      expected: "a number from 1 to the order of P-384 less one",
      found: value === 0n ? "0" : "a larger one",
    })
  return bigEndian.subarray(littleEndian.length - 48)
}

/** The chip, product and TCB that the leaf certificate was issued for are those that the report names. */
function verifyReportMatchesLeaf(report: SnpReport, facts: SnpLeaf): void {
  if (report.product !== null && report.product !== facts.product)
    throw new VerifyError("ERR_SNP_PRODUCT", {
      at: "snp-report.cpuid",
      expected: `${facts.productName}, as the certificate says`,
      found: report.product,
    })
  if (facts.hwId !== null) verifyChipId(report.chipId, facts.hwId)
  const reported = parseTcb(report.reportedTcb, facts.product)
  for (const component of tcbComponents(facts.product))
    if (reported[component] !== facts.tcb[component])
      throw new VerifyError("ERR_SNP_CERTIFICATE_TCB", {
        at: `snp-report.reportedTcb, ${component}`,
        expected: `${facts.tcb[component]}, as the certificate says`,
        found: `${reported[component]}`,
        hint: "get the certificate for the reported TCB from AMD",
      })
}

/** Turin's identifier is 8 bytes; the report pads it with zeros. A masked (zero) identifier proves no chip. */
function verifyChipId(chipId: Uint8Array, hwId: Uint8Array): void {
  const padded = new Uint8Array(chipId.length)
  padded.set(hwId)
  if (chipId.every((byte) => byte === 0) || !bytesEqual(chipId, padded))
    throw new VerifyError("ERR_SNP_CHIP_ID", {
      at: "snp-report.chipId",
      expected: shortHex(padded),
      found: shortHex(chipId),
      hint: "the certificate is another chip's, or the host masks the chip's identifier",
    })
}

function missing(what: string, names: readonly string[], refused: CodedError | null): VerifyError {
  return new VerifyError("ERR_SNP_ENDORSEMENT_MISSING", {
    at: "certificates of the report",
    expected: what,
    found: names.map((name) => JSON.stringify(name)).join(", ") || "no certificate",
    hint: "the host has to give its certificates to the VM, or get them from AMD's key distribution service",
    ...(refused === null ? {} : { cause: refused }),
  })
}
