import { randomBytes } from "node:crypto"
import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { writeFileAtomically } from "../../agent/atomic-file.ts"
import { CodedError } from "../../errors.ts"
import { MAX_LUKS_IMAGE } from "../../formats/luks/header.ts"
import { encodeSystemdTpm2Token, sealedPassphrase } from "../../formats/luks/systemd-tpm2-token.ts"
import { findMapping } from "../../native/block-stack.ts"
import { volumeKeySize } from "../../native/cryptsetup.ts"
import { type MemoryFile, memoryFile, readBounded } from "../../native/memory-file.ts"
import type { VolumeTools } from "../../native/volume-tools.ts"
import { wipe } from "../passphrase.ts"
import { headerDigest, type TrustedHeader, trustHeader } from "../trusted-header.ts"
import { checkRequest, HEADER_BYTES } from "./check-request.ts"
import {
  beginHalfMade,
  type HalfMade,
  makeMountPoint,
  markFinished,
  putInPlace,
  removeHalfMade,
  removeIfEmpty,
} from "./half-made.ts"
import { type FstoolMachine, withLocation } from "./machine.ts"
import { checkDeviceMapper, luksPolicyOf, withHeader } from "./open-volume.ts"
import { noteOpened, noteOpening } from "./opened.ts"
import { runSteps, type Step } from "./steps.ts"
import type { Volume } from "./volume-config.ts"

/** As Cosmian VM 1.3 calls it. */
export const PASSWORD_FILE = "luks_password"

export interface CreateRequest {
  readonly volume: Volume
  /** Bytes of the container; null for a block device, which is taken whole. */
  readonly size: number | null
  /** The caller wipes it. */
  readonly passphrase: Uint8Array
  /** Whether this TPM opens the volume, and under which conditions; null: only the passphrase does. */
  readonly enrol: { readonly pcrs: readonly number[]; readonly pin: Uint8Array | null } | null
  /** Whether a copy of the passphrase is kept inside the volume. */
  readonly keepPassphrase: boolean
  /** Called when all is done but the last step, which makes the volume known: from here on the passphrase is needed. */
  readonly showPassphrase: () => void
}

export interface CreateWatcher {
  step(number: number, total: number, name: string, title: string): void
  bytes(done: number, total: number): void
  /** Throws where the work is to end. */
  aborted(): void
}

interface Making {
  readonly request: CreateRequest
  readonly machine: FstoolMachine
  readonly tools: VolumeTools
  readonly watcher: CreateWatcher
  readonly locationWasMade: boolean
  readonly volumeKey: Uint8Array
  readonly header: MemoryFile
  made: HalfMade | null
  /** The header as it will be on the disk, once it is complete. */
  trusted: TrustedHeader | null
  /** What the TPM unsealed, to open the volume with. */
  sealed: Uint8Array | null
}

/**
 * Makes a volume: container, header, enrolment, file system; and mounts it. Either all of it is there afterwards or nothing.
 * @throws CodedError ERR_VOLUME_EXISTS, ERR_MOUNT_POINT, ERR_NO_SPACE, ERR_STORAGE_UNAVAILABLE, ERR_VOLUME_BUSY, and what
 *   programs and TPM say
 */
export async function createVolume(
  request: CreateRequest,
  machine: FstoolMachine,
  watcher: CreateWatcher,
): Promise<void> {
  const { volume } = request
  checkDeviceMapper()
  const locationWasMade = !existsSync(volume.location)
  if (locationWasMade) mkdirSync(volume.location, { recursive: true, mode: 0o700 })
  try {
    await withLocation(volume.location, machine, (tools) =>
      make(request, machine, watcher, locationWasMade, tools),
    )
  } catch (error) {
    if (locationWasMade) removeIfEmpty(volume.location)
    throw error
  }
}

async function make(
  request: CreateRequest,
  machine: FstoolMachine,
  watcher: CreateWatcher,
  locationWasMade: boolean,
  tools: VolumeTools,
): Promise<void> {
  await checkRequest(request.volume, request.size, machine, tools)
  const volumeKey = new Uint8Array(randomBytes(volumeKeySize(request.volume.integrity === "required")))
  const header = await memoryFile(new Uint8Array(HEADER_BYTES), { name: "luks-header", sealed: false })
  const given = { request, machine, tools, watcher, locationWasMade, volumeKey, header }
  const making: Making = { ...given, made: null, trusted: null, sealed: null }
  try {
    await runSteps(stepsFor(request), making, {
      before(step, number, total) {
        watcher.aborted()
        watcher.step(number, total, step.name, step.title)
      },
    })
  } finally {
    wipe(volumeKey, making.sealed)
    header.close()
  }
}

function stepsFor({ volume, size, enrol, keepPassphrase }: CreateRequest): Step<Making>[] {
  return [
    PREPARE,
    ...(size === null ? [] : [ALLOCATE]),
    FORMAT,
    ...(volume.integrity === "required" ? [ZERO] : []),
    ...(enrol === null ? [] : [ENROL]),
    OPEN,
    MAKE_FILE_SYSTEM,
    MOUNT,
    ...(keepPassphrase ? [KEEP_PASSPHRASE] : []),
    WRITE_HEADER,
    REMEMBER,
    PUT_IN_PLACE,
  ]
}

const PREPARE: Step<Making> = {
  name: "prepare",
  title: "noting what will be made",
  async run(making) {
    making.made = beginHalfMade(making.request.volume, making.locationWasMade, making.machine)
  },
  // Takes back all the rest as well: in the same way as the next fstool does after this one was killed.
  async undo({ made, tools }) {
    if (made !== null) await removeHalfMade(made, tools)
  },
}

