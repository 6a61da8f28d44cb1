/**
 * What Linux's sev-guest driver does with its three ioctls, over a simulated TEE.
 * Source: Linux uapi header linux/sev-guest.h; Documentation/virt/coco/sev-guest.rst; AMD 56860 rev. 1.55,
 * Tables "MSG_REPORT_REQ", "MSG_REPORT_RSP", "MSG_KEY_REQ" and "MSG_KEY_RSP".
 */
import { createHmac } from "node:crypto"
import { ERRNO, type IoctlCall, type IoctlReply, type Region, viewOf } from "./cuse.ts"

/** The hardware behind the driver. */
export interface SnpHardware {
  /** ATTESTATION_REPORT (1184 bytes) over 64 bytes of report data. */
  report(reportData: Uint8Array): Promise<Uint8Array>
  /** The certificate table that the host provides. */
  certificateTable(): Promise<Uint8Array>
  /** Secret of the simulated chip, from which derived keys are made. */
  readonly rootSecret: Uint8Array
}

/** _IOWR('S', number, struct snp_guest_request_ioctl of 32 bytes). */
export const IOCTL = {
  getReport: 0xc0205300,
  getDerivedKey: 0xc0205301,
  getExtendedReport: 0xc0205302,
} as const

const ENVELOPE = 32
const REPORT_REQUEST = 96
const EXTENDED_REQUEST = 112
const KEY_REQUEST = 32
const REPORT_RESPONSE = 4000
const KEY_RESPONSE = 64
const CERTIFICATES_LENGTH_AT = 104
const LARGEST_CERTIFICATES = 0x4000
const PAGE = 4096
const INVALID_PARAMETERS = 0x16
/** exitinfo2 with SNP_GUEST_VMM_ERR_INVALID_LEN in its upper half. */
const INVALID_LENGTH = 1n << 32n

/**
 * Answers one stage of an ioctl. Three stages: nothing fetched; the envelope; envelope and request, at which the
 * regions to write are known and asked for; then the same again with those.
 */
export async function answerSevGuest(call: IoctlCall, hardware: SnpHardware): Promise<IoctlReply> {
  const requestSize = REQUEST_SIZE.get(call.command)
  if (requestSize === undefined) return fail(ERRNO.ENOTTY)
  const envelope: Region = { address: call.argument, size: ENVELOPE }
  if (call.input.length < ENVELOPE) return { kind: "fetch", read: [envelope], write: [] }

  const view = viewOf(call.input)
  const addresses = { request: view.getBigUint64(8, true), response: view.getBigUint64(16, true) }
  if (view.getUint8(0) === 0 || addresses.request === 0n || addresses.response === 0n) {
    return fail(ERRNO.EINVAL)
  }
  const read = [envelope, { address: addresses.request, size: requestSize }]
  if (call.input.length === ENVELOPE) return { kind: "fetch", read, write: [] }

  const request = call.input.subarray(ENVELOPE)
  const outcome = await perform(call.command, request, call.argument, addresses, hardware)
  const writable = outcome.writes.reduce((sum, part) => sum + part.bytes.length, 0)
  if (writable === 0) return { kind: "done", result: outcome.result, output: new Uint8Array(0) }
  if (call.outputSize === 0) {
    const write = outcome.writes.map(({ address, bytes }) => ({ address, size: bytes.length }))
    return { kind: "fetch", read, write }
  }
  // The caller changed its request between the stages.
  if (call.outputSize !== writable) return fail(ERRNO.EFAULT)
  return {
    kind: "done",
    result: outcome.result,
    output: Buffer.concat(outcome.writes.map((part) => part.bytes)),
  }
}

const REQUEST_SIZE: ReadonlyMap<number, number> = new Map([
  [IOCTL.getReport, REPORT_REQUEST],
  [IOCTL.getDerivedKey, KEY_REQUEST],
  [IOCTL.getExtendedReport, EXTENDED_REQUEST],
])

interface Outcome {
  readonly result: number
  readonly writes: readonly { readonly address: bigint; readonly bytes: Uint8Array }[]
}

