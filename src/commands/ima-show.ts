import { EXIT } from "../errors.ts"
import { describeEntry, signatureProblem } from "../formats/describe/ima.ts"
import { readMeasurementList } from "../formats/ima/list-stream.ts"
import { isViolation, measurementEntry } from "../formats/ima/measurement-list.ts"
import { printable } from "../formats/path-text.ts"
import { inputChunks } from "./input-chunks.ts"
import { inlineJson, jsonText } from "./json-text.ts"
import { count } from "./progress.ts"
import { openTerminal, outWritten, type Style, type Terminal } from "./terminal.ts"

/** Text that is gathered before it is written. */
const WRITE_SIZE = 64 * 1024

/** `ima show`: prints each entry as it is read. Returns the exit code. */
export async function showList(
  file: string,
  json: boolean,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const totals = new Totals()
  const style = terminal.outStyle
  let text = json ? '{\n  "verified": false,\n  "entries": [' : heading(style)
  for await (const { list, first } of readMeasurementList(inputChunks(file)))
    for (let index = 0; index < list.count; index++) {
      const entry = measurementEntry(list, index)
      const shown = describeEntry(entry)
      totals.add(entry.template, isViolation(list, index), signatureProblem(entry) !== null)
      text += json
        ? `${totals.entries === 1 ? "" : ","}\n    ${inlineJson(shown)}`
        : lineOf(first + index, shown, style)
      if (text.length < WRITE_SIZE) continue
      terminal.out(text)
      text = ""
      await outWritten()
    }
  // The summary's members follow those that were written already.
  terminal.out(`${text}${json ? `\n  ],\n${jsonText(totals.summary()).slice(2)}` : totals.text()}`)
  return totals.malformed > 0 ? EXIT.ima : EXIT.ok
}

class Totals {
  entries = 0
  violations = 0
  malformed = 0
  readonly #templates = new Map<string, number>()

  add(template: string, violation: boolean, malformed: boolean): void {
    this.entries += 1
    if (violation) this.violations += 1
    if (malformed) this.malformed += 1
    this.#templates.set(template, (this.#templates.get(template) ?? 0) + 1)
  }

  summary() {
    return {
      count: this.entries,
      templates: Object.fromEntries(this.#templates),
      violations: this.violations,
      malformed_signatures: this.malformed,
    }
  }

  text(): string {
    const templates = [...this.#templates].map(([name, number]) => `${count(number)} of ${printable(name)}`)
    const parts = [
      ...templates,
      ...(this.violations > 0 ? [`${count(this.violations)} violations`] : []),
      ...(this.malformed > 0 ? [`${count(this.malformed)} malformed signatures`] : []),
    ]
    return `${count(this.entries)} entries${parts.length === 0 ? "" : `: ${parts.join(", ")}`}\n`
  }
}

function heading(style: Style): string {
  return `${style.bold("measurement list")}  ${style.dim("(not verified)")}\n`
}

/** `12: sha256:… /path`, and what else is not as in nearly all entries. */
function lineOf(index: number, shown: ReturnType<typeof describeEntry>, style: Style): string {
  const { pcr, template, template_digest, digest, path, violation, ...others } = shown
  const notes = Object.entries(others).map(([name, value]) => `  ${style.dim(name)} ${printable(`${value}`)}`)
  const other = pcr === 10 ? "" : `  ${style.dim("pcr")} ${pcr}`
  const kind = violation === true ? style.red("violation") : printable(`${digest}`)
  return `${style.dim(`${index}:`)} ${kind}  ${printable(`${path}`)}${other}${notes.join("")}\n`
}
