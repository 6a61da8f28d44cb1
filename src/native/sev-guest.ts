import { constants as osConstants } from "node:os"
import { NativeError } from "../errors.ts"
import { certificateNameOf, parseCertificateTable } from "../formats/snp/certificate-table.ts"
import { SNP_REPORT_SIZE } from "../formats/snp/report.ts"
import { DeviceWorker } from "./device-worker.ts"
import type {
  DerivedKeyField,
  DerivedKeyRequest,
  KeyDerivation,
  ReportDevice,
  TeeCertificate,
  TeeReport,
} from "./ports.ts"

export const SEV_GUEST_PATH = "/dev/sev-guest"

/**
 * ioctl numbers: _IOWR('S', n, struct snp_guest_request_ioctl), which is 32 bytes.
 * Source: Linux, include/uapi/linux/sev-guest.h.
 */
export const SEV_GUEST_IOCTL = {
  getReport: 0xc0205300,
  getDerivedKey: 0xc0205301,
  getExtReport: 0xc0205302,
} as const

/** struct snp_guest_request_ioctl: u8 version, u64 request, u64 response, u64 exitinfo2. */
export const GUEST_REQUEST = { size: 32, version: 0, request: 8, response: 16, exitInfo2: 24 } as const
/** struct snp_report_req: 64 bytes of report data, u32 VMPL, 28 reserved. */
const REPORT_REQUEST = { size: 96, vmpl: 64 }
/** struct snp_ext_report_req: the former, u64 address and u32 length of a buffer for certificates. */
const EXT_REPORT_REQUEST = { size: 112, certificates: 96, length: 104 }
/** struct snp_report_resp: 4000 bytes that hold MSG_REPORT_RSP: u32 status, u32 size, 24 reserved, the report. */
const REPORT_RESPONSE = { size: 4000, reportSize: 4, report: 32 }
/**
 * struct snp_derived_key_req: u32 root key, 4 reserved, u64 fields to mix in, u32 VMPL, u32 guest SVN, u64 TCB version.
 * Source: Linux, include/uapi/linux/sev-guest.h; AMD 56860, table "MSG_KEY_REQ Message Structure".
 */
const KEY_REQUEST = { size: 32, rootKey: 0, fields: 8, vmpl: 16, guestSvn: 20, tcbVersion: 24 }
/** struct snp_derived_key_resp holds MSG_KEY_RSP: u32 status, 28 reserved, the key. */
const KEY_RESPONSE = { size: 64, key: 32 }
const ROOT_KEYS: Readonly<Record<DerivedKeyRequest["rootKey"], number>> = { vcek: 0, vmrk: 1 }
/** Bits of GUEST_FIELD_SELECT. Source: AMD 56860, table "GUEST_FIELD_SELECT". */
const FIELD_BITS: Readonly<Record<DerivedKeyField, bigint>> = {
  policy: 1n << 0n,
  "image-id": 1n << 1n,
  "family-id": 1n << 2n,
  measurement: 1n << 3n,
  "guest-svn": 1n << 4n,
  tcb: 1n << 5n,
}
/** The kernel takes no longer certificate buffer (SEV_FW_BLOB_MAX_SIZE), and whole pages only. */
const CERTIFICATE_BUFFER = 16 * 1024

/** Firmware's status for a VMPL that is more privileged than the caller. Source: AMD 56860 rev. 1.58, table "MSG_REPORT_RSP". */
const STATUS_INVALID_PARAM = 0x16
const VMM_INVALID_LENGTH = 1n
const VMM_BUSY = 2n
const ATTEMPTS = 20
const PAUSE_MS = 100

/** The kernel's side of the device. Calls block. */
export interface SevGuestIoctl {
  /** Where the buffer lies, for pointers inside requests. It must stay referenced until the call is over. */
  addressOf(buffer: Uint8Array): bigint
  /** One ioctl; errno 0 where it succeeded. The kernel writes into `response`. */
  call(command: number, request: Uint8Array, response: Uint8Array): { errno: number; exitInfo2: bigint }
}

/** What the sev-guest thread does. */
export type SevGuestOperations = {
  /** @throws NativeError ERR_SNP_DEVICE */
  probe(argument: null): void
  /** @throws NativeError ERR_SNP_DEVICE, ERR_SNP_FIRMWARE */
  getReport(reportData: Uint8Array): TeeReport
  /** @throws NativeError ERR_SNP_DEVICE, ERR_SNP_FIRMWARE */
  deriveKey(request: DerivedKeyRequest): Uint8Array
}

