/** Error codes and classes. Codes and exit codes are public: they are added to, never changed. */

/** Exit codes of the executable. One per failure class; see docs/exit-codes.md. */
export const EXIT = {
  ok: 0,
  operational: 1,
  usage: 2,
  channel: 10,
  tee: 11,
  tcb: 12,
  binding: 13,
  tpm: 14,
  boot: 15,
  ima: 16,
  reboot: 17,
  application: 18,
} as const

/** What a failure says about the VM (or `operational`/`usage`: it says nothing about the VM). */
export type FailureClass = Exclude<keyof typeof EXIT, "ok">

interface CatalogueEntry {
  readonly title: string
  readonly exit: FailureClass
}

/** Every error code, with its title and its failure class. */
export const CATALOGUE = {
  // Command line, configuration, operation
  ERR_USAGE: { title: "the command line is not understood", exit: "usage" },
  ERR_INTERNAL: { title: "internal error", exit: "operational" },
  ERR_IO: { title: "a file or device could not be read or written", exit: "operational" },

  // Structure of bytes
  ERR_TRUNCATED: { title: "the data ends too early", exit: "operational" },
  ERR_TRAILING_BYTES: { title: "bytes follow after the end of the structure", exit: "operational" },
  ERR_RESERVED_NOT_ZERO: { title: "reserved bytes are not zero", exit: "operational" },
  ERR_MALFORMED: { title: "the data does not have the expected form", exit: "operational" },
  ERR_UNSUPPORTED: { title: "the data is of a kind or version that is not supported", exit: "operational" },
  ERR_TOO_LARGE: { title: "a size or count is over its limit", exit: "operational" },
} as const satisfies Record<string, CatalogueEntry>

export type ErrorCode = keyof typeof CATALOGUE

/** What an error tells beyond its code. All parts are for people; only the code is for programs. */
export interface ErrorDetail {
  /** Where: a file with line, an offset, a field, a URL. */
  readonly at?: string
  readonly expected?: string
  readonly found?: string
  /** What to do next. */
  readonly hint?: string
  readonly cause?: unknown
}

/** Base of all errors that this product throws on purpose. */
export class CodedError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name: string = "CodedError"
  readonly code: C
  readonly at: string | undefined
  readonly expected: string | undefined
  readonly found: string | undefined
  readonly hint: string | undefined

  constructor(code: C, detail: ErrorDetail = {}) {
    super(sentence(code, detail), detail.cause === undefined ? undefined : { cause: detail.cause })
    this.code = code
    this.at = detail.at
    this.expected = detail.expected
    this.found = detail.found
    this.hint = detail.hint
  }

  get failureClass(): FailureClass {
    return CATALOGUE[this.code].exit
  }

  get exitCode(): number {
    return EXIT[this.failureClass]
  }

  /** The object printed under `--json` and sent by the agent. */
  toJSON(): Record<string, string> {
    const out: Record<string, string> = { code: this.code, message: this.message }
    for (const key of ["at", "expected", "found", "hint"] as const) {
      const value = this[key]
      if (value !== undefined) out[key] = value
    }
    return out
  }
}

function sentence(code: ErrorCode, d: ErrorDetail): string {
  const place = d.at === undefined ? "" : `${d.at}: `
  const expected = d.expected === undefined ? "" : `; expected ${d.expected}`
  const found = d.found === undefined ? "" : `${d.expected === undefined ? ";" : ","} found ${d.found}`
  return `${place}${CATALOGUE[code].title}${expected}${found}`
}

/** Bytes or text that do not have the form they should have. Thrown by `formats/`. */
export class ParseError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "ParseError"
}

/** A signature, chain, digest or binding that does not hold. Thrown by `verify/`. */
export class VerifyError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "VerifyError"
}

/** Verified evidence that policy or reference values do not accept. Made by `policy/`. */
export class AppraisalError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "AppraisalError"
}

/** Vendor collateral that is missing, stale or unusable. Thrown by `endorsements/`. */
export class EndorsementError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "EndorsementError"
}

/** A device, native library or child process that failed. Thrown by `native/`. */
export class NativeError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "NativeError"
}

/** A request that the agent refused or that could not be made. Thrown by `agent/` and `client/`. */
export class AgentError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "AgentError"
}

/** A command line or configuration that a person has to correct. */
export class UsageError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "UsageError"
}
