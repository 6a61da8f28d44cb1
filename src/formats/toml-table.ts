import { parse, TomlDate, TomlError } from "smol-toml"
import { type ErrorCode, UsageError } from "../errors.ts"
import { lineOfKey } from "./toml-place.ts"

/** Cap of a TOML text, in characters. */
const MAX_TOML = 4 * 1024 * 1024

interface Shared {
  readonly text: string
  readonly file: string
  readonly code: ErrorCode
}

/**
 * Reads a TOML text strictly: what is asked for by name has the kind asked for, and what nobody asked for is an error.
 * @param file name for messages. @param code of all errors about the content.
 * @throws UsageError with `code`, ERR_TOO_LARGE
 */
export function parseTomlTable(text: string, file: string, code: ErrorCode): TomlTable {
  if (text.length > MAX_TOML)
    throw new UsageError("ERR_TOO_LARGE", { at: file, expected: `at most ${MAX_TOML} characters` })
  try {
    return new TomlTable(parse(text), [], { text, file, code })
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    throw new UsageError(code, {
      at: `${file}:${error.line}:${error.column}`,
      expected: "TOML",
      found: error.message.split("\n")[0]?.replace("Invalid TOML document: ", "") ?? "something else",
    })
  }
}

/** One table of a TOML text. Remembers which keys were asked for, so that {@link finish} can name the others. */
export class TomlTable {
  readonly #values: Record<string, unknown>
  readonly #path: readonly string[]
  readonly #shared: Shared
  readonly #known = new Set<string>()

  constructor(values: Record<string, unknown>, path: readonly string[], shared: Shared) {
    this.#values = values
    this.#path = path
    this.#shared = shared
  }

  has(key: string): boolean {
    this.#known.add(key)
    return Object.hasOwn(this.#values, key)
  }

  keys(): string[] {
    return Object.keys(this.#values)
  }

  /** The value as it was read; undefined where it is absent. */
  raw(key: string): unknown {
    return this.has(key) ? this.#values[key] : undefined
  }

  /** The table of that name, or null where there is none. */
  table(key: string): TomlTable | null {
    const value = this.raw(key)
    if (value === undefined) return null
    if (!isTable(value)) throw this.fault(key, "a table", kindOf(value))
    return new TomlTable(value, [...this.#path, key], this.#shared)
  }

  /** The tables of an array; none where it is absent. */
  tables(key: string): TomlTable[] {
    const value = this.raw(key) ?? []
    if (!Array.isArray(value)) throw this.fault(key, `tables, each under [[${key}]]`, kindOf(value))
    return value.map((item: unknown, index) => {
      if (!isTable(item)) throw this.fault(key, `tables, each under [[${key}]]`, kindOf(item))
      return new TomlTable(item, [...this.#path, `${key}[${index}]`], this.#shared)
    })
  }

  string(key: string): string | null {
    const value = this.raw(key)
    if (value === undefined) return null
    if (typeof value !== "string") throw this.fault(key, "a string", kindOf(value))
    return value
  }

  /** One string or an array of them; null where it is absent. An empty array is an error. */
  strings(key: string): string[] | null {
    const value = this.raw(key)
    if (value === undefined) return null
    const items: unknown[] = Array.isArray(value) ? value : [value]
    if (items.length === 0) throw this.fault(key, "one value at least", "an empty array")
    return items.map((item) => {
      if (typeof item === "string") return item
      throw this.fault(key, "a string or an array of strings", kindOf(item))
    })
  }

  integer(key: string, min: number, max: number): number | null {
    const value = this.raw(key)
    if (value === undefined) return null
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value
    const found = typeof value === "number" ? String(value) : kindOf(value)
    throw this.fault(key, `an integer from ${min} to ${max}`, found)
  }

  boolean(key: string): boolean | null {
    const value = this.raw(key)
    if (value === undefined) return null
    if (typeof value !== "boolean") throw this.fault(key, "true or false", kindOf(value))
    return value
  }

  choice<T extends string>(key: string, choices: readonly T[]): T | null {
    const value = this.string(key)
    if (value === null) return null
    const chosen = choices.find((choice) => choice === value)
    if (chosen === undefined) throw this.fault(key, `one of ${choices.join(", ")}`, JSON.stringify(value))
    return chosen
  }

  /** A day (its last moment, UTC), or a date with time and offset. */
  lastMoment(key: string): Date | null {
    const value = this.raw(key)
    if (value === undefined) return null
    if (!(value instanceof TomlDate) || value.isTime() || (value.isLocal() && !value.isDate()))
      throw this.fault(
        key,
        "a day such as 2026-12-31, or a time with its offset such as 2026-12-31T18:00:00Z",
        value instanceof TomlDate ? "a time without a day or without an offset" : kindOf(value),
      )
    const moment = value.getTime()
    return new Date(value.isDate() ? moment + 24 * 3600 * 1000 - 1 : moment)
  }

  /** @throws UsageError for a key that nobody asked for */
  finish(): void {
    for (const key of this.keys())
      if (!this.#known.has(key))
        throw this.fault(
          key,
          `one of ${[...this.#known].join(", ")}`,
          `the unknown setting ${JSON.stringify(key)}`,
        )
  }

  fault(key: string, expected: string, found: string, hint?: string): UsageError {
    return new UsageError(this.#shared.code, {
      at: this.#place(key),
      expected,
      found: found.length > 120 ? `${found.slice(0, 120)}…` : found,
      ...(hint === undefined ? {} : { hint }),
    })
  }

  #place(key: string): string {
    const { text, file } = this.#shared
    const name = [...this.#path, key].filter((part) => part !== "").join(".")
    const line = lineOfKey(text, this.#path, key)
    return line === null ? `${file}: ${name}` : `${file}:${line}: ${name}`
  }
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "an array"
  if (value instanceof Date) return "a date"
  return typeof value === "object" ? "a table" : `a ${typeof value}`
}