async function perform(
  command: number,
  request: Uint8Array,
  envelopeAddress: bigint,
  addresses: { readonly request: bigint; readonly response: bigint },
  hardware: SnpHardware,
): Promise<Outcome> {
  if (command === IOCTL.getDerivedKey) {
    return succeed({ address: addresses.response, bytes: await derivedKey(request, hardware) })
  }
  if (command === IOCTL.getReport) {
    return succeed({ address: addresses.response, bytes: await reportResponse(request, hardware) })
  }
  const view = viewOf(request)
  const room = { address: view.getBigUint64(96, true), size: view.getUint32(CERTIFICATES_LENGTH_AT, true) }
  const given = room.address !== 0n && room.size !== 0
  if (given && (room.size > LARGEST_CERTIFICATES || room.size % PAGE !== 0)) {
    return { result: -ERRNO.EINVAL, writes: [] }
  }
  const table = await hardware.certificateTable()
  if (table.length > (given ? room.size : 0)) {
    const needed = Math.ceil(table.length / PAGE) * PAGE
    return {
      result: -ERRNO.EIO,
      writes: [
        { address: envelopeAddress + 24n, bytes: uint64(INVALID_LENGTH) },
        { address: addresses.request + BigInt(CERTIFICATES_LENGTH_AT), bytes: uint32(needed) },
      ],
    }
  }
  const response = { address: addresses.response, bytes: await reportResponse(request, hardware) }
  return given
    ? succeed(response, { address: room.address, bytes: padded(table, room.size) })
    : succeed(response)
}

/** MSG_REPORT_RSP in the driver's buffer: status, size, 24 reserved bytes, report. */
async function reportResponse(request: Uint8Array, hardware: SnpHardware): Promise<Uint8Array> {
  const out = new Uint8Array(REPORT_RESPONSE)
  const view = viewOf(out)
  // This guest runs at VMPL 0, and its simulated firmware makes reports of that level only.
  if (viewOf(request).getUint32(64, true) !== 0) {
    view.setUint32(0, INVALID_PARAMETERS, true)
    return out
  }
  const report = await hardware.report(request.slice(0, 64))
  view.setUint32(4, report.length, true)
  out.set(report, 32)
  return out
}

/** MSG_KEY_RSP: status, 28 reserved bytes, key. The key depends on whatever the request selects. */
async function derivedKey(request: Uint8Array, hardware: SnpHardware): Promise<Uint8Array> {
  const select = viewOf(request).getBigUint64(8, true)
  const report = await hardware.report(new Uint8Array(64))
  const mac = createHmac("sha256", hardware.rootSecret).update(request.subarray(0, 20))
  const fields: readonly [bit: bigint, field: Uint8Array][] = [
    [0n, report.subarray(0x008, 0x010)], // POLICY
    [1n, report.subarray(0x020, 0x030)], // IMAGE_ID
    [2n, report.subarray(0x010, 0x020)], // FAMILY_ID
    [3n, report.subarray(0x090, 0x0c0)], // MEASUREMENT
    [4n, request.subarray(20, 24)], // GUEST_SVN, as asked
    [5n, request.subarray(24, 32)], // TCB_VERSION, as asked
  ]
  for (const [bit, field] of fields) if ((select >> bit) & 1n) mac.update(field)
  const out = new Uint8Array(KEY_RESPONSE)
  out.set(mac.digest(), 32)
  return out
}

function succeed(...writes: Outcome["writes"]): Outcome {
  return { result: 0, writes }
}

function fail(errno: number): IoctlReply {
  return { kind: "done", result: -errno, output: new Uint8Array(0) }
}

function padded(bytes: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(size)
  out.set(bytes)
  return out
}

function uint32(value: number): Uint8Array {
  const out = new Uint8Array(4)
  viewOf(out).setUint32(0, value, true)
  return out
}

function uint64(value: bigint): Uint8Array {
  const out = new Uint8Array(8)
  viewOf(out).setBigUint64(0, value, true)
  return out
}
