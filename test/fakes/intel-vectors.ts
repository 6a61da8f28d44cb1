import { intelAnchorFromPem } from "../../src/endorsements/intel-roots.ts"
import { type IntelCollateral, parseCollateralBundle } from "../../src/formats/intel/collateral.ts"
import { encodePem } from "../../src/formats/pem.ts"
import type { IntelAnchor } from "../../src/verify/intel-chain.ts"
import type { IntelCheck } from "../../src/verify/intel-quote.ts"
import { type VectorEntry, vector, vectorsUnder } from "./vectors.ts"

/** The checks that a stored bundle has no revocation lists for, by what the index says. */
export function skipped({ facts }: VectorEntry): ReadonlySet<IntelCheck> {
  return new Set(facts["checked_crls"] === false ? (["revocation"] as const) : [])
}

/** Both checks that need collateral. */
export const NO_COLLATERAL: ReadonlySet<IntelCheck> = new Set(["revocation", "tcb"])

/** Path of a related file. */
export function related({ related: files }: VectorEntry, name: string): string {
  return `${files?.[name]}`
}

/** The moment that an entry names: `at 2026-…Z: …`. */
export function evaluationTime({ file, expected }: VectorEntry): Date {
  const iso = /\bat (\d{4}-\d\d-\d\dT[\d:]+Z)/.exec(expected)?.[1]
  if (iso === undefined) throw new Error(`${file} names no time`)
  return new Date(iso)
}

export function bundle(file: string): IntelCollateral {
  return parseCollateralBundle(vector(file))
}

/** The anchor of the constructed chain, as a user would name it. */
export function testAnchor(): IntelAnchor {
  return intelAnchorFromPem(encodePem("CERTIFICATE", vector("tdx-testpki/root.der")))
}

/** Entries of a kind under a folder. */
export function entriesOf(folder: string, kind: string): VectorEntry[] {
  return vectorsUnder(folder).filter((entry) => entry.kind === kind)
}
