import type { CommandDescription, OptionDescription } from "./command.ts"
import type { Style } from "./terminal.ts"

/** Text of `--help`, at most 100 columns where words allow. */
export function renderHelp(command: CommandDescription, style: Style): string {
  const title = (text: string) => style.bold(text)
  const sections = [
    `${title(command.path.join(" "))} - ${command.summary}`,
    ...command.details.map((paragraph) => wrap(paragraph, 0)),
    `${title("Usage:")} ${usageLine(command)}`,
  ]
  const children = command.children.filter((child) => !child.hidden)
  if (children.length > 0)
    sections.push(
      table(
        title("Commands:"),
        children.map((child) => [child.path.at(-1) ?? "", child.summary]),
      ),
    )
  if (command.positionals.length > 0)
    sections.push(
      table(
        title("Arguments:"),
        command.positionals.map((each) => [each.value ?? "", explain(each)]),
      ),
    )
  sections.push(table(title("Options:"), [...command.options.map(optionRow), helpRow(command)].flat()))
  if (command.examples.length > 0) {
    const examples = command.examples.map((each) => `  ${style.dim(`# ${each.does}`)}\n  ${each.line}`)
    sections.push(`${title("Examples:")}\n${examples.join("\n\n")}`)
  }
  return `${sections.join("\n\n")}\n`
}

/** `cosmian_vm verify [options] -s FILE`. */
export function usageLine(command: CommandDescription): string {
  const required = command.options.filter((option) => option.required)
  const words = [command.path.join(" "), "[options]"]
  for (const option of required) words.push(`${option.flags[0]} ${option.value}`)
  if (command.children.length > 0) words.push(command.runs ? "[COMMAND]" : "COMMAND")
  for (const each of command.positionals) {
    const shown = `${each.value}${each.repeatable ? "…" : ""}`
    words.push(each.required ? shown : `[${shown}]`)
  }
  return words.join(" ")
}

/** Flags of an option with its value: `-s, --snapshot FILE`. */
export function optionHead(option: OptionDescription): string {
  return `${option.flags.join(", ")}${option.value === null ? "" : ` ${option.value}`}`
}

function optionRow(option: OptionDescription): [string, string][] {
  const indent = option.flags[0]?.startsWith("--") ? "    " : ""
  return [[`${indent}${optionHead(option)}`, explain(option)]]
}

function helpRow(command: CommandDescription): [string, string][] {
  const rows: [string, string][] = [["-h, --help", "show this help"]]
  if (command.path.length === 1) rows.push(["-V, --version", "show version and commit"])
  return rows
}

/** Description with what else is worth knowing. */
export function explain(option: OptionDescription): string {
  const notes = [
    ...(option.required && option.kind !== "positional" ? ["required"] : []),
    ...(option.repeatable ? ["may be repeated"] : []),
    ...(option.fallback === null ? [] : [`default: ${option.fallback}`]),
  ]
  return notes.length === 0 ? option.description : `${option.description} (${notes.join("; ")})`
}

function table(title: string, rows: readonly (readonly [string, string])[]): string {
  const width = Math.min(34, Math.max(...rows.map(([head]) => head.length)))
  const lines = rows.map(([head, text]) => {
    const column = width + 4
    const body = wrap(text, column)
    return head.length > width
      ? `  ${head}\n${" ".repeat(column)}${body}`
      : `  ${head.padEnd(width)}  ${body}`
  })
  return `${title}\n${lines.join("\n")}`
}

/** Breaks at spaces before column 100; lines after the first are indented. */
function wrap(text: string, indent: number): string {
  const lines: string[] = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > 100) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line].join(`\n${" ".repeat(indent)}`)
}
