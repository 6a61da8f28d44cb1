import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { defineCommand } from "citty"
import { VERSION } from "../version.ts"
import { type CommandDescription, describe, meta } from "./command.ts"
import { flattened } from "./completion.ts"
import { explain, optionHead, usageLine } from "./help.ts"
import { openTerminal } from "./terminal.ts"

export const manCommand = defineCommand({
  meta: meta({
    name: "man",
    description: "write the manual pages",
    examples: [
      { line: "cosmian_vm man --output /usr/share/man/man1", does: "write a page for each command" },
      { line: "cosmian_vm man | man -l -", does: "read the first page" },
    ],
  }),
  args: {
    output: {
      type: "string",
      alias: "o",
      valueHint: "DIR",
      description: "directory for all pages; without it the first page goes to standard output",
    },
  },
  async run({ args }) {
    const { rootCommand } = await import("./root.ts")
    const pages = manPages(await describe(rootCommand, ["cosmian_vm"]))
    if (args.output === undefined) {
      openTerminal().out(pages.get("cosmian_vm.1") ?? "")
      return
    }
    mkdirSync(args.output, { recursive: true })
    for (const [name, text] of pages) writeFileSync(join(args.output, name), text)
  },
})

/** Manual pages by file name, made from the definitions that the command line is read by. */
export function manPages(root: CommandDescription): Map<string, string> {
  // The commands under `cli` are those directly under the executable: one page is enough.
  const commands = flattened(root).filter(({ path }) => path[1] !== "cli" || path.length === 2)
  return new Map(commands.map((command) => [`${pageName(command)}.1`, page(command)]))
}

function pageName(command: CommandDescription): string {
  return command.path.join("-")
}

/** Source: man(7), "man - macros to format man pages". */
function page(command: CommandDescription): string {
  const children = command.children.filter((child) => !child.hidden)
  const sections = [
    `.TH ${pageName(command).toUpperCase().replaceAll("-", "\\-")} 1 "" "cosmian_vm ${VERSION}" "Cosmian VM"`,
    `.SH NAME\n${roff(pageName(command))} \\- ${roff(command.summary)}`,
    `.SH SYNOPSIS\n.B ${roff(usageLine(command))}`,
  ]
  if (command.details.length > 0)
    sections.push(`.SH DESCRIPTION\n${command.details.map(roff).join("\n.PP\n")}`)
  if (children.length > 0)
    sections.push(
      `.SH COMMANDS\n${children.map((child) => item(child.path.at(-1) ?? "", `${child.summary}; see ${pageName(child)}(1)`)).join("\n")}`,
    )
  if (command.positionals.length > 0)
    sections.push(
      `.SH ARGUMENTS\n${command.positionals.map((each) => item(each.value ?? "", explain(each))).join("\n")}`,
    )
  const options = [
    ...command.options.map((option) => item(optionHead(option), explain(option))),
    item("-h, --help", "show help"),
    ...(command.path.length === 1 ? [item("-V, --version", "show version and commit")] : []),
  ]
  sections.push(`.SH OPTIONS\n${options.join("\n")}`)
  if (command.examples.length > 0)
    sections.push(
      `.SH EXAMPLES\n${command.examples.map((each) => `${roff(each.does)}:\n.PP\n.EX\n    ${roff(each.line)}\n.EE`).join("\n.PP\n")}`,
    )
  if (command.path.length > 1) sections.push(".SH SEE ALSO\n.BR cosmian_vm (1)")
  return `${sections.join("\n")}\n`
}

function item(head: string, text: string): string {
  return `.TP\n.B ${roff(head)}\n${roff(text)}`
}

/** Text in which nothing is a request or an escape, and dashes can be copied. */
function roff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^(?=[.'])/gm, "\\&")
}
