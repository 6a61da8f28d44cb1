import { existsSync } from "node:fs"
import { join, resolve } from "node:path"
import { defineCommand } from "citty"
import { startAgent } from "../agent/agent.ts"
import {
  type AgentConfig,
  defaultAgentConfig,
  defaultBootstrap,
  parseAgentConfig,
  STATE_DIRECTORY,
} from "../agent/config.ts"
import { createLog, errorFields, type Log } from "../agent/log.ts"
import { UsageError } from "../errors.ts"
import { AZURE_VTPM } from "../formats/azure/vtpm.ts"
import type { Devices } from "../native/ports.ts"
import { VERSION } from "../version.ts"
import { meta } from "./command.ts"
import { readInput } from "./input-files.ts"
import { holdVolume, isVolumeWanted, storageGuard } from "./storage-guard.ts"

const DEFAULT_CONFIGURATION = "/etc/cosmian_vm/agent.toml"
/** A configuration larger than this is something else. */
const MAX_CONFIGURATION_BYTES = 1024 * 1024
const DEFAULT_TPM = "/dev/tpmrm0"
const AZURE_PROVIDER = "azure-vtpm"

export interface AgentCommandOptions {
  /** Configuration file; null: the default one, or none for a simulated machine. */
  readonly configuration: string | null
  /** Directory of the simulated machine; null: the real one. */
  readonly simulate: string | null
  readonly host: string | null
  readonly port: number | null
  /** Whether the application waits for its secrets, also where the configuration does not say so. */
  readonly bootstrap: boolean
}

export const agentCommand = defineCommand({
  meta: meta({
    name: "agent",
    description: "answer for this VM: give evidence and snapshots, configure the application",
    details: [
      "Runs until it gets SIGTERM. SIGHUP makes it read its TLS certificate and key again; it also does so when the files change.",
      "With --simulate it stands for a confidential VM that does not exist: reports are signed under a root made on the spot, and a software TPM (swtpm) runs beside it. Nothing of that proves anything about hardware.",
    ],
    examples: [
      { line: "cosmian_vm agent", does: "run with /etc/cosmian_vm/agent.toml" },
      { line: "cosmian_vm agent --simulate /tmp/vm --port 5555", does: "try the product out on any machine" },
    ],
  }),
  args: {
    conf: {
      type: "string",
      alias: "c",
      valueHint: "FILE",
      description: `configuration file (default: ${DEFAULT_CONFIGURATION}; with --simulate: none)`,
    },
    simulate: {
      type: "string",
      valueHint: "DIR",
      description: "simulate a confidential VM, its state in DIR",
    },
    host: {
      type: "string",
      valueHint: "HOST",
      description: "address to listen on, instead of the configured one",
    },
    port: {
      type: "string",
      valueHint: "PORT",
      description: "port to listen on, instead of the configured one",
    },
    bootstrap: {
      type: "boolean",
      description: "the application of [app] waits for its secrets: cosmian_vm bootstrap brings them",
    },
  },
  run: ({ args }) =>
    runAgent({
      configuration: args.conf ?? null,
      simulate: args.simulate ?? null,
      host: args.host ?? null,
      port: args.port === undefined ? null : portOf(args.port),
      bootstrap: args.bootstrap === true,
    }),
})

/** Runs the agent until a signal ends it. Returns the exit code. */
async function runAgent(options: AgentCommandOptions): Promise<number> {
  const config = configurationOf(options)
  const log = createLog(
    process.stderr.isTTY ? "text" : "json",
    (line) => console.error(line),
    () => new Date(),
  )
  const simulated = options.simulate !== null
  const release = simulated ? () => {} : holdStorage(config, log)
  const stopped = endSignal()
  // Until the server stands there is nothing to reload, and the signal's default would end the process.
  const hangUp = { reload: () => log.info("not started yet: nothing to reload") }
  process.on("SIGHUP", () => hangUp.reload())
  const machine =
    options.simulate === null ? await realMachine(config, log) : await simulatedMachine(options.simulate, log)
  try {
    const agent = await startAgent({
      config,
      devices: machine.devices,
      version: VERSION,
      now: () => new Date(),
      log,
      obtainCertificate: async (order, signal) => {
        const { certificateGetter } = await import("./bootstrap-certificate.ts")
        return certificateGetter(config, log, !simulated)(order, signal)
      },
      deriveTlsKey: () => tlsKeyOf(config, options.simulate),
      guard: simulated ? null : storageGuard(config.storage),
    })
    hangUp.reload = () => void agent.reload()
    const signal = await stopped
    log.info("stopping", { signal })
    await agent.stop()
    return 0
  } finally {
    await machine.close()
    release()
  }
}

/** The agent's own volume is made and mounted before the agent starts, by another unit. @throws AgentError ERR_STORAGE_PLAIN */
function holdStorage({ storage }: AgentConfig, log: Log): () => void {
  if (isVolumeWanted(storage)) return holdVolume()
  log.warn("the agent's files are not encrypted", { storage: storage.encrypted })
  return () => {}
}

interface Machine {
  readonly devices: Devices
  close(): Promise<void>
}

