import { createHash } from "node:crypto"
import { NativeError } from "../errors.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { PCR_SELECTIONS, type PcrSelection } from "../formats/tpm/pcr-selection.ts"
import { encodePublic, parsePublic, type TpmPublic } from "../formats/tpm/public.ts"
import { encodeWire, list, sized, struct, u8, u16, u32, WireReader, WireWriter } from "../formats/tpm/wire.ts"
import type { ProtectedCommand, TpmSession } from "./tpm-session.ts"
import { isNoSuchHandle, isRetry, rcText } from "./tss2-rc.ts"

/** One command sent, one response received. */
export type Transceive = (command: Uint8Array) => Uint8Array

/** Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_CC". */
const CC = {
  evictControl: 0x120,
  nvUndefineSpace: 0x122,
  nvDefineSpace: 0x12a,
  createPrimary: 0x131,
  nvWrite: 0x137,
  shutdown: 0x145,
  activateCredential: 0x147,
  nvRead: 0x14e,
  policySecret: 0x151,
  create: 0x153,
  load: 0x157,
  quote: 0x158,
  unseal: 0x15e,
  flushContext: 0x165,
  nvReadPublic: 0x169,
  policyAuthValue: 0x16b,
  readPublic: 0x173,
  startAuthSession: 0x176,
  getCapability: 0x17a,
  getRandom: 0x17b,
  pcrRead: 0x17e,
  policyPcr: 0x17f,
  pcrExtend: 0x182,
  policyGetDigest: 0x189,
  /** AWS's own: see nitro-tpm.ts. */
  nsmRequest: 0x20000001,
} as const
type Command = keyof typeof CC

/** Permanent handles. Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_RH". */
export const RH = { owner: 0x40000001, endorsement: 0x4000000b } as const
/** The session that stands for a password. */
export const RS_PW = 0x40000009
const ST_NO_SESSIONS = 0x8001
const ST_SESSIONS = 0x8002
/** Capabilities. Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_CAP". */
const CAP_HANDLES = 1
const CAP_TPM_PROPERTIES = 6
const PT_FAMILY_INDICATOR = 0x100
/** The first of four. */
const PT_VENDOR_STRING = 0x106

const HEAD_SIZE = 10
/** Times that a command is sent again when the TPM asks for it. */
const RETRIES = 50

/** A TPM that answered a command with an error. */
class TpmCommandError extends NativeError<"ERR_TPM_COMMAND"> {
  readonly rc: number
  constructor(command: Command, rc: number) {
    super("ERR_TPM_COMMAND", { at: `TPM2_${command}`, found: rcText(rc) })
    this.rc = rc
  }
}

/** The response code of an error, where a TPM's refusal is what it is about. */
export function responseCode(error: unknown): number | null {
  return error instanceof TpmCommandError ? error.rc : null
}

/** Whether the TPM refused what it was asked to make, as one that it does not know (format-one errors of parameters). */
export function isRefusedParameter(error: unknown): boolean {
  const rc = responseCode(error)
  return rc !== null && (rc & 0xc0) === 0xc0
}

/** How a session authorizes and protects a command. */
export interface Protection extends Omit<ProtectedCommand, "code" | "name" | "parameters"> {
  readonly session: TpmSession
}

interface Sent {
  readonly handles?: readonly number[]
  /** How many of the handles need authorization; all have the empty one. */
  readonly authorized?: number
  /** Their sessions, in order; absent: passwords. A policy session that is used here ends with the command. */
  readonly sessions?: readonly number[]
  /** Instead: a session that authorizes the first handle, and protects what is sent. */
  readonly protection?: Protection
  readonly parameters?: (to: WireWriter) => void
  /** Handles that precede the parameters of the response. */
  readonly handlesBack?: 0 | 1
}

/**
 * Sends a command and returns its response, set to the first handle or parameter.
 * Source: TPM 2.0 Part 1, rev. 1.59, section "Command/Response Structure".
 * @throws NativeError ERR_TPM_COMMAND, ERR_TPM_RESPONSE
 */
export function send(transceive: Transceive, command: Command, sent: Sent): WireReader {
  const { bytes, open } = encodeCommand(command, sent)
  for (let attempt = 0; ; attempt++) {
    const { rc, body } = openResponse(command, transceive(bytes))
    if (rc === 0) return open(body)
    if (!isRetry(rc) || attempt >= RETRIES) throw new TpmCommandError(command, rc)
    Bun.sleepSync(Math.min(2 ** attempt, 200))
  }
}

