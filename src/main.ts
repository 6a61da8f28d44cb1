import { basename } from "node:path"
import { isMainThread } from "node:worker_threads"
import type { Command } from "./commands/command.ts"
import { versionLine } from "./version.ts"

/** Names under which the executable is a tool of its own (symlinks in /usr/sbin). */
const TOOLS: ReadonlyMap<string, "agent" | "certtool" | "fstool"> = new Map([
  ["cosmian_vm_agent", "agent"],
  ["cosmian_certtool", "certtool"],
  ["cosmian_fstool", "fstool"],
])

if (isMainThread) process.exitCode = await main(process.argv.slice(2), basename(process.argv0))
else await import("./workers.ts")

/** Everything from the command line to the exit code. Commands are loaded when they are needed, so that `--version` is quick. */
async function main(argv: readonly string[], calledAs: string): Promise<number> {
  const tool = TOOLS.get(calledAs)
  const name = tool === undefined ? "cosmian_vm" : calledAs
  if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-V")) {
    process.stdout.write(`${versionLine(name)}\n`)
    return 0
  }
  const { openTerminal } = await import("./commands/terminal.ts")
  const { reportError } = await import("./commands/report-error.ts")
  const terminal = openTerminal()
  // Also before the command line is understood, a program that asked for JSON gets its error as JSON.
  const json = argv.slice(0, argv.includes("--") ? argv.indexOf("--") : argv.length).includes("--json")
  const give = (error: unknown) => reportError(error, terminal, json)
  process.on("uncaughtException", (error) => process.exit(give(error)))
  process.on("unhandledRejection", (error) => process.exit(give(error)))
  try {
    return await run(argv, name, tool)
  } catch (error) {
    return give(error)
  }
}

async function run(
  argv: readonly string[],
  name: string,
  tool: "agent" | "certtool" | "fstool" | undefined,
): Promise<number> {
  const { parseCommandLine } = await import("./commands/command-line.ts")
  const { rootCommand } = await import("./commands/root.ts")
  const { describe, resolved } = await import("./commands/command.ts")
  const top = tool === undefined ? rootCommand : await resolved<Command>(rootCommand.subCommands[tool])
  const asked = await parseCommandLine(top ?? rootCommand, name, argv)
  if (asked.kind === "version") {
    process.stdout.write(`${versionLine(name)}\n`)
    return 0
  }
  if (asked.kind === "help") {
    const { renderHelp } = await import("./commands/help.ts")
    const { openTerminal } = await import("./commands/terminal.ts")
    const terminal = openTerminal()
    terminal.out(renderHelp(await describe(asked.command, asked.path, 1), terminal.outStyle))
    return 0
  }
  const { args, rawArgs, command } = asked
  const result: unknown = await command.run?.({
    args,
    rawArgs: [...rawArgs],
    cmd: command,
  })
  return typeof result === "number" ? result : 0
}
