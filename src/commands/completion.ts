import { defineCommand } from "citty"
import { type CommandDescription, describe, meta, type OptionDescription } from "./command.ts"
import { openTerminal } from "./terminal.ts"

const SHELLS = ["bash", "zsh", "fish"] as const
type Shell = (typeof SHELLS)[number]

export const completionCommand = defineCommand({
  meta: meta({
    name: "completion",
    description: "print the completion script of a shell",
    examples: [
      {
        line: "cosmian_vm completion bash > /etc/bash_completion.d/cosmian_vm",
        does: "for all users of bash",
      },
      {
        line: "cosmian_vm completion fish > ~/.config/fish/completions/cosmian_vm.fish",
        does: "for yourself in fish",
      },
    ],
  }),
  args: {
    shell: {
      type: "positional",
      required: true,
      valueHint: SHELLS.join("|"),
      description: "the shell",
    },
  },
  async run({ args }) {
    const { UsageError } = await import("../errors.ts")
    const { rootCommand } = await import("./root.ts")
    const shell = SHELLS.find((name) => name === args.shell)
    if (shell === undefined)
      throw new UsageError("ERR_BAD_VALUE", {
        at: "cosmian_vm completion",
        expected: `one of ${SHELLS.join(", ")}`,
        found: args.shell,
        hint: "give one of these names",
      })
    openTerminal().out(completionScript(shell, await describe(rootCommand, ["cosmian_vm"])))
  },
})

/** Completion script made from the definitions that the command line is read by. */
export function completionScript(shell: Shell, root: CommandDescription): string {
  switch (shell) {
    case "bash":
      return bashScript(root)
    case "zsh":
      return zshScript(root)
    case "fish":
      return fishScript(root)
  }
}

/** A command and everything below it. */
export function flattened(command: CommandDescription): CommandDescription[] {
  return [command, ...command.children.filter((child) => !child.hidden).flatMap(flattened)]
}

function children(command: CommandDescription): CommandDescription[] {
  return command.children.filter((child) => !child.hidden)
}

function pathOf(command: CommandDescription): string {
  return command.path.join(" ")
}

function flags(command: CommandDescription): string[] {
  return [...command.options.flatMap((option) => option.flags), "--help"]
}

/** Words that may follow; null where it is for the shell to offer files, empty where nothing can be offered. */
function valuesOf(option: OptionDescription): readonly string[] | null {
  if (option.choices.length > 0) return option.choices
  if (option.value?.includes("|")) return option.value.split("|")
  return option.value !== null && /FILE|DIR|PATH/.test(option.value) ? null : []
}

/** The loop that finds, among the words before the cursor, which command they name. */
const WALK = (words: string) => `for word in ${words}; do
    case "$at $word" in
@PATHS@
    esac
  done`

function walk(root: CommandDescription, words: string): string {
  const paths = flattened(root)
    .slice(1)
    .map((command) => `      "${pathOf(command)}") at="$at $word" ;;`)
  return WALK(words).replace("@PATHS@", () => paths.join("\n"))
}

function bashScript(root: CommandDescription): string {
  const values: string[] = []
  const words: string[] = []
  for (const command of flattened(root)) {
    for (const option of command.options) {
      if (option.value === null) continue
      const patterns = option.flags.map((flag) => `"${pathOf(command)} ${flag}"`).join("|")
      const offered = valuesOf(option)
      const reply =
        offered === null
          ? 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current")'
          : `mapfile -t COMPREPLY < <(compgen -W "${offered.join(" ")}" -- "$current")`
      values.push(`    ${patterns}) ${reply}; return ;;`)
    }
    const next = [
      ...children(command).map((child) => child.path.at(-1) ?? ""),
      ...command.positionals.flatMap((each) => valuesOf(each) ?? []),
      ...flags(command),
    ]
    words.push(`    "${pathOf(command)}") words="${next.join(" ")}" ;;`)
  }
  return `# bash completion of cosmian_vm; made by "cosmian_vm completion bash"
_cosmian_vm() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" at="cosmian_vm" word words=""
  ${walk(root, `"\${COMP_WORDS[@]:1:COMP_CWORD-1}"`)}
  case "$at $previous" in
${values.join("\n")}
  esac
  case "$at" in
${words.join("\n")}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _cosmian_vm cosmian_vm
`
}

