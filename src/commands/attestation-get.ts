import { randomBytes } from "node:crypto"
import { defineCommand } from "citty"
import { UsageError } from "../errors.ts"
import { IMDS_URL } from "../formats/azure/imds.ts"
import { fromHex, toHex } from "../formats/hex.ts"
import type { Check } from "../policy/verdict.ts"
import { type ConnectionOptions, connectionArgs } from "./agent-options.ts"
import { collateralArgs, collateralChoiceOf } from "./collateral-source.ts"
import { listOf, meta, repeatable } from "./command.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { ProgressLine } from "./progress.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { anchorsOf } from "./trust-roots.ts"
import { beginFile, type PendingFile } from "./write-file.ts"

/** Kinds of evidence that can be asked for. */
export const GET_KINDS = ["snp", "tdx", "vtpm", "snp-vtpm", "azure"] as const
export type GetKind = (typeof GET_KINDS)[number]

const DEFAULT_TPM = "device:/dev/tpmrm0"
/** Report data, and the longest qualifying data of a TPM. */
const MAX_NONCE = 64

export const attestationGetCommand = defineCommand({
  meta: meta({
    name: "get",
    description: "get a report or quote from the hardware of this VM, or from a VM's agent",
    details: [
      `KIND is ${GET_KINDS.join(", ")}. Without --url it is made on this machine, which needs root.`,
      "The main file is what its name says: a SEV-SNP report (followed by the host's certificates where there are any), a TDX quote, a TPM quote (TPMS_ATTEST), an Azure HCL report. What belongs to it is written beside it: FILE.quote, FILE.sig, FILE.ak, FILE.pcrs.json of a TPM quote, FILE.td-quote, FILE.vcek.pem and FILE.chain.pem of an Azure VM.",
      "On this machine the nonce is the report data (zeros follow it) and the TPM quote's qualifying data. An agent binds report and quote to its TLS key too: what it signed for is printed.",
    ],
    examples: [
      { line: "cosmian_vm attestation get snp --nonce 00112233 -o report.bin", does: "on the VM" },
      {
        line: "cosmian_vm attestation get snp-vtpm --url https://vm.example:5555 --allow-insecure-tls",
        does: "from its agent",
      },
    ],
  }),
  args: {
    ...connectionArgs,
    url: {
      type: "string",
      valueHint: "URL",
      description: "ask the agent there instead of this machine's hardware",
    },
    kind: {
      type: "positional",
      required: true,
      valueHint: GET_KINDS.join("|"),
      description: "what to get",
    },
    nonce: {
      type: "string",
      valueHint: "HEX",
      description:
        "up to 64 bytes that report and quote are made for (an agent takes 32); random unless given",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      default: "attestation.bin",
      description: "where to write it; - is standard output, for a kind that is one file",
    },
    tpm: {
      type: "string",
      valueHint: "TCTI",
      default: DEFAULT_TPM,
      description: "address of this machine's TPM",
    },
    imds: {
      type: "string",
      valueHint: "URL",
      default: IMDS_URL,
      description: "Azure's metadata service",
    },
    "trust-root": repeatable({
      type: "string",
      valueHint: "FILE",
      description: "with --ratls: also accept the root certificate in this PEM file, of a simulated TEE",
    }),
    ...collateralArgs,
  },
  async run({ args }) {
    const options: GetOptions = {
      kind: kindOf(args.kind),
      nonce: args.nonce === undefined ? null : nonceOf(args.nonce),
      output: args.output,
      url: args.url ?? null,
      insecureAllowed: args["allow-insecure-tls"] === true,
      timeout: args.timeout,
      json: args.json === true,
      quiet: args.quiet === true,
    }
    const { collectFromAgent, collectFromDevices, machineDevices } = await import("./collect.ts")
    const { url } = options
    if (url === null && args.ratls === true)
      throw new UsageError("ERR_BAD_VALUE", { at: "--ratls", expected: "--url beside it", found: "no agent" })
    const ratls =
      args.ratls === true
        ? {
            anchors: anchorsOf(listOf(args["trust-root"])),
            collateral: collateralChoiceOf(args),
            skip: new Set<Check>(),
            reference: null,
            policy: null,
          }
        : null
    return getAttestation(options, (nonce, signal) =>
      url === null
        ? collectFromDevices(options.kind, nonce, machineDevices(args.tpm, args.imds))
        : collectFromAgent(options.kind, nonce, { ...options, url, ratls }, signal),
    )
  },
})

