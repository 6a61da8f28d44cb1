import { createHash } from "node:crypto"
import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { AWS_NITRO_ROOTS } from "../endorsements/aws-roots.ts"
import type { CollateralSource } from "../endorsements/collateral.ts"
import { CodedError } from "../errors.ts"
import { parseHclEnvelope } from "../formats/azure/hcl.ts"
import { type IntelCollateral, MAX_BUNDLE_BYTES, parseCollateralBundle } from "../formats/intel/collateral.ts"
import { collateralMember, collateralOfFiles } from "../formats/intel/collateral-files.ts"
import { parseSgxQuote } from "../formats/sgx/quote.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { parseSnpReportFile } from "../formats/snp/report-file.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { parseCertificateFile } from "../formats/x509/certificate-file.ts"
import { type AttestationPolicy, defaultPolicy } from "../policy/attestation-policy.ts"
import { withDebug } from "../policy/guest-policy.ts"
import { refusal, type Validation, validate } from "../policy/validate.ts"
import type { FetchedSnp } from "../policy/validate-snp.ts"
import type { Claim, Verdict } from "../policy/verdict.ts"
import { verifyPckChain } from "../verify/intel-chain.ts"
import type { FileOption, ValidateOptions } from "./attestation-validate.ts"
import { collateralSourceOf } from "./collateral-source.ts"
import { readInput } from "./input-files.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { readPolicyFile } from "./policy-file.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { readTpmAuthorities } from "./tpm-authorities.ts"
import { type Anchors, anchorsOf } from "./trust-roots.ts"

/** Of one file of evidence, key, signature or certificates. */
export const MAX_FILE_BYTES = 4 * 1024 * 1024

/** `attestation validate`: prints the result and returns its exit code. */
export async function runValidation(
  options: ValidateOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const result = await validateEvidence(options, terminal)
  const text = options.json
    ? jsonText(result)
    : renderVerdict(verdictOf(result), {
        style: terminal.outStyle,
        columns: terminal.outColumns,
        quiet: options.quiet,
        passedMeans:
          options.files.policy === null
            ? "is genuine; which software has to run, no policy says"
            : "is genuine, and what the policy expects",
      })
  terminal.out(text)
  return result.exitCode
}

/**
 * Reads what the options name, fetches what is missing, and judges.
 * @throws CodedError ERR_IO where a file cannot be read; UsageError for policy and trust roots; ERR_INTERRUPTED
 */
export async function validateEvidence(
  options: ValidateOptions,
  terminal: Pick<Terminal, "talk">,
): Promise<Validation> {
  const { mode, skip, files, product, reportData, nonce, allowDebug } = options
  const at = options.at ?? new Date()
  const target = options.file === "-" ? "standard input" : options.file
  const policy = policyOf(files.policy, allowDebug)
  for (const note of policy.notes) terminal.talk(`note: ${note}\n`)
  const anchors = anchorsOf(options.trustRoots)
  const nitroRoots = nitroRootsOf(options.tpmCa)
  try {
    const read = readFiles(options)
    const wanted = { ...options, offline: options.offline || policy.trust.offline }
    const fetched = await interruptible((signal) =>
      fetchMissing(read, wanted, at, anchors, collateralSourceOf(wanted, anchors.amd, terminal, signal)),
    )
    const { vcek, vlek, chain, crl, ak, signature, pcrs, quote } = read.files
    return validate({
      mode,
      target,
      file: read.evidence,
      at,
      reportData,
      nonce,
      skip,
      snp: {
        endorsements: { leaf: vcek ?? vlek, chain, crl, fetched: fetched.snp },
        anchors: anchors.amd,
        at,
        policy,
        product,
      },
      intel: {
        collateral: read.collateral ?? fetched.intel,
        problems: fetched.problems,
        anchors: anchors.intel,
        at,
        policy,
        allowDebug,
        skip,
      },
      quote: { quote, signature, ak, pcrs, eventLog: read.files["event-log"] },
      tdQuote: read.files["td-quote"],
      nitroRoots,
      eventLog: read.files["event-log"],
    })
  } catch (error) {
    // More than evidence ever has is no evidence.
    if (error instanceof CodedError && error.code === "ERR_TOO_LARGE")
      return refusal({ mode, target, at, skip }, error)
    throw error
  }
}