const ALLOCATE: Step<Making> = {
  name: "allocate",
  title: "taking room on the disk",
  run: ({ request, tools, ...making }) => tools.allocate(halfMade(making).container, request.size ?? 0),
}

const FORMAT: Step<Making> = {
  name: "format",
  title: "writing the LUKS header, in memory",
  run: ({ request, machine, tools, header, volumeKey, ...making }) =>
    tools.cryptsetup.format({
      header,
      container: halfMade(making).container,
      integrity: request.volume.integrity === "required",
      volumeKey,
      passphrase: request.passphrase,
      cost: machine.passphraseCost,
    }),
}

/** Until a sector is written it has no authentication tag, and reading it is an error. */
const ZERO: Step<Making> = {
  name: "zero",
  title: "writing all sectors once, for their authentication tags",
  async run(making) {
    const { request, tools, watcher, volumeKey } = making
    const { name } = request.volume
    const { container } = halfMade(making)
    const key = { kind: "volume-key", secret: volumeKey } as const
    await tools.cryptsetup.open({
      ...{ header: making.header, container, name, key },
      ...{ keyslot: null, journal: false },
    })
    await tools.zero(present(name), 0, watcher.aborted, watcher.bytes)
    await tools.cryptsetup.close(name)
  },
}

const ENROL: Step<Making> = {
  name: "enrol",
  title: "sealing a key in the TPM",
  async run(making) {
    const { request, machine, tools, header, volumeKey } = making
    const { tpm } = machine
    if (tpm === null || request.enrol === null) throw new CodedError("ERR_NO_TPM", { at: "TPM" })
    const secret = new Uint8Array(randomBytes(32))
    const keyslot = 1
    try {
      const sealed = await tpm.seal({ secret, ...request.enrol, storageKey: "srk" })
      const key = { kind: "volume-key", secret: volumeKey } as const
      const passphrase = sealedPassphrase(secret)
      await tools.cryptsetup.addKey({ header, key, passphrase, kdf: "random-secret", keyslot })
      await tools.cryptsetup.importToken(header, encodeSystemdTpm2Token(sealed, keyslot))
      wipe(passphrase)
      // What is sealed must also come out: better to learn it now than at the next boot.
      const again = await tpm.unseal(sealed, request.enrol.pin)
      making.sealed = sealedPassphrase(again)
      wipe(again)
    } finally {
      wipe(secret)
    }
  },
}

const OPEN: Step<Making> = {
  name: "open",
  title: "opening the volume as it will be opened from now on",
  async run(making) {
    const { request, tools, header, sealed } = making
    const { volume, passphrase } = request
    const trusted = await trustHeader(
      readBounded(`/proc/self/fd/${header.fd}`, MAX_LUKS_IMAGE),
      "new header",
      {
        policy: luksPolicyOf(volume),
        reference: null,
        absent: "accept",
      },
    )
    making.trusted = trusted
    noteOpening(volume.name)
    await withHeader(trusted, (file) =>
      tools.cryptsetup.open({
        header: file,
        container: halfMade(making).container,
        name: volume.name,
        key: { kind: "passphrase", secret: sealed ?? passphrase },
        keyslot: sealed === null ? 0 : 1,
        journal: true,
      }),
    )
    noteOpened(present(volume.name))
  },
}

const MAKE_FILE_SYSTEM: Step<Making> = {
  name: "filesystem",
  title: "making the file system",
  run: ({ request: { volume }, tools }) =>
    tools.makeFileSystem(volume.fileSystem, `/dev/mapper/${volume.name}`),
}

const MOUNT: Step<Making> = {
  name: "mount",
  title: "mounting it",
  async run(making) {
    const { volume } = making.request
    makeMountPoint(halfMade(making))
    await making.tools.mount(volume.fileSystem, `/dev/mapper/${volume.name}`, volume.mountPoint)
  },
}

const KEEP_PASSPHRASE: Step<Making> = {
  name: "keep-password",
  title: "keeping the password inside the volume",
  async run({ request: { volume, passphrase } }) {
    writeFileAtomically(join(volume.mountPoint, PASSWORD_FILE), passphrase, 0o600)
  },
}

const WRITE_HEADER: Step<Making> = {
  name: "header",
  title: "writing the header to the disk",
  async run(making) {
    writeFileAtomically(halfMade(making).header, complete(making).bytes, 0o600)
    markFinished(halfMade(making))
    making.request.showPassphrase()
  },
}

/** From here on the volume exists: a crash before the next step is mended by the next fstool. */
const REMEMBER: Step<Making> = {
  name: "remember",
  title: "having the TPM remember the header",
  async run(making) {
    const { volume } = making.request
    const reference = { current: headerDigest(complete(making).bytes), next: null }
    await making.machine.tpm?.headers.write({ volume: volume.name, pcrs: volume.headerPcrs }, reference)
  },
  async undo({ request: { volume }, machine }) {
    await machine.tpm?.headers.remove(volume.name)
  },
}

const PUT_IN_PLACE: Step<Making> = {
  name: "place",
  title: "putting everything in its place",
  async run(making) {
    putInPlace(halfMade(making), making.machine.volumesFile)
  },
}

function halfMade({ made }: Pick<Making, "made">): HalfMade {
  if (made === null) throw new CodedError("ERR_INTERNAL", { at: "volume", found: "a step before its time" })
  return made
}

function complete({ trusted }: Making): TrustedHeader {
  if (trusted === null)
    throw new CodedError("ERR_INTERNAL", { at: "header", found: "a step before its time" })
  return trusted
}

function present(name: string) {
  const mapping = findMapping(name)
  if (mapping !== null) return mapping
  throw new CodedError("ERR_PROGRAM_FAILED", { at: name, found: "no mapping after cryptsetup open" })
}
