import { CATALOGUE, CodedError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { jsonText } from "./json-text.ts"
import type { Terminal } from "./terminal.ts"

/** Any thrown value as a coded error. System errors become ERR_IO with their path; anything else is a fault of ours. */
export function codedFrom(error: unknown): CodedError {
  if (error instanceof CodedError) return error
  if (error instanceof Error && "syscall" in error && "code" in error) {
    const path = "path" in error && typeof error.path === "string" ? error.path : `${error.syscall}`
    return new CodedError("ERR_IO", {
      at: path,
      found: `${error.code}`,
      cause: error,
      hint: ioHint(error.code),
    })
  }
  return new CodedError("ERR_INTERNAL", {
    found: error instanceof Error ? error.message : String(error),
    cause: error,
    hint: "this is a fault in this program: please report it with the command line",
  })
}

function ioHint(code: unknown): string {
  switch (code) {
    case "ENOENT":
      return "check the path"
    case "EACCES":
    case "EPERM":
      return "check the file's permissions, or run as another user"
    case "ENOSPC":
      return "make room on the file system"
    default:
      return "check the file and its file system"
  }
}

/** Prints an error: the object on standard output with `--json`, else text on standard error. Returns the exit code. */
export function reportError(error: unknown, terminal: Terminal, json: boolean): number {
  const coded = codedFrom(error)
  if (json) terminal.out(jsonText({ error: coded.toJSON() }))
  else terminal.talk(errorText(coded, terminal))
  return coded.exitCode
}

function errorText(error: CodedError, { talkStyle: style }: Terminal): string {
  const lines = [
    `${style.red(style.bold("error"))} ${style.bold(error.code)}: ${CATALOGUE[error.code].title}`,
  ]
  const part = (name: string, value: string | undefined) => {
    if (value !== undefined) lines.push(`  ${`${name}:`.padEnd(12)}${printable(value)}`)
  }
  part("where", error.at)
  part("expected", error.expected)
  part("found", error.found)
  part("what to do", error.hint)
  return `${lines.join("\n")}\n`
}
