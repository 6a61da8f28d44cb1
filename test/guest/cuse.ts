/**
 * A character device served from user space: the part of the CUSE protocol that an ioctl-only device needs.
 * Source: Linux uapi header linux/fuse.h, protocol version 7.37. All integers in the machine's byte order (little).
 */
import { constants, openSync, readSync, writeSync } from "node:fs"

/** A range of the calling process's memory. */
export interface Region {
  readonly address: bigint
  readonly size: number
}

/** An ioctl as far as its memory has been fetched: first without any, then once more after each `fetch`. */
export interface IoctlCall {
  readonly command: number
  /** The ioctl's third argument. */
  readonly argument: bigint
  /** Contents of the `read` regions asked for last, one after the other. */
  readonly input: Uint8Array
  /** Sum of the `write` regions asked for last. */
  readonly outputSize: number
}

export type IoctlReply =
  /** Call again, with these regions fetched and writable. The kernel keeps nothing between the calls. */
  | { readonly kind: "fetch"; readonly read: readonly Region[]; readonly write: readonly Region[] }
  /** The end: the return value (negative errno where it failed), and bytes for the `write` regions in order. */
  | { readonly kind: "done"; readonly result: number; readonly output: Uint8Array }

const OPCODE = { open: 14, release: 18, interrupt: 36, ioctl: 39, cuseInit: 4096 } as const
const CUSE_UNRESTRICTED_IOCTL = 1 << 0
const FUSE_IOCTL_RETRY = 1 << 2
const IN_HEADER = 40
const OUT_HEADER = 16
const CUSE_INIT_OUT = 72
const IOCTL_IN = 32
const IOCTL_OUT = 16

export const ERRNO = { EIO: 5, EFAULT: 14, EINVAL: 22, ENOTTY: 25, ENOSYS: 38 } as const

// Above the kernel's own limit of 32 pages of data per request.
const BUFFER_SIZE = 256 * 1024

/**
 * Makes the device `/dev/<name>` and answers it until the process ends.
 * One request at a time: a report is made in milliseconds, and the order stays plain.
 */
export async function serveCharacterDevice(
  name: string,
  ioctl: (call: IoctlCall) => Promise<IoctlReply>,
): Promise<never> {
  const channel = openSync("/dev/cuse", constants.O_RDWR)
  const buffer = new Uint8Array(BUFFER_SIZE)
  for (;;) {
    const length = readSync(channel, buffer, 0, buffer.length, null)
    const reply = await answer(name, buffer.slice(0, length), ioctl)
    if (reply !== null) writeSync(channel, reply)
  }
}

/** The reply to one request of the kernel, or null where the protocol wants none. */
export async function answer(
  name: string,
  request: Uint8Array,
  ioctl: (call: IoctlCall) => Promise<IoctlReply>,
): Promise<Uint8Array | null> {
  const view = viewOf(request)
  const opcode = view.getUint32(4, true)
  const unique = view.getBigUint64(8, true)
  const body = request.subarray(IN_HEADER)
  switch (opcode) {
    case OPCODE.cuseInit:
      return reply(unique, initReply(name, viewOf(body)))
    case OPCODE.open:
      return reply(unique, new Uint8Array(16))
    case OPCODE.release:
      return reply(unique, new Uint8Array(0))
    // The interrupted request is answered all the same.
    case OPCODE.interrupt:
      return null
    case OPCODE.ioctl:
      return reply(unique, encodeIoctlReply(await ioctl(parseIoctl(body))))
    default:
      return failure(unique, ERRNO.ENOSYS)
  }
}

function initReply(name: string, request: DataView): Uint8Array {
  const info = Buffer.from(`DEVNAME=${name}\0`)
  const out = new Uint8Array(CUSE_INIT_OUT + info.length)
  const view = viewOf(out)
  view.setUint32(0, request.getUint32(0, true), true) // major version of the protocol
  view.setUint32(4, request.getUint32(4, true), true)
  // Without this flag the kernel would only copy what the ioctl's number declares, and not follow pointers.
  view.setUint32(12, CUSE_UNRESTRICTED_IOCTL, true)
  view.setUint32(16, BUFFER_SIZE / 2, true) // max_read
  view.setUint32(20, BUFFER_SIZE / 2, true) // max_write
  out.set(info, CUSE_INIT_OUT)
  return out
}

function parseIoctl(body: Uint8Array): IoctlCall {
  const view = viewOf(body)
  const inputSize = view.getUint32(24, true)
  return {
    command: view.getUint32(12, true),
    argument: view.getBigUint64(16, true),
    input: body.subarray(IOCTL_IN, IOCTL_IN + inputSize),
    outputSize: view.getUint32(28, true),
  }
}

function encodeIoctlReply(reply: IoctlReply): Uint8Array {
  const regions = reply.kind === "fetch" ? [...reply.read, ...reply.write] : []
  const payload = reply.kind === "fetch" ? encodeRegions(regions) : reply.output
  const out = new Uint8Array(IOCTL_OUT + payload.length)
  const view = viewOf(out)
  if (reply.kind === "fetch") {
    view.setUint32(4, FUSE_IOCTL_RETRY, true)
    view.setUint32(8, reply.read.length, true)
    view.setUint32(12, reply.write.length, true)
  } else {
    view.setInt32(0, reply.result, true)
  }
  out.set(payload, IOCTL_OUT)
  return out
}

function encodeRegions(regions: readonly Region[]): Uint8Array {
  const out = new Uint8Array(regions.length * 16)
  const view = viewOf(out)
  regions.forEach(({ address, size }, index) => {
    view.setBigUint64(index * 16, address, true)
    view.setBigUint64(index * 16 + 8, BigInt(size), true)
  })
  return out
}

function reply(unique: bigint, payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(OUT_HEADER + payload.length)
  const view = viewOf(out)
  view.setUint32(0, out.length, true)
  view.setBigUint64(8, unique, true)
  out.set(payload, OUT_HEADER)
  return out
}

function failure(unique: bigint, errno: number): Uint8Array {
  const out = reply(unique, new Uint8Array(0))
  viewOf(out).setInt32(4, -errno, true)
  return out
}

/** A view of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
