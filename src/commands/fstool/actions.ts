import { UsageError } from "../../errors.ts"
import { printable } from "../../formats/path-text.ts"
import { jsonText } from "../json-text.ts"
import { size as shownSize } from "../progress.ts"
import { codedFrom, reportError } from "../report-error.ts"
import { openTerminal, type Terminal } from "../terminal.ts"
import { makeAgentVolume } from "./first-start.ts"
import { acceptHeader, backUpHeader, restoreHeader, wipeVolume } from "./header-care.ts"
import { type FstoolMachine, withLocation } from "./machine.ts"
import { withMachine } from "./open-machine.ts"
import { closeVolume, mountVolume, openVolume, type Unlocking, unmountVolume } from "./open-volume.ts"
import { wholeSectors } from "./option-values.ts"
import type { MachineOptions, UnlockOptions, VolumeOptions } from "./options.ts"
import { withUnlocking } from "./passwords.ts"
import { renderStatus } from "./render-status.ts"
import { growVolume } from "./resize.ts"
import { NO_KEYS, recoverAt, watched, withVolume } from "./session.ts"
import { volumeStatus } from "./status.ts"
import { DEFAULT_LOCATION, type Volume } from "./volume-config.ts"
import { findVolume, readVolumes } from "./volumes-file.ts"

export async function open(
  options: VolumeOptions & UnlockOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume(options, terminal, async ({ volume, machine, tools }, unlocking) => {
    await openVolume(volume, machine, tools, unlocking)
    return `open as /dev/mapper/${volume.name}`
  })
}

export async function close(options: VolumeOptions, terminal: Terminal = openTerminal()): Promise<number> {
  return withVolume({ ...options, ...NO_KEYS }, terminal, async ({ volume, tools }) =>
    (await closeVolume(volume, tools)) ? "closed" : "was closed",
  )
}

export async function unmount(options: VolumeOptions, terminal: Terminal = openTerminal()): Promise<number> {
  return withVolume({ ...options, ...NO_KEYS }, terminal, async ({ volume, tools }) =>
    (await unmountVolume(volume, tools)) ? "unmounted" : "was not mounted",
  )
}

export interface MountOptions extends VolumeOptions, UnlockOptions {
  readonly all: boolean
  readonly firstStart: boolean
  /** False: the first start keeps no password, whatever the configuration says. */
  readonly keepPassword: boolean
}

/** `fstool mount`. With `all`, every volume is tried; the first failure decides the exit code. */
export async function mount(options: MountOptions, terminal: Terminal = openTerminal()): Promise<number> {
  if (!options.all && !options.firstStart)
    return withVolume(options, terminal, async ({ volume, machine, tools }, unlocking) =>
      (await mountVolume(volume, machine, tools, unlocking))
        ? `mounted at ${volume.mountPoint}`
        : `was mounted at ${volume.mountPoint}`,
    )
  if (options.volume !== null)
    throw new UsageError("ERR_UNEXPECTED_ARGUMENT", {
      at: options.volume,
      expected: "no volume besides --all",
    })
  return withMachine(options, terminal, async (machine) => {
    await recoverAt(DEFAULT_LOCATION, machine)
    if (options.firstStart)
      await watched(options, terminal, (watcher) => makeAgentVolume(machine, options.keepPassword, watcher))
    const wanted = (volume: Volume) => (options.all ? volume.atBoot : volume.location === DEFAULT_LOCATION)
    const volumes = readVolumes(options.volumesFile).filter(wanted)
    const results = await withUnlocking(options, async (unlocking) => {
      const list = []
      for (const volume of volumes) list.push(await tryMount(volume, machine, unlocking, terminal, options))
      return list
    })
    if (options.json) terminal.out(jsonText({ volumes: results }))
    return results.find(({ exitCode }) => exitCode !== 0)?.exitCode ?? 0
  })
}

async function tryMount(
  volume: Volume,
  machine: FstoolMachine,
  unlocking: Unlocking,
  terminal: Terminal,
  { json, quiet }: MachineOptions,
) {
  try {
    const changed = await withLocation(volume.location, machine, (tools) =>
      mountVolume(volume, machine, tools, unlocking),
    )
    if (!json && !quiet)
      terminal.out(
        `${volume.name}: ${changed ? "mounted" : "was mounted"} at ${printable(volume.mountPoint)}\n`,
      )
    return { name: volume.name, mounted: true, changed, exitCode: 0 }
  } catch (error) {
    const coded = codedFrom(error)
    if (!json) reportError(coded, terminal, false)
    return { name: volume.name, mounted: false, error: coded.toJSON(), exitCode: coded.exitCode }
  }
}

export async function status(options: VolumeOptions, terminal: Terminal = openTerminal()): Promise<number> {
  return withMachine(options, terminal, async (machine) => {
    const known = readVolumes(options.volumesFile)
    const chosen = options.volume === null ? known : [findVolume(known, options.volume)]
    const volumes = []
    for (const volume of chosen) volumes.push(await volumeStatus(volume, machine))
    if (options.json) terminal.out(jsonText({ volumes }))
    else terminal.out(renderStatus(volumes, terminal.outStyle))
    return volumes.find((each) => each.exit_code !== 0)?.exit_code ?? 0
  })
}

export async function resize(
  options: VolumeOptions & UnlockOptions & { readonly size: string | null },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const size = options.size === null ? null : wholeSectors(options.size)
  return withVolume(options, terminal, (work, unlocking) =>
    watched(options, terminal, async ({ aborted, bytes }) => {
      const { from, to } = await growVolume(work, unlocking, size, aborted, bytes)
      return to > from ? `grown from ${shownSize(from)} to ${shownSize(to)}` : `has ${shownSize(to)} already`
    }),
  )
}

export async function headerBackup(
  options: VolumeOptions & { readonly file: string },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume({ ...options, ...NO_KEYS }, terminal, async (work) => {
    await backUpHeader(work, options.file)
    return `header written to ${options.file}`
  })
}

export async function headerRestore(
  options: VolumeOptions & UnlockOptions & { readonly file: string },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume(options, terminal, async (work, unlocking) => {
    await restoreHeader(work, unlocking, options.file)
    return `header restored from ${options.file}`
  })
}

export async function headerAccept(
  options: VolumeOptions & UnlockOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume(options, terminal, async (work, unlocking) => {
    await acceptHeader(work, unlocking)
    return "the TPM remembers the header as it is now"
  })
}

export async function destroy(
  options: VolumeOptions & { readonly sure: boolean },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  return withVolume({ ...options, ...NO_KEYS }, terminal, async (work) => {
    if (!options.sure) confirmWipe(work.volume)
    await wipeVolume(work)
    return "destroyed"
  })
}

function confirmWipe({ name }: Volume): void {
  const answer =
    process.stdin.isTTY === true ? prompt(`Destroy ${name} with all data? Type its name: `) : null
  if (answer === name) return
  throw new UsageError("ERR_BAD_VALUE", {
    at: "wipe",
    expected: `the name ${name}, or --yes`,
    found: answer === null ? "neither" : JSON.stringify(answer),
  })
}
