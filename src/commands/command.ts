import type { ArgDef, ArgsDef, CommandMeta } from "citty"

/** As a command's `run` gets them; `_` holds the positionals. */
export type Values = { _: string[] } & Record<string, string | number | boolean | string[]>

type Lazy<T> = T | Promise<T> | (() => T) | (() => Promise<T>)

/** A citty command whose arguments' types are not known any more. */
export interface Command {
  readonly meta?: Lazy<Meta>
  readonly args?: Lazy<ArgsDef>
  readonly subCommands?: Lazy<Subcommands>
  /** Returns the exit code; nothing means 0. */
  run?(context: { rawArgs: string[]; args: Values; cmd: unknown }): unknown
}

export type Subcommands = Record<string, Lazy<Command>>

/** A line to try, and what it does. */
export interface Example {
  readonly line: string
  readonly does: string
}

/** What citty's meta does not hold. `details`: paragraphs under the summary of `--help` and in the man page. */
export interface Meta extends CommandMeta {
  readonly examples?: readonly Example[]
  readonly details?: readonly string[]
}

/** Meta of a command; only gives it the wider type. */
export function meta(described: Meta): Meta {
  return described
}

/** Marks an option or positional that may be given several times, which citty has no word for; `listOf` reads it. */
export function repeatable<const T extends ArgDef>(def: T): T {
  return Object.assign(def, { repeatable: true })
}

/** The values of a repeatable option, empty when it was not given. */
export function listOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : []
}

/** One option or positional, ready to be shown. */
export interface OptionDescription {
  readonly name: string
  readonly kind: "boolean" | "string" | "enum" | "positional"
  /** `-s`, `--snapshot`; a positional has none. */
  readonly flags: readonly string[]
  /** How its value is named in help, in capitals. */
  readonly value: string | null
  readonly description: string
  readonly choices: readonly string[]
  readonly fallback: string | null
  readonly required: boolean
  readonly repeatable: boolean
}

/** One command, ready for help, completion and man pages. */
export interface CommandDescription {
  /** From the executable's name on: `["cosmian_vm", "app", "init"]`. */
  readonly path: readonly string[]
  readonly summary: string
  readonly details: readonly string[]
  readonly examples: readonly Example[]
  readonly options: readonly OptionDescription[]
  readonly positionals: readonly OptionDescription[]
  readonly children: readonly CommandDescription[]
  /** Whether it does something without a subcommand. */
  readonly runs: boolean
  readonly hidden: boolean
}

/** Settles what citty allows to be a value, a promise or a function of either. */
export async function resolved<T>(
  value: T | Promise<T> | (() => T | Promise<T>) | undefined,
): Promise<T | undefined> {
  return isFunction(value) ? await value() : await value
}

function isFunction<T>(
  value: T | Promise<T> | (() => T | Promise<T>) | undefined,
): value is () => T | Promise<T> {
  return typeof value === "function"
}

/** Arguments of a command, each with its name. */
export async function argsOf(command: Command): Promise<ArgsDef> {
  const args: ArgsDef | undefined = await resolved<ArgsDef>(command.args)
  return args ?? {}
}

/** Subcommands of a command by name; empty for a command that does something itself. */
export async function childrenOf(command: Command): Promise<Subcommands> {
  return (await resolved<Subcommands>(command.subCommands)) ?? {}
}

/** The flags under which an option is known: one letter with one dash, more with two. */
export function flagsOf(name: string, def: ArgDef): string[] {
  const aliases = "alias" in def ? [def.alias ?? []].flat() : []
  return [...aliases, name]
    .map((each) => (each.length === 1 ? `-${each}` : `--${each}`))
    .sort((a, b) => a.length - b.length || a.localeCompare(b))
}

export function isRepeatable(def: ArgDef): boolean {
  return "repeatable" in def && def.repeatable === true
}

/** Describes a command and, where `deep`, everything below it. */
export async function describe(
  command: Command,
  path: readonly string[],
  depth: number = Number.POSITIVE_INFINITY,
): Promise<CommandDescription> {
  const found: Meta = (await resolved<Meta>(command.meta)) ?? {}
  const described = Object.entries(await argsOf(command)).map(([name, def]) => describeOption(name, def))
  const children: CommandDescription[] = []
  if (depth > 0)
    for (const [name, lazy] of Object.entries(await childrenOf(command))) {
      const child = await resolved<Command>(lazy)
      if (child !== undefined) children.push(await describe(child, [...path, name], depth - 1))
    }
  return {
    path,
    summary: found.description ?? "",
    details: found.details ?? [],
    examples: found.examples ?? [],
    options: described.filter((option) => option.kind !== "positional"),
    positionals: described.filter((option) => option.kind === "positional"),
    children,
    runs: command.run !== undefined,
    hidden: found.hidden ?? false,
  }
}

function describeOption(name: string, def: ArgDef): OptionDescription {
  const kind = def.type ?? "boolean"
  const choices = kind === "enum" && "options" in def ? (def.options ?? []) : []
  const hint =
    def.valueHint ?? (choices.length > 0 ? choices.join("|") : name.replaceAll("-", "_").toUpperCase())
  return {
    name,
    kind,
    flags: kind === "positional" ? [] : flagsOf(name, def),
    value: kind === "boolean" ? null : hint,
    description: def.description ?? "",
    choices,
    fallback: def.default === undefined || def.default === false ? null : String(def.default),
    required:
      kind === "positional" ? def.required !== false && def.default === undefined : def.required === true,
    repeatable: isRepeatable(def),
  }
}
