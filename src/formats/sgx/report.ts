import { bytes, type LayoutValue, layout, u16, zero } from "../layout.ts"

/**
 * SGX enclave report body: 384 bytes, integers little-endian. It is the body of an SGX quote, and what a quoting enclave
 * says about itself in every quote.
 * Source: Intel SGX ECDSA QuoteGenReference, rev. 1.23, section A.4, table "Enclave Report Body";
 * Intel SDM, volume 3D, section 38.15 "REPORT".
 */
export const SGX_REPORT = layout("sgx-report", 384, {
  cpuSvn: bytes(0, 16),
  miscSelect: bytes(16, 4), // kept as bytes: masks of Intel's documents are compared byte by byte
  _reserved0: zero(20, 12),
  isvExtProdId: bytes(32, 16),
  attributes: bytes(48, 16), // FLAGS, then XFRM
  mrEnclave: bytes(64, 32),
  _reserved1: zero(96, 32),
  mrSigner: bytes(128, 32),
  _reserved2: zero(160, 32),
  configId: bytes(192, 64),
  isvProdId: u16(256),
  isvSvn: u16(258),
  configSvn: u16(260),
  _reserved3: zero(262, 42),
  isvFamilyId: bytes(304, 16),
  reportData: bytes(320, 64),
})
export type SgxReport = LayoutValue<typeof SGX_REPORT.fields>

/** Bits of ATTRIBUTES.FLAGS. Source: Intel SDM, volume 3D, section 38.7.1, table "Layout of ATTRIBUTES Structure". */
export const SGX_FLAG = { init: 0, debug: 1, mode64: 2, provisionKey: 4, launchKey: 5, kss: 7 } as const

/** Whether a bit of FLAGS is set. */
export function hasSgxFlag({ attributes }: Pick<SgxReport, "attributes">, bit: number): boolean {
  return (((attributes[Math.floor(bit / 8)] ?? 0) >> (bit % 8)) & 1) === 1
}
