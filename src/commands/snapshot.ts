import { createHash } from "node:crypto"
import type { AgentClient } from "../client/agent-client.ts"
import { CodedError } from "../errors.ts"
import { committedBytes } from "../formats/evidence.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import { pathToText, printable, textToPath } from "../formats/path-text.ts"
import type { SavedEvidence } from "../formats/saved-evidence.ts"
import { bootReferenceFrom } from "../policy/boot-reference-of.ts"
import { type FileHashes, FileHashIndexBuilder, indexFileHashes } from "../policy/file-hashes.ts"
import { imaReferenceOf } from "../policy/ima.ts"
import { nitroReferenceOf } from "../policy/nitro.ts"
import { referenceOfTee } from "../policy/prove-tee.ts"
import {
  encodeSnapshotBytes,
  type Package,
  parseSnapshot,
  type Snapshot,
  type TakenUnder,
} from "../policy/snapshot.ts"
import { tpmReferenceOf } from "../policy/tpm.ts"
import type { Verdict } from "../policy/verdict.ts"
import type { Judgement } from "../policy/verify-vm.ts"
import type { ConnectionOptions, CredentialFiles, ExpectationOptions, TrustOptions } from "./agent-options.ts"
import { appraisalOf } from "./appraisal.ts"
import { attest, withAgent } from "./attest.ts"
import { contentFor } from "./compressed-file.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { count, ProgressLine } from "./progress.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginOutputs, refuseSame } from "./verdict-outputs.ts"
import { requireExpectation, requireProof } from "./which-vm.ts"
import { beginFile, type PendingFile } from "./write-file.ts"

export interface SnapshotOptions extends ConnectionOptions, TrustOptions, ExpectationOptions {
  readonly output: string
  readonly credentials: CredentialFiles
  /** Where to keep the evidence that the VM is verified by; null: nowhere. */
  readonly saveEvidence?: string | null
  /** Whether violations of the measurement list fail; null: they do. */
  readonly violations?: "fail" | "report" | null
  /** Files with the texts of IMA policies. */
  readonly imaPolicies?: readonly string[]
}

const PASSED_MEANS = "has attested"

interface Taken {
  readonly verdict: Verdict
  readonly collected: SavedEvidence
  /** Null where the VM did not attest. */
  readonly snapshot: Snapshot | null
}

/** `snapshot`: lets the VM attest, has its files hashed, and writes the reference values. All or nothing. */
export async function takeSnapshot(
  options: SnapshotOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  // Signatures and client certificates give nothing away; a token does to whoever answers.
  const secret = options.credentials.token !== null
  if (secret) requireExpectation(options, "--policy FILE or --measurement HEX")
  const appraisal = appraisalOf(options)
  if (secret && !options.anyVm) requireProof(appraisal)
  const progress = new ProgressLine(terminal, !options.quiet && !options.json)
  const { saveEvidence = null } = options
  refuseSame([options.output, saveEvidence])
  const file = beginFile(options.output, 0o644)
  const outputs = beginOutputs({ evidence: saveEvidence })
  try {
    const taken = await interruptible((signal) =>
      withAgent(options, signal, async (client) => {
        const attested = await attest(client, options, appraisal, progress, signal)
        const { collected } = attested
        if (!attested.verdict.passed) return { verdict: attested.verdict, collected, snapshot: null }
        const fromAgent = parseSnapshot(await filesOf(client, terminal, progress, signal))
        const verified = withVerified(fromAgent, attested, attested.verdict)
        const snapshot = { ...verified, taken_under: takenUnder(collected) }
        const { verdict } = attested.against(snapshot)
        // A snapshot that its own VM does not pass would only cause alarm later, so it is not written.
        if (!verdict.passed) return { verdict, collected, snapshot: null }
        write(file, options.output, snapshot)
        return { verdict: attested.verdict, collected, snapshot }
      }),
    )
    progress.clear()
    outputs.write({ ...taken, passedMeans: PASSED_MEANS })
    report(taken, options, terminal)
    return taken.verdict.exitCode
  } finally {
    progress.clear()
    file.abandon()
    outputs.abandon()
  }
}