/** A command's bytes, and how its response is opened. */
interface Encoded {
  readonly bytes: Uint8Array
  readonly open: (body: WireReader) => WireReader
}

function encodeCommand(command: Command, sent: Sent): Encoded {
  const handles = new WireWriter()
  for (const handle of sent.handles ?? []) handles.uint(4, handle)
  const parameters = new WireWriter()
  sent.parameters?.(parameters)
  const handlesBack = sent.handlesBack ?? 0
  if (sent.protection !== undefined)
    return protectedCommand(command, handles.bytes(), parameters.bytes(), handlesBack, sent.protection)
  const authorized = sent.authorized ?? 0
  const area = new WireWriter()
  for (let each = 0; each < authorized; each++) {
    // TPMS_AUTH_COMMAND: session, no nonce, no attributes, empty password or HMAC.
    area.uint(4, sent.sessions?.[each] ?? RS_PW)
    area.uint(2, 0)
    area.uint(1, 0)
    area.uint(2, 0)
  }
  return {
    bytes: framed(command, handles.bytes(), authorized > 0 ? area.bytes() : null, parameters.bytes()),
    // Password sessions authenticate nothing on the way back: only their place in the response is of interest.
    open: (body) => (authorized > 0 ? reader(splitResponse(body, handlesBack)) : body),
  }
}

function protectedCommand(
  command: Command,
  handles: Uint8Array,
  parameters: Uint8Array,
  handlesBack: 0 | 1,
  { session, ...protection }: Protection,
): Encoded {
  const described = { ...protection, code: CC[command], name: command, parameters }
  const { area, parameters: sent } = session.protect(described)
  return {
    bytes: framed(command, handles, area, sent),
    open(body) {
      const { front, parameters: received, area: authenticated } = splitResponse(body, handlesBack)
      return reader({ front, parameters: session.open(described, received, authenticated) })
    },
  }
}

/** @param area authorization area; null for a command without sessions. */
function framed(
  command: Command,
  handles: Uint8Array,
  area: Uint8Array | null,
  parameters: Uint8Array,
): Uint8Array {
  const to = new WireWriter()
  const areaSize = area === null ? 0 : 4 + area.length
  to.uint(2, area === null ? ST_NO_SESSIONS : ST_SESSIONS)
  to.uint(4, HEAD_SIZE + handles.length + areaSize + parameters.length)
  to.uint(4, CC[command])
  to.put(handles)
  if (area !== null) {
    to.uint(4, area.length)
    to.put(area)
  }
  to.put(parameters)
  return to.bytes()
}

function openResponse(command: Command, bytes: Uint8Array): { rc: number; body: WireReader } {
  const body = new WireReader(`response to TPM2_${command}`, bytes)
  if (bytes.length < HEAD_SIZE) throw malformed(command, `${bytes.length} bytes`)
  const tag = body.uint(2)
  const size = body.uint(4)
  const rc = body.uint(4)
  if (tag !== ST_SESSIONS && tag !== ST_NO_SESSIONS) throw malformed(command, `tag 0x${tag.toString(16)}`)
  if (size !== bytes.length) throw malformed(command, `size ${size} in ${bytes.length} bytes`)
  return { rc, body }
}

/** A response with sessions: handles, parameters with their size before them, then the authorization area. */
function splitResponse(body: WireReader, handles: 0 | 1) {
  const front = body.take(handles * 4)
  const parameters = body.take(body.uint(4))
  return { front, parameters, area: body.take(body.remaining) }
}

function reader({ front, parameters }: { front: Uint8Array; parameters: Uint8Array }): WireReader {
  return new WireReader("response parameters", new Uint8Array(Buffer.concat([front, parameters])))
}

function malformed(command: Command, found: string): NativeError {
  return new NativeError("ERR_TPM_RESPONSE", { at: `TPM2_${command}`, found })
}

/** Whether the device is a TPM 2.0. */
export function isTpm2(transceive: Transceive): boolean {
  const family = capability(transceive, CAP_TPM_PROPERTIES, PT_FAMILY_INDICATOR, 1)
  const properties = list(struct({ property: u32, value: u32 }), 1).read(family)
  return properties[0]?.value === 0x322e3000 // "2.0\0"
}

