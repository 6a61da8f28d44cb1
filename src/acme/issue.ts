import { AcmeError } from "../errors.ts"
import { type IssuedCertificate, requireIssued } from "./certificate.ts"
import type { AcmeAuthorization, AcmeConnection, AcmeOrder } from "./connection.ts"
import { makeRequest } from "./keys.ts"
import type { AcmeNetwork } from "./network.ts"
import { type Problem, problemText } from "./problem.ts"
import type { Solver } from "./solver.ts"
import type { CertificateFolder } from "./workspace.ts"

export interface IssueRequest {
  readonly names: readonly string[]
  readonly profile: string | null
  /** Renewal id of the certificate that this one takes the place of; null: none, or the server has no use for it. */
  readonly replaces: string | null
  /** What kind of key it is for: a pending issue is only gone on with for the same. */
  readonly keyKind: string
  readonly makeKey: () => Promise<string>
}

export interface IssueTools {
  readonly connection: AcmeConnection
  readonly network: AcmeNetwork
  readonly folder: CertificateFolder
  readonly solver: Solver
  /** Told what is being done, in a few words. */
  readonly progress: (step: string) => void
  /** Told what went wrong and does not matter for the result. */
  readonly warn: (error: unknown) => void
}

/** Validation may take minutes on a busy day. */
const DEADLINE_MS = 10 * 60_000
const POLL_MS = 500
const LONGEST_POLL_MS = 10_000

/**
 * Has a certificate issued. Whatever moment a run is cut short at, the next one goes on with the same key and order: the order's
 * state at the server says what is left to do. Nothing is put in use here.
 * @throws AcmeError ERR_ACME_CHALLENGE, ERR_ACME_CERTIFICATE, ERR_TIMEOUT, …
 */
export async function issue(
  tools: IssueTools,
  request: IssueRequest,
): Promise<{ readonly issued: IssuedCertificate; readonly keyPem: string }> {
  const { connection, folder, network, progress } = tools
  const { keyPem, order } = await begin(tools, request)
  const valid = await settle(tools, order, keyPem, request)
  progress("fetching the certificate")
  const chain = await connection.certificate(valid)
  try {
    return { issued: requireIssued(chain, keyPem, request.names, network.now()), keyPem }
  } catch (error) {
    // It will not become another one: the next run begins anew.
    folder.abandon()
    throw error
  }
}

async function begin(
  tools: IssueTools,
  request: IssueRequest,
): Promise<{ keyPem: string; order: AcmeOrder }> {
  const { connection, folder, progress } = tools
  const purpose = JSON.stringify([connection.accountUrl, request.names, request.profile, request.keyKind])
  let pending = folder.pending()
  if (pending?.purpose !== purpose) {
    const keyPem = await request.makeKey()
    folder.begin(purpose, keyPem)
    pending = { purpose, keyPem, orderUrl: null }
  }
  const former = pending.orderUrl === null ? null : await formerOrder(connection, pending.orderUrl)
  if (former !== null) return { keyPem: pending.keyPem, order: former }
  progress(
    `ordering a certificate for ${request.names.length === 1 ? request.names[0] : `${request.names.length} names`}`,
  )
  const order = await newOrder(connection, request)
  folder.saveOrder(order.url)
  return { keyPem: pending.keyPem, order }
}

/** The order of a run that was cut short; null where it came to nothing. */
async function formerOrder(connection: AcmeConnection, url: string): Promise<AcmeOrder | null> {
  try {
    const order = await connection.order(url)
    return order.status === "invalid" ? null : order
  } catch (error) {
    // Expired and forgotten, mostly.
    if (
      error instanceof AcmeError &&
      (error.code === "ERR_ACME_REFUSED" || error.code === "ERR_ACME_ACCOUNT")
    )
      return null
    throw error
  }
}

async function newOrder(connection: AcmeConnection, request: IssueRequest): Promise<AcmeOrder> {
  const { names, profile, replaces } = request
  try {
    return await connection.newOrder(names, profile, replaces)
  } catch (error) {
    // Another order took the old certificate's place already: this one is an ordinary one. Source: RFC 9773, section 5.
    if (
      replaces !== null &&
      error instanceof AcmeError &&
      error.found?.startsWith("alreadyReplaced") === true
    )
      return await connection.newOrder(names, profile, null)
    throw error
  }
}

/** Does what the order's state asks for, until the certificate is there. */
async function settle(
  tools: IssueTools,
  first: AcmeOrder,
  keyPem: string,
  request: IssueRequest,
): Promise<AcmeOrder> {
  const { connection, folder, progress } = tools
  let order = first
  if (order.status === "pending") order = await prove(tools, order)
  if (order.status === "ready") {
    progress("asking for the certificate")
    order = await connection.finalize(order, await makeRequest(keyPem, request.names))
  }
  order = await pollWhile(tools, order, "processing")
  if (order.status === "valid") return order
  folder.saveOrder(null)
  throw await failure(tools, order)
}

