import { existsSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { NativeError } from "../errors.ts"
import type { DeviceWorker } from "./device-worker.ts"
import { openEventLogs } from "./event-logs.ts"
import type { EventLogSource, MeasurementListSource } from "./ports.ts"
import { openMeasurementList } from "./securityfs.ts"
import {
  simulatedBoot,
  simulatedCommandLinePath,
  simulatedLogPath,
  writeSimulatedLog,
} from "./simulated-boot.ts"
import { appendMeasurement, bootAggregate, measureExecutable, resetLists } from "./simulated-ima.ts"
import { ensureEkCertificate } from "./simulated-tpm-certificate.ts"
import { endSoftwareTpm, findSoftwareTpm, type SoftwareTpm, startSoftwareTpm } from "./swtpm.ts"
import { withTpm } from "./tpm.ts"
import type { TpmOperations } from "./tpm-operations.ts"

/** A machine that is powered on: a software TPM and a kernel's measurement list, without the machine. */
export interface SimulatedMachine {
  /** Address of its TPM, for `openTpm`. */
  readonly tcti: string
  readonly ima: MeasurementListSource
  readonly eventLogs: EventLogSource
  /** Powers the machine off, in order. */
  close(): Promise<void>
}

const IMA_PCR = 10
/** PCRs that the boot aggregate covers. */
const BOOT_PCRS = Array.from({ length: 10 }, (_, index) => index)

/** dir/machine.json: how other processes find the running machine. */
interface MachineFile {
  readonly tcti: string
  /** Process of the software TPM. */
  readonly pid: number
  /** Process that the machine belongs to. */
  readonly owner: number
}

/**
 * Powers a simulated machine on. Its state (the TPM's keys and counters) is kept in `dir`; each start is a TPM reset. It
 * runs as long as this process: when it dies by whatever means, so does the TPM.
 *
 * `dir` holds: tpm/ (the TPM's state), ima/ (the measurement list in the kernel's format), firmware/ (its event log), cmdline,
 * initrd, secure-boot and boot-loader (what the next start measures), tpm-ca/ (root of the TPM's maker), machine.json (while it runs).
 * @throws NativeError ERR_SIMULATOR_BUSY, ERR_SIMULATOR_START, ERR_TPM_LIBRARY, ERR_IO, ERR_MALFORMED
 */
export async function openSimulatedMachine(dir: string): Promise<SimulatedMachine> {
  const root = makeRoot(dir)
  await endAbandoned(root)
  resetLists(imaDirectory(root))
  const tpm = await startSoftwareTpm(tpmDirectory(root))
  try {
    writeMachineFile(root, { tcti: tpm.tcti, pid: tpm.pid, owner: process.pid })
    await withTpm(tpm.tcti, async (worker) => {
      await ensureEkCertificate(join(root, "tpm-ca"), worker, new Date())
      await boot(root, worker)
    })
  } catch (error) {
    await powerOff(root, tpm)
    throw error
  }
  return {
    tcti: tpm.tcti,
    ima: openMeasurementList(imaDirectory(root)),
    eventLogs: openEventLogs({
      firmware: simulatedLogPath(root),
      confidential: join(root, "no-such-table"),
      commandLine: simulatedCommandLinePath(root),
    }),
    close: () => powerOff(root, tpm),
  }
}

function makeRoot(dir: string): string {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    return realpathSync(dir)
  } catch (cause) {
    throw new NativeError("ERR_IO", {
      at: dir,
      expected: "a directory that can be written to",
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

async function powerOff(root: string, tpm: SoftwareTpm): Promise<void> {
  await tpm.stop()
  rmSync(machinePath(root), { force: true })
}

/**
 * Does what the kernel would do when this file is executed: measures it, unless the very same content was measured under
 * this name before. For any process while the machine runs.
 * @throws NativeError ERR_SIMULATOR_OFF, ERR_IO
 */
export async function measureFile(dir: string, path: string): Promise<void> {
  const { root, machine } = runningMachine(dir)
  const entry = await measureExecutable(path)
  await withTpm(machine.tcti, (worker) =>
    appendMeasurement(imaDirectory(root), entry, (data) => extend(worker, IMA_PCR, data)),
  )
}

/**
 * Measures `data` into a PCR of a running machine, as its firmware or operating system might.
 * @throws NativeError ERR_SIMULATOR_OFF
 */
export async function extendSimulatedPcr(dir: string, pcr: number, data: Uint8Array): Promise<void> {
  const { machine } = runningMachine(dir)
  await withTpm(machine.tcti, (worker) => extend(worker, pcr, data))
}

/** A simulated machine that runs, for another process. @throws NativeError ERR_SIMULATOR_OFF */
export function findSimulatedMachine(dir: string): Pick<SimulatedMachine, "tcti" | "ima"> {
  const { root, machine } = runningMachine(dir)
  return { tcti: machine.tcti, ima: openMeasurementList(imaDirectory(root)) }
}

async function boot(root: string, worker: DeviceWorker<TpmOperations>): Promise<void> {
  const measurements = simulatedBoot(root)
  for (const { pcr, measured } of measurements) await extend(worker, pcr, measured)
  writeSimulatedLog(root, measurements)
  const executables = [
    bootAggregate(await worker.call("pcrs", BOOT_PCRS)),
    await measureExecutable(process.execPath),
  ]
  for (const entry of executables)
    await appendMeasurement(imaDirectory(root), entry, (data) => extend(worker, IMA_PCR, data))
}

function extend(worker: DeviceWorker<TpmOperations>, pcr: number, data: Uint8Array): Promise<void> {
  return worker.call("extend", { pcr, data })
}

/** An owner that was killed may have left its TPM running, where the kernel did not end it. One with a living owner is in use. */
async function endAbandoned(root: string): Promise<void> {
  const machine = readMachineFile(root)
  if (machine === null) return
  const running = findSoftwareTpm(machine.pid, tpmDirectory(root))
  if (running !== null && running.parent === machine.owner)
    throw new NativeError("ERR_SIMULATOR_BUSY", {
      at: root,
      found: `process ${machine.owner} owns it, its TPM is process ${machine.pid}`,
      hint: "stop that process, or use another directory",
    })
  await endSoftwareTpm(machine.pid, tpmDirectory(root))
  rmSync(machinePath(root), { force: true })
}

function runningMachine(dir: string): { root: string; machine: MachineFile } {
  const root = existsSync(dir) ? realpathSync(dir) : dir
  const machine = readMachineFile(root)
  if (machine !== null && findSoftwareTpm(machine.pid, tpmDirectory(root)) !== null) return { root, machine }
  throw new NativeError("ERR_SIMULATOR_OFF", {
    at: dir,
    hint: `start it: cosmian_vm agent --simulate ${dir}`,
  })
}

function readMachineFile(root: string): MachineFile | null {
  const path = machinePath(root)
  if (!existsSync(path)) return null
  const value = parseJson(readFileSync(path, "utf8"))
  if (typeof value === "object" && value !== null && "tcti" in value && "pid" in value && "owner" in value) {
    const { tcti, pid, owner } = value
    if (typeof tcti === "string" && typeof pid === "number" && typeof owner === "number")
      return { tcti, pid, owner }
  }
  throw new NativeError("ERR_MALFORMED", { at: path, expected: "tcti, pid, owner", hint: "remove the file" })
}

/** Null where it is no JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

function writeMachineFile(root: string, machine: MachineFile): void {
  const next = `${machinePath(root)}.${process.pid}`
  writeFileSync(next, `${JSON.stringify(machine)}\n`, { mode: 0o600 })
  renameSync(next, machinePath(root))
}

function machinePath(root: string): string {
  return join(root, "machine.json")
}

function imaDirectory(root: string): string {
  return join(root, "ima")
}

function tpmDirectory(root: string): string {
  return join(root, "tpm")
}
