import type { TomlTable } from "../formats/toml-table.ts"
import type { ImaExpectations, ViolationPolicy } from "./ima-expectations.ts"
import { COVERAGE_POINTS } from "./ima-points.ts"

const MODES = ["fail", "report", "ignore-paths"] as const
/** More than a list has entries, so that it limits nothing: whoever wants that says "report". */
const MAX_IGNORED = 100_000

/** Reads `[ima]` of a policy. @throws UsageError ERR_POLICY */
export function parseImaTable(table: TomlTable): ImaExpectations {
  const required = (table.strings("required") ?? []).map((name) => {
    const point = COVERAGE_POINTS.find((known) => known === name)
    if (point === undefined)
      throw table.fault("required", `names among ${COVERAGE_POINTS.join(", ")}`, JSON.stringify(name))
    return point
  })
  const expectations = { violations: parseViolations(table), required }
  table.finish()
  return expectations
}

function parseViolations(table: TomlTable): ViolationPolicy | null {
  const mode = table.choice("violations", MODES)
  const paths = table.strings("ignore_violations")
  const max = table.integer("max_violations", 1, MAX_IGNORED)
  if (mode !== "ignore-paths") {
    const stray = paths !== null ? "ignore_violations" : max !== null ? "max_violations" : null
    if (stray !== null) throw table.fault(stray, 'violations = "ignore-paths" beside it', mode ?? "none")
    return mode === null ? null : { mode }
  }
  const wrong = paths?.find((path) => !path.startsWith("/"))
  if (paths === null || wrong !== undefined)
    throw table.fault("ignore_violations", "patterns of paths, such as /var/log/**", wrong ?? "none")
  if (max === null)
    throw table.fault(
      "max_violations",
      `how many may be left out, 1 to ${MAX_IGNORED}`,
      "none",
      "the names in violations are not proven: the number is what binds",
    )
  return { mode, paths, max }
}

/** The section that reads back as these expectations. */
export function imaSections({ violations, required }: ImaExpectations): string[][] {
  const list = (items: readonly string[]) => `[${items.map((item) => JSON.stringify(item)).join(", ")}]`
  return [
    [
      "[ima]",
      ...(violations === null ? [] : [`violations = "${violations.mode}"`]),
      ...(violations?.mode === "ignore-paths"
        ? [`ignore_violations = ${list(violations.paths)}`, `max_violations = ${violations.max}`]
        : []),
      ...(required.length === 0 ? [] : [`required = ${list(required)}`]),
    ],
  ]
}