/** The agent's snapshot; it stops hashing when the user stops waiting. */
async function filesOf(
  client: AgentClient,
  terminal: Terminal,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<Uint8Array> {
  try {
    return await client.snapshot((state) => progress.snapshot(state))
  } catch (error) {
    progress.clear()
    if (signal.aborted && !(await client.abandonSnapshot()))
      terminal.talk("the agent could not be told, and goes on hashing until it is done\n")
    throw error
  }
}

/** Hardware, boot and TPM values as verified evidence has them, in place of what the agent says about itself. */
export function withVerified(
  fromAgent: Snapshot,
  { tee, tpm, ima, boot, enrolment, nitro }: Judgement,
  { target, at }: Verdict,
): Snapshot {
  // Of an earlier time and another verification, if they are there at all: what the VM says about them counts for nothing.
  const { superseded, taken_under, boot_reference, packages, ...told } = fromAgent
  const measured = ima === null ? null : imaReferenceOf(ima, fromAgent.hash_algorithm ?? undefined)
  return {
    ...told,
    ...(packages === undefined ? {} : { packages: packages.map(withoutJudgement) }),
    format: 2,
    tee_policy: null,
    tee_reference: null,
    tpm_policy: null,
    tpm_reference: null,
    ...(tee === null ? {} : referenceOfTee(tee)),
    ...(tpm === null ? {} : tpmReferenceOf(tpm, enrolment, nitro && nitroReferenceOf(nitro))),
    ima_reference: measured?.ima_reference ?? null,
    ...bootReferenceFrom(boot),
    filehashes: measured === null ? fromAgent.filehashes : united(fromAgent.filehashes, measured.filehashes),
    hash_algorithm: fromAgent.hash_algorithm ?? measured?.hash_algorithm ?? null,
    taken_at: at,
    host: target,
  }
}

/** Who vouches for a package is not for the VM to say. */
function withoutJudgement({ manager, name, version, architecture }: Package): Package {
  return { manager, name, version, architecture }
}

/** Names the evidence that the VM was verified by, so that a file with it can be recognised. */
function takenUnder({ nonce, evidence: { tee, tpm } }: SavedEvidence): TakenUnder {
  const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")
  return {
    nonce: toHex(nonce),
    tee_report: tee === null ? null : digest(committedBytes(tee)),
    tpm_quote: tpm === null ? null : digest(tpm.quote),
  }
}

/** All pairs of both, each once. */
function united(files: FileHashes | null, measured: readonly (readonly [string, string])[]): FileHashes {
  const index = indexFileHashes(files ?? [])
  const missing = measured.filter(([path, digest]) => {
    const bytes = Buffer.concat([textToPath(path), Buffer.from(digest, "hex")])
    const pathEnd = bytes.length - digest.length / 2
    return index.find(bytes, 0, pathEnd, pathEnd, bytes.length) !== "match"
  })
  if (missing.length === 0) return index
  const builder = new FileHashIndexBuilder()
  for (let at = 0; at < index.length; at++)
    builder.add(index.pathAt(at), index.digestAt(at), index.packageAt(at))
  for (const [path, digest] of missing) builder.add(textToPath(path), Buffer.from(digest, "hex"))
  return builder.build()
}

/** Writes what reads back as the same snapshot, and nothing else. */
function write(file: PendingFile, path: string, snapshot: Snapshot): void {
  const content = encodeSnapshotBytes(snapshot)
  if (!bytesEqual(encodeSnapshotBytes(parseSnapshot(content)), content))
    throw new CodedError("ERR_INTERNAL", {
      at: "snapshot",
      found: "a file that does not read back as what was written",
      hint: "this is a fault in this program: please report it",
    })
  file.commit(contentFor(path, content))
}

function report({ verdict, snapshot }: Taken, options: SnapshotOptions, terminal: Terminal): void {
  const { style, quiet } = { style: terminal.outStyle, quiet: options.quiet }
  const files = snapshot?.filehashes?.length ?? 0
  const unreadable = snapshot?.unreadable ?? []
  const packages =
    snapshot?.packages === undefined ? "" : ` of ${count(snapshot.packages.length)} packages and others`
  if (options.json) {
    const several = snapshot === null ? [] : severalVersions(snapshot)
    const written = snapshot === null ? null : { file: options.output, files, unreadable, several }
    terminal.out(jsonText({ snapshot: written, verdict }))
    return
  }
  terminal.out(
    renderVerdict(verdict, { style, columns: terminal.outColumns, quiet, passedMeans: PASSED_MEANS }),
  )
  if (snapshot === null) {
    terminal.talk("no snapshot was written\n")
    return
  }
  for (const line of [...unreadableLines(unreadable), ...severalLines(severalVersions(snapshot))])
    terminal.talk(`${line}\n`)
  if (!quiet)
    terminal.out(
      `[ OK ] snapshot of ${count(files)} files${packages} written to ${printable(options.output)}\n`,
    )
}

/**
 * Paths with more than one digest: a file that ran in this boot, and was replaced since. The list of this boot shows both, so both
 * have to be accepted.
 */
export function severalVersions({ filehashes }: Snapshot): string[] {
  const index = indexFileHashes(filehashes ?? [])
  const paths = new Set<string>()
  for (let at = 1; at < index.length; at++)
    if (bytesEqual(index.pathAt(at - 1), index.pathAt(at)) && index.compare(at - 1, index, at) !== 0)
      paths.add(pathToText(index.pathAt(at)))
  return [...paths]
}

function severalLines(paths: readonly string[]): string[] {
  if (paths.length === 0) return []
  const shown = paths.slice(0, 5).map((path) => `  ${printable(path)}`)
  const rest = paths.length - shown.length
  return [
    `[ WARNING ] ${count(paths.length)} files ran since boot and were replaced since: the snapshot accepts old and new content; to accept the new one alone, reboot the VM and take the snapshot again`,
    ...shown,
    ...(rest > 0 ? [`  … and ${count(rest)} more`] : []),
  ]
}

/** Files that nobody can vouch for: told, never dropped. */
function unreadableLines(unreadable: Snapshot["unreadable"]): string[] {
  if (unreadable.length === 0) return []
  const shown = unreadable.slice(0, 5).map(([path, why]) => `  ${printable(path)} (${printable(why)})`)
  const rest = unreadable.length - shown.length
  return [
    `[ WARNING ] ${count(unreadable.length)} files could not be read and are not in the snapshot; if one of them runs, verification fails`,
    ...shown,
    ...(rest > 0 ? [`  … and ${count(rest)} more; they are listed in the snapshot`] : []),
  ]
}
