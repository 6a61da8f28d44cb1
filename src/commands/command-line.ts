import type { ArgDef, ArgsDef } from "citty"
import { UsageError } from "../errors.ts"
import {
  argsOf,
  type Command,
  childrenOf,
  flagsOf,
  isRepeatable,
  resolved,
  type Subcommands,
  type Values,
} from "./command.ts"
import { suggest } from "./suggest.ts"

type Value = Values[string]

/** What a command line asks for. */
export interface Invocation {
  readonly kind: "run" | "help" | "version"
  /** Names from the executable on. */
  readonly path: readonly string[]
  readonly command: Command
  /** Values by option name (and by its camelCase twin), positionals by their name; repeatable ones are arrays. */
  readonly args: Values
  readonly rawArgs: readonly string[]
}

/** A command on the way down, with what it understands. */
interface Level {
  readonly path: readonly string[]
  readonly command: Command
  readonly args: ArgsDef
  readonly children: Subcommands
}

interface Given {
  readonly flag: string
  readonly values: (string | boolean)[]
}

interface Read {
  level: Level
  /** Arguments that follow the last subcommand's name. */
  rawArgs: readonly string[]
  readonly options: Map<string, Given>
  readonly positionals: string[]
}

const HELP = ["--help", "-h"]
const VERSION = ["--version", "-V"]

/**
 * Reads a command line strictly over citty's definitions, which citty itself does not do: unknown options, missing values and
 * surplus arguments are errors. An option that a group declares may stand before or after the subcommand, if the subcommand
 * declares it too. A command that has subcommands and a `run` of its own takes no positionals: a word names a subcommand, and
 * `run` is for a line without one.
 * @param name what the executable is called in messages.
 * @throws UsageError ERR_UNKNOWN_COMMAND, ERR_MISSING_COMMAND, ERR_UNKNOWN_OPTION, ERR_OPTION_REPEATED, ERR_MISSING_VALUE,
 * ERR_MISSING_ARGUMENT, ERR_UNEXPECTED_ARGUMENT, ERR_BAD_VALUE.
 */
export async function parseCommandLine(
  root: Command,
  name: string,
  argv: readonly string[],
): Promise<Invocation> {
  const read: Read = {
    level: await levelOf([name], root),
    rawArgs: argv,
    options: new Map(),
    positionals: [],
  }
  for (let index = 0; index < argv.length; index++) {
    const token = argv[index] ?? ""
    if (token === "--") {
      for (const rest of argv.slice(index + 1)) read.positionals.push(rest)
      break
    }
    if (token.startsWith("-") && token !== "-") {
      const asked = builtin(read.level, token)
      if (asked !== null) return invocation(asked, read, { _: [] })
      index += readOption(read, token, argv[index + 1])
    } else if (isGroup(read.level)) {
      if (token === "help") return helpFor(read, argv.slice(index + 1))
      read.level = await descend(read.level, token)
      read.rawArgs = argv.slice(index + 1)
    } else read.positionals.push(token)
  }
  if (isGroup(read.level) && read.level.command.run === undefined) throw missingCommand(read.level)
  return invocation("run", read, settle(read))
}

async function levelOf(path: readonly string[], command: Command): Promise<Level> {
  return { path, command, args: await argsOf(command), children: await childrenOf(command) }
}

function isGroup(level: Level): boolean {
  return Object.keys(level.children).length > 0
}

function invocation(kind: Invocation["kind"], read: Read, args: Values): Invocation {
  return { kind, path: read.level.path, command: read.level.command, args, rawArgs: read.rawArgs }
}

/** `--help` works everywhere, `--version` on the executable itself; a command may use the letters for something else. */
function builtin(level: Level, token: string): "help" | "version" | null {
  if (find(level.args, token) !== null) return null
  if (HELP.includes(token)) return "help"
  return level.path.length === 1 && VERSION.includes(token) ? "version" : null
}

/** `help app init` is `app init --help`. */
async function helpFor(read: Read, names: readonly string[]): Promise<Invocation> {
  for (const name of names) if (isGroup(read.level)) read.level = await descend(read.level, name)
  return invocation("help", read, { _: [] })
}

async function descend(level: Level, name: string): Promise<Level> {
  const own = Object.hasOwn(level.children, name) ? level.children[name] : undefined
  const child = await resolved<Command>(own)
  if (child !== undefined) return levelOf([...level.path, name], child)
  const names = [...Object.keys(level.children), "help"]
  const near = suggest(name, names)
  throw new UsageError("ERR_UNKNOWN_COMMAND", {
    at: name,
    expected: `one of ${names.join(", ")}`,
    hint: near === null ? helpHint(level) : `did you mean "${[...level.path, near].join(" ")}"?`,
  })
}

function missingCommand(level: Level): UsageError {
  return new UsageError("ERR_MISSING_COMMAND", {
    at: level.path.join(" "),
    expected: `one of ${Object.keys(level.children).join(", ")}`,
    hint: helpHint(level),
  })
}

function helpHint(level: Level): string {
  return `see "${level.path.join(" ")} --help"`
}

