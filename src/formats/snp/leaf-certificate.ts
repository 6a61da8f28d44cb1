import { ParseError } from "../../errors.ts"
import type { Certificate } from "../x509/certificate.ts"
import { single, smallInteger, stringValue, TAG } from "../x509/der.ts"
import { SNP_PRODUCTS, type SnpProduct, type Tcb, type TcbComponent, tcbComponents } from "./tcb.ts"

/**
 * Object identifiers of AMD's extensions in VCEK and VLEK certificates.
 * Source: AMD 57230 rev. 1.00 "VCEK Certificate and KDS Interface Specification", the tables of certificate
 * fields for VCEK and VLEK.
 */
export const SNP_OID = {
  structVersion: "1.3.6.1.4.1.3704.1.1",
  productName: "1.3.6.1.4.1.3704.1.2",
  hwId: "1.3.6.1.4.1.3704.1.4",
  cspId: "1.3.6.1.4.1.3704.1.5",
} as const

/** Object identifier of the patch level of each TCB component. */
export const SNP_TCB_OID: Readonly<Record<TcbComponent, string>> = {
  bootloader: "1.3.6.1.4.1.3704.1.3.1",
  tee: "1.3.6.1.4.1.3704.1.3.2",
  snp: "1.3.6.1.4.1.3704.1.3.3",
  microcode: "1.3.6.1.4.1.3704.1.3.8",
  fmc: "1.3.6.1.4.1.3704.1.3.9",
}

/** Patch levels that AMD reserves: zero where they are present. */
const RESERVED_TCB_OIDS = [4, 5, 6, 7].map((number) => `1.3.6.1.4.1.3704.1.3.${number}`)

/** What a VCEK or VLEK certificate says about the chip and TCB it was made for. */
export interface SnpLeaf {
  readonly signer: "VCEK" | "VLEK"
  readonly product: SnpProduct
  /** As written: `Milan-B0`. */
  readonly productName: string
  readonly tcb: Tcb
  /** VCEK: the chip's identifier, 64 bytes, or 8 for Turin. Null in a VLEK. */
  readonly hwId: Uint8Array | null
  /** VLEK: the cloud provider: `CN=cc-us-east-2.amazonaws.com`. Null in a VCEK. */
  readonly cspId: string | null
}

/**
 * Reads AMD's extensions. A VCEK has a hardware identifier and a VLEK a provider's name; a certificate with both or
 * neither is refused.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_UNSUPPORTED (product),
 *   ERR_RESERVED_NOT_ZERO
 */
export function parseSnpLeaf(certificate: Certificate): SnpLeaf {
  const productName = required(certificate, SNP_OID.productName, "product name", text)
  const product = productOfName(productName)
  const hwId = certificate.extensions.get(SNP_OID.hwId)?.value ?? null
  const csp = certificate.extensions.get(SNP_OID.cspId)
  const cspId = csp === undefined ? null : text(csp.value, "leaf certificate, CSP identifier")
  if ((hwId === null) === (cspId === null))
    throw new ParseError("ERR_MALFORMED", {
      at: "leaf certificate",
      expected: "either a hardware identifier or a CSP identifier",
      found: hwId === null ? "neither" : "both",
    })
  // Unlike its neighbours this extension holds raw bytes, without a DER string around them.
  const hwIdSize = product === "Turin" ? 8 : 64
  if (hwId !== null && hwId.length !== hwIdSize)
    throw new ParseError("ERR_MALFORMED", {
      at: "leaf certificate, hardware identifier",
      expected: `${hwIdSize} bytes for ${product}`,
      found: `${hwId.length}`,
    })
  const tcb = parseLeafTcb(certificate, product)
  return { signer: hwId === null ? "VLEK" : "VCEK", product, productName, tcb, hwId, cspId }
}

function parseLeafTcb(certificate: Certificate, product: SnpProduct): Tcb {
  const level = (component: TcbComponent) =>
    required(certificate, SNP_TCB_OID[component], `TCB ${component}`, patchLevel)
  for (const oid of RESERVED_TCB_OIDS) {
    const extension = certificate.extensions.get(oid)
    if (extension !== undefined && patchLevel(extension.value, "leaf certificate, reserved TCB") !== 0)
      throw new ParseError("ERR_RESERVED_NOT_ZERO", { at: `leaf certificate, extension ${oid}` })
  }
  const hasFmc = tcbComponents(product).includes("fmc")
  if (!hasFmc && certificate.extensions.has(SNP_TCB_OID.fmc))
    throw new ParseError("ERR_MALFORMED", {
      at: "leaf certificate",
      expected: `no FMC patch level for ${product}`,
      found: "one",
    })
  const rest = {
    bootloader: level("bootloader"),
    tee: level("tee"),
    snp: level("snp"),
    microcode: level("microcode"),
  }
  return hasFmc ? { fmc: level("fmc"), ...rest } : rest
}

/** `Milan-B0` is a stepping of `Milan`. */
function productOfName(name: string): SnpProduct {
  const base = name.split("-")[0]
  const product = SNP_PRODUCTS.find((candidate) => candidate === base)
  if (product === undefined)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "leaf certificate, product name",
      expected: SNP_PRODUCTS.join(", "),
      found: JSON.stringify(name),
      hint: "use a newer cosmian_vm",
    })
  return product
}

function required<T>(
  certificate: Certificate,
  oid: string,
  what: string,
  read: (value: Uint8Array, place: string) => T,
): T {
  const extension = certificate.extensions.get(oid)
  const place = `leaf certificate, ${what}`
  if (extension === undefined)
    throw new ParseError("ERR_MALFORMED", { at: place, expected: `extension ${oid}`, found: "none" })
  return read(extension.value, place)
}

function text(value: Uint8Array, place: string): string {
  return stringValue(single(value, TAG.ia5String, place))
}

function patchLevel(value: Uint8Array, place: string): number {
  const level = smallInteger(single(value, TAG.integer, place))
  if (level > 255)
    throw new ParseError("ERR_MALFORMED", { at: place, expected: "0 to 255", found: `${level}` })
  return level
}