function zshScript(root: CommandDescription): string {
  const cases = flattened(root).map((command) => {
    const names = children(command).map((child) => zshPair(child.path.at(-1) ?? "", child.summary))
    const options = command.options.flatMap((option) =>
      option.flags.map((flag) => zshPair(flag, option.description)),
    )
    const lines = [`    "${pathOf(command)}")`]
    for (const option of command.options) {
      if (option.value === null) continue
      const offered = valuesOf(option)
      const action = offered === null ? "_files" : `compadd -- ${offered.join(" ")}`
      lines.push(`      case "$previous" in ${option.flags.join("|")}) ${action}; return ;; esac`)
    }
    const positionals = command.positionals.flatMap((each) => valuesOf(each) ?? [])
    if (names.length > 0) lines.push(`      list=(${names.join(" ")}); _describe command list`)
    if (positionals.length > 0) lines.push(`      compadd -- ${positionals.join(" ")}`)
    lines.push(
      `      list=(${[...options, zshPair("--help", "show help")].join(" ")}); _describe option list ;;`,
    )
    return lines.join("\n")
  })
  return `#compdef cosmian_vm
# zsh completion of cosmian_vm; made by "cosmian_vm completion zsh"
_cosmian_vm() {
  local previous="\${words[CURRENT-1]}" at="cosmian_vm" word
  local -a list
  ${walk(root, `"\${(@)words[2,CURRENT-1]}"`)}
  case "$at" in
${cases.join("\n")}
  esac
}
if [ "$funcstack[1]" = "_cosmian_vm" ]; then _cosmian_vm "$@"; else compdef _cosmian_vm cosmian_vm; fi
`
}

function zshPair(name: string, description: string): string {
  return shellQuoted(`${name.replaceAll(":", "\\:")}:${description}`)
}

function fishScript(root: CommandDescription): string {
  const lines: string[] = []
  for (const command of flattened(root)) {
    const when = `-n ${shellQuoted(`__cosmian_vm_at ${pathOf(command)}`)}`
    for (const child of children(command))
      lines.push(`complete -c cosmian_vm ${when} -a ${child.path.at(-1)} -d ${shellQuoted(child.summary)}`)
    for (const option of command.options) lines.push(fishOption(option, when))
    for (const positional of command.positionals) {
      const offered = valuesOf(positional)
      if (offered === null) lines.push(`complete -c cosmian_vm ${when} -F`)
      else if (offered.length > 0)
        lines.push(`complete -c cosmian_vm ${when} -a ${shellQuoted(offered.join(" "))}`)
    }
  }
  const paths = flattened(root)
    .slice(1)
    .map((command) => shellQuoted(pathOf(command)))
  return `# fish completion of cosmian_vm; made by "cosmian_vm completion fish"
function __cosmian_vm_at
  set -l at cosmian_vm
  for word in (commandline -opc)[2..-1]
    if contains -- "$at $word" ${paths.join(" ")}
      set at "$at $word"
    end
  end
  test "$at" = "$argv"
end
complete -c cosmian_vm -f
complete -c cosmian_vm -l help -s h -d 'show help'
${lines.join("\n")}
`
}

function fishOption(option: OptionDescription, when: string): string {
  const names = option.flags.map((flag) =>
    flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
  )
  const offered = option.value === null ? undefined : valuesOf(option)
  const value =
    offered === undefined
      ? ""
      : offered === null
        ? " -r -F"
        : offered.length === 0
          ? " -x"
          : ` -x -a ${shellQuoted(offered.join(" "))}`
  return `complete -c cosmian_vm ${when} ${names.join(" ")}${value} -d ${shellQuoted(option.description)}`
}

/** In single quotes, for bash, zsh and fish alike. */
function shellQuoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "'\\''")}'`
}
