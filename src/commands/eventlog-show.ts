import { EXIT } from "../errors.ts"
import { describeEvent, descriptionText } from "../formats/event-log/describe.ts"
import {
  type EventLog,
  eventTypeName,
  LOG_ALGORITHM,
  MAX_EVENT_LOG_BYTES,
  parseEventLog,
} from "../formats/event-log/event-log.ts"
import { shortHex, toHex } from "../formats/hex.ts"
import { printable } from "../formats/path-text.ts"
import { isAltered, isMeasured, logKindOf, measuredPartOf } from "../verify/event-log.ts"
import { parsePlainFile } from "./compressed-file.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

/** `eventlog show`: prints what a log says. Returns the exit code: 15 where an event's digest cannot be right. */
export function showEventLog(file: string, json: boolean, terminal: Terminal = openTerminal()): number {
  const log = parsePlainFile(file, MAX_EVENT_LOG_BYTES, parseEventLog)
  const shown = shownLog(log)
  terminal.out(json ? jsonText(shown) : render(shown, terminal))
  return shown.events.some(({ digest_of }) => digest_of === "wrong") ? EXIT.boot : EXIT.ok
}

/** What of the data the digest covers. `other`: something that is not in the log; `none`: nothing was measured. */
type DigestOf = "data" | "text" | "other" | "none" | "wrong"

interface ShownEvent {
  readonly position: number
  /** PCR, or RTMR where the log is a trust domain's. */
  readonly register: number
  readonly type: string
  readonly digests: Readonly<Record<string, string>>
  readonly digest_of: DigestOf
  readonly description: string
  readonly details: object
}

interface ShownLog {
  readonly kind: "tcg" | "cc"
  readonly form: EventLog["form"]
  readonly banks: readonly string[]
  readonly size: number
  readonly padding: number
  readonly events: readonly ShownEvent[]
}

function shownLog(log: EventLog): ShownLog {
  const kind = logKindOf(log)
  return {
    kind,
    form: log.form,
    banks: log.algorithms.map(({ id }) => algorithmName(id)),
    size: log.size,
    padding: log.padding,
    events: log.events.map((event) => {
      const description = describeEvent(event)
      const { register } = event
      return {
        position: event.position,
        register: kind === "cc" && isMeasured(event) ? register - 1 : register,
        type: eventTypeName(event.type),
        digests: Object.fromEntries(
          [...event.digests].map(([id, digest]) => [algorithmName(id), toHex(digest)]),
        ),
        digest_of: digestOf(event),
        description: descriptionText(description),
        details: description.details,
      }
    }),
  }
}

function digestOf(event: EventLog["events"][number]): DigestOf {
  if (!isMeasured(event)) return "none"
  if (isAltered(event)) return "wrong"
  const measured = measuredPartOf(event)
  if (measured === null) return "other"
  return measured.part === "data" ? "data" : "text"
}

function algorithmName(id: number): string {
  return Object.entries(LOG_ALGORITHM).find(([, known]) => known === id)?.[0] ?? `0x${id.toString(16)}`
}

const MARKS: Readonly<Record<DigestOf, string>> = {
  data: "data",
  text: "text",
  other: "-",
  none: "",
  wrong: "WRONG",
}

function render({ kind, form, banks, events }: ShownLog, { outStyle: style }: Terminal): string {
  const what = kind === "cc" ? "event log of a trust domain" : `event log of a TPM, ${FORM_NAMES[form]}`
  const head = `${style.bold(what)}, ${banks.join(", ")}, ${events.length} events  ${style.dim("(not verified)")}`
  const rows = events.map((event) => [
    `${event.position}`,
    `${event.register}`,
    event.type.replace(/^EV_/, ""),
    Object.values(event.digests)
      .map((hex) => shortHex(Buffer.from(hex, "hex"), 4))
      .at(-1) ?? "",
    MARKS[event.digest_of],
    printable(event.description),
  ])
  const table = [["EVENT", kind === "cc" ? "RTMR" : "PCR", "TYPE", "DIGEST", "COVERS", "WHAT"], ...rows]
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...table.map((row) => row[column]?.length ?? 0)))
  const lines = table.map((row, index) => {
    const text = row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd()
    if (index === 0) return style.dim(text)
    return row[4] === MARKS.wrong ? style.red(text) : text
  })
  return `${[head, ...lines].join("\n")}\n`
}

const FORM_NAMES: Readonly<Record<EventLog["form"], string>> = {
  "crypto-agile": "crypto-agile form",
  sha1: "older form",
}