/** What the TPM's maker calls it: up to 16 characters. */
export function vendorString(transceive: Transceive): string {
  const answer = capability(transceive, CAP_TPM_PROPERTIES, PT_VENDOR_STRING, 4)
  const properties = list(struct({ property: u32, value: u32 }), 4).read(answer)
  const text = Buffer.alloc(16)
  for (const { property, value } of properties)
    if (property >= PT_VENDOR_STRING && property < PT_VENDOR_STRING + 4)
      text.writeUInt32BE(value, 4 * (property - PT_VENDOR_STRING))
  return text.toString("latin1").replace(/\0+$/, "")
}

/** Handles in use from `first` on, at most 254. */
export function handlesInUse(transceive: Transceive, first: number): readonly number[] {
  return list(u32, 254).read(capability(transceive, CAP_HANDLES, first, 254))
}

function capability(transceive: Transceive, kind: number, property: number, count: number): WireReader {
  const answer = send(transceive, "getCapability", {
    parameters(to) {
      to.uint(4, kind)
      to.uint(4, property)
      to.uint(4, count)
    },
  })
  u8.read(answer) // more follow: nobody here asks for them
  if (u32.read(answer) !== kind) throw malformed("getCapability", "another capability")
  return answer
}

/** Up to `count` random bytes; a TPM gives as many as its largest digest at a time. */
export function getRandom(transceive: Transceive, count: number): Uint8Array {
  const answer = send(transceive, "getRandom", { parameters: (to) => to.uint(2, count) })
  return sized(count).read(answer)
}

/** The public area of a loaded or persistent key, or null where the handle is free. */
export function readPublic(transceive: Transceive, handle: number): TpmPublic | null {
  try {
    const answer = send(transceive, "readPublic", { handles: [handle] })
    return parsePublic(sized(1024).read(answer))
  } catch (error) {
    const rc = responseCode(error)
    if (rc !== null && isNoSuchHandle(rc)) return null
    throw error
  }
}

/** Makes a primary key from a template, with empty authorization. Its handle is transient: flush it. */
export function createPrimary(
  transceive: Transceive,
  hierarchy: number,
  template: TpmPublic,
): { handle: number; publicArea: TpmPublic } {
  const answer = send(transceive, "createPrimary", {
    handles: [hierarchy],
    authorized: 1,
    handlesBack: 1,
    parameters(to) {
      to.put(Uint8Array.of(0, 4, 0, 0, 0, 0)) // TPM2B_SENSITIVE_CREATE: no password, no data
      sized(1024).write(encodePublic(template), to)
      sized(64).write(new Uint8Array(0), to) // outsideInfo
      PCR_SELECTIONS.write([], to) // creationPCR
    },
  })
  const handle = answer.uint(4)
  return { handle, publicArea: parsePublic(sized(1024).read(answer)) }
}

/** Makes a transient key persistent. */
export function persist(transceive: Transceive, transient: number, persistent: number): void {
  send(transceive, "evictControl", {
    handles: [RH.owner, transient],
    authorized: 1,
    parameters: (to) => to.uint(4, persistent),
  })
}

export function flush(transceive: Transceive, handle: number): void {
  send(transceive, "flushContext", { parameters: (to) => to.uint(4, handle) })
}

/** Signs PCRs by a key of its own scheme and empty authorization. */
export function quote(
  transceive: Transceive,
  key: number,
  qualifyingData: Uint8Array,
  selections: readonly PcrSelection[],
): { attest: Uint8Array; signature: Uint8Array } {
  const answer = send(transceive, "quote", {
    handles: [key],
    authorized: 1,
    parameters(to) {
      sized(64).write(qualifyingData, to)
      to.uint(2, ALG.null)
      PCR_SELECTIONS.write(selections, to)
    },
  })
  const attest = sized(1024).read(answer)
  return { attest, signature: answer.take(answer.remaining) }
}

/** Values of some of the selected PCRs (a TPM answers with 8 at most), which ones, and the count of changes of all PCRs. */
export function readPcrs(
  transceive: Transceive,
  selections: readonly PcrSelection[],
): { updates: number; selections: readonly PcrSelection[]; values: readonly Uint8Array[] } {
  const answer = send(transceive, "pcrRead", { parameters: (to) => PCR_SELECTIONS.write(selections, to) })
  return {
    updates: u32.read(answer),
    selections: PCR_SELECTIONS.read(answer),
    values: list(sized(64), 8).read(answer),
  }
}

