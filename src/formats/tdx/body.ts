import { bytes, type LayoutValue, layout, u64 } from "../layout.ts"

/** Fields of the body of TDX 1.0, which that of 1.5 begins with. Digests are SHA-384. */
const TD_1_0 = {
  teeTcbSvn: bytes(0, 16),
  mrSeam: bytes(16, 48),
  mrSignerSeam: bytes(64, 48),
  seamAttributes: bytes(112, 8),
  tdAttributes: u64(120),
  xfam: u64(128),
  mrTd: bytes(136, 48),
  mrConfigId: bytes(184, 48),
  mrOwner: bytes(232, 48),
  mrOwnerConfig: bytes(280, 48),
  rtmr0: bytes(328, 48),
  rtmr1: bytes(376, 48),
  rtmr2: bytes(424, 48),
  rtmr3: bytes(472, 48),
  reportData: bytes(520, 64),
} as const

/**
 * The TD's report in a quote, integers little-endian.
 * Source: Intel TDX DCAP Quoting Library API, rev. 0.9, section A.3.2 "TD Quote Body" and A.4.3 "TD Quote Body for TDX 1.5".
 */
export const TD_BODY = {
  "1.0": layout("td-body", 584, TD_1_0),
  "1.5": layout("td-body-1.5", 648, { ...TD_1_0, teeTcbSvn2: bytes(584, 16), mrServiceTd: bytes(600, 48) }),
} as const

export type BodyVersion = keyof typeof TD_BODY

/** A TD's report. Nothing in it is verified. */
export type TdBody = LayoutValue<typeof TD_1_0> & {
  readonly version: BodyVersion
  readonly raw: Uint8Array
  /** RTMR0 to RTMR3. */
  readonly rtmrs: readonly Uint8Array[]
  /** TCB of the module that runs now, where an update replaced the one that started the TD; null before TDX 1.5. */
  readonly teeTcbSvn2: Uint8Array | null
  /** Measurement of the service TDs that are bound to the TD; null before TDX 1.5. */
  readonly mrServiceTd: Uint8Array | null
}

/**
 * Bits of TD ATTRIBUTES. Source: Intel TDX Module Base Architecture Specification, 348549-002, section "ATTRIBUTES";
 * bits 7 to 0 (TUD) make a TD untrusted when any is set.
 */
export const TD_ATTRIBUTE = {
  debug: 0n,
  lass: 27n,
  septVeDisable: 28n,
  migratable: 29n,
  pks: 30n,
  keyLocker: 31n,
  tpa: 62n,
  perfmon: 63n,
} as const

/** Mask of the bits that make a TD untrusted: all must be zero. */
export const TD_UNTRUSTED = 0xffn

/** Reads the body of a quote. @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES */
export function parseTdBody(raw: Uint8Array, version: BodyVersion): TdBody {
  const added =
    version === "1.5"
      ? TD_BODY["1.5"].parse(raw)
      : { ...TD_BODY["1.0"].parse(raw), teeTcbSvn2: null, mrServiceTd: null }
  return { ...added, version, raw, rtmrs: [added.rtmr0, added.rtmr1, added.rtmr2, added.rtmr3] }
}
