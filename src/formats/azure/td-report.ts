import { ParseError } from "../../errors.ts"
import { bytes, type LayoutValue, layout, u8, u64, zero } from "../layout.ts"

/** TDREPORT_STRUCT: bytes. */
export const TD_REPORT_SIZE = 1024
/** REPORTTYPE.TYPE of a trust domain; 0x00 is an SGX enclave. */
const TYPE_TDX = 0x81

/**
 * TDREPORT_STRUCT: REPORTMACSTRUCT (256 bytes), TEE_TCB_INFO (239), 17 reserved, TDINFO_STRUCT (512). Its MAC can only be
 * checked on the very processor that made it: elsewhere it proves nothing until a quote over it does.
 * Source: Intel TDX Module 1.5 ABI Specification, rev. 348551-004, tables "TDREPORT_STRUCT", "REPORTMACSTRUCT",
 * "TEE_TCB_INFO", "TDINFO_STRUCT".
 */
const TD_REPORT = layout("td-report", TD_REPORT_SIZE, {
  type: u8(0),
  subtype: u8(1),
  version: u8(2), // 0, or 1 where a service TD is bound
  _reserved0: zero(3, 13),
  cpuSvn: bytes(16, 16),
  teeTcbInfoHash: bytes(32, 48), // SHA-384
  teeInfoHash: bytes(80, 48), // SHA-384
  reportData: bytes(128, 64),
  _reserved1: zero(192, 32),
  mac: bytes(224, 32),
  teeTcbInfoValid: u64(256), // which fields of TEE_TCB_INFO hold something
  teeTcbSvn: bytes(264, 16),
  mrSeam: bytes(280, 48),
  mrSignerSeam: bytes(328, 48),
  seamAttributes: u64(376),
  teeTcbSvn2: bytes(384, 16),
  _reserved2: zero(400, 112),
  tdAttributes: u64(512),
  xfam: u64(520),
  mrTd: bytes(528, 48),
  mrConfigId: bytes(576, 48),
  mrOwner: bytes(624, 48),
  mrOwnerConfig: bytes(672, 48),
  rtmr0: bytes(720, 48),
  rtmr1: bytes(768, 48),
  rtmr2: bytes(816, 48),
  rtmr3: bytes(864, 48),
  servTdHash: bytes(912, 48),
  _reserved3: zero(960, 64),
})

export type TdReport = LayoutValue<typeof TD_REPORT.fields>

/** Whether these bytes say of themselves that they are a trust domain's report, whatever else is in them. */
export function isTdReport(raw: Uint8Array): boolean {
  return raw[0] === TYPE_TDX && raw[1] === 0
}

/**
 * Reads a TDREPORT. Structure only.
 * @param raw 1024 bytes.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_RESERVED_NOT_ZERO, ERR_UNSUPPORTED (type, version)
 */
export function parseTdReport(raw: Uint8Array): TdReport {
  const report = TD_REPORT.parse(raw)
  if (!isTdReport(raw) || report.version > 1)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "td-report, REPORTTYPE",
      expected: "type 0x81, subtype 0, version 0 or 1",
      found: `type 0x${report.type.toString(16)}, subtype ${report.subtype}, version ${report.version}`,
    })
  return report
}

/** Bytes of a TDREPORT, MAC as given. @throws ParseError ERR_MALFORMED where a value does not fit its field */
export function encodeTdReport(report: TdReport): Uint8Array {
  return TD_REPORT.encode(report)
}
