import { dirname, isAbsolute, join } from "node:path"
import { parse, TomlError } from "smol-toml"
import { UsageError } from "../errors.ts"
import { readInput } from "./input-files.ts"

/** One server of a fleet file. */
export interface FleetMember {
  readonly url: string
  /** Its own snapshot and policy; null: those of the command line. */
  readonly snapshot: string | null
  readonly policy: string | null
}

const MAX_BYTES = 1024 * 1024
const MEMBERS = ["url", "snapshot", "policy"] as const

/**
 * Reads `[[server]]` tables with `url`, `snapshot` and `policy`. Relative paths start at the file's directory.
 * @throws UsageError ERR_CONFIG; CodedError ERR_IO, ERR_TOO_LARGE.
 */
export function readFleet(file: string): readonly FleetMember[] {
  const root = readToml(file)
  const servers = root["server"]
  const unknown = Object.keys(root).find((name) => name !== "server")
  if (unknown !== undefined) throw fault(file, "tables [[server]] only", unknown)
  if (!Array.isArray(servers) || servers.length === 0) throw fault(file, "a table [[server]]", "none")
  const base = file === "-" ? "." : dirname(file)
  return servers.map((server: unknown, index) => member(server, `${file}: server ${index + 1}`, base))
}

function member(server: unknown, at: string, base: string): FleetMember {
  if (typeof server !== "object" || server === null) throw fault(at, "a table", typeof server)
  const unknown = Object.keys(server).find((name) => !MEMBERS.some((known) => known === name))
  if (unknown !== undefined) throw fault(at, MEMBERS.join(", "), unknown)
  const [url, snapshot, policy] = MEMBERS.map((name) => {
    const value: unknown = Reflect.get(server, name)
    if (value === undefined || typeof value === "string") return value ?? null
    throw fault(`${at}: ${name}`, "a string", typeof value)
  })
  if (url == null) throw fault(`${at}: url`, "where its agent takes values", "none")
  const placed = (path: string | null | undefined) =>
    path == null || isAbsolute(path) ? (path ?? null) : join(base, path)
  return { url, snapshot: placed(snapshot), policy: placed(policy) }
}

function readToml(file: string): Record<string, unknown> {
  try {
    return parse(new TextDecoder().decode(readInput(file, MAX_BYTES)))
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    throw fault(
      `${file}:${error.line}:${error.column}`,
      "TOML",
      error.message.split("\n")[0] ?? "something else",
    )
  }
}

function fault(at: string, expected: string, found: string): UsageError<"ERR_CONFIG"> {
  return new UsageError("ERR_CONFIG", { at, expected, found })
}