export interface GetOptions extends Omit<ConnectionOptions, "url" | "ratls"> {
  readonly kind: GetKind
  /** At most 64 bytes; null: 32 random ones. */
  readonly nonce: Uint8Array | null
  readonly output: string
  readonly url: string | null
}

/** One file that is written. */
export interface CollectedPart {
  /** Appended to the name of the main file, whose own is empty. */
  readonly suffix: string
  readonly what: string
  readonly content: Uint8Array
}

/** What was got, and what it was made for. */
export interface Collected {
  /** The first is the main one. */
  readonly parts: readonly [CollectedPart, ...CollectedPart[]]
  /** 64 bytes in the TEE report, or in Azure's user data; null where there is no report. */
  readonly reportData: Uint8Array | null
  /** In the TPM quote; null where there is none. */
  readonly qualifyingData: Uint8Array | null
  /** What is missing or worth knowing. */
  readonly notes: readonly string[]
}

/** `attestation get`: writes what `collect` gives for the nonce. All files or none. Returns the exit code. */
export async function getAttestation(
  options: GetOptions,
  collect: (nonce: Uint8Array, signal: AbortSignal) => Promise<Collected>,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const nonce = options.nonce ?? Uint8Array.from(randomBytes(32))
  const progress = new ProgressLine(terminal, !options.quiet && !options.json)
  const main = options.output === "-" ? null : beginFile(options.output, 0o644)
  try {
    progress.step("asking for evidence")
    const collected = await interruptible((signal) => collect(nonce, signal))
    progress.clear()
    if (main === null) writeOut(collected, options)
    else writeFiles(collected, options.output, main)
    report(collected, nonce, options, terminal)
    return 0
  } finally {
    progress.clear()
    main?.abandon()
  }
}

function writeFiles({ parts }: Collected, output: string, main: PendingFile): void {
  const [first, ...others] = parts
  const beside = others.map((part) => ({ part, file: beginFile(`${output}${part.suffix}`, 0o644) }))
  try {
    for (const { part, file } of beside) file.commit(part.content)
    main.commit(first.content)
  } finally {
    for (const { file } of beside) file.abandon()
  }
}

function writeOut({ parts }: Collected, { kind, json }: GetOptions): void {
  const [only, ...others] = parts
  if (others.length > 0 || json)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--output -",
      expected: json ? "a file, as standard output is for JSON" : `a file, as ${kind} is several`,
      found: "standard output",
      hint: "give a name with -o",
    })
  process.stdout.write(only.content)
}

function report(collected: Collected, nonce: Uint8Array, options: GetOptions, terminal: Terminal): void {
  const { parts, reportData, qualifyingData, notes } = collected
  const hex = (bytes: Uint8Array | null) => (bytes === null ? null : toHex(bytes))
  const files = parts.map(({ suffix, what, content }) => ({
    file: options.output === "-" ? "-" : `${options.output}${suffix}`,
    what,
    bytes: content.length,
  }))
  if (options.json) {
    const values = { nonce: toHex(nonce), report_data: hex(reportData), qualifying_data: hex(qualifyingData) }
    terminal.out(jsonText({ kind: options.kind, ...values, files, notes }))
    return
  }
  for (const note of notes) terminal.talk(`note: ${note}\n`)
  if (options.quiet) return
  for (const { file, what, bytes } of files) terminal.talk(`${file}: ${what}, ${bytes} bytes\n`)
  terminal.talk(`nonce: ${toHex(nonce)}\n`)
  if (reportData !== null) terminal.talk(`report data: ${toHex(reportData)}\n`)
  if (qualifyingData !== null) terminal.talk(`qualifying data: ${toHex(qualifyingData)}\n`)
}

function kindOf(text: string): GetKind {
  const found = GET_KINDS.find((kind) => kind === text)
  if (found !== undefined) return found
  throw new UsageError("ERR_BAD_VALUE", {
    at: "KIND",
    expected: `one of ${GET_KINDS.join(", ")}`,
    found: text,
  })
}

function nonceOf(text: string): Uint8Array {
  const nonce = fromHex(text)
  if (nonce !== null && nonce.length > 0 && nonce.length <= MAX_NONCE) return nonce
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--nonce",
    expected: `1 to ${MAX_NONCE} bytes in hex`,
    found: nonce === null ? "something else" : `${nonce.length} bytes`,
  })
}
