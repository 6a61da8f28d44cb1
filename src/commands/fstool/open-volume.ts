import { existsSync, mkdirSync, readdirSync } from "node:fs"
import { CodedError, type ErrorCode, VerifyError } from "../../errors.ts"
import type { LuksHeader } from "../../formats/luks/header.ts"
import {
  parseSystemdTpm2Token,
  type SealedSecret,
  SYSTEMD_TPM2,
  sealedPassphrase,
} from "../../formats/luks/systemd-tpm2-token.ts"
import { findMapping, hasDeviceMapper, liesOver, type Mapping } from "../../native/block-stack.ts"
import type { Key } from "../../native/cryptsetup.ts"
import { mountedAt, type VolumeTools } from "../../native/volume-tools.ts"
import { DEFAULT_LUKS_POLICY, type LuksPolicy } from "../../policy/luks-header.ts"
import { wipe } from "../passphrase.ts"
import { openTrustedHeader, type TrustedHeader } from "../trusted-header.ts"
import type { FstoolMachine } from "./machine.ts"
import { forgetOpened, noteOpened, noteOpening, originOf } from "./opened.ts"
import type { Volume } from "./volume-config.ts"

/** How a volume may be unlocked. What is not asked for is not read. */
export interface Unlocking {
  /** Asks for a passphrase, or reads it; null: there is none to be had. */
  readonly passphrase: (() => Promise<Uint8Array>) | null
  /** For TPM enrolments with a PIN. */
  readonly pin: (() => Promise<Uint8Array>) | null
  /** `passphrase`: the TPM is not tried, because somebody gave a passphrase for this. */
  readonly first: "tpm" | "passphrase"
}

/** What a volume's header has to be like. */
export function luksPolicyOf(volume: Volume): LuksPolicy {
  return { ...DEFAULT_LUKS_POLICY, integrity: volume.integrity === "none" ? "optional" : "required" }
}

/**
 * Reads and checks a volume's header, against the TPM's memory where there is a TPM. After a change that was interrupted the
 * TPM remembers this header alone: the other one of the two could be brought back else, at any later time. The caller has the
 * lock of the volume. @throws as openTrustedHeader
 */
export async function trustedHeaderOf(volume: Volume, machine: FstoolMachine): Promise<TrustedHeader> {
  const trusted = await lookAtHeader(volume, machine)
  const { reference, digest: current } = trusted
  if (reference === "before" || reference === "after")
    await machine.tpm?.headers.write(
      { volume: volume.name, pcrs: volume.headerPcrs },
      { current, next: null },
    )
  return trusted
}

/** The same for who only looks, and has no lock: another fstool may be at work between the two headers. */
export function lookAtHeader(volume: Volume, { tpm }: FstoolMachine): Promise<TrustedHeader> {
  return openTrustedHeader(volume.header, {
    policy: luksPolicyOf(volume),
    reference:
      tpm === null ? null : { store: tpm.headers, name: { volume: volume.name, pcrs: volume.headerPcrs } },
    absent: "accept",
  })
}

/**
 * Tries to do something with a key of the volume: with what the TPM unseals, or with a passphrase. `attempt` throws
 * ERR_PASSPHRASE_WRONG where the key does not fit. `keyslot`: the one that the key belongs to, null where that is not known.
 * @throws CodedError the TPM's reason where it does not unseal and no passphrase is to be had; ERR_VOLUME_NO_KEY; what
 *   `attempt` throws
 */
export async function withKey<T>(
  volume: Volume,
  trusted: TrustedHeader,
  machine: FstoolMachine,
  unlocking: Unlocking,
  attempt: (key: Key, keyslot: number | null) => Promise<T>,
): Promise<T> {
  const reasons: CodedError[] = []
  if (unlocking.first === "tpm")
    for (const { sealed, keyslot } of tpmTokens(trusted.header)) {
      try {
        const secret = await unsealed(sealed, keyslot, machine, unlocking)
        return await withSecret(secret, keyslot, (key) => {
          // A header of before, under another name: the TPM unseals what it once sealed for it.
          if (trusted.reference === "absent") throw unremembered(volume)
          return attempt(key, keyslot)
        })
      } catch (error) {
        if (!(error instanceof CodedError) || !leavesOtherKeys(error)) throw error
        reasons.push(error)
      }
    }
  if (unlocking.passphrase === null) throw noKey(volume, reasons)
  for (const reason of reasons) machine.talk(`the TPM does not open ${volume.name}: ${reason.message}`)
  return withSecret(await unlocking.passphrase(), null, attempt)
}

function unremembered({ name, header }: Volume): VerifyError<"ERR_HEADER_REFERENCE_ABSENT"> {
  return new VerifyError("ERR_HEADER_REFERENCE_ABSENT", {
    at: header,
    expected: `a header that the TPM remembers for the volume ${name}`,
    found: "nothing of a volume of this name",
    hint: `a volume of Cosmian VM 1.3 or of another tool, or one that somebody renamed: if you know why, cosmian_vm fstool header accept ${name}`,
  })
}