/** What this machine has. A TPM that is named in the configuration has to be there. */
async function realMachine(config: AgentConfig, log: Log): Promise<Machine> {
  const { IMA_DIRECTORY, openMeasurementList } = await import("../native/securityfs.ts")
  const tpm = await openConfiguredTpm(config.tpm, log)
  const tee = await openTee(tpm, log)
  const ima = existsSync(join(IMA_DIRECTORY, "binary_runtime_measurements")) ? openMeasurementList() : null
  log.info("devices", { tee: tee?.provider ?? null, tpm: tpm !== null, ima: ima !== null })
  if (tee === null) log.warn("no TEE: verifiers will find that nothing proves this machine")
  // Azure's paravisor vouches for one key of its TPM, which is there already.
  const ak = tee?.provider === AZURE_PROVIDER ? { akHandle: AZURE_VTPM.akHandle } : {}
  const { openEventLogs } = await import("../native/event-logs.ts")
  return { devices: { tee, tpm, ima, eventLogs: openEventLogs(), ...ak }, close: async () => tpm?.close() }
}

/** A TPM that does not answer hides Azure's reports and no others: the agent goes on without. */
async function openTee(tpm: Devices["tpm"], log: Log): Promise<Devices["tee"]> {
  const { openTeeDevice } = await import("../native/report-device.ts")
  const { openAzure } = await import("../native/azure.ts")
  const own = await openTeeDevice()
  if (own !== null || tpm === null) return own
  try {
    return await openAzure(tpm)
  } catch (error) {
    log.error("the TPM does not say whether it is Azure's", errorFields(error))
    return null
  }
}

async function openConfiguredTpm(tcti: AgentConfig["tpm"], log: Log): Promise<Devices["tpm"]> {
  if (tcti === null || (tcti === undefined && !existsSync(DEFAULT_TPM))) return null
  const { openTpm } = await import("../native/tpm.ts")
  if (tcti !== undefined) return openTpm(tcti)
  try {
    return await openTpm(`device:${DEFAULT_TPM}`)
  } catch (error) {
    log.error("the TPM cannot be used", errorFields(error))
    return null
  }
}

async function simulatedMachine(dir: string, log: Log): Promise<Machine> {
  const { openSimulatedMachine } = await import("../native/simulated-machine.ts")
  const { openSimulatedTee } = await import("../native/simulated-tee.ts")
  const { openTpm } = await import("../native/tpm.ts")
  const machine = await openSimulatedMachine(dir)
  try {
    const tee = await openSimulatedTee(dir)
    const tpm = await openTpm(machine.tcti)
    log.warn("SIMULATED machine: nothing here proves anything about hardware", { dir, tpm: machine.tcti })
    const close = async () => {
      await tpm.close()
      await machine.close()
    }
    return { devices: { tee, tpm, ima: machine.ima, eventLogs: machine.eventLogs }, close }
  } catch (error) {
    await machine.close()
    throw error
  }
}

/** @throws UsageError ERR_CONFIG, ERR_BAD_VALUE. */
export function configurationOf(options: AgentCommandOptions): AgentConfig {
  const base = options.simulate === null ? STATE_DIRECTORY : resolve(options.simulate)
  const file = options.configuration ?? (options.simulate === null ? DEFAULT_CONFIGURATION : null)
  const config =
    file === null ? defaultAgentConfig(base) : parseAgentConfig(readConfiguration(file), file, base)
  const { host, port } = options
  if (options.bootstrap && config.application === null)
    throw new UsageError("ERR_CONFIG", {
      at: "--bootstrap",
      expected: "a table [app] in the configuration that says which application is meant",
      found: "none",
    })
  const bootstrap = options.bootstrap ? { bootstrap: config.bootstrap ?? defaultBootstrap(base) } : {}
  return { ...config, ...bootstrap, ...(host === null ? {} : { host }), ...(port === null ? {} : { port }) }
}

function readConfiguration(file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readInput(file, MAX_CONFIGURATION_BYTES))
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw new UsageError("ERR_CONFIG", { at: file, expected: "UTF-8 text", found: "other bytes" })
  }
}

function portOf(text: string): number {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : Number.NaN
  if (port <= 65_535) return port
  throw new UsageError("ERR_BAD_VALUE", { at: "--port", expected: "a port from 0 to 65535", found: text })
}

/** From SEV-SNP's firmware; elsewhere from a secret that the TPM gives out while what booted is the same. */
async function tlsKeyOf(config: AgentConfig, simulate: string | null): Promise<string> {
  const { SEALED_PCRS } = await import("./key.ts")
  const { makeKey } = await import("./key-derive.ts")
  const { TLS_KEY_BINDING: fields, TLS_KEY_PURPOSE: purpose } = await import("../agent/tls-key.ts")
  const { SEV_GUEST_PATH } = await import("../native/sev-guest.ts")
  const byTee = simulate !== null || existsSync(SEV_GUEST_PATH) || config.tpm === null
  const { key } = await makeKey({
    ...{ type: "p256", salt: new Uint8Array(0), purpose },
    source: byTee
      ? { kind: "tee", fields, rootKey: "vcek", simulate }
      : {
          kind: "tpm",
          file: join(STATE_DIRECTORY, "data/sealed-tls-key.json"),
          pcrs: SEALED_PCRS,
          tcti: config.tpm ?? `device:${DEFAULT_TPM}`,
        },
  })
  key.privateRaw.fill(0)
  return key.privatePem
}

/** The first signal that asks for an end. A second one ends the process at once. */
function endSignal(): Promise<string> {
  const { promise, resolve: settle } = Promise.withResolvers<string>()
  let asked = false
  for (const signal of ["SIGTERM", "SIGINT"] as const)
    process.on(signal, () => {
      if (asked) process.exit(130)
      asked = true
      settle(signal)
    })
  return promise
}
