import { createHash } from "node:crypto"
import { NativeError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { ALG, CURVE, hashName } from "../formats/tpm/algorithms.ts"
import { parseAttest } from "../formats/tpm/attest.ts"
import { type PcrSelection, selectedPcrs, selectPcrs } from "../formats/tpm/pcr-selection.ts"
import { encodePublic, hasAttribute, OBJECT, parsePublic, type TpmPublic } from "../formats/tpm/public.ts"
import { parseSignature } from "../formats/tpm/signature.ts"
import { nitroDocument } from "./nitro-tpm.ts"
import type { SealRequest, TpmKeys, TpmQuote } from "./ports.ts"
import * as commands from "./tpm-commands.ts"
import { type ActivateRequest, activateCredential, EK_TEMPLATES } from "./tpm-credential.ts"
import { readReference, removeReference, removeUnwritten, writeReference } from "./tpm-header-reference.ts"
import { seal, type UnsealRequest, unseal } from "./tpm-sealing.ts"
import type { TpmTransport } from "./tss2.ts"
import { isNoSuchHandle, RC_OBJECT_MEMORY, RC_SESSION_HANDLES, RC_SESSION_MEMORY, rcText } from "./tss2-rc.ts"

/** Where the predecessor kept its keys, and so do we. */
const EK_HANDLE = 0x81000050
const AK_HANDLE = 0x81000051
const TRANSIENT_FIRST = 0x80000000
const LOADED_SESSION_FIRST = 0x02000000
/** Answers of a TPM whose slots are full. */
const NO_ROOM = [RC_OBJECT_MEMORY, RC_SESSION_MEMORY, RC_SESSION_HANDLES]

/**
 * Attestation key: restricted, so that it signs only what its TPM itself states. A primary key of the endorsement
 * hierarchy, hence the same key again if somebody evicts it.
 */
const AK_TEMPLATE: TpmPublic = {
  ...EK_TEMPLATES.p256,
  objectAttributes:
    OBJECT.fixedTPM |
    OBJECT.fixedParent |
    OBJECT.sensitiveDataOrigin |
    OBJECT.userWithAuth |
    OBJECT.noDA |
    OBJECT.restricted |
    OBJECT.sign,
  authPolicy: new Uint8Array(0),
  symmetric: null,
  scheme: { scheme: ALG.ecdsa, hash: ALG.sha256 },
  x: new Uint8Array(0),
  y: new Uint8Array(0),
}

/** Quotes tried before giving up on PCRs that move between quote and read. */
const QUOTE_ATTEMPTS = 20
/** Bytes per NV read: every TPM allows as many. */
const NV_CHUNK = 512
/** Of an index that we define: owner and index itself may read and write it. */
const NV_ATTRIBUTES =
  commands.NV.ownerWrite +
  commands.NV.authWrite +
  commands.NV.ownerRead +
  commands.NV.authRead +
  commands.NV.noDictionaryAttack

/**
 * What the TPM thread can do. Each operation opens the transport and closes it: swtpm serves one client at a time.
 *
 * Without a resource manager, keys and sessions that a killed process left loaded fill the few slots, and then even the use
 * of a persistent key fails: they are flushed, once. Behind a resource manager only this connection's own are listed.
 */
export function tpmOperations(open: () => TpmTransport) {
  const burst =
    <A, R>(run: (transceive: commands.Transceive, argument: A) => R) =>
    (argument: A): R => {
      const transport = open()
      const transceive: commands.Transceive = (command) => transport.transceive(command)
      try {
        return run(transceive, argument)
      } catch (error) {
        if (!NO_ROOM.includes(commands.responseCode(error) ?? 0)) throw error
        flushLeftovers(transceive)
        return run(transceive, argument)
      } finally {
        transport.close()
      }
    }
  return {
    probe: burst((transceive, _: null) => probe(transceive)),
    random: burst((transceive, count: number) => random(transceive, count)),
    ensureKeys: burst((transceive, _: null) => ensureKeys(transceive)),
    quote: burst(quoteStable),
    endorsementKey: burst((transceive, _: null) => endorsementKey(transceive)),
    ensureKeyOf: burst((transceive, { handle, template }: { handle: number; template: Uint8Array }) =>
      ensureKey(transceive, handle, parsePublic(template), "a key of any kind", () => true),
    ),
    activateCredential: burst((transceive, request: ActivateRequest) =>
      activateCredential(transceive, { keyHandle: AK_HANDLE, ...request }, EK_HANDLE),
    ),
    readPublic: burst((transceive, handle: number) => readPublic(transceive, handle)),
    readNv: burst((transceive, index: number) => readNv(transceive, index)),
    writeNv: burst(writeNv),
    nitroDocument: burst((transceive, nonce: Uint8Array) => nitroDocument(transceive, nonce)),
    seal: (request: SealRequest) => wiping(burst(seal), request, request.secret, request.pin),
    unseal: (request: UnsealRequest) => wiping(burst(unseal), request, request.pin),
    readReference: burst(readReference),
    writeReference: burst(writeReference),
    removeReference: burst((transceive, volume: string) => removeReference(transceive, volume)),
    removeUnwrittenReference: burst((transceive, volume: string) => removeUnwritten(transceive, volume)),
    pcrs: burst((transceive, pcrs: readonly number[]) =>
      readSelected(transceive, selectPcrs(ALG.sha256, pcrs)),
    ),
    extend: burst(extendAllBanks),
    shutdown: burst((transceive, _: null) => commands.shutdown(transceive)),
  }
}

/** This thread has copies of its own of the secrets that it was sent. */
function wiping<A, R>(run: (argument: A) => R, argument: A, ...secrets: readonly (Uint8Array | null)[]): R {
  try {
    return run(argument)
  } finally {
    for (const secret of secrets) secret?.fill(0)
  }
}

export type TpmOperations = ReturnType<typeof tpmOperations>

export interface QuoteRequest {
  readonly pcrs: readonly number[]
  readonly qualifyingData: Uint8Array
  /** Persistent handle of the key that signs; absent: our attestation key. */
  readonly keyHandle?: number
}

export interface NvWriteRequest {
  readonly index: number
  readonly data: Uint8Array
}

/** Data measured into a PCR: each bank is extended with its own hash over it, as kernel and firmware do. */
export interface ExtendRequest {
  readonly pcr: number
  readonly data: Uint8Array
}

function probe(transceive: commands.Transceive): void {
  if (!commands.isTpm2(transceive))
    throw new NativeError("ERR_TPM_DEVICE", { expected: "a TPM 2.0", found: "another device" })
}

function random(transceive: commands.Transceive, count: number): Uint8Array {
  if (!Number.isInteger(count) || count < 1 || count > 1024)
    throw new NativeError("ERR_TOO_LARGE", {
      at: "TPM random",
      expected: "1 to 1024 bytes",
      found: `${count}`,
    })
  const out = new Uint8Array(count)
  for (let filled = 0; filled < count; ) {
    const some = commands.getRandom(transceive, Math.min(count - filled, 32))
    if (some.length === 0)
      throw new NativeError("ERR_TPM_RESPONSE", { at: "TPM2_getRandom", found: "0 bytes" })
    out.set(some, filled)
    filled += some.length
  }
  return out
}

function ensureKeys(transceive: commands.Transceive): TpmKeys {
  return {
    ekPublic: ensureKey(transceive, EK_HANDLE, EK_TEMPLATES.p256, "an endorsement key", isEndorsementKey),
    akPublic: ensureKey(
      transceive,
      AK_HANDLE,
      AK_TEMPLATE,
      "an ECDSA P-256 attestation key",
      isAttestationKey,
    ),
  }
}

/** TPMT_PUBLIC of the endorsement key, which is the same whenever it is made; nothing is kept. */
function endorsementKey(transceive: commands.Transceive): Uint8Array {
  const made = commands.createPrimary(transceive, commands.RH.endorsement, EK_TEMPLATES.p256)
  commands.flush(transceive, made.handle)
  return encodePublic(made.publicArea)
}

function ensureKey(
  transceive: commands.Transceive,
  handle: number,
  template: TpmPublic,
  kind: string,
  accept: (publicArea: TpmPublic) => boolean,
): Uint8Array {
  const present = commands.readPublic(transceive, handle) ?? makeKey(transceive, handle, template)
  if (accept(present)) return encodePublic(present)
  throw new NativeError("ERR_TPM_HANDLE_TAKEN", {
    at: `handle 0x${handle.toString(16)}`,
    expected: kind,
    found: `an ${present.type} key with attributes 0x${present.objectAttributes.toString(16)}`,
    hint: `find out whose key it is; if nobody's: tpm2_evictcontrol -c 0x${handle.toString(16)}`,
  })
}

function makeKey(transceive: commands.Transceive, handle: number, template: TpmPublic): TpmPublic {
  const made = commands.createPrimary(transceive, commands.RH.endorsement, template)
  try {
    commands.persist(transceive, made.handle, handle)
    return made.publicArea
  } finally {
    commands.flush(transceive, made.handle)
  }
}

function flushLeftovers(transceive: commands.Transceive): void {
  for (const first of [TRANSIENT_FIRST, LOADED_SESSION_FIRST])
    for (const handle of commands.handlesInUse(transceive, first)) flushIfLoaded(transceive, handle, first)
}

/** A list of handles goes on with those of the next kind. A session's handle is of its kind, not of the list's. */
function flushIfLoaded(transceive: commands.Transceive, handle: number, first: number): void {
  const kind = handle >>> 24
  const loaded = first === TRANSIENT_FIRST ? kind === 0x80 : kind === 0x02 || kind === 0x03
  if (loaded) commands.flush(transceive, handle)
}

function isEndorsementKey(key: TpmPublic): boolean {
  return staysInTpm(key) && hasAttribute(key, "restricted") && hasAttribute(key, "decrypt")
}

function isAttestationKey(key: TpmPublic): boolean {
  const scheme = key.scheme?.scheme === ALG.ecdsa && key.scheme.hash === ALG.sha256
  const signs = hasAttribute(key, "sign") && !hasAttribute(key, "decrypt") && hasAttribute(key, "restricted")
  return staysInTpm(key) && signs && scheme && key.type === "ecc" && key.curveId === CURVE.p256
}

function staysInTpm(key: TpmPublic): boolean {
  return (
    hasAttribute(key, "fixedTPM") &&
    hasAttribute(key, "fixedParent") &&
    hasAttribute(key, "sensitiveDataOrigin")
  )
}

/** A quote holds digests only, so the values are read beside it, and both are taken again when a PCR moved in between. */
function quoteStable(
  transceive: commands.Transceive,
  { pcrs, qualifyingData, keyHandle = AK_HANDLE }: QuoteRequest,
): TpmQuote {
  const ascending = [...new Set(pcrs)].sort((a, b) => a - b)
  const selection = selectPcrs(ALG.sha256, ascending)
  for (let attempt = 0; attempt < QUOTE_ATTEMPTS; attempt++) {
    const { attest, signature } = quoteOrExplain(transceive, keyHandle, qualifyingData, selection)
    const pcrValues = readSelected(transceive, selection)
    if (bytesEqual(parseAttest(attest).pcrDigest, digestOf(signature, pcrValues)))
      return { attest, signature, pcrValues }
  }
  throw new NativeError("ERR_TPM_PCR_MOVING", {
    at: `PCRs ${ascending.join(",")}`,
    expected: "values that stay for the time of a quote",
    found: `${QUOTE_ATTEMPTS} quotes that were outdated when the values were read`,
    hint: "try again when fewer programs are being started",
  })
}

function quoteOrExplain(
  transceive: commands.Transceive,
  keyHandle: number,
  qualifyingData: Uint8Array,
  selection: PcrSelection,
) {
  try {
    return commands.quote(transceive, keyHandle, qualifyingData, [selection])
  } catch (error) {
    const rc = commands.responseCode(error)
    if (rc === null || !isNoSuchHandle(rc)) throw error
    throw new NativeError("ERR_TPM_COMMAND", {
      at: `TPM2_quote by the key at 0x${keyHandle.toString(16)}`,
      found: rcText(rc),
      hint:
        keyHandle === AK_HANDLE
          ? "the attestation key was not made yet, or somebody evicted it: start the agent again"
          : "this TPM has no key there: it is not the TPM that was expected",
      cause: error,
    })
  }
}

function digestOf(signature: Uint8Array, values: readonly Uint8Array[]): Uint8Array {
  const name = hashName(parseSignature(signature).hash)
  if (name === null) throw new NativeError("ERR_TPM_RESPONSE", { at: "TPM2_quote", found: "an unknown hash" })
  const hash = createHash(name)
  for (const value of values) hash.update(value)
  return new Uint8Array(hash.digest())
}

/** All values of a selection, ascending. */
function readSelected(transceive: commands.Transceive, selection: PcrSelection): Uint8Array[] {
  const values = new Map<number, Uint8Array>()
  let missing = selectedPcrs(selection)
  while (missing.length > 0) {
    const answer = commands.readPcrs(transceive, [selectPcrs(selection.hash, missing)])
    const got = answer.selections.flatMap(selectedPcrs)
    if (got.length === 0 || got.length !== answer.values.length)
      throw new NativeError("ERR_TPM_RESPONSE", {
        at: `TPM2_pcrRead of PCRs ${missing.join(",")}`,
        expected: "values of the SHA-256 bank",
        found: `${answer.values.length} values of ${got.length} PCRs`,
        hint: "the TPM's SHA-256 bank has to be enabled (firmware setup)",
      })
    for (const [index, value] of answer.values.entries()) values.set(got[index] ?? -1, value)
    missing = missing.filter((pcr) => !values.has(pcr))
  }
  return [...values.entries()].sort(([a], [b]) => a - b).map(([, value]) => value)
}

function readPublic(transceive: commands.Transceive, handle: number): Uint8Array | null {
  const publicArea = commands.readPublic(transceive, handle)
  return publicArea === null ? null : encodePublic(publicArea)
}

function readNv(transceive: commands.Transceive, index: number): Uint8Array | null {
  const description = commands.readNvPublic(transceive, index)
  if (description === null || (description.attributes & commands.NV.written) === 0) return null
  const authorizedBy = (description.attributes & commands.NV.authRead) !== 0 ? index : commands.RH.owner
  const out = new Uint8Array(description.dataSize)
  for (let offset = 0; offset < out.length; ) {
    const size = Math.min(NV_CHUNK, out.length - offset)
    const some = commands.readNv(transceive, authorizedBy, index, size, offset)
    if (some.length !== size)
      throw new NativeError("ERR_TPM_RESPONSE", {
        at: `NV index 0x${index.toString(16)}`,
        expected: `${size} bytes`,
        found: `${some.length}`,
      })
    out.set(some, offset)
    offset += size
  }
  return out
}

/** Writes all of an NV index, which is defined with the size of `data` where it is not there yet. */
function writeNv(transceive: commands.Transceive, { index, data }: NvWriteRequest): void {
  const description = commands.readNvPublic(transceive, index)
  if (description === null)
    commands.defineNv(transceive, {
      nvIndex: index,
      nameAlg: ALG.sha256,
      attributes: NV_ATTRIBUTES,
      authPolicy: new Uint8Array(0),
      dataSize: data.length,
    })
  else if (description.dataSize !== data.length)
    throw new NativeError("ERR_TPM_HANDLE_TAKEN", {
      at: `NV index 0x${index.toString(16)}`,
      expected: `an index of ${data.length} bytes`,
      found: `one of ${description.dataSize} bytes`,
      hint: `find out whose it is; if nobody's: tpm2_nvundefine 0x${index.toString(16)}`,
    })
  const byIndex = description === null || (description.attributes & commands.NV.authWrite) !== 0
  const authorizedBy = byIndex ? index : commands.RH.owner
  for (let offset = 0; offset < data.length; offset += NV_CHUNK)
    commands.writeNv(transceive, authorizedBy, index, data.subarray(offset, offset + NV_CHUNK), offset)
}

const BANKS = ["sha1", "sha256", "sha384", "sha512"] as const

function extendAllBanks(transceive: commands.Transceive, { pcr, data }: ExtendRequest): void {
  const digests = BANKS.map((algorithm) => ({
    algorithm: ALG[algorithm],
    digest: new Uint8Array(createHash(algorithm).update(data).digest()),
  }))
  commands.extendPcr(transceive, pcr, digests)
}
