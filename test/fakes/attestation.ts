import { parseSnpReport } from "../../src/formats/snp/report.ts"
import { parseTcb, type SnpProduct } from "../../src/formats/snp/tcb.ts"
import type { SnpAttestation } from "../../src/verify/snp.ts"
import { markVerified, type Verified } from "../../src/verify/verified.ts"
import { attested, fakeChip } from "./snp.ts"

/**
 * What verification would make of a report, for appraisal of reports whose certificates nobody has. Product and anchor are as
 * said here, and nothing is proven.
 */
export async function asIfVerified(
  report: Uint8Array,
  product: SnpProduct,
): Promise<Verified<SnpAttestation>> {
  const parsed = parseSnpReport(report)
  return markVerified({
    ...attested(await fakeChip(product)),
    report: parsed,
    product,
    reportedTcb: parseTcb(parsed.reportedTcb, product),
    committedTcb: parseTcb(parsed.committedTcb, product),
    currentTcb: parseTcb(parsed.currentTcb, product),
    launchTcb: parseTcb(parsed.launchTcb, product),
    chipId: parsed.chipId,
  })
}
