import { AcmeError, type ErrorCode } from "../errors.ts"

/** What a server says about a refusal. Source: RFC 7807; RFC 8555, section 6.7. */
export interface Problem {
  /** Without the prefix of ACME; empty where it says none. */
  readonly type: string
  readonly detail: string
}

const PREFIX = "urn:ietf:params:acme:error:"
/** What others say is for people only, and may be long. */
const MAX_TEXT = 500

/** Problem types of RFC 8555, section 6.7, and what they come to here. */
const CODES: ReadonlyMap<string, readonly [code: ErrorCode, hint: string]> = new Map(
  Object.entries({
    rateLimited: [
      "ERR_ACME_RATE_LIMITED",
      "try again later; --staging has higher limits for trying things out",
    ],
    accountDoesNotExist: [
      "ERR_ACME_ACCOUNT",
      "move the authority's directory under accounts/ in the workspace away to register anew",
    ],
    externalAccountRequired: [
      "ERR_ACME_ACCOUNT_BINDING",
      "give --eab-kid and --eab-key-file as the authority's customer pages show them",
    ],
    invalidProfile: ["ERR_ACME_PROFILE", "leave --profile out, or give one that the authority offers"],
    caa: ["ERR_ACME_REFUSED", "the name's CAA record in DNS has to allow this authority"],
    rejectedIdentifier: ["ERR_ACME_REFUSED", "the authority issues no certificate for such a name"],
    unsupportedIdentifier: ["ERR_ACME_REFUSED", "the authority issues no certificate for such a name"],
    userActionRequired: ["ERR_ACME_REFUSED", "visit the authority's pages and accept its new terms"],
  } satisfies Record<string, readonly [ErrorCode, string]>),
)

/**
 * The error that a refused request comes to, and the problem's full type.
 * @param until when the server wants the next request; null: not said.
 */
export function problemError(
  url: string,
  status: number,
  text: string,
  until: Date | null,
): { readonly type: string; readonly error: AcmeError } {
  const problem = parseProblem(json(text))
  const limited = status === 429 && problem.type !== "rateLimited"
  const [code, hint] = CODES.get(limited ? "rateLimited" : problem.type) ?? fallback(status)
  const at = until === null ? "" : `; not before ${until.toISOString()}`
  const found = problemText(problem) || `status ${status}`
  const error = new AcmeError(code, { at: url, found, hint: `${hint}${at}` }, until)
  return { type: `${PREFIX}${problem.type}`, error }
}

/** What a problem says, in one line; empty where there is none. */
export function problemText({ type, detail }: Problem): string {
  return [type, detail].filter(Boolean).join(": ")
}

/** Reads a problem document; what it lacks is empty. */
export function parseProblem(value: unknown): Problem {
  const member = (name: string) => {
    if (typeof value !== "object" || value === null) return ""
    const found: unknown = Object.entries(value).find(([key]) => key === name)?.[1]
    return typeof found === "string" ? found.slice(0, MAX_TEXT) : ""
  }
  const type = member("type")
  return { type: type.startsWith(PREFIX) ? type.slice(PREFIX.length) : "", detail: member("detail") }
}

function fallback(status: number): readonly [ErrorCode, string] {
  if (status >= 500) return ["ERR_ACME_UNREACHABLE", "the authority has a fault: try again later"]
  if (status === 404) return ["ERR_ACME_REFUSED", "check --directory"]
  return ["ERR_ACME_REFUSED", "see what the authority says"]
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // A page of a proxy, or nothing: the status says what there is to say.
    return null
  }
}
