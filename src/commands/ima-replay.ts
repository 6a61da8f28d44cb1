import { EXIT } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { readMeasurementList } from "../formats/ima/list-stream.ts"
import { isViolation } from "../formats/ima/measurement-list.ts"
import { parsePcrValues } from "../formats/tpm/pcr-values.ts"
import { type BANKS, PcrReplays } from "../verify/ima-replay.ts"
import { inputChunks } from "./input-chunks.ts"
import { parseFile } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { count } from "./progress.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

export interface ReplayOptions {
  readonly file: string
  readonly bank: (typeof BANKS)[number]
  /** File with values to compare with. */
  readonly pcrs: string | null
  readonly padded: boolean
  readonly json: boolean
}

/** What `--json` prints. */
export interface ReplayResult {
  readonly entries: number
  readonly violations: number
  readonly pcrs: Readonly<Record<string, Readonly<Record<string, string>>>>
  /** Whether the given values are reached; absent where none are given. */
  readonly matches?: boolean
  /** Number of entries after which they are; null where they are not. */
  readonly prefix?: number | null
}

const MAX_PCR_FILE = 256 * 1024

/** `ima replay`: prints the PCRs that a list gives. Returns the exit code. */
export async function replayList(
  options: ReplayOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const result = await replay(options)
  terminal.out(options.json ? jsonText(result) : textOf(result, options))
  return result.matches === false ? EXIT.ima : EXIT.ok
}

async function replay({ file, bank, pcrs, padded }: ReplayOptions): Promise<ReplayResult> {
  const expected = pcrs === null ? null : (parseFile(pcrs, MAX_PCR_FILE, parsePcrValues)[bank] ?? new Map())
  const replays = new PcrReplays(bank, padded)
  let violations = 0
  let entries = 0
  let prefix: number | null = null
  // A PCR that a later entry is the first to extend is not there before: so the last place counts.
  const compare = () => {
    if (expected !== null && replays.equal(expected)) prefix = entries
  }
  compare()
  for await (const { list, first } of readMeasurementList(inputChunks(file)))
    for (let index = 0; index < list.count; index++) {
      replays.extend(list, index, first)
      entries += 1
      if (isViolation(list, index)) violations += 1
      compare()
    }
  const values = Object.fromEntries(replays.values().map(([pcr, value]) => [pcr, toHex(value)]))
  const compared = expected === null ? {} : { matches: prefix !== null, prefix }
  return { entries, violations, pcrs: { [bank]: values }, ...compared }
}

function textOf(
  { entries, violations, pcrs, matches, prefix = null }: ReplayResult,
  { bank, pcrs: file }: ReplayOptions,
): string {
  const lines = [
    `${count(entries)} entries, ${violations === 0 ? "no violations" : `${count(violations)} of them violations`}`,
    ...Object.entries(pcrs[bank] ?? {}).map(([pcr, value]) => `${bank} PCR ${pcr}  ${value}`),
  ]
  if (matches === false) lines.push(`[ FAIL ] no part of the list gives the values in ${file}`)
  if (prefix !== null)
    lines.push(
      prefix === entries
        ? `[ OK ] the values in ${file} are these`
        : `[ OK ] the first ${count(prefix)} entries give the values in ${file}; ${count(entries - prefix)} came later`,
    )
  return `${lines.join("\n")}\n`
}
