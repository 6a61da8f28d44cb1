import { existsSync, statSync } from "node:fs"
import { CodedError } from "../../errors.ts"
import { printable } from "../../formats/path-text.ts"
import { interruptible } from "../interrupt.ts"
import { jsonText } from "../json-text.ts"
import { ProgressLine, size as shownSize } from "../progress.ts"
import type { Terminal } from "../terminal.ts"
import type { CreateWatcher } from "./create.ts"
import type { KeyWork } from "./keys.ts"
import { type FstoolMachine, withLocation } from "./machine.ts"
import { withMachine } from "./open-machine.ts"
import type { Unlocking } from "./open-volume.ts"
import type { MachineOptions, UnlockOptions, VolumeOptions } from "./options.ts"
import { withUnlocking } from "./passwords.ts"
import { volumeStatus } from "./status.ts"
import { tidyPath, type Volume } from "./volume-config.ts"
import { findVolume, readVolumes } from "./volumes-file.ts"

/** For what needs no key. */
export const NO_KEYS: UnlockOptions = { passwordFile: null, passwordFd: null, pinFile: null }

/** Does something with one volume, under its lock, and says what was done. */
export async function withVolume(
  options: VolumeOptions & UnlockOptions,
  terminal: Terminal,
  work: (work: KeyWork, unlocking: Unlocking) => Promise<string>,
): Promise<number> {
  return withMachine(options, terminal, async (machine) => {
    await recoverAt(options.volume, machine)
    const volume = findVolume(readVolumes(options.volumesFile), options.volume)
    const said = await withUnlocking(options, (unlocking) =>
      withLocation(volume.location, machine, (tools) => work({ volume, machine, tools }, unlocking)),
    )
    await done(options, machine, terminal, volume, said)
    return 0
  })
}

/** A volume that was being made when fstool was killed is in no list yet: it is named by its location. */
export async function recoverAt(wanted: string | null, machine: FstoolMachine): Promise<void> {
  if (wanted?.startsWith("/") && existsSync(wanted) && statSync(wanted).isDirectory())
    await withLocation(tidyPath(wanted), machine, async () => {})
}

/** Says what was done with a volume. */
export async function done(
  { json, quiet }: MachineOptions,
  machine: FstoolMachine,
  terminal: Terminal,
  volume: Volume,
  said: string,
): Promise<void> {
  if (json) {
    const present = existsSync(volume.header) ? await volumeStatus(volume, machine) : null
    terminal.out(jsonText({ done: said, volume: present }))
  } else if (!quiet) terminal.out(`${volume.name}: ${printable(said)}\n`)
}

/** Runs long work with its progress shown and Ctrl-C heeded. */
export async function watched<T>(
  { json, quiet }: MachineOptions,
  terminal: Terminal,
  work: (watcher: CreateWatcher) => Promise<T>,
): Promise<T> {
  const line = new ProgressLine(terminal, !quiet && !json)
  try {
    return await interruptible((signal) =>
      work({
        step(number, total, name, title) {
          const text = `step ${number} of ${total}, ${name}: ${title}`
          if (terminal.live) line.step(text)
          else if (!quiet) terminal.talk(`${text}\n`)
        },
        bytes: (now, total) =>
          line.step(`${shownSize(now)} of ${shownSize(total)}, ${percent(now, total)} %`),
        aborted() {
          if (signal.aborted) throw new CodedError("ERR_INTERRUPTED", { at: "fstool" })
        },
      }),
    )
  } finally {
    line.clear()
  }
}

function percent(now: number, total: number): number {
  return total === 0 ? 100 : Math.floor((now * 100) / total)
}
