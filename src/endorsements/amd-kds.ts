import { EndorsementError } from "../errors.ts"
import { bytesEqual, fromHex, shortHex, toHex } from "../formats/hex.ts"
import { parsePem } from "../formats/pem.ts"
import { parseSnpLeaf } from "../formats/snp/leaf-certificate.ts"
import type { SnpReport } from "../formats/snp/report.ts"
import {
  parseTcb,
  SNP_PRODUCTS,
  type SnpProduct,
  type Tcb,
  type TcbComponent,
  tcbComponents,
} from "../formats/snp/tcb.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { MAX_CRL_BYTES, parseCrl } from "../formats/x509/crl.ts"
import { isSigned, isSignedBy } from "../verify/certificate-chain.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import type { Resource, Services, Validity, VendorDocument } from "./resource.ts"
import { asIs, unexpected } from "./service-answer.ts"

/** The kind of key that signs reports decides which intermediate AMD gives. */
export type KdsKey = "vcek" | "vlek"

/**
 * Query parameters of each TCB component, in AMD's order. Turin has the first one, earlier products do not.
 * Source: AMD 57230 rev. 1.00 "VCEK Certificate and KDS Interface Specification", section 4.1.
 */
const PARAMETERS: Readonly<Record<TcbComponent, string>> = {
  fmc: "fmcSPL",
  bootloader: "blSPL",
  tee: "teeSPL",
  snp: "snpSPL",
  microcode: "ucodeSPL",
}

/** Path of a chip's VCEK. @param hwId 64 bytes, or 8 for Turin. */
export function vcekPath(product: SnpProduct, hwId: Uint8Array, tcb: Tcb): string {
  const query = tcbComponents(product).map(
    (component) => `${PARAMETERS[component]}=${String(tcb[component] ?? 0).padStart(2, "0")}`,
  )
  return `/vcek/v1/${product}/${toHex(hwId)}?${query.join("&")}`
}

/** Path of ASK (or ASVK) and ARK, PEM. */
export function certChainPath(key: KdsKey, product: SnpProduct): string {
  return `/${key}/v1/${product}/cert_chain`
}

/** Path of the ARK's revocation list, DER. Both keys name the same list. */
export function crlPath(key: KdsKey, product: SnpProduct): string {
  return `/${key}/v1/${product}/crl`
}

/**
 * The identifier by which AMD knows the chip of a report: 64 bytes, or Turin's 8, which the report pads with zeros.
 * @throws EndorsementError ERR_COLLATERAL_UNKNOWN where the host masks it
 */
export function hwIdOf({ chipId }: SnpReport, product: SnpProduct): Uint8Array {
  const size = product === "Turin" ? 8 : 64
  const masked = chipId.every((byte) => byte === 0)
  if (masked || chipId.subarray(size).some((byte) => byte !== 0))
    throw new EndorsementError("ERR_COLLATERAL_UNKNOWN", {
      at: "snp-report.chipId",
      expected: `${size} bytes that identify a ${product} chip`,
      found: masked ? "zeros" : `more than ${size} bytes`,
      hint: masked
        ? "the host masks the chip: it has to give the VCEK to the VM itself"
        : "check the product",
    })
  return chipId.subarray(0, size)
}

/** Path of the VCEK that signed a report. @throws EndorsementError ERR_COLLATERAL_UNKNOWN; ParseError */
export function vcekPathOf(report: SnpReport, product: SnpProduct): string {
  return vcekPath(product, hwIdOf(report, product), parseTcb(report.reportedTcb, product))
}

/**
 * The resource behind a path of AMD's service, or null where there is none. Answers are checked against the pinned roots.
 * @param anchors of all products; simulated ones have no service and are not looked at.
 */
export function kdsResource(
  path: string,
  { kdsUrl }: Services,
  anchors: readonly TrustAnchor[],
): Resource | null {
  const match = /^\/(?<key>vcek|vlek)\/v1\/(?<product>[A-Za-z]+)\/(?<rest>.+)$/.exec(path)
  const product = SNP_PRODUCTS.find((name) => name === match?.groups?.["product"])
  const rest = match?.groups?.["rest"]
  const key = match?.groups?.["key"]
  const anchor = anchors.find((candidate) => candidate.product === product)
  if (product === undefined || rest === undefined || anchor === undefined) return null
  const common = { service: "amd", path, url: `${kdsUrl}${path}`, chainHeaders: [], decode: asIs } as const
  if (rest === "crl")
    return {
      ...common,
      what: `revocation list of ${product}`,
      accept: "application/pkix-crl, */*",
      maxBytes: MAX_CRL_BYTES,
      inspect: ({ body }) => inspectCrl(body, anchor),
    }
  if (rest === "cert_chain")
    return {
      ...common,
      what: `${key === "vlek" ? "ASVK" : "ASK"} and ARK of ${product}`,
      accept: "application/x-pem-file, */*",
      maxBytes: 64 * 1024,
      inspect: ({ body }) => inspectChain(body, anchor, key === "vlek" ? "vlek" : "vcek"),
    }
  const chip = parseChip(rest, product)
  if (chip === null || key !== "vcek") return null
  return {
    ...common,
    what: `VCEK of ${product} chip ${shortHex(chip.hwId)}`,
    accept: "application/pkix-cert, */*",
    maxBytes: 32 * 1024,
    inspect: ({ body }) => inspectVcek(body, product, chip),
  }
}