/** Extends a PCR, each bank by its own digest. */
export function extendPcr(
  transceive: Transceive,
  pcr: number,
  digests: readonly { readonly algorithm: number; readonly digest: Uint8Array }[],
): void {
  send(transceive, "pcrExtend", {
    handles: [pcr],
    authorized: 1,
    parameters(to) {
      to.uint(4, digests.length)
      for (const { algorithm, digest } of digests) {
        to.uint(2, algorithm)
        to.put(digest)
      }
    },
  })
}

/** TPMA_NV. Source: TPM 2.0 Part 2, rev. 1.59, table "TPMA_NV". */
export const NV = {
  ownerWrite: 2 ** 1,
  authWrite: 2 ** 2,
  policyWrite: 2 ** 3,
  ownerRead: 2 ** 17,
  authRead: 2 ** 18,
  noDictionaryAttack: 2 ** 25,
  written: 2 ** 29,
} as const

/** TPMS_NV_PUBLIC. Source: TPM 2.0 Part 2, rev. 1.59, table of this name. */
const NV_PUBLIC = struct({
  nvIndex: u32,
  nameAlg: u16,
  attributes: u32,
  authPolicy: sized(64),
  dataSize: u16,
})

/** TPMS_NV_PUBLIC: what an NV index is. */
export interface NvPublic {
  readonly nvIndex: number
  /** Hash algorithm of its Name. */
  readonly nameAlg: number
  /** TPMA_NV. */
  readonly attributes: number
  /** What has to be met to use it, where its attributes say so. */
  readonly authPolicy: Uint8Array
  /** Bytes. */
  readonly dataSize: number
}

/** What an NV index is, or null where it is not defined. */
export function readNvPublic(transceive: Transceive, index: number): NvPublic | null {
  try {
    const answer = send(transceive, "nvReadPublic", { handles: [index] })
    return NV_PUBLIC.read(new WireReader("TPMS_NV_PUBLIC", sized(512).read(answer)))
  } catch (error) {
    const rc = responseCode(error)
    if (rc !== null && isNoSuchHandle(rc)) return null
    throw error
  }
}

/** Some bytes of an NV index. @param authorizedBy the index itself or the owner, with empty authorization. */
export function readNv(
  transceive: Transceive,
  authorizedBy: number,
  index: number,
  size: number,
  offset: number,
): Uint8Array {
  const answer = send(transceive, "nvRead", {
    handles: [authorizedBy, index],
    authorized: 1,
    parameters(to) {
      to.uint(2, size)
      to.uint(2, offset)
    },
  })
  return sized(size).read(answer)
}

/** Defines an NV index of the owner's, with empty authorization. */
export function defineNv(transceive: Transceive, definition: NvPublic): void {
  send(transceive, "nvDefineSpace", {
    handles: [RH.owner],
    authorized: 1,
    parameters(to) {
      sized(64).write(new Uint8Array(0), to)
      sized(512).write(encodeWire(NV_PUBLIC, definition), to)
    },
  })
}

/** Takes an NV index of the owner's away, with its content. */
export function undefineNv(transceive: Transceive, index: number): void {
  send(transceive, "nvUndefineSpace", { handles: [RH.owner, index], authorized: 1 })
}

/** Has a NitroTPM take the request in an NV index of empty authorization, and put its answer there. */
export function nsmRequest(transceive: Transceive, index: number): void {
  send(transceive, "nsmRequest", { handles: [index, index], authorized: 1 })
}

/** The TPM Name of an NV index: hash algorithm and digest of what it is. */
export function nvName(nvPublic: NvPublic): Uint8Array {
  const digest = createHash("sha256").update(encodeWire(NV_PUBLIC, nvPublic)).digest()
  return new Uint8Array(Buffer.concat([encodeWire(u16, ALG.sha256), digest]))
}

/**
 * Writes some bytes of an NV index. @param authorizedBy the index itself or the owner, with empty authorization, or the
 * index itself by a session.
 */
export function writeNv(
  transceive: Transceive,
  authorizedBy: number,
  index: number,
  data: Uint8Array,
  offset: number,
  protection?: Protection,
): void {
  send(transceive, "nvWrite", {
    handles: [authorizedBy, index],
    authorized: 1,
    ...(protection === undefined ? {} : { protection }),
    parameters(to) {
      sized(1024).write(data, to)
      to.uint(2, offset)
    },
  })
}

/** An orderly shutdown before power goes away: the next start finds counters and clock in order. */
export function shutdown(transceive: Transceive): void {
  send(transceive, "shutdown", { parameters: (to) => to.put(encodeWire(u16, 0)) })
}
