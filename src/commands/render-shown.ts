import type { Shown, ShownRecord } from "../formats/describe/shown.ts"
import { printable } from "../formats/path-text.ts"
import type { Style } from "./terminal.ts"

/** Items of a list that are shown; all of them are in `--json`. */
const SHOWN_ITEMS = 1000
/** Names are padded to a common width, but no further than this. */
const WIDEST_NAME = 28
const INDENT = "  "

/** A decoded structure as indented lines of name and value. Whatever comes from outside is neutralised. */
export function renderShown(record: ShownRecord, style: Style): string {
  return `${recordLines(record, style, 1).join("\n")}\n`
}

function recordLines(record: ShownRecord, style: Style, depth: number): string[] {
  const entries = Object.entries(record)
  const scalars = entries.filter(([, value]) => !isNested(value))
  const width = Math.min(WIDEST_NAME, Math.max(0, ...scalars.map(([name]) => printable(name).length)))
  return entries.flatMap(([name, value]) => {
    const label = printable(name)
    if (!isNested(value))
      return [`${INDENT.repeat(depth)}${style.dim(label.padEnd(width))}  ${scalarText(value)}`]
    return [`${INDENT.repeat(depth)}${style.bold(label)}`, ...nestedLines(value, style, depth + 1)]
  })
}

function nestedLines(value: ShownRecord | readonly Shown[], style: Style, depth: number): string[] {
  if (!isList(value)) return recordLines(value, style, depth)
  const shown = value.slice(0, SHOWN_ITEMS).flatMap((item, index) => itemLines(item, index, style, depth))
  const rest = value.length - SHOWN_ITEMS
  return rest > 0 ? [...shown, `${INDENT.repeat(depth)}… and ${rest} more; --json lists them all`] : shown
}

/** An item of a list: flat ones, as the entries of a measurement list, take one line. */
function itemLines(item: Shown, index: number, style: Style, depth: number): string[] {
  const lead = `${INDENT.repeat(depth)}${style.dim(`${index}:`)}`
  if (!isNested(item)) return [`${lead} ${scalarText(item)}`]
  if (isList(item)) return [lead, ...nestedLines(item, style, depth + 1)]
  const entries = Object.entries(item)
  const flat = entries.length <= 8 && entries.every(([, value]) => !isNested(value))
  if (!flat) return [lead, ...recordLines(item, style, depth + 1)]
  const parts = entries.map(([name, value]) => `${style.dim(printable(name))} ${scalarText(value)}`)
  return [`${lead} ${parts.join("  ")}`]
}

function scalarText(value: Shown): string {
  if (value === null) return "none"
  if (typeof value === "boolean") return value ? "yes" : "no"
  if (typeof value === "string") return value === "" ? '""' : printable(value)
  return isList(value) ? `[${value.map(scalarText).join(", ")}]` : String(value)
}

/** Numbers and short texts in a list stay on the line of their name. */
function isNested(value: Shown): value is ShownRecord | readonly Shown[] {
  if (!isList(value)) return typeof value === "object" && value !== null
  return value.length > 32 || value.some((item) => typeof item === "object" || `${item}`.length > 16)
}

function isList(value: Shown): value is readonly Shown[] {
  return Array.isArray(value)
}