/** Certificates of a cert_chain document: ASK or ASVK first, then the ARK. @throws ParseError */
export function certificatesOfChain({ body }: VendorDocument): Uint8Array[] {
  return parsePem(new TextDecoder().decode(body))
    .filter(({ label }) => label === "CERTIFICATE")
    .map(({ der }) => der)
}

interface Chip {
  readonly hwId: Uint8Array
  readonly tcb: Tcb
}

/** The exact inverse of `vcekPath`, so that one chip and TCB has one name. */
function parseChip(rest: string, product: SnpProduct): Chip | null {
  const [id = "", query = ""] = rest.split("?")
  const hwId = fromHex(id)
  const values = new Map(query.split("&").map((pair) => [pair.split("=")[0], Number(pair.split("=")[1])]))
  const tcb: Tcb = {
    ...(product === "Turin" ? { fmc: values.get(PARAMETERS.fmc) ?? Number.NaN } : {}),
    bootloader: values.get(PARAMETERS.bootloader) ?? Number.NaN,
    tee: values.get(PARAMETERS.tee) ?? Number.NaN,
    snp: values.get(PARAMETERS.snp) ?? Number.NaN,
    microcode: values.get(PARAMETERS.microcode) ?? Number.NaN,
  }
  if (hwId?.length !== (product === "Turin" ? 8 : 64)) return null
  return vcekPath(product, hwId, tcb) === `/vcek/v1/${product}/${rest}` ? { hwId, tcb } : null
}

function inspectCrl(body: Uint8Array, anchor: TrustAnchor): Validity {
  const crl = parseCrl(body)
  const place = `revocation list of ${anchor.product}`
  if (crl.issuer.commonName !== anchor.name) throw unexpected(place, `the list of ${anchor.name}`)
  if (!isSigned(crl, anchor.spki, place)) throw unexpected(place, `a list signed by ${anchor.name}`)
  return { from: crl.thisUpdate, until: crl.nextUpdate ?? crl.thisUpdate }
}

function inspectChain(body: Uint8Array, anchor: TrustAnchor, key: KdsKey): Validity {
  const place = `certificate chain of ${anchor.product}`
  const certificates = certificatesOfChain({ body, issuerChain: null }).map(parseCertificate)
  const [intermediate, root] = certificates
  if (intermediate === undefined || root === undefined || certificates.length !== 2)
    throw unexpected(place, "two certificates", `${certificates.length}`)
  const name = key === "vlek" ? `SEV-VLEK-${anchor.product}` : `SEV-${anchor.product}`
  if (!(intermediate.subject.commonName ?? "").endsWith(name)) throw unexpected(place, name)
  if (!bytesEqual(root.spki, anchor.spki)) throw unexpected(place, `the pinned key of ${anchor.name}`)
  if (!isSignedBy(intermediate, anchor.spki)) throw unexpected(place, `${name} signed by ${anchor.name}`)
  return narrowest(certificates)
}

function inspectVcek(body: Uint8Array, product: SnpProduct, chip: Chip): Validity {
  const place = `VCEK of ${product} chip ${shortHex(chip.hwId)}`
  const certificate = parseCertificate(body)
  const facts = parseSnpLeaf(certificate)
  const fits =
    facts.product === product &&
    facts.hwId !== null &&
    bytesEqual(facts.hwId, chip.hwId) &&
    tcbComponents(product).every((component) => facts.tcb[component] === chip.tcb[component])
  if (!fits) throw unexpected(place, "the certificate of this chip and TCB", "another chip's or TCB's")
  return narrowest([certificate])
}

function narrowest(certificates: readonly Certificate[]): Validity {
  return {
    from: new Date(Math.max(...certificates.map(({ notBefore }) => notBefore.getTime()))),
    until: new Date(Math.min(...certificates.map(({ notAfter }) => notAfter.getTime()))),
  }
}
