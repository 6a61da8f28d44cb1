import { existsSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { type AgentConfig, parseAgentConfig } from "../../agent/config.ts"
import { CodedError, UsageError } from "../../errors.ts"
import { printable } from "../../formats/path-text.ts"
import type { TpmStorage } from "../../native/ports.ts"
import { readInput } from "../input-files.ts"
import type { Terminal } from "../terminal.ts"
import { JOURNAL } from "./half-made.ts"
import { type FstoolMachine, passphraseCost, recoverEverywhere } from "./machine.ts"
import type { MachineOptions } from "./options.ts"

export const AGENT_CONFIGURATION = "/etc/cosmian_vm/agent.toml"
const MAX_CONFIGURATION_BYTES = 1024 * 1024
const DEFAULT_TPM = "/dev/tpmrm0"

/**
 * Runs with this machine: its TPM, where there is one, and the terminal; after what killed fstools left was cleaned up.
 * @throws CodedError ERR_STORAGE_UNAVAILABLE
 */
export async function withMachine<T>(
  options: MachineOptions,
  terminal: Terminal,
  use: (machine: FstoolMachine) => Promise<T>,
): Promise<T> {
  if (process.getuid?.() !== 0)
    throw new CodedError("ERR_STORAGE_UNAVAILABLE", {
      at: "fstool",
      expected: "to be run as root",
      found: `user ${process.getuid?.() ?? "unknown"}`,
      hint: "sudo cosmian_vm fstool …",
    })
  const { tpm, absence } = await findTpm(options.tpm)
  try {
    const machine: FstoolMachine = {
      tpm,
      tpmAbsence: absence,
      volumesFile: options.volumesFile,
      journal: JOURNAL,
      passphraseCost: passphraseCost(totalmem(), cpus().length),
      talk: (message) => {
        // Paths may come from notes on a disk that somebody else writes.
        if (!options.quiet) terminal.talk(`${printable(message)}\n`)
      },
    }
    await recoverEverywhere(machine)
    return await use(machine)
  } finally {
    await tpm?.close()
  }
}

/** A TPM that was named has to be there; one that was not is looked for. */
async function findTpm(
  option: string | null,
): Promise<{ readonly tpm: TpmStorage | null; readonly absence: string | null }> {
  const { openTpmStorage } = await import("../../native/tpm.ts")
  const named = option === null ? configuredTpm() : tctiOf(option)
  if (named === null)
    return { tpm: null, absence: `switched off by ${option === null ? "agent.toml" : "--tpm"}` }
  if (named !== undefined) return { tpm: await openTpmStorage(named), absence: null }
  if (!existsSync(DEFAULT_TPM)) return { tpm: null, absence: `no ${DEFAULT_TPM}` }
  return { tpm: await openTpmStorage(`device:${DEFAULT_TPM}`), absence: null }
}

/** What `tpm_device` of agent.toml says; undefined where it says nothing. */
function configuredTpm(): string | null | undefined {
  return existsSync(AGENT_CONFIGURATION) ? readAgentConfiguration().tpm : undefined
}

/** @throws UsageError ERR_CONFIG */
export function readAgentConfiguration(): AgentConfig {
  const text = existsSync(AGENT_CONFIGURATION)
    ? Buffer.from(readInput(AGENT_CONFIGURATION, MAX_CONFIGURATION_BYTES)).toString("utf8")
    : ""
  return parseAgentConfig(text, AGENT_CONFIGURATION)
}

function tctiOf(option: string): string | null {
  if (option === "none") return null
  if (option.startsWith("/")) return `device:${option}`
  if (/^[a-z]+:/.test(option)) return option
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--tpm",
    expected: "a device such as /dev/tpmrm0, a TCTI such as swtpm:port=2321, or none",
    found: JSON.stringify(option),
  })
}