/** The kernel's driver for AMD's guests, called in a thread of its own. @throws NativeError ERR_SNP_DEVICE, ERR_IO */
export async function openSevGuest(path: string = SEV_GUEST_PATH): Promise<ReportDevice & KeyDerivation> {
  const worker = new DeviceWorker<SevGuestOperations>("sev-guest", path)
  try {
    await worker.call("probe", null)
  } catch (error) {
    await worker.close()
    throw error
  }
  return {
    provider: "sev-guest",
    getReport: (reportData) => worker.call("getReport", reportData),
    deriveKey: (request) => worker.call("deriveKey", request),
  }
}

/**
 * One report, with the host's certificates where the kernel gives them. The most privileged VMPL that the firmware grants
 * is used: 0 for an ordinary guest, a lower privilege under an SVSM.
 * @param sleep blocks for that many milliseconds; the host may be busy.
 * @throws NativeError ERR_SNP_DEVICE, ERR_SNP_FIRMWARE. @throws ParseError for a bad certificate table
 */
export function requestReport(
  ioctl: SevGuestIoctl,
  reportData: Uint8Array,
  sleep: (milliseconds: number) => void,
): TeeReport {
  if (reportData.length !== 64)
    throw new NativeError("ERR_SNP_DEVICE", {
      at: "report data",
      expected: "64 bytes",
      found: `${reportData.length}`,
    })
  for (let vmpl = 0; ; vmpl++) {
    const { response, table } = requestAt(ioctl, reportData, vmpl, sleep)
    const status = viewOf(response).getUint32(0, true)
    if (status === STATUS_INVALID_PARAM && vmpl < 3) continue
    if (status !== 0)
      throw new NativeError("ERR_SNP_FIRMWARE", {
        at: "SNP_GET_REPORT",
        expected: "status 0",
        found: `status 0x${status.toString(16)}`,
      })
    return { kind: "sev-snp", report: reportOf(response), certificates: namedCertificates(table) }
  }
}

/**
 * A key that the firmware derives, 32 bytes. As for reports, the most privileged VMPL that it grants is used: VMPL is mixed in,
 * so a key of a less privileged one is another.
 * @param sleep as for reports. @throws NativeError ERR_SNP_DEVICE, ERR_SNP_FIRMWARE
 */
export function requestDerivedKey(
  ioctl: SevGuestIoctl,
  { rootKey, fields, guestSvn, tcbVersion }: DerivedKeyRequest,
  sleep: (milliseconds: number) => void,
): Uint8Array {
  for (let vmpl = 0; ; vmpl++) {
    const request = new Uint8Array(KEY_REQUEST.size)
    const view = viewOf(request)
    view.setUint32(KEY_REQUEST.rootKey, ROOT_KEYS[rootKey], true)
    const selected = fields.reduce((bits, field) => bits | FIELD_BITS[field], 0n)
    view.setBigUint64(KEY_REQUEST.fields, selected, true)
    view.setUint32(KEY_REQUEST.vmpl, vmpl, true)
    // What is not selected is not mixed in, and has to be within its bounds all the same: zero always is.
    if (fields.includes("guest-svn")) view.setUint32(KEY_REQUEST.guestSvn, guestSvn, true)
    if (fields.includes("tcb")) view.setBigUint64(KEY_REQUEST.tcbVersion, tcbVersion, true)
    const response = new Uint8Array(KEY_RESPONSE.size)
    if (patiently(ioctl, SEV_GUEST_IOCTL.getDerivedKey, request, response, sleep) !== "done")
      throw new NativeError("ERR_SNP_DEVICE", {
        at: "SNP_GET_DERIVED_KEY",
        expected: "a kernel and host that know this request",
        found: "one that does not",
      })
    const status = viewOf(response).getUint32(0, true)
    if (status === 0) {
      const key = response.slice(KEY_RESPONSE.key, KEY_RESPONSE.size)
      response.fill(0)
      if (key.every((byte) => byte === 0))
        throw new NativeError("ERR_SNP_FIRMWARE", { at: "SNP_GET_DERIVED_KEY", found: "a key of zeros" })
      return key
    }
    if (status === STATUS_INVALID_PARAM && vmpl < 3) continue
    throw new NativeError("ERR_SNP_FIRMWARE", {
      at: "SNP_GET_DERIVED_KEY",
      expected: "status 0",
      found: `status 0x${status.toString(16)}`,
      hint: rootKey === "vmrk" ? "a VM without migration agent has no VMRK" : "see the kernel log",
    })
  }
}