/** Answers all challenges and waits for the authority to look. */
async function prove(tools: IssueTools, order: AcmeOrder): Promise<AcmeOrder> {
  const { connection, solver, progress, warn } = tools
  const open = (await connection.authorizations(order)).filter(({ status }) => status === "pending")
  const challenges = open.map((authorization) => challengeOf(authorization, solver))
  const answers = await Promise.all(
    challenges.map(async ({ name, challenge }) => ({
      name,
      token: challenge.token,
      content: await connection.keyAuthorization(challenge),
    })),
  )
  try {
    progress(`proving control of ${open.length} of ${order.names.length} names by ${solver.type}`)
    if (answers.length > 0) await solver.present(answers)
    await Promise.all(challenges.map(({ challenge }) => connection.complete(challenge)))
    return await pollWhile(tools, await connection.order(order.url), "pending")
  } finally {
    await solver.remove().catch(warn)
  }
}

function challengeOf(authorization: AcmeAuthorization, { type }: Solver) {
  const { name, wildcard, challenges } = authorization
  const challenge = challenges.find((each) => each.type === type && each.token !== "")
  if (challenge !== undefined) return { name, challenge }
  throw new AcmeError("ERR_ACME_CHALLENGE", {
    at: wildcard ? `*.${name}` : name,
    expected: `a challenge of type ${type}`,
    found: challenges.map((each) => each.type).join(", "),
    hint: "choose one of those that the authority offers: --challenge, --dns-hook",
  })
}

async function pollWhile(
  { connection, network }: IssueTools,
  first: AcmeOrder,
  status: AcmeOrder["status"],
): Promise<AcmeOrder> {
  let order = first
  let pause = POLL_MS
  let waited = 0
  while (order.status === status) {
    const asked = connection.retryAfterMs(order.url) ?? connection.retryAfterMs(order.raw.finalize) ?? 0
    const wait = Math.max(pause, Math.min(asked, DEADLINE_MS))
    waited += wait
    if (waited > DEADLINE_MS)
      throw new AcmeError("ERR_TIMEOUT", {
        at: order.url,
        expected: `an order that is no longer ${status} after ${DEADLINE_MS / 60_000} minutes`,
        found: `still ${status}`,
        hint: "run the command again later: it goes on with the same order",
      })
    try {
      await network.sleep(wait, network.signal)
    } catch (cause) {
      throw network.signal.aborted ? new AcmeError("ERR_INTERRUPTED", { at: order.url }) : cause
    }
    pause = Math.min(pause * 1.5, LONGEST_POLL_MS)
    order = await connection.order(order.url)
  }
  return order
}

/** Why an order came to nothing: the names that could not be verified, each with what the authority says. */
async function failure({ connection, solver }: IssueTools, order: AcmeOrder): Promise<AcmeError> {
  const authorizations = await connection.authorizations(order)
  const failed = authorizations.flatMap(({ name, status, challenges }) => {
    const problem = challenges.find((each) => each.problem !== null)?.problem ?? null
    return status === "invalid" ? [{ name, problem }] : []
  })
  const [first] = failed
  if (first === undefined)
    return new AcmeError("ERR_ACME_REFUSED", {
      at: order.url,
      expected: "a certificate",
      found: (order.problem === null ? "" : problemText(order.problem)) || `an order that is ${order.status}`,
      hint: "see what the authority says, and try again",
    })
  const rest = failed.length - 1
  return new AcmeError("ERR_ACME_CHALLENGE", {
    at: rest === 0 ? first.name : `${first.name} and ${rest} more of ${order.names.length} names`,
    expected: `the answer of this VM to ${solver.type}`,
    found: first.problem === null ? "no reason given" : problemText(first.problem),
    hint: remedy(solver, first.name, first.problem),
  })
}

function remedy({ type }: Solver, name: string, problem: Problem | null): string {
  if (problem?.type === "caa") return `the CAA record of ${name} in DNS has to allow this authority`
  if (type === "dns-01")
    return `the authority reads the TXT record _acme-challenge.${name}: check that the hook adds to it and that --dns-wait is long enough`
  const port = type === "http-01" ? 80 : 443
  if (problem?.type === "dns") return `${name} needs an address record in DNS that leads to this VM`
  if (problem?.type === "connection")
    return `the authority comes to port ${port} of the address of ${name}: check DNS, firewall and forwarding`
  return `something else answers at port ${port} of ${name}: check where its address leads, and what listens there`
}
