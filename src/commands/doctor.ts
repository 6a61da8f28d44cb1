import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { defineCommand } from "citty"
import { detectCloud } from "../agent/cloud.ts"
import type { AgentConfig } from "../agent/config.ts"
import { isKeyExposed, readIdentity } from "../agent/identity.ts"
import { CodedError, EXIT } from "../errors.ts"
import { IMDS_URL } from "../formats/azure/imds.ts"
import { printable } from "../formats/path-text.ts"
import type { Tpm } from "../native/ports.ts"
import { CHILD_ENVIRONMENT, locateProgram, runToEnd } from "../programs.ts"
import { configurationOf } from "./agent.ts"
import { meta } from "./command.ts"
import { type Diagnosis, type ExaminedMachine, examine } from "./doctor-checks.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

const DEFAULT_TPM = "/dev/tpmrm0"
const DMI = "/sys/class/dmi/id"
const REACH_MS = 1500
const PROGRAM_MS = 10_000
const MAX_FILE_BYTES = 1024 * 1024

interface DoctorOptions {
  /** Configuration file; null: the default one. */
  readonly configuration: string | null
  /** Directory of a simulated machine that runs; null: this machine. */
  readonly simulate: string | null
  readonly imds: string
  readonly json: boolean
}

export const doctorCommand = defineCommand({
  meta: meta({
    name: "doctor",
    description: "look at this VM: what attestation needs, whether it is there, and what to do",
    details: [
      "Nothing is changed. Each line is OK, WARNING or FAIL; the exit code is 0 where none is FAIL. Run it as root, inside the VM.",
      "It is for setting a VM up: a VM that says it is well proves nothing. That is what verify is for.",
    ],
    examples: [
      { line: "cosmian_vm doctor", does: "in the VM, after installing the package" },
      {
        line: "cosmian_vm doctor --simulate /tmp/vm --json",
        does: "of a simulated VM that runs; for a program",
      },
    ],
  }),
  args: {
    conf: {
      type: "string",
      alias: "c",
      valueHint: "FILE",
      description: "the agent's configuration file (default: /etc/cosmian_vm/agent.toml)",
    },
    simulate: { type: "string", valueHint: "DIR", description: "look at the simulated VM that runs in DIR" },
    imds: {
      type: "string",
      valueHint: "URL",
      default: IMDS_URL,
      description: "where the cloud's metadata service answers",
    },
    json: { type: "boolean", description: "print one JSON object on standard output" },
  },
  run: ({ args }) =>
    runDoctor({
      configuration: args.conf ?? null,
      simulate: args.simulate ?? null,
      imds: args.imds,
      json: args.json === true,
    }),
})

async function runDoctor(options: DoctorOptions): Promise<number> {
  return reportHealth(await examine(await machineOf(options)), options.json)
}

/** Prints what was found, and gives the exit code. */
export function reportHealth(
  found: readonly Diagnosis[],
  json: boolean,
  terminal: Terminal = openTerminal(),
): number {
  const healthy = found.every(({ status }) => status !== "fail")
  if (json) terminal.out(jsonText({ healthy, checks: found }))
  else for (const line of found) terminal.out(`${lineOf(line, terminal)}\n`)
  return healthy ? EXIT.ok : EXIT.operational
}

function lineOf({ status, check, found, advice }: Diagnosis, { outStyle: style }: Terminal): string {
  const mark = {
    ok: style.green("[ OK ]"),
    warn: style.yellow("[ WARNING ]"),
    fail: style.red("[ FAIL ]"),
  }[status]
  const head = `${mark} ${style.bold(printable(check))}: ${printable(found)}`
  return advice === undefined ? head : `${head}\n           what to do: ${printable(advice)}`
}

async function machineOf(options: DoctorOptions): Promise<ExaminedMachine> {
  const config = () => configurationOf({ ...options, host: null, port: null, bootstrap: false })
  const common = {
    config,
    readText,
    output,
    reach,
    certificate: certificateOf,
    now: new Date(),
    metadata: options.imds,
    cloud: detectCloud(DMI),
  }
  if (options.simulate !== null) return { ...common, ...(await simulated(resolve(options.simulate))) }
  const { IMA_DIRECTORY, openMeasurementList } = await import("../native/securityfs.ts")
  const hasIma = existsSync(join(IMA_DIRECTORY, "binary_runtime_measurements"))
  return {
    ...common,
    simulated: false,
    tee: () => teeProvider(config),
    tpm: () => tpmOf(config),
    ima: hasIma ? openMeasurementList() : null,
  }
}

async function simulated(dir: string): Promise<Pick<ExaminedMachine, "simulated" | "tee" | "tpm" | "ima">> {
  const { findSimulatedMachine } = await import("../native/simulated-machine.ts")
  const { openTpm } = await import("../native/tpm.ts")
  const { tcti, ima } = findSimulatedMachine(dir)
  return { simulated: true, tee: async () => "simulated", tpm: () => openTpm(tcti), ima }
}

async function teeProvider(config: () => AgentConfig): Promise<string | null> {
  const { openTeeDevice } = await import("../native/report-device.ts")
  const own = await openTeeDevice()
  if (own !== null) return own.provider
  const tpm = await tpmOf(config)
  if (tpm === null) return null
  try {
    const { openAzure } = await import("../native/azure.ts")
    return (await openAzure(tpm))?.provider ?? null
  } finally {
    await tpm.close()
  }
}

async function tpmOf(config: () => AgentConfig): Promise<Tpm | null> {
  const tcti = configuredTpm(config)
  if (tcti === null || (tcti === undefined && !existsSync(DEFAULT_TPM))) return null
  const { openTpm } = await import("../native/tpm.ts")
  return openTpm(tcti ?? `device:${DEFAULT_TPM}`)
}

/** A configuration that cannot be read is told by its own check; the TPM is then looked for. */
function configuredTpm(config: () => AgentConfig): AgentConfig["tpm"] {
  try {
    return config().tpm
  } catch (error) {
    if (error instanceof CodedError) return undefined
    throw error
  }
}

function certificateOf(config: AgentConfig): ReturnType<ExaminedMachine["certificate"]> {
  if (!existsSync(config.certificate)) return null
  return { notAfter: readIdentity(config).notAfter, keyExposed: isKeyExposed(config) }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8").slice(0, MAX_FILE_BYTES)
  } catch {
    // Absent or not for us: which of both makes no difference to what is advised.
    return null
  }
}

async function output([name = "", ...args]: readonly string[]): Promise<string | null> {
  const program = locateProgram(name)
  if (program === null) return null
  const options = { keep: "head", env: CHILD_ENVIRONMENT, timeoutMs: PROGRAM_MS } as const
  const { exitCode, stdout } = await runToEnd(program, args, options)
  return exitCode === 0 ? Buffer.from(stdout).toString("utf8") : null
}

/** Any answer counts: the services want headers of their own. */
async function reach(url: string): Promise<number | null> {
  const { request } = await import("node:http")
  return new Promise((settle) => {
    const asked = request(url, { timeout: REACH_MS, agent: false }, (answer) => {
      answer.resume()
      settle(answer.statusCode ?? null)
    })
    asked.on("timeout", () => asked.destroy())
    asked.on("error", () => settle(null))
    asked.on("close", () => settle(null))
    asked.end()
  })
}
