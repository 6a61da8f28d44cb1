import { resolve } from "node:path"
import { UsageError } from "../errors.ts"
import type { SavedEvidence } from "../formats/saved-evidence.ts"
import type { Verdict } from "../policy/verdict.ts"
import { versionLine } from "../version.ts"
import { htmlReport } from "./report-html.ts"
import { junitReport } from "./report-junit.ts"
import type { ReportContext } from "./report-parts.ts"
import { sarifReport } from "./report-sarif.ts"
import { savedEvidenceFile } from "./saved-evidence.ts"
import { beginFile, type PendingFile } from "./write-file.ts"

/** Files that a verification is to leave behind; null or absent: none of that kind. */
export interface VerdictOutputs {
  readonly report?: string | null
  readonly junit?: string | null
  readonly sarif?: string | null
  readonly evidence?: string | null
}

interface Judged {
  readonly verdict: Verdict
  readonly collected: SavedEvidence
  readonly passedMeans: string
}

/** Files begun: each is written whole, or stays as it was. */
export interface PendingOutputs {
  /** @throws as PendingFile.commit */
  write(judged: Judged): void
  /** Does nothing to what was written. */
  abandon(): void
}

const REPORTS: Readonly<
  Record<"report" | "junit" | "sarif", (verdict: Verdict, context: ReportContext) => string>
> = { report: htmlReport, junit: junitReport, sarif: sarifReport }

/**
 * Begins all of them, so that a place that cannot be written to is found out before the VM is asked.
 * @throws UsageError ERR_BAD_VALUE where two are one file, or a name is no file's; system errors
 */
export function beginOutputs(outputs: VerdictOutputs): PendingOutputs {
  const begun: { readonly file: PendingFile; content(judged: Judged): Uint8Array }[] = []
  const abandon = () => {
    for (const { file } of begun) file.abandon()
  }
  const begin = (path: string | null | undefined, mode: number, content: (judged: Judged) => Uint8Array) => {
    if (path !== null && path !== undefined) begun.push({ file: beginFile(path, mode), content })
  }
  refuseSame(Object.values(outputs))
  try {
    for (const kind of ["report", "junit", "sarif"] as const)
      begin(outputs[kind], 0o644, ({ verdict, passedMeans }) =>
        new TextEncoder().encode(
          REPORTS[kind](verdict, { passedMeans, generator: versionLine("cosmian_vm") }),
        ),
      )
    const { evidence = null } = outputs
    begin(evidence, 0o644, ({ collected }) => savedEvidenceFile(collected, evidence ?? ""))
  } catch (error) {
    abandon()
    throw error
  }
  return {
    write(judged) {
      // All contents first: what cannot be made leaves no file behind.
      for (const { file, content } of begun.map((one) => ({ ...one, content: one.content(judged) })))
        file.commit(content)
    },
    abandon,
  }
}

/** @throws UsageError ERR_BAD_VALUE where two outputs are one file. */
export function refuseSame(paths: readonly (string | null | undefined)[]): void {
  const names = paths.flatMap((path) => (path === null || path === undefined ? [] : resolve(path)))
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice === undefined) return
  throw new UsageError("ERR_BAD_VALUE", {
    at: twice,
    expected: "a file for each kind of output",
    found: "the same name twice",
    hint: "give each its own name",
  })
}