/** Faults of one key, after which another may do. */
const OTHER_KEYS = [
  "ERR_HEADER_REFERENCE_ABSENT",
  "ERR_NO_TPM",
  "ERR_PASSPHRASE_WRONG",
  "ERR_SEALED_ELSEWHERE",
  "ERR_SEALED_PCRS",
  "ERR_SEALED_PIN",
  "ERR_TPM_COMMAND",
  "ERR_TPM_DEVICE",
  "ERR_TPM_LOCKOUT",
  "ERR_TPM_SESSION",
  "ERR_UNSUPPORTED",
  "ERR_VOLUME_NO_KEY",
] satisfies ErrorCode[]

function leavesOtherKeys({ code }: CodedError): boolean {
  return OTHER_KEYS.some((other) => other === code)
}

async function withSecret<T>(
  secret: Uint8Array,
  keyslot: number | null,
  attempt: (key: Key, keyslot: number | null) => Promise<T>,
): Promise<T> {
  try {
    return await attempt({ kind: "passphrase", secret }, keyslot)
  } finally {
    wipe(secret)
  }
}

/** Enrolments of a TPM in a header, in its order. A token of a kind that is not read was refused with the header. */
export function tpmTokens(header: LuksHeader): { token: number; keyslot: number; sealed: SealedSecret }[] {
  return header.metadata.tokens
    .filter(({ type }) => type === SYSTEMD_TPM2)
    .flatMap(({ id, keyslots, members }) =>
      keyslots.map((keyslot) => ({ token: id, keyslot, sealed: parseSystemdTpm2Token(members) })),
    )
}

/** The LUKS passphrase of a TPM enrolment. The caller wipes it. */
async function unsealed(
  sealed: SealedSecret,
  keyslot: number,
  { tpm, tpmAbsence }: FstoolMachine,
  { pin }: Unlocking,
): Promise<Uint8Array> {
  if (tpm === null) throw new CodedError("ERR_NO_TPM", { at: "TPM", found: tpmAbsence ?? "none" })
  if (sealed.pin && pin === null)
    throw new CodedError("ERR_VOLUME_NO_KEY", {
      at: `keyslot ${keyslot}`,
      expected: "the PIN that this enrolment asks for",
      found: "none",
      hint: "give --pin-file, or work at a terminal",
    })
  const given = sealed.pin && pin !== null ? await pin() : null
  const secret = await tpm.unseal(sealed, given).finally(() => wipe(given))
  const passphrase = sealedPassphrase(secret)
  wipe(secret)
  return passphrase
}

function noKey(volume: Volume, reasons: readonly CodedError[]): CodedError {
  const command = `cosmian_vm fstool mount ${volume.name} --password-file FILE`
  const [first] = reasons
  if (first === undefined)
    return new CodedError("ERR_VOLUME_NO_KEY", {
      at: volume.name,
      expected: "an enrolment of the TPM, or a passphrase",
      found: "neither",
      hint: `with its password: ${command}`,
    })
  return new CodedError(first.code, {
    at: `${volume.name}${first.at === undefined ? "" : `, ${first.at}`}`,
    ...(first.expected === undefined ? {} : { expected: first.expected }),
    ...(first.found === undefined ? {} : { found: first.found }),
    hint: `${first.hint === undefined ? "" : `${first.hint}; `}with its password: ${command}`,
    cause: first,
  })
}

/**
 * Maps a volume that was unlocked; one that is mapped already stays. A header that the TPM did not know is remembered from
 * here on: somebody gave the passphrase for it, which an invented header would not open with.
 */
export async function openVolume(
  volume: Volume,
  machine: FstoolMachine,
  tools: VolumeTools,
  unlocking: Unlocking,
): Promise<Mapping> {
  const present = mappingOf(volume)
  const origin = present === null ? null : originOf(present)
  if (present !== null && origin === "ours") return present
  // Of an fstool that was killed, perhaps: what it opened it would open again.
  if (origin === "begun") await tools.cryptsetup.close(volume.name)
  else if (origin !== null)
    throw new CodedError("ERR_VOLUME_BUSY", {
      at: `/dev/mapper/${volume.name}`,
      expected: "a mapping that fstool opened, with a header that was checked",
      found: "one of another program",
      hint: `remove the volume from /etc/crypttab and /etc/fstab; now: umount ${volume.mountPoint}; cryptsetup close ${volume.name}`,
    })
  checkDeviceMapper()
  const trusted = await trustedHeaderOf(volume, machine)
  const mapping = await mapNoted(volume, trusted, machine, tools, unlocking)
  if (trusted.reference === "absent") {
    const name = { volume: volume.name, pcrs: volume.headerPcrs }
    await machine.tpm?.headers.write(name, { current: trusted.digest, next: null })
    machine.talk(`${volume.name}: the TPM did not know this header; it remembers it from now on`)
  }
  return mapping
}