/** Reads the option at `token`; returns how many of the following arguments it took (0 or 1). */
function readOption(read: Read, token: string, next: string | undefined): number {
  if (!token.startsWith("--") && token.length > 2) return readShort(read, token, next)
  const equals = token.indexOf("=")
  const flag = equals < 0 ? token : token.slice(0, equals)
  const option = find(read.level.args, flag) ?? unknownOption(read.level, flag)
  if (option.def.type === "boolean" || option.def.type === undefined) {
    if (equals >= 0)
      throw new UsageError("ERR_BAD_VALUE", {
        at: flag,
        expected: "no value",
        found: token.slice(equals + 1),
        hint: `write ${flag} alone`,
      })
    give(read, option, flag, true)
    return 0
  }
  if (equals >= 0) {
    give(read, option, flag, token.slice(equals + 1))
    return 0
  }
  if (next === undefined || (next.startsWith("-") && next !== "-")) throw missingValue(option, flag, next)
  give(read, option, flag, next)
  return 1
}

/** `-sFILE`, `-s=FILE` or a bundle of one-letter switches. */
function readShort(read: Read, token: string, next: string | undefined): number {
  const flag = token.slice(0, 2)
  const option = find(read.level.args, flag) ?? unknownOption(read.level, token)
  const rest = token.slice(2)
  if (option.def.type !== "boolean" && option.def.type !== undefined) {
    give(read, option, flag, rest.startsWith("=") ? rest.slice(1) : rest)
    return 0
  }
  give(read, option, flag, true)
  return readOption(read, `-${rest}`, next)
}

interface Option {
  readonly name: string
  readonly def: ArgDef
}

/** `--trust_root` is `--trust-root`: other tools of the field write their options in this way. */
function find(args: ArgsDef, flag: string): Option | null {
  const hyphened = flag.startsWith("--") ? flag.replaceAll("_", "-") : flag
  for (const [name, def] of Object.entries(args))
    if (def.type !== "positional" && flagsOf(name, def).includes(hyphened)) return { name, def }
  return null
}

function unknownOption(level: Level, flag: string): never {
  const known = Object.entries(level.args).flatMap(([name, def]) =>
    def.type === "positional" ? [] : flagsOf(name, def),
  )
  const near = suggest(flag, [...known, "--help"])
  throw new UsageError("ERR_UNKNOWN_OPTION", {
    at: flag,
    hint: near === null ? helpHint(level) : `did you mean ${near}?`,
  })
}

function missingValue(option: Option, flag: string, next: string | undefined): UsageError {
  const value = option.def.valueHint ?? "VALUE"
  return new UsageError("ERR_MISSING_VALUE", {
    at: flag,
    expected: `${flag} ${value}`,
    ...(next === undefined ? {} : { found: next }),
    hint:
      next === undefined || flag.length === 2
        ? `write a value after ${flag}`
        : `write ${flag}=${next} if the value really begins with a dash`,
  })
}

function give(read: Read, option: Option, flag: string, value: string | boolean): void {
  const given = read.options.get(option.name)
  if (given !== undefined && !isRepeatable(option.def))
    throw new UsageError("ERR_OPTION_REPEATED", { at: flag, hint: `give ${flag} once` })
  if (option.def.type === "enum") checkChoice(option, flag, String(value))
  if (given === undefined) read.options.set(option.name, { flag, values: [value] })
  else given.values.push(value)
}

function checkChoice(option: Option, flag: string, value: string): void {
  const choices = "options" in option.def ? (option.def.options ?? []) : []
  if (choices.includes(value)) return
  const near = suggest(value, choices)
  throw new UsageError("ERR_BAD_VALUE", {
    at: flag,
    expected: `one of ${choices.join(", ")}`,
    found: value,
    ...(near === null ? {} : { hint: `did you mean ${near}?` }),
  })
}

/** Puts options and positionals under their names, and refuses what does not belong there or is missing. */
function settle(read: Read): Values {
  const { level, options } = read
  for (const [name, given] of options) if (!Object.hasOwn(level.args, name)) unknownOption(level, given.flag)
  const args: Values = { _: read.positionals }
  const waiting = [...read.positionals]
  for (const [name, def] of Object.entries(level.args)) {
    const values = def.type === "positional" ? take(waiting, def) : (options.get(name)?.values ?? [])
    if (values.length === 0 && isRequired(def)) throw missingArgument(level, name, def)
    const value: Value | undefined = isRepeatable(def) ? values.map(String) : (values[0] ?? def.default)
    if (value === undefined) continue
    args[name] = value
    args[camelCase(name)] = value
  }
  const [surplus] = waiting
  if (surplus !== undefined)
    throw new UsageError("ERR_UNEXPECTED_ARGUMENT", { at: surplus, hint: helpHint(level) })
  return args
}

function take(waiting: string[], def: ArgDef): string[] {
  return waiting.splice(0, isRepeatable(def) ? waiting.length : 1)
}

function isRequired(def: ArgDef): boolean {
  if (def.default !== undefined) return false
  return def.type === "positional" ? def.required !== false : def.required === true
}

function missingArgument(level: Level, name: string, def: ArgDef): UsageError {
  const value = def.valueHint ?? name.toUpperCase()
  const flag = flagsOf(name, def)[0]
  const shown = def.type === "positional" ? value : `${flag} ${value}`
  return new UsageError("ERR_MISSING_ARGUMENT", {
    at: level.path.join(" "),
    expected: def.description === undefined ? shown : `${shown} (${def.description})`,
    hint: helpHint(level),
  })
}

function camelCase(name: string): string {
  return name.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}
