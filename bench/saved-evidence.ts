/**
 * `verify` of saved evidence, from process start to exit: its time beside that of reading and JSON-parsing the snapshot alone, and
 * its memory with a list of a million entries.
 */
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EVIDENCE_PCRS, evidenceQualifyingData } from "../src/formats/evidence.ts"
import { encodeSavedEvidence } from "../src/formats/saved-evidence.ts"
import { encodeSnapshotBytes } from "../src/policy/snapshot.ts"
import { tpmReferenceOf } from "../src/policy/tpm.ts"
import { verifyQuote } from "../src/verify/tpm.ts"
import { EXECUTABLE } from "../test/executable.ts"
import { makeSoftwareAk, quoteAttest, softwareQuote } from "../test/fakes/software-ak.ts"
import { type BenchResult, median } from "./result.ts"
import { FILES, PCRS, sampleList, sampleSnapshot } from "./sample.ts"

const ENTRIES = 10_000
const LARGEST = 1_000_000
const RUNS = 15
const MAX_MIB = 512
const NO_TEE = ["tee", "revocation", "tcb", "binding"].flatMap((check) => ["--skip", check])

/** Saved evidence of a machine without TEE that has measured so many files, and its snapshot: `dir/NAME.evidence`, `dir/NAME.snapshot`. */
function writeSample(dir: string, name: string, entries: number): void {
  const { list, pcr10 } = sampleList(entries)
  const pcrs = PCRS.map((value, pcr) => (pcr === 10 ? pcr10 : value))
  const nonce = new Uint8Array(32).fill(1)
  const spki = new Uint8Array(91).fill(2)
  const ak = makeSoftwareAk("ecdsa-p256")
  const qualifyingData = evidenceQualifyingData(nonce, spki, null)
  const digest = Uint8Array.from(createHash("sha256").update(Buffer.concat(pcrs)).digest())
  const { quote, signature } = softwareQuote(
    ak,
    quoteAttest(EVIDENCE_PCRS, digest, { extraData: qualifyingData }),
  )
  const tpm = { quote, signature, akPublic: ak.akPublic, pcrs, akCertificate: null, ekCertificate: null }
  const saved = encodeSavedEvidence({
    target: "vm:5555",
    collectedAt: new Date(0),
    nonce,
    channel: { spki, authorized: true, reason: null },
    evidence: { tee: null, tpm, ima: { from: 0, list } },
    documents: { certificates: [], crl: null, intel: null },
    applications: [],
  })
  writeFileSync(join(dir, `${name}.evidence`), saved)
  const quoted = verifyQuote(tpm, { qualifyingData, pcrSelection: EVIDENCE_PCRS })
  writeFileSync(
    join(dir, `${name}.snapshot`),
    encodeSnapshotBytes({ ...sampleSnapshot(), ...tpmReferenceOf(quoted) }),
  )
}

/** In a process of its own, for a child's peak memory begins with that of the process that started it. */
function inOwnProcess(dir: string, name: string, entries: number): void {
  const command = [process.execPath, import.meta.path, dir, name, String(entries)]
  const { exitCode } = Bun.spawnSync(command, { stderr: "inherit" })
  if (exitCode !== 0) throw new Error(`the sample was not written: exit code ${exitCode}`)
}

/** CPU and wall time in milliseconds, and peak memory. */
function verify(
  dir: string,
  name: string,
): { readonly cpu: number; readonly ms: number; readonly mib: number } {
  const files = ["--evidence", join(dir, `${name}.evidence`), "-s", join(dir, `${name}.snapshot`)]
  const start = performance.now()
  const { exitCode, resourceUsage, stdout } = Bun.spawnSync([EXECUTABLE, "verify", ...files, ...NO_TEE], {
    stdout: "pipe",
    stderr: "inherit",
  })
  const ms = performance.now() - start
  if (exitCode !== 0) throw new Error(`verify ended with ${exitCode}: ${stdout.toString().slice(0, 2000)}`)
  return { cpu: Number(resourceUsage.cpuTime.total) / 1000, ms, mib: resourceUsage.maxRSS / 1024 / 1024 }
}

/** What a process of the same runtime takes for the two calls alone, its start not counted: CPU and wall time in milliseconds. */
function readAndParse(dir: string, name: string): { readonly cpu: number; readonly ms: number } {
  const path = JSON.stringify(join(dir, `${name}.snapshot`))
  const work = `const { readFileSync } = require("node:fs"); const start = process.cpuUsage(); const since = performance.now(); JSON.parse(readFileSync(${path}, "utf8")); const ms = performance.now() - since; const { user, system } = process.cpuUsage(start); console.log((user + system) / 1000, ms)`
  const { exitCode, stdout } = Bun.spawnSync([process.execPath, "-e", work], { stderr: "inherit" })
  if (exitCode !== 0) throw new Error(`the peer ended with ${exitCode}`)
  const [cpu = Number.NaN, ms = Number.NaN] = stdout.toString().trim().split(" ").map(Number)
  return { cpu, ms }
}

export async function run(): Promise<BenchResult[]> {
  const dir = mkdtempSync(join(tmpdir(), "bench-saved-evidence-"))
  try {
    inOwnProcess(dir, "usual", ENTRIES)
    // In turns, so that whatever else the machine does falls on both.
    const pairs = Array.from(
      { length: RUNS },
      () => [verify(dir, "usual"), readAndParse(dir, "usual")] as const,
    )
    const [ours, peer] = [median(pairs.map(([{ ms }]) => ms)), median(pairs.map(([, { ms }]) => ms))]
    const [oursCpu, peerCpu] = [
      median(pairs.map(([{ cpu }]) => cpu)),
      median(pairs.map(([, { cpu }]) => cpu)),
    ]
    const name = `verify, ${ENTRIES} entries and a snapshot of ${FILES} files, with process start`
    const alone = "reading and JSON-parsing the snapshot, without"
    inOwnProcess(dir, "large", LARGEST)
    const large = verify(dir, "large")
    return [
      {
        name: `${name}, wall time`,
        value: ours,
        unit: "ms",
        peer: { name: alone, value: peer },
        ratio: ours / peer,
        target: "<= 2 x",
        met: ours <= 2 * peer,
      },
      // The compiler's threads count here, beside which the process goes on.
      {
        name: `${name}, CPU`,
        value: oursCpu,
        unit: "ms CPU",
        peer: { name: alone, value: peerCpu },
        ratio: oursCpu / peerCpu,
      },
      { name: `verify, ${LARGEST} entries, wall time`, value: large.ms / 1000, unit: "s" },
      {
        name: `verify, ${LARGEST} entries, peak memory`,
        value: large.mib,
        unit: "MiB",
        target: `< ${MAX_MIB} MiB`,
        met: large.mib < MAX_MIB,
      },
    ]
  } finally {
    rmSync(dir, { recursive: true })
  }
}

const [dir, name, entries] = process.argv.slice(2)
if (import.meta.main && dir !== undefined && name !== undefined) writeSample(dir, name, Number(entries))
