import { CodedError, VerifyError } from "../errors.ts"
import type { Shown, ShownRecord } from "../formats/describe/shown.ts"
import { describeAttest } from "../formats/describe/tpm.ts"
import { toHex } from "../formats/hex.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { parseKeyFile } from "../formats/tpm/key-file.ts"
import { selectionText } from "../formats/tpm/pcr-selection.ts"
import { type PcrValues, parsePcrValues } from "../formats/tpm/pcr-values.ts"
import { type QuoteKey, type QuoteStatement, quoteKeyOf, verifyStoredQuote } from "../verify/stored-quote.ts"
import type { Verified } from "../verify/verified.ts"
import { appraisePcrs } from "./appraise-pcrs.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import { mismatch, notOneOf, policyClaim } from "./policy-findings.ts"
import { readQuotedLog, withLog } from "./validate-event-log.ts"
import { failedBy, type Judged, NOTHING, notJudged } from "./validation-claims.ts"
import type { Claim, Finding } from "./verdict.ts"

/** Files of a TPM quote, as they were read; null: not given. */
export interface QuoteFiles {
  readonly quote: Uint8Array | null
  readonly signature: Uint8Array | null
  readonly ak: Uint8Array | null
  readonly pcrs: Uint8Array | null
  /** The firmware's event log, compared with the PCR values. */
  readonly eventLog?: Uint8Array | null
}

/** What stands for the attestation key, beyond the user's word. */
export interface KeyVoucher {
  readonly key: QuoteKey
  /** Who says that this is the key, for the summary. */
  readonly by: string
}

/**
 * Judges a quote: `tpm`, `boot`.
 * @param nonce what it has to repeat; null: not compared.
 * @param voucher a key that was proven otherwise; null: the one in `files.ak` counts, because the user names it.
 */
export function judgeQuoteFiles(
  files: QuoteFiles,
  nonce: Uint8Array | null,
  policy: AttestationPolicy,
  voucher: KeyVoucher | null = null,
): Judged {
  const evidence = evidenceOf(files)
  try {
    const quote = present(files.quote, "quote", "--quote")
    const signature = present(files.signature, "signature", "--signature")
    const key = voucher?.key ?? quoteKeyOf(parseKeyFile(present(files.ak, "attestation key", "--ak")))
    const pcrs = files.pcrs === null ? null : parsePcrValues(files.pcrs)
    const statement = verifyStoredQuote({ quote, signature, key, nonce, pcrs })
    const boot = appraisePcrs(statement.pcrs ?? {}, policy)
    const log = files.eventLog == null ? null : readQuotedLog(files.eventLog, statement.pcrs ?? {})
    return {
      ...NOTHING,
      evidence: { ...evidence, ...(statement.pcrs === null ? {} : { pcrs: shownPcrs(statement.pcrs) }) },
      claims: [tpmClaim(statement, policy, voucher), log === null ? boot : withLog(boot, log)],
      bootLogs: log === null ? [] : [log],
    }
  } catch (error) {
    return {
      ...NOTHING,
      evidence,
      claims: [failedBy("tpm", "tpm", error), notJudged("boot", "boot", "tpm")],
    }
  }
}

/** The quote as it says of itself; empty where it cannot be read. */
function evidenceOf({ quote }: QuoteFiles): ShownRecord {
  if (quote === null) return {}
  try {
    return describeAttest(quote)
  } catch (error) {
    if (error instanceof CodedError) return {}
    throw error
  }
}

function present(file: Uint8Array | null, what: string, option: string): Uint8Array {
  if (file !== null) return file
  throw new VerifyError("ERR_TPM_INCOMPLETE", {
    at: what,
    expected: option,
    found: "none",
    hint: `give it with ${option}`,
  })
}

function tpmClaim(
  statement: Verified<QuoteStatement>,
  policy: AttestationPolicy,
  voucher: KeyVoucher | null,
): Claim {
  const { attest, akName, scheme, hash } = statement
  const expectedNames = policy.tpm?.akNames ?? null
  const named = notOneOf(
    "ERR_TPM_AK_CHANGED",
    "AK Name",
    akName ?? new Uint8Array(),
    expectedNames,
    akName === null
      ? "a bare key has no Name to compare with the policy's"
      : "another TPM, or another key of it, signed the quote",
  )
  const by =
    voucher === null ? "the attestation key that was given" : `the attestation key that ${voucher.by}`
  return policyClaim({
    check: "tpm",
    failureClass: "tpm",
    findings: named,
    warnings: warningsOf(statement, voucher),
    summary: `${by} signed ${selectionText(attest.pcrSelect)}`,
    facts: {
      scheme: `${scheme} ${hash}`,
      resetCount: attest.resetCount,
      restartCount: attest.restartCount,
      clock: attest.clock.toString(),
      safe: attest.safe,
      ...(akName === null ? {} : { akName: toHex(akName) }),
    },
  })
}

/** What passes, and should be known all the same. */
function warningsOf(
  { attest, akName, freshness, pcrs }: QuoteStatement,
  voucher: KeyVoucher | null,
): Finding[] {
  const warnings: Finding[] = []
  if (freshness === "not-checked")
    warnings.push(
      mismatch("ERR_TPM_QUALIFYING_DATA", "nonce", "--nonce", "none", {
        meaning: "nothing shows for which request the quote was made: it may be an old one",
        remedy: "give the nonce of the request with --nonce",
      }),
    )
  if (akName === null && voucher === null)
    warnings.push(
      mismatch("ERR_TPM_AK_ATTRIBUTES", "attestation key", "TPM2B_PUBLIC or TPMT_PUBLIC", "a bare key", {
        meaning: "nothing shows that the key is a TPM's, and signs only what that TPM states itself",
        remedy: "give the TPM's public area with --ak",
      }),
    )
  if (pcrs === null)
    warnings.push(
      mismatch("ERR_TPM_PCR_DIGEST", "PCR values", "--pcrs", "none", {
        meaning: "the TPM signed a digest of the PCRs, and the values behind it are not known",
        remedy: "give the values with --pcrs",
      }),
    )
  const weak = attest.pcrSelect.every(({ hash }) => hash === ALG.sha1)
  if (weak)
    warnings.push(
      mismatch("ERR_TPM_PCR_SELECTION", "PCR bank", "sha256 or better", "sha1", {
        meaning: "the quoted PCRs are of the SHA-1 bank, whose values can be made to collide",
        remedy: "have PCRs of the SHA-256 bank quoted",
      }),
    )
  return warnings
}

function shownPcrs(pcrs: PcrValues): Shown {
  return Object.fromEntries(
    Object.entries(pcrs).map(([bank, values]) => [
      bank,
      Object.fromEntries([...(values ?? [])].map(([pcr, value]) => [pcr, toHex(value)])),
    ]),
  )
}
