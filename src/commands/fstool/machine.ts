import type { PassphraseCost } from "../../native/cryptsetup.ts"
import { type DirectoryLock, lockDirectory } from "../../native/directory-lock.ts"
import type { TpmStorage } from "../../native/ports.ts"
import { VolumeTools } from "../../native/volume-tools.ts"
import { codedFrom } from "../report-error.ts"
import { halfMadeLocations, recoverHalfMade } from "./half-made.ts"

/** What fstool works with besides the volume itself. */
export interface FstoolMachine {
  readonly tpm: TpmStorage | null
  /** Why there is no TPM; null where there is one. */
  readonly tpmAbsence: string | null
  readonly volumesFile: string
  /** Where volumes in the making are noted. */
  readonly journal: string
  /** Of new passwords. */
  readonly passphraseCost: PassphraseCost
  /** Says something to the person at the terminal, or to the log. */
  talk(message: string): void
}

/** How long another fstool at the same volume is waited for. */
const LOCK_WAIT_MS = 60_000

/**
 * Runs with the lock of a volume's location, after what a killed fstool left there was cleaned up.
 * @throws NativeError ERR_VOLUME_BUSY, ERR_IO
 */
export async function withLocation<T>(
  location: string,
  machine: FstoolMachine,
  work: (tools: VolumeTools) => Promise<T>,
): Promise<T> {
  const lock = await lockDirectory(location, LOCK_WAIT_MS, () =>
    machine.talk(`another fstool works in ${location}: waiting for it`),
  )
  return withLock(lock, location, machine, work)
}

/**
 * Cleans up after any fstool that was killed while it made a volume, wherever that was; where one is still at work it is left
 * alone. What cannot be cleaned up is said, and keeps nothing else from being done.
 */
export async function recoverEverywhere(machine: FstoolMachine): Promise<void> {
  for (const location of halfMadeLocations(machine.journal))
    try {
      const lock = await lockDirectory(location, 0, () => {})
      await withLock(lock, location, machine, async () => {})
    } catch (error) {
      const { code, message } = codedFrom(error)
      if (code !== "ERR_VOLUME_BUSY") machine.talk(`warning: ${location}: ${message}`)
    }
}

async function withLock<T>(
  lock: DirectoryLock,
  location: string,
  machine: FstoolMachine,
  work: (tools: VolumeTools) => Promise<T>,
): Promise<T> {
  try {
    const tools = new VolumeTools(lock.fd)
    const references = machine.tpm?.headers ?? null
    const recovered = await recoverHalfMade(location, tools, references, machine)
    if (recovered !== null)
      machine.talk(`a volume in ${location} whose making was cut short was ${recovered}`)
    return await work(tools)
  } finally {
    lock.release()
  }
}

const KIB = 1024
/**
 * How costly a guess of the passphrase is made: a sixteenth of the memory, 64 MiB to 1 GiB, in four passes. Fixed by the
 * machine's size instead of measured by its speed at the moment, so that a busy machine gives no weaker volume.
 */
export function passphraseCost(memoryBytes: number, processors: number): PassphraseCost {
  const memory = Math.floor(memoryBytes / 16 / KIB)
  return {
    memory: Math.min(KIB * KIB, Math.max(64 * KIB, memory)),
    passes: 4,
    lanes: Math.max(1, Math.min(4, processors)),
  }
}
