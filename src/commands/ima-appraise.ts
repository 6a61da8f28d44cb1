import { UsageError, VerifyError } from "../errors.ts"
import { readMeasurementList } from "../formats/ima/list-stream.ts"
import { parseKeyFile } from "../formats/tpm/key-file.ts"
import { type PcrValues, parsePcrValues } from "../formats/tpm/pcr-values.ts"
import { ImaAppraisal } from "../policy/ima.ts"
import { failedBy, notJudged } from "../policy/validation-claims.ts"
import { type Claim, exitCodeOf, type Verdict } from "../policy/verdict.ts"
import { QuotedPrefix } from "../verify/ima.ts"
import { IMA_PCR } from "../verify/ima-replay.ts"
import { quoteKeyOf, verifyStoredQuote } from "../verify/stored-quote.ts"
import { type Appraisal, appraisalOf } from "./appraisal.ts"
import { inputChunks } from "./input-chunks.ts"
import { parseFile, readInput } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { timeOf } from "./time-option.ts"

export interface AppraiseOptions {
  readonly file: string
  readonly snapshot: string
  readonly whitelist: string | null
  readonly imaKeys: readonly string[]
  readonly evmKeys: readonly string[]
  readonly policy: string | null
  readonly violations: "fail" | "report" | null
  readonly imaPolicies: readonly string[]
  readonly quote: string | null
  readonly signature: string | null
  readonly ak: string | null
  readonly pcrs: string | null
  /** As given; null: now. */
  readonly at: string | null
  readonly json: boolean
}

const MAX_FILE_BYTES = 256 * 1024
const BOOT_PCRS = Array.from({ length: 10 }, (_, pcr) => pcr)

/** `ima appraise`: prints the claim, and returns its exit code. */
export async function appraiseList(
  options: AppraiseOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const at = options.at === null ? new Date() : timeOf(options.at)
  const quoteFiles = quoteFilesOf(options)
  const appraisal = appraisalOf({ ...options, trustRoots: [], skip: [], collateral: NO_COLLATERAL })
  const { pcrs, claims: before } = provenPcrs(options, quoteFiles)
  const failed = before.some(({ status }) => status === "failed")
  const ima = failed ? notJudged("ima", "ima", "tpm") : await imaClaim(options.file, appraisal, pcrs, at)
  const verdict = verdictOf(options, [...before, ima], at)
  terminal.out(
    options.json
      ? jsonText(verdict)
      : renderVerdict(verdict, {
          style: terminal.outStyle,
          columns: terminal.outColumns,
          quiet: false,
          passedMeans: "holds nothing but what the snapshot allows",
        }),
  )
  return verdict.exitCode
}

/** Nothing is fetched here. */
const NO_COLLATERAL = { kdsUrl: "", pcsUrl: "", cacheDir: null, offline: true }

interface QuoteFiles {
  readonly quote: string
  readonly signature: string
  readonly ak: string
  readonly pcrs: string
}

/** The four of them, or null. A quote with a part missing would be no quote. */
function quoteFilesOf({ quote, signature, ak, pcrs }: AppraiseOptions): QuoteFiles | null {
  if (quote === null && signature === null && ak === null) return null
  const named = { "--quote": quote, "--signature": signature, "--ak": ak, "--pcrs": pcrs }
  const missing = Object.entries(named).find(([, path]) => path === null)?.[0]
  if (quote !== null && signature !== null && ak !== null && pcrs !== null)
    return { quote, signature, ak, pcrs }
  throw new UsageError("ERR_MISSING_ARGUMENT", {
    at: missing ?? "--quote",
    expected: "--quote, --signature, --ak and --pcrs together",
  })
}

interface Pcrs {
  /** Null: nothing is known of PCRs. */
  readonly pcrs: PcrValues | null
  readonly claims: readonly Claim[]
}

/** PCR values that a quote covers, or that the user gives. */
function provenPcrs({ pcrs }: AppraiseOptions, files: QuoteFiles | null): Pcrs {
  if (files === null)
    return { pcrs: pcrs === null ? null : parseFile(pcrs, MAX_FILE_BYTES, parsePcrValues), claims: [] }
  try {
    const statement = verifyStoredQuote({
      quote: readInput(files.quote, MAX_FILE_BYTES),
      signature: readInput(files.signature, MAX_FILE_BYTES),
      key: quoteKeyOf(parseFile(files.ak, MAX_FILE_BYTES, parseKeyFile)),
      nonce: null,
      pcrs: parseFile(files.pcrs, MAX_FILE_BYTES, parsePcrValues),
    })
    const claim: Claim = {
      check: "tpm",
      status: "passed",
      summary: `the key in ${files.ak} signed these PCRs; for which request is not known`,
      findings: [],
      facts: { resetCount: statement.attest.resetCount, restartCount: statement.attest.restartCount },
    }
    return { pcrs: statement.pcrs, claims: [claim] }
  } catch (error) {
    return { pcrs: null, claims: [failedBy("tpm", "tpm", error)] }
  }
}

async function imaClaim(
  file: string,
  { reference, whitelist, imaKeys, policy, violations, imaPolicies }: Appraisal,
  pcrs: PcrValues | null,
  at: Date,
): Promise<Claim> {
  try {
    const ima = policy?.ima ?? null
    const appraisal = new ImaAppraisal(reference, {
      whitelist,
      imaKeys,
      at,
      pcrs: bootPcrs(pcrs),
      expectations:
        violations === undefined ? ima : { required: ima?.required ?? [], violations: { mode: violations } },
      knownPolicies: imaPolicies,
      unquoted: pcrs === null,
    })
    const prefix = pcrs === null ? null : quotedPrefix(pcrs)
    for await (const { list } of readMeasurementList(inputChunks(file)))
      appraisal.add(prefix === null ? list : prefix.take(list))
    prefix?.finish()
    return appraisal.claim(prefix?.notYetQuoted ?? 0)
  } catch (error) {
    return failedBy("ima", "ima", error)
  }
}

/** PCR 10 in the best bank there is. In SHA-1 two lists can be made to give the same. */
function quotedPrefix(pcrs: PcrValues): QuotedPrefix {
  for (const bank of ["sha256", "sha384", "sha512"] as const) {
    const value = pcrs[bank]?.get(IMA_PCR)
    if (value !== undefined) return new QuotedPrefix(bank, value)
  }
  throw new VerifyError("ERR_TPM_PCR_SELECTION", {
    at: "PCR values",
    expected: `PCR ${IMA_PCR} of the bank of SHA-256, SHA-384 or SHA-512`,
    found: Object.keys(pcrs).join(", "),
  })
}

function bootPcrs(pcrs: PcrValues | null): readonly Uint8Array[] | null {
  const values = BOOT_PCRS.flatMap((pcr) => pcrs?.sha256?.get(pcr) ?? [])
  return values.length === BOOT_PCRS.length ? values : null
}

function verdictOf({ file, quote }: AppraiseOptions, claims: readonly Claim[], at: Date): Verdict {
  const exitCode = exitCodeOf(claims)
  return {
    passed: exitCode === 0,
    target: file === "-" ? "standard input" : file,
    at: at.toISOString(),
    simulated: false,
    assurance:
      quote === null
        ? { label: "unproven", meaning: "the file that was given: nothing vouches for it" }
        : { label: "no-tee", meaning: "the attestation key that was given, and its TPM being honest" },
    skipped: [],
    claims,
    exitCode,
  }
}
