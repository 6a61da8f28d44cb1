import { CodedError } from "../errors.ts"

export type LogLevel = "info" | "warn" | "error"

/** What a log line may carry: never a token, a key, a request body or a query. */
export type LogFields = Readonly<Record<string, string | number | boolean | null>>

/** The agent's log. */
export interface Log {
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
}

/**
 * A log that writes one line per event.
 * @param format `json`: an object with `time`, `level`, `message` and the fields; `text`: the same for people.
 * @param write takes the line, without line end. @param now clock.
 */
export function createLog(format: "json" | "text", write: (line: string) => void, now: () => Date): Log {
  const line = (level: LogLevel, message: string, fields: LogFields = {}) => {
    const time = now().toISOString()
    const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${quoted(value)}`)
    const text = `${time} ${level.toUpperCase().padEnd(5)} ${singleLine(message)}${rest.join("")}`
    write(format === "json" ? JSON.stringify({ time, level, message, ...fields }) : text)
  }
  return {
    info: (message, fields) => line("info", message, fields),
    warn: (message, fields) => line("warn", message, fields),
    error: (message, fields) => line("error", message, fields),
  }
}

/** An error as log fields. The message of an error that is not ours is kept: it goes to the log only, never to a client. */
export function errorFields(error: unknown): LogFields {
  if (error instanceof CodedError) return { code: error.code, error: error.message, ...causeOf(error) }
  return { code: "ERR_INTERNAL", error: error instanceof Error ? error.message : String(error) }
}

function causeOf(error: CodedError): LogFields {
  if (error.cause === undefined) return {}
  return { cause: error.cause instanceof Error ? error.cause.message : String(error.cause) }
}

function quoted(value: string | number | boolean | null): string {
  if (typeof value !== "string") return String(value)
  return /^[\w./:@+-]+$/.test(value) ? value : singleLine(JSON.stringify(value))
}

/** Paths and host names may be hostile: a line of the log stays one line, without control characters. */
function singleLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  })
}