/** AWS's root, or in its place those of the user's directory. */
function nitroRootsOf(directory: string | null): ReadonlySet<string> {
  if (directory === null) return AWS_NITRO_ROOTS
  const { roots } = readTpmAuthorities(directory)
  return new Set(roots.map(({ der }) => createHash("sha256").update(der).digest("hex")))
}

/** What the user says on the command line is on top of what the file says. */
export function policyOf(file: string | null, allowDebug: boolean): AttestationPolicy {
  if (file === null) return defaultPolicy({ allowDebug })
  const { policy } = readPolicyFile(file)
  if (!allowDebug) return policy
  const { snp, tdx } = policy
  return {
    ...policy,
    snp: snp === null ? null : { ...snp, guestPolicy: withDebug(snp.guestPolicy) },
    tdx: tdx === null || tdx.debug === "required" ? tdx : { ...tdx, debug: "allowed" },
  }
}

export interface ReadFiles {
  readonly evidence: Uint8Array
  readonly files: Readonly<Record<FileOption, Uint8Array | null>>
  /** An error: it is there, and malformed. */
  readonly collateral: IntelCollateral | CodedError | null
}

function readFiles({ file, files }: ValidateOptions): ReadFiles {
  const read = (option: FileOption) => {
    const path = files[option]
    return path === null ? null : readInput(path, MAX_FILE_BYTES)
  }
  return {
    evidence: readInput(file, MAX_FILE_BYTES),
    files: {
      policy: null,
      collateral: null,
      vcek: read("vcek"),
      vlek: read("vlek"),
      chain: read("chain"),
      crl: read("crl"),
      ak: read("ak"),
      signature: read("signature"),
      pcrs: read("pcrs"),
      quote: read("quote"),
      "td-quote": read("td-quote"),
      "event-log": read("event-log"),
    },
    collateral: files.collateral === null ? null : readCollateral(files.collateral),
  }
}

/** Intel's documents in one file or a directory; an error where they are malformed. */
export function readCollateral(path: string): IntelCollateral | CodedError {
  const isDirectory = path !== "-" && statSync(path).isDirectory()
  const content = isDirectory ? filesIn(path) : readInput(path, MAX_BUNDLE_BYTES)
  try {
    return content instanceof Uint8Array ? parseCollateralBundle(content) : collateralOfFiles(content)
  } catch (error) {
    if (error instanceof CodedError) return error
    throw error
  }
}

function filesIn(directory: string): ReadonlyMap<string, Uint8Array> {
  const names = readdirSync(directory).filter((name) => collateralMember(name) !== null)
  return new Map(names.map((name) => [name, readInput(join(directory, name), MAX_FILE_BYTES)]))
}

/** Documents that the user did not name. */
export interface Fetched {
  readonly snp: FetchedSnp
  readonly intel: IntelCollateral | null
  /** Why Intel's documents are not there. */
  readonly problems: readonly CodedError[]
}

export const NO_SNP: FetchedSnp = { certificates: [], crl: null, problems: [], crlProblem: null }

/** Malformed evidence needs nothing: judging will say what is wrong with it. */
export async function fetchMissing(
  read: ReadFiles,
  options: Pick<ValidateOptions, "mode" | "product" | "skip">,
  at: Date,
  anchors: Anchors,
  source: CollateralSource,
): Promise<Fetched> {
  const nothing = { snp: NO_SNP, intel: null, problems: [] }
  switch (options.mode) {
    case "snp":
    case "snp-vtpm":
    case "azure-snp":
      return { ...nothing, snp: await fetchSnp(read, options, at, source) }
    case "tdx":
    case "sgx":
      return {
        ...nothing,
        ...(await fetchIntel(read.evidence, options.mode, read, options, at, anchors, source)),
      }
    case "azure-tdx": {
      const quote = read.files["td-quote"]
      if (quote === null) return nothing
      return { ...nothing, ...(await fetchIntel(quote, "tdx", read, options, at, anchors, source)) }
    }
    case "vtpm":
    case "nitro-tpm":
      return nothing
  }
}

