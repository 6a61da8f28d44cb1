import { parseAgentUrl } from "../client/endpoint.ts"
import { openTls } from "../client/tls-channel.ts"
import { UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { parseCertificateFile } from "../formats/x509/certificate-file.ts"
import type { RatlsVerdict } from "../policy/validate-ratls.ts"
import { timeoutOf } from "./attest.ts"
import { readInput } from "./input-files.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { judgeRatls, type RatlsJudgeOptions, ratlsAppraisalOf } from "./ratls-judge.ts"
import { renderVerdict } from "./render.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

const MAX_CERTIFICATE_FILE = 256 * 1024

export interface RatlsVerifyOptions extends RatlsJudgeOptions {
  /** One of the two is null. */
  readonly file: string | null
  readonly server: string | null
  readonly timeout: string
  /** Null: now. */
  readonly at: Date | null
  readonly json: boolean
  readonly quiet: boolean
}

/** `certtool ratls verify`: prints the verdict and returns its exit code. */
export async function verifyRatls(
  options: RatlsVerifyOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const appraisal = ratlsAppraisalOf(options)
  for (const note of appraisal.policies[0].notes) terminal.talk(`note: ${printable(note)}\n`)
  const presented =
    options.server === null
      ? fromFile(options.file ?? "-")
      : await fromServer(options.server, options.timeout)
  const at = options.at ?? new Date()
  const live = options.server !== null
  const verdict = await interruptible((signal) =>
    judgeRatls(appraisal, { ...presented, at, live }, terminal, signal),
  )
  terminal.out(options.json ? jsonText(verdict) : textOf(verdict, options, terminal))
  return verdict.exitCode
}

function textOf(
  verdict: RatlsVerdict,
  { quiet, ...expected }: RatlsVerifyOptions,
  terminal: Terminal,
): string {
  const { policy, measurement, mrTd, mrEnclave, mrSigner } = expected
  const says = [policy, measurement, mrTd, mrEnclave, mrSigner].some((value) => value !== null)
  return renderVerdict(verdict, {
    style: terminal.outStyle,
    columns: terminal.outColumns,
    quiet,
    passedMeans: says
      ? "is a certificate whose key is in a genuine TEE, which is as expected"
      : "is a certificate whose key is in a genuine TEE; which software has to run there, nothing says",
  })
}

function fromFile(path: string): { certificate: Uint8Array; target: string } {
  const target = path === "-" ? "standard input" : path
  const [certificate, ...others] = parseCertificateFile(
    readInput(path, MAX_CERTIFICATE_FILE),
    "certificate",
    target,
  )
  if (certificate !== undefined && others.length === 0) return { certificate, target }
  throw new UsageError("ERR_BAD_VALUE", {
    at: target,
    expected: "one certificate",
    found: `${others.length + (certificate === undefined ? 0 : 1)}`,
  })
}

/** TLS shows that the server has the key of the certificate that it presents. */
async function fromServer(
  url: string,
  timeout: string,
): Promise<{ certificate: Uint8Array; target: string }> {
  const endpoint = parseAgentUrl(url)
  const channel = await interruptible((signal) => openTls(endpoint, timeoutOf(timeout), { signal }))
  channel.socket.destroy()
  return { certificate: channel.leafDer, target: url }
}