/** Certificates of a certificate table, by name. @throws ParseError as parseCertificateTable */
export function namedCertificates(table: Uint8Array): TeeCertificate[] {
  return parseCertificateTable(table).map(({ guid, der }) => ({ name: certificateNameOf(guid), guid, der }))
}

interface Answer {
  readonly response: Uint8Array
  /** Certificate table; empty where there is none. */
  readonly table: Uint8Array
}

function requestAt(
  ioctl: SevGuestIoctl,
  reportData: Uint8Array,
  vmpl: number,
  sleep: (milliseconds: number) => void,
): Answer {
  const table = new Uint8Array(CERTIFICATE_BUFFER)
  const request = new Uint8Array(EXT_REPORT_REQUEST.size)
  request.set(reportData)
  const view = viewOf(request)
  view.setUint32(REPORT_REQUEST.vmpl, vmpl, true)
  view.setBigUint64(EXT_REPORT_REQUEST.certificates, ioctl.addressOf(table), true)
  view.setUint32(EXT_REPORT_REQUEST.length, table.length, true)
  const response = new Uint8Array(REPORT_RESPONSE.size)
  const extended = patiently(ioctl, SEV_GUEST_IOCTL.getExtReport, request, response, sleep)
  if (extended === "done") return { response, table }
  // The kernel does not know the extended form, or the host has more certificates than the kernel hands over: the report
  // alone is worth having, for certificates can be had elsewhere.
  const plain = patiently(
    ioctl,
    SEV_GUEST_IOCTL.getReport,
    request.subarray(0, REPORT_REQUEST.size),
    response,
    sleep,
  )
  if (plain === "done") return { response, table: new Uint8Array(0) }
  throw new NativeError("ERR_SNP_DEVICE", {
    at: "SNP_GET_REPORT",
    expected: "a kernel that knows this request",
    found: "one that does not",
    hint: "use a kernel with the sev-guest driver (5.19 or later)",
  })
}

function patiently(
  ioctl: SevGuestIoctl,
  command: number,
  request: Uint8Array,
  response: Uint8Array,
  sleep: (milliseconds: number) => void,
): "done" | "not-possible" {
  const { EAGAIN, EINTR, ENOTTY } = osConstants.errno
  for (let attempt = 1; ; attempt++) {
    const { errno, exitInfo2 } = ioctl.call(command, request, response)
    if (errno === 0) return "done"
    const vmm = exitInfo2 >> 32n
    if (errno === ENOTTY || vmm === VMM_INVALID_LENGTH) return "not-possible"
    const busy = errno === EAGAIN || errno === EINTR || vmm === VMM_BUSY
    if (!busy || attempt === ATTEMPTS) throw failed(command, errno, exitInfo2, busy)
    sleep(PAUSE_MS)
  }
}

function failed(command: number, errno: number, exitInfo2: bigint, busy: boolean): NativeError {
  const firmware = exitInfo2 & 0xffff_ffffn
  const found = `${errnoName(errno)}, firmware 0x${firmware.toString(16)}, host 0x${(exitInfo2 >> 32n).toString(16)}`
  return new NativeError("ERR_SNP_FIRMWARE", {
    at: command === SEV_GUEST_IOCTL.getDerivedKey ? "SNP_GET_DERIVED_KEY" : "SNP_GET_REPORT",
    found,
    hint: busy ? "the host limits how often reports are made: try again later" : "see the kernel log",
  })
}

function reportOf(response: Uint8Array): Uint8Array {
  const size = viewOf(response).getUint32(REPORT_RESPONSE.reportSize, true)
  if (size !== SNP_REPORT_SIZE)
    throw new NativeError("ERR_SNP_DEVICE", {
      at: "SNP_GET_REPORT",
      expected: `${SNP_REPORT_SIZE} bytes`,
      found: `${size}`,
    })
  return response.slice(REPORT_RESPONSE.report, REPORT_RESPONSE.report + SNP_REPORT_SIZE)
}

/** `ENOTTY`, or the number where it has no name. */
export function errnoName(errno: number): string {
  const named = Object.entries(osConstants.errno).find(([, value]) => value === errno)
  return named?.[0] ?? `errno ${errno}`
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