/** What the user names is not fetched, whether or not it turns out to fit. */
async function fetchSnp(
  { evidence, files }: ReadFiles,
  { mode, product, skip }: Pick<ValidateOptions, "mode" | "product" | "skip">,
  at: Date,
  source: CollateralSource,
): Promise<FetchedSnp> {
  const found = readable(() => {
    if (mode === "azure-snp")
      return { report: parseSnpReport(parseHclEnvelope(evidence).hardwareReport), shipped: [] }
    const { report, certificates } = parseSnpReportFile(evidence)
    return { report: parseSnpReport(report), shipped: certificates.map(({ der }) => der) }
  })
  if (found === null) return NO_SNP
  const leaf = files.vcek ?? files.vlek
  const given = [leaf, files.chain].flatMap((file) => (file === null ? [] : (dersIn(file) ?? [])))
  const needs = source.snpNeeds({
    report: found.report,
    certificates: [...given, ...found.shipped],
    product,
    revocation: files.crl === null && !skip.has("revocation"),
  })
  const get = (key: string | null) => (key === null ? null : attempt(() => source.get(key, { at })))
  const vcek = await get(leaf === null ? needs.vcek : null)
  const chain = await get(files.chain === null ? needs.chain : null)
  const crl = await get(needs.crl)
  const unknown = files.crl === null ? (needs.problems[0] ?? null) : null
  return {
    certificates: [
      ...(vcek === null || vcek instanceof CodedError ? [] : [vcek.body]),
      ...(chain === null || chain instanceof CodedError ? [] : (dersIn(chain.body) ?? [])),
    ],
    crl: crl === null || crl instanceof CodedError ? null : crl.body,
    problems: [...needs.problems, ...[vcek, chain].filter((one) => one instanceof CodedError)],
    crlProblem: crl instanceof CodedError ? crl : crl === null ? unknown : null,
  }
}

/** Why it failed, in place of an exception; only an interruption ends everything. */
async function attempt<T>(work: () => Promise<T>): Promise<T | CodedError> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERRUPTED") throw error
    return error
  }
}

function dersIn(file: Uint8Array): readonly Uint8Array[] | null {
  return readable(() => parseCertificateFile(file, "certificate", "certificates"))
}

/** Nothing is asked of Intel for a quote whose platform no trusted root certifies. */
async function fetchIntel(
  quote: Uint8Array,
  tee: "tdx" | "sgx",
  { collateral }: ReadFiles,
  { skip }: Pick<ValidateOptions, "skip">,
  at: Date,
  anchors: Anchors,
  source: CollateralSource,
): Promise<Pick<Fetched, "intel" | "problems">> {
  const nothing = { intel: null, problems: [] }
  if (collateral !== null || (skip.has("tcb") && skip.has("revocation"))) return nothing
  const chain = readable(() => {
    const { signature } = tee === "sgx" ? parseSgxQuote(quote) : parseTdxQuote(quote)
    return verifyPckChain(signature.certificates, anchors.intel, at)
  })
  if (chain === null || chain.anchor.simulated) return nothing
  const processor = chain.authority.subject.commonName?.endsWith("Processor CA") === true
  const intel = await attempt(() =>
    source.intel({
      tee,
      fmspc: chain.platform.fmspc,
      authority: processor ? "processor" : "platform",
      revocation: !skip.has("revocation"),
      at,
    }),
  )
  return intel instanceof CodedError ? { intel: null, problems: [intel] } : { intel, problems: [] }
}

/** Null for what is malformed or does not hold. */
function readable<T>(read: () => T): T | null {
  try {
    return read()
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

/** The result in the form that text is made from. */
function verdictOf(result: Validation): Verdict {
  const { verdict, target, at, simulated, assurance, skipped, exitCode } = result
  const claims = result.claims.map(
    ({ name, status, meaning, findings, facts }): Claim => ({
      check: name,
      status,
      summary: meaning,
      findings,
      facts,
    }),
  )
  return { passed: verdict === "pass", target, at, simulated, assurance, skipped, claims, exitCode }
}
