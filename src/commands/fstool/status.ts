import { existsSync, statfsSync, statSync } from "node:fs"
import { CodedError, type ErrorCode } from "../../errors.ts"
import type { LuksHeader } from "../../formats/luks/header.ts"
import { blockName, blockSize, findMapping } from "../../native/block-stack.ts"
import { mountedAt } from "../../native/volume-tools.ts"
import type { TrustedHeader } from "../trusted-header.ts"
import { SYSTEMD_RECOVERY } from "./keys.ts"
import type { FstoolMachine } from "./machine.ts"
import { lookAtHeader, mappingOf, tpmTokens } from "./open-volume.ts"
import type { TokenFormat } from "./options.ts"
import type { Volume } from "./volume-config.ts"

/** What `fstool status --json` prints of a volume. */
export interface VolumeStatus {
  readonly name: string
  readonly location: string
  readonly container: string
  /** Null where it is missing. */
  readonly container_bytes: number | null
  readonly header: string
  readonly mount_point: string
  readonly at_boot: boolean
  readonly open: boolean
  readonly mounted: boolean
  readonly file_system: { readonly kind: string; readonly bytes: number; readonly free_bytes: number } | null
  /** Null where `problem` says why. */
  readonly luks: LuksStatus | null
  readonly problem: Problem | null
  /** Exit code of the problem; 0 without one. */
  readonly exit_code: number
}

interface Problem {
  readonly code: ErrorCode
  readonly message: string
  readonly hint?: string
}

export interface LuksStatus {
  readonly uuid: string
  readonly cipher: string
  /** `hmac(sha256)`; null: tampering with the data goes unnoticed. */
  readonly integrity: string | null
  readonly sector_bytes: number
  readonly keyslots: readonly KeyslotStatus[]
  /** Whether the TPM knows the header: `no-tpm` where there is none to ask. */
  readonly remembered_by_tpm: "yes" | "no" | "no-tpm"
}

export interface KeyslotStatus {
  readonly slot: number
  readonly opens_with: "password" | "tpm" | "recovery-key"
  readonly kdf: string
  /** Of a TPM's enrolment. */
  readonly pcrs?: readonly number[]
  readonly pin?: boolean
  /** The first version of systemd that opens it. */
  readonly token_format?: TokenFormat
}

/** The state of a volume. What cannot be read is a `problem`, never a guess. */
export async function volumeStatus(volume: Volume, machine: FstoolMachine): Promise<VolumeStatus> {
  const { luks, problem, exit_code } = await luksOrProblem(volume, machine)
  const mount = mountedAt(volume.mountPoint)
  const mapping = findMapping(volume.name)
  const mounted = mount !== null && mapping !== null && mount.device === mapping.device
  return {
    name: volume.name,
    location: volume.location,
    container: volume.container,
    container_bytes: sizeOf(volume.container),
    header: volume.header,
    mount_point: volume.mountPoint,
    at_boot: volume.atBoot,
    open: mapping !== null,
    mounted,
    file_system: mounted ? fileSystemOf(volume.mountPoint, mount.fileSystem) : null,
    luks,
    problem,
    exit_code,
  }
}

async function luksOrProblem(
  volume: Volume,
  machine: FstoolMachine,
): Promise<Pick<VolumeStatus, "luks" | "problem" | "exit_code">> {
  try {
    if (!existsSync(volume.container))
      throw new CodedError("ERR_IO", { at: volume.container, expected: "the container", found: "nothing" })
    mappingOf(volume)
    return { luks: luksStatus(await lookAtHeader(volume, machine)), problem: null, exit_code: 0 }
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    const { code, message, hint, exitCode } = error
    const problem = { code, message, ...(hint === undefined ? {} : { hint }) }
    return { luks: null, problem, exit_code: exitCode }
  }
}

function luksStatus({ header, reference }: TrustedHeader): LuksStatus {
  const segment = header.metadata.segments.find((each) => each.known)
  const integrity = segment?.known === true ? segment.integrity : null
  return {
    uuid: header.uuid,
    cipher: segment?.known === true ? segment.encryption : "unknown",
    integrity: integrity === null ? null : integrity.type,
    sector_bytes: segment?.known === true ? segment.sectorSize : 0,
    keyslots: keyslotsOf(header),
    remembered_by_tpm: reference === "unchecked" ? "no-tpm" : reference === "absent" ? "no" : "yes",
  }
}

function keyslotsOf(header: LuksHeader): KeyslotStatus[] {
  const sealed = tpmTokens(header)
  const recovery = header.metadata.tokens.filter(({ type }) => type === SYSTEMD_RECOVERY)
  return header.metadata.keyslots.map((keyslot) => {
    const kdf = keyslot.known ? keyslot.kdf.type : "unknown"
    const token = sealed.find((each) => each.keyslot === keyslot.id)?.sealed
    if (token !== undefined)
      return {
        ...{ slot: keyslot.id, opens_with: "tpm", kdf, pcrs: token.pcrs, pin: token.pin },
        token_format: token.srk === null ? "systemd-252" : "systemd-254",
      }
    const recovers = recovery.some(({ keyslots }) => keyslots.includes(keyslot.id))
    return { slot: keyslot.id, opens_with: recovers ? "recovery-key" : "password", kdf }
  })
}

function sizeOf(container: string): number | null {
  const device = blockName(container)
  if (device !== null) return blockSize(device)
  return existsSync(container) ? statSync(container).size : null
}

function fileSystemOf(mountPoint: string, kind: string): VolumeStatus["file_system"] {
  const { bsize, blocks, bavail } = statfsSync(mountPoint)
  return { kind, bytes: blocks * bsize, free_bytes: bavail * bsize }
}
