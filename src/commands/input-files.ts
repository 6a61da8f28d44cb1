import { closeSync, fstatSync, openSync, readFileSync } from "node:fs"
import { CodedError, ParseError, UsageError } from "../errors.ts"

/**
 * Content of a file that a user named, at most `maxBytes`; `-` is standard input.
 * @throws CodedError ERR_IO, ERR_TOO_LARGE.
 */
export function readInput(path: string, maxBytes: number): Uint8Array {
  const fd = path === "-" ? 0 : openFile(path)
  try {
    const size = fstatSync(fd).size
    if (size > maxBytes) throw tooLarge(path, maxBytes, size)
    const content = readFileSync(fd)
    if (content.length > maxBytes) throw tooLarge(path, maxBytes, content.length)
    return content
  } catch (error) {
    throw error instanceof CodedError ? error : ioError(path, error)
  } finally {
    if (path !== "-") closeSync(fd)
  }
}

/** Reads a file and parses it; what is wrong in it is told with the file's name. */
export function parseFile<T>(path: string, maxBytes: number, parse: (content: Uint8Array) => T): T {
  const content = readInput(path, maxBytes)
  try {
    return parse(content)
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    const { at, expected, found, hint } = error
    throw new ParseError(error.code, {
      at: at === undefined ? path : `${path}: ${at}`,
      ...(expected === undefined ? {} : { expected }),
      ...(found === undefined ? {} : { found }),
      ...(hint === undefined ? {} : { hint }),
      cause: error,
    })
  }
}

/**
 * The bearer token in a file: one line. Its content is never repeated in an error.
 * @throws UsageError ERR_BAD_VALUE; CodedError ERR_IO, ERR_TOO_LARGE.
 */
export function readToken(path: string): string {
  const token = new TextDecoder().decode(readInput(path, 4096)).trim()
  if (/^[\x21-\x7e]+$/.test(token)) return token
  throw new UsageError("ERR_BAD_VALUE", {
    at: `--token-file ${path}`,
    expected: "one line with a token of printable ASCII characters",
    found: token === "" ? "nothing" : "something else",
    hint: "write the token alone into the file",
  })
}

function openFile(path: string): number {
  try {
    return openSync(path, "r")
  } catch (error) {
    throw ioError(path, error)
  }
}

export function ioError(path: string, error: unknown): CodedError {
  const code = error instanceof Error && "code" in error ? `${error.code}` : `${error}`
  return new CodedError("ERR_IO", {
    at: path,
    found: code,
    hint: code === "ENOENT" ? "check the path" : "check the file and its permissions",
    cause: error,
  })
}

function tooLarge(path: string, maxBytes: number, size: number): CodedError {
  return new CodedError("ERR_TOO_LARGE", {
    at: path,
    expected: `at most ${maxBytes} bytes`,
    found: `${size}`,
    hint: "check that this is the file you mean",
  })
}
