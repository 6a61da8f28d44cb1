import type { CollateralSource } from "../endorsements/collateral.ts"
import { CodedError } from "../errors.ts"
import { parseHclEnvelope } from "../formats/azure/hcl.ts"
import type { Evidence, TeeEvidence } from "../formats/evidence.ts"
import { parseSnpReport, type SnpReport } from "../formats/snp/report.ts"
import type { IntelJudgement } from "../policy/validate-intel.ts"
import type { JudgeInput } from "../policy/verify-vm.ts"
import { neededBy } from "./collateral-needs.ts"

/** What was found out beyond what the VM sent. */
export type Endorsed = Pick<JudgeInput, "evidence" | "crl" | "crlAbsence"> & {
  readonly intel: Pick<IntelJudgement, "collateral" | "problems">
}

interface Wanted {
  /** False where the user leaves that check out by name. */
  readonly revocation: boolean
  readonly at: Date
}

/**
 * Evidence together with what the hardware's vendor says: certificates that the VM did not send, revocation lists, TCB
 * documents. What is not to be had is left out: the check that needs it fails, and tells why.
 */
export async function endorse(
  evidence: Evidence,
  source: CollateralSource,
  wanted: Wanted,
): Promise<Endorsed> {
  const { tee } = evidence
  const nothing = { evidence, crl: null, crlAbsence: null, intel: { collateral: null, problems: [] } }
  if (tee === null) return nothing
  if (tee.kind === "tdx" || tee.kind === "azure-tdx")
    return { ...nothing, intel: await intelDocuments(tee.quote, source, wanted) }
  const report = readable(() => reportOf(tee))
  if (report === null) return nothing
  const need = { report, certificates: tee.certificates, product: null, ...wanted }
  const { certificates, crl, problems } = await source.snp(need)
  const absence = problems.map(({ message }) => message).join("; ")
  return {
    ...nothing,
    evidence: { ...evidence, tee: { ...tee, certificates } },
    crl,
    crlAbsence: absence === "" ? null : absence,
  }
}

function reportOf(tee: Extract<TeeEvidence, { kind: "sev-snp" | "azure-snp" }>): SnpReport {
  return parseSnpReport(tee.kind === "sev-snp" ? tee.report : parseHclEnvelope(tee.hcl).hardwareReport)
}

async function intelDocuments(
  quote: Uint8Array,
  source: CollateralSource,
  { revocation, at }: Wanted,
): Promise<Endorsed["intel"]> {
  const need = readable(() => neededBy(quote))
  if (need?.kind !== "intel") return { collateral: null, problems: [] }
  try {
    return { collateral: await source.intel({ ...need, revocation, at }), problems: [] }
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERRUPTED") throw error
    return { collateral: null, problems: [error] }
  }
}

/** Null for what judging will refuse. */
function readable<T>(read: () => T): T | null {
  try {
    return read()
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}
