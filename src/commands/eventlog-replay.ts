import { EXIT, UsageError } from "../errors.ts"
import { type EventLog, MAX_EVENT_LOG_BYTES, parseEventLog } from "../formats/event-log/event-log.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import type { HashName } from "../formats/tpm/algorithms.ts"
import { type PcrValues, parsePcrValues } from "../formats/tpm/pcr-values.ts"
import {
  banksOf,
  isAltered,
  isMeasured,
  type LogKind,
  logKindOf,
  type Registers,
  RTMR_COUNT,
  replayEventLog,
} from "../verify/event-log.ts"
import { parsePlainFile } from "./compressed-file.ts"
import { parseFile } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Style, type Terminal } from "./terminal.ts"

export interface ReplayEventLogOptions {
  readonly file: string
  /** Null: all that the log has. */
  readonly bank: HashName | null
  /** File with values to compare with; null: none. */
  readonly pcrs: string | null
  readonly json: boolean
}

/** Cap of a file with PCR values, in bytes. */
const MAX_PCR_FILE = 256 * 1024
type HexValues = Readonly<Record<string, string>>

interface Replayed {
  readonly kind: LogKind
  /** Events that were measured. */
  readonly events: number
  readonly pcrs?: Readonly<Record<string, HexValues>>
  readonly rtmrs?: HexValues
  /** Positions of events whose digest has to be that of their data, and is not. */
  readonly altered: readonly number[]
  /** Where there are values to compare with: whether each that can be compared is the log's. */
  readonly matches?: boolean
  readonly differences?: readonly Difference[]
  /** Registers with given values that the log does not measure into. */
  readonly not_in_log?: readonly string[]
}

interface Difference {
  readonly bank: HashName
  readonly register: number
  /** As given. */
  readonly expected: string
  /** What the log gives. */
  readonly found: string
}

/** `eventlog replay`: prints the registers that a log gives. Returns the exit code: 15 where they are not the given ones. */
export function replayEventLogFile(
  options: ReplayEventLogOptions,
  terminal: Terminal = openTerminal(),
): number {
  const log = parsePlainFile(options.file, MAX_EVENT_LOG_BYTES, parseEventLog)
  const given = options.pcrs === null ? null : parseFile(options.pcrs, MAX_PCR_FILE, parsePcrValues)
  const replayed = replay(log, options.bank, given)
  terminal.out(options.json ? jsonText(replayed) : render(replayed, terminal.outStyle))
  return replayed.matches === false || replayed.altered.length > 0 ? EXIT.boot : EXIT.ok
}

function replay(log: EventLog, bank: HashName | null, given: PcrValues | null): Replayed {
  const kind = logKindOf(log)
  const banks = banksOf(log)
  if (bank !== null && !banks.includes(bank))
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--bank",
      expected: `a bank that the log has digests for: ${banks.join(", ") || "none"}`,
      found: bank,
    })
  const values = new Map<HashName, Registers>()
  for (const name of bank === null ? banks : [bank]) values.set(name, replayEventLog(log, kind, name))
  return {
    kind,
    events: log.events.filter(isMeasured).length,
    ...(kind === "cc"
      ? { rtmrs: rtmrsOf(values) }
      : { pcrs: Object.fromEntries([...values].map(([name, registers]) => [name, hexValues(registers)])) }),
    altered: log.events.filter(isAltered).map(({ position }) => position),
    ...(given === null ? {} : compared(values, given)),
  }
}

/** A register that nothing was measured into is zeros. */
function rtmrsOf(values: ReadonlyMap<HashName, Registers>): HexValues {
  const registers = values.get("sha384")
  return hexValues(
    new Map(
      Array.from(
        { length: RTMR_COUNT },
        (_, rtmr) => [rtmr, registers?.get(rtmr) ?? new Uint8Array(48)] as const,
      ),
    ),
  )
}

function hexValues(registers: Registers): HexValues {
  const inOrder = [...registers].sort(([a], [b]) => a - b)
  return Object.fromEntries(inOrder.map(([register, value]) => [`${register}`, toHex(value)]))
}

function compared(
  values: ReadonlyMap<HashName, Registers>,
  given: PcrValues,
): Pick<Replayed, "matches" | "differences" | "not_in_log"> {
  const differences: Difference[] = []
  const others: string[] = []
  let same = 0
  for (const [bank, registers] of values)
    for (const [register, expected] of given[bank] ?? []) {
      const found = registers.get(register)
      if (found === undefined) others.push(`${bank}:${register}`)
      else if (bytesEqual(found, expected)) same += 1
      else differences.push({ bank, register, expected: toHex(expected), found: toHex(found) })
    }
  // Where nothing could be compared, nothing agrees.
  return { matches: same > 0 && differences.length === 0, differences, not_in_log: others }
}

function render(replayed: Replayed, style: Style): string {
  const { kind, events, pcrs = {}, rtmrs = {}, altered, matches, differences = [] } = replayed
  const lines = [
    `${style.bold(kind === "cc" ? "event log of a trust domain" : "event log of a TPM")}, ${events} events measured`,
  ]
  for (const [rtmr, value] of Object.entries(rtmrs)) lines.push(`  RTMR${rtmr}  ${value}`)
  for (const [bank, values] of Object.entries(pcrs)) {
    lines.push(`  ${bank}:`)
    for (const [pcr, value] of Object.entries(values))
      lines.push(`    ${pcr.padEnd(2)} : 0x${value.toUpperCase()}`)
  }
  for (const position of altered)
    lines.push(`${style.red("ALTERED")}: event ${position}: its digest is not that of its data`)
  if (matches === undefined) return `${lines.join("\n")}\n`
  for (const { bank, register, expected, found } of differences)
    lines.push(
      `${style.red("DIFFERS")}: ${kind === "cc" ? `RTMR${register}` : `PCR ${register} (${bank})`}: given ${expected}, the log gives ${found}`,
    )
  if (matches) lines.push(`${style.green("MATCHES")}: the log gives every value that can be compared`)
  else if (differences.length === 0) lines.push(`${style.red("DIFFERS")}: no value can be compared`)
  return `${lines.join("\n")}\n`
}