/** Maps a volume, and notes that the mapping is ours: not before it is, and no longer where it failed. */
async function mapNoted(
  volume: Volume,
  trusted: TrustedHeader,
  machine: FstoolMachine,
  tools: VolumeTools,
  unlocking: Unlocking,
): Promise<Mapping> {
  const { name, container } = volume
  noteOpening(name)
  try {
    await withKey(volume, trusted, machine, unlocking, (key, keyslot) =>
      withHeader(trusted, (header) =>
        tools.cryptsetup.open({ header, container, name, key, keyslot, journal: true }),
      ),
    )
  } catch (error) {
    forgetOpened(name)
    throw error
  }
  const mapping = mappingOf(volume)
  if (mapping === null)
    throw new CodedError("ERR_PROGRAM_FAILED", { at: name, found: "no mapping after cryptsetup open" })
  noteOpened(mapping)
  return mapping
}

/** @throws CodedError ERR_STORAGE_UNAVAILABLE */
export function checkDeviceMapper(): void {
  if (hasDeviceMapper()) return
  throw new CodedError("ERR_STORAGE_UNAVAILABLE", {
    at: "/dev/mapper/control",
    expected: "the kernel's device mapper",
    found: "none",
    hint: "modprobe dm_crypt dm_integrity; in a container there is none",
  })
}

/**
 * The mapping of a volume, or null where it is closed.
 * @throws CodedError ERR_VOLUME_BUSY where something else has its name
 */
export function mappingOf(volume: Volume): Mapping | null {
  const mapping = findMapping(volume.name)
  if (mapping === null) return null
  if (liesOver(mapping, volume.container)) return mapping
  throw new CodedError("ERR_VOLUME_BUSY", {
    at: `/dev/mapper/${volume.name}`,
    expected: `a mapping of ${volume.container}`,
    found: "one of something else",
    hint: "close that one, or give this volume another name",
  })
}

/**
 * Opens and mounts a volume, each only where it is not done yet.
 * @returns whether anything had to be done.
 * @throws CodedError ERR_MOUNT_POINT where something else is mounted there
 */
export async function mountVolume(
  volume: Volume,
  machine: FstoolMachine,
  tools: VolumeTools,
  unlocking: Unlocking,
): Promise<boolean> {
  const wasOpen = mappingOf(volume) !== null
  const mapping = await openVolume(volume, machine, tools, unlocking)
  const mount = mountedAt(volume.mountPoint)
  if (mount?.device === mapping.device) return false
  try {
    checkMountPoint(volume.mountPoint)
    mkdirSync(volume.mountPoint, { recursive: true })
    await tools.mount(volume.fileSystem, `/dev/mapper/${volume.name}`, volume.mountPoint)
  } catch (error) {
    if (!wasOpen) await tools.cryptsetup.close(volume.name)
    throw error
  }
  return true
}

/**
 * @throws CodedError ERR_MOUNT_POINT where something is mounted there or lies in it: files would be hidden, and stay on the disk as they
 *   are while everybody takes them for encrypted
 */
export function checkMountPoint(path: string): void {
  const mount = mountedAt(path)
  if (mount !== null)
    throw new CodedError("ERR_MOUNT_POINT", {
      at: path,
      expected: "nothing mounted there",
      found: `${mount.fileSystem} of ${mount.source}`,
      hint: `umount ${path}, or choose another mount point`,
    })
  const [first] = existsSync(path) ? readdirSync(path) : []
  if (first !== undefined)
    throw new CodedError("ERR_MOUNT_POINT", {
      at: path,
      expected: "an empty directory",
      found: `files, among them ${first}, that are not encrypted`,
      hint: `mv ${path} ${path}.plain; then do this again, cp -a ${path}.plain/. ${path}/, and remove the copy; take keys among them for known to the host, and replace them`,
    })
}

/** Unmounts and closes a volume, each only where it is not done yet. Returns whether anything had to be done. */
export async function closeVolume(volume: Volume, tools: VolumeTools): Promise<boolean> {
  const mapping = mappingOf(volume)
  if (mapping === null) return false
  await unmountVolume(volume, tools)
  await tools.cryptsetup.close(volume.name)
  forgetOpened(volume.name)
  return true
}

/** Unmounts a volume, which stays open. Returns whether it was mounted. */
export async function unmountVolume(volume: Volume, tools: VolumeTools): Promise<boolean> {
  const mapping = mappingOf(volume)
  if (mapping === null || mountedAt(volume.mountPoint)?.device !== mapping.device) return false
  await tools.unmount(volume.mountPoint)
  return true
}

/** Runs with the checked bytes in a file that nobody can change. */
export async function withHeader<T>(
  trusted: TrustedHeader,
  use: (file: Awaited<ReturnType<TrustedHeader["file"]>>) => Promise<T>,
): Promise<T> {
  const file = await trusted.file()
  try {
    return await use(file)
  } finally {
    file.close()
  }
}
