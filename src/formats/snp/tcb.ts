import { ParseError } from "../../errors.ts"

/** Processor families whose reports are understood. Bergamo and Siena are Genoa in all that concerns attestation. */
export const SNP_PRODUCTS = ["Milan", "Genoa", "Turin"] as const
export type SnpProduct = (typeof SNP_PRODUCTS)[number]

/** A TCB version: security patch levels by component, each 0 to 255. Compared component by component, never as a number. */
export interface Tcb {
  /** Flexible micro-controller firmware; Turin and later, absent before. */
  readonly fmc?: number
  readonly bootloader: number
  readonly tee: number
  readonly snp: number
  readonly microcode: number
}
export type TcbComponent = keyof Tcb

/**
 * Byte of each component within the 8 bytes of TCB_VERSION. All other bytes are reserved and zero.
 * Source: AMD 56860 rev. 1.58, Table 3 "TCB_VERSION Structure" and its counterpart for Turin.
 */
const PLACES: Record<SnpProduct, readonly (readonly [TcbComponent, number])[]> = {
  Milan: [
    ["bootloader", 0],
    ["tee", 1],
    ["snp", 6],
    ["microcode", 7],
  ],
  Genoa: [
    ["bootloader", 0],
    ["tee", 1],
    ["snp", 6],
    ["microcode", 7],
  ],
  Turin: [
    ["fmc", 0],
    ["bootloader", 1],
    ["tee", 2],
    ["snp", 3],
    ["microcode", 7],
  ],
}

/** The components that a product's TCB has, in the order of its layout. */
export function tcbComponents(product: SnpProduct): readonly TcbComponent[] {
  return PLACES[product].map(([component]) => component)
}

/**
 * Reads the 8 bytes of a TCB_VERSION in the layout of `product`.
 * @throws ParseError ERR_MALFORMED (not 8 bytes), ERR_RESERVED_NOT_ZERO
 */
export function parseTcb(raw: Uint8Array, product: SnpProduct): Tcb {
  if (raw.length !== 8)
    throw new ParseError("ERR_MALFORMED", { at: "TCB version", expected: "8 bytes", found: `${raw.length}` })
  const places = new Map(PLACES[product].map(([component, index]) => [index, component]))
  const tcb: { -readonly [K in TcbComponent]?: number } = {}
  raw.forEach((byte, index) => {
    const component = places.get(index)
    if (component !== undefined) tcb[component] = byte
    else if (byte !== 0)
      throw new ParseError("ERR_RESERVED_NOT_ZERO", {
        at: `TCB version, byte ${index} in the layout of ${product}`,
        expected: "0",
        found: `${byte}`,
      })
  })
  const { fmc, bootloader = 0, tee = 0, snp = 0, microcode = 0 } = tcb
  return { ...(fmc === undefined ? {} : { fmc }), bootloader, tee, snp, microcode }
}

/** The 8 bytes of a TCB in the layout of `product`. @throws ParseError ERR_MALFORMED where a component is not 0 to 255 */
export function encodeTcb(tcb: Tcb, product: SnpProduct): Uint8Array {
  const raw = new Uint8Array(8)
  for (const [component, index] of PLACES[product]) {
    const value = tcb[component] ?? 0
    if (!Number.isInteger(value) || value < 0 || value > 255)
      throw new ParseError("ERR_MALFORMED", {
        at: `TCB ${component}`,
        expected: "0 to 255",
        found: `${value}`,
      })
    raw[index] = value
  }
  return raw
}

/**
 * The product of a processor by CPUID family (extended and base added) and model, or null for one that is not known.
 * Source: AMD 57230 rev. 1.00 "VCEK Certificate and KDS Interface Specification", and AMD processor programming references.
 */
export function productOfCpu(family: number, model: number): SnpProduct | null {
  if (family === 0x19 && model <= 0x0f) return "Milan"
  if (family === 0x19 && ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf)))
    return "Genoa"
  if (family === 0x1a && model <= 0x11) return "Turin"
  return null
}
