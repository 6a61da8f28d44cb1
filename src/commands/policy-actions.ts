import { UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { parseSnpLeaf } from "../formats/snp/leaf-certificate.ts"
import type { SnpReport } from "../formats/snp/report.ts"
import type { SnpProduct } from "../formats/snp/tcb.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import type { AttestationPolicy } from "../policy/attestation-policy.ts"
import { describePolicy } from "../policy/describe-policy.ts"
import { encodeCocosPolicy } from "../policy/encode-cocos.ts"
import { encodeTomlPolicy } from "../policy/encode-toml.ts"
import { policyOfUnverifiedQuote, policyOfUnverifiedReport } from "../policy/report-policy.ts"
import { neededBy } from "./collateral-needs.ts"
import { parseFile } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { readPolicyFile } from "./policy-file.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

/** Cap of a file of evidence, in bytes. */
const MAX_EVIDENCE = 1024 * 1024
const NAMES = { toml: "our TOML", cocos: "Cocos' JSON", snapshot: "a snapshot" } as const

/** `policy from-report`. */
export async function policyFromReport(
  options: { readonly file: string; readonly product: SnpProduct | null; readonly output: string | null },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { policy, what } = parseFile(options.file, MAX_EVIDENCE, (bytes) => evidencePolicy(bytes, options))
  const text = encodeTomlPolicy(policy, [
    `What ${printable(what)} fits; made by cosmian_vm policy from-report.`,
    "The evidence was not verified when this was made: be sure where it came from.",
  ])
  write(text, options.output, terminal)
  return 0
}

/** `policy convert`. */
export async function convertPolicy(
  options: { readonly file: string; readonly to: "toml" | "cocos"; readonly output: string | null },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { policy, format } = readPolicyFile(options.file)
  for (const note of policy.notes) terminal.talk(`${terminal.talkStyle.yellow("note")}: ${printable(note)}\n`)
  const text =
    options.to === "cocos"
      ? encodeCocosPolicy(policy)
      : encodeTomlPolicy(policy, [
          `Made of ${NAMES[format]} (${printable(policy.source)}) by cosmian_vm policy convert.`,
        ])
  write(text, options.output, terminal)
  return 0
}

/** `policy check`. */
export async function checkPolicy(
  options: { readonly file: string; readonly json: boolean },
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const { policy, format } = readPolicyFile(options.file)
  const described = describePolicy(policy)
  if (options.json) {
    terminal.out(jsonText({ policy: policy.source, format, ...described }))
    return 0
  }
  const { outStyle: style } = terminal
  const lines = [`${style.green("[ OK ]")} ${printable(policy.source)} is understood (${NAMES[format]})`]
  for (const { about, fixed, open } of described.parts) {
    lines.push(`  ${style.bold(about)}`)
    for (const [name, value] of Object.entries(fixed)) lines.push(`    ${name}: ${printable(value)}`)
    if (open.length > 0) lines.push(`    ${style.dim(`not compared: ${open.join(", ")}`)}`)
  }
  for (const note of described.notes) lines.push(`${style.yellow("[ WARNING ]")} ${printable(note)}`)
  terminal.out(`${lines.join("\n")}\n`)
  return 0
}

interface EvidencePolicy {
  readonly policy: AttestationPolicy
  readonly what: string
}

function evidencePolicy(
  bytes: Uint8Array,
  { file, product }: { readonly file: string; readonly product: SnpProduct | null },
): EvidencePolicy {
  // Attestation key type of Intel's quotes; in a SEV-SNP report the upper half of its version.
  if (bytes[2] === 2)
    return { policy: policyOfUnverifiedQuote(parseTdxQuote(bytes), file), what: `the TDX quote ${file}` }
  const needed = neededBy(bytes)
  if (needed.kind !== "snp")
    throw new UsageError("ERR_BAD_VALUE", { at: file, expected: "a SEV-SNP report or TDX quote" })
  const family = productOf(needed.report, needed.certificates, product)
  return {
    policy: policyOfUnverifiedReport(needed.report, family, file),
    what: `the SEV-SNP report ${file} (${family})`,
  }
}

/** Never guessed: from the report, else from the certificate beside it, else as the user says. */
function productOf(
  report: SnpReport,
  certificates: readonly Uint8Array[],
  given: SnpProduct | null,
): SnpProduct {
  const leaf = certificates
    .map((der) => parseCertificate(der))
    .find(({ subject }) => /(^| )SEV-V[CL]EK$/.test(subject.commonName ?? ""))
  const found = report.product ?? (leaf === undefined ? null : parseSnpLeaf(leaf).product)
  if (found !== null && given !== null && found !== given)
    throw new UsageError("ERR_BAD_VALUE", { at: "--product", expected: found, found: given })
  const product = found ?? given
  if (product !== null) return product
  throw new UsageError("ERR_MISSING_ARGUMENT", {
    at: "policy from-report",
    expected: "--product Milan|Genoa|Turin",
    hint: "a report of version 2 does not name its processor family: say which it is",
  })
}

function write(text: string, output: string | null, terminal: Terminal): void {
  if (output === null || output === "-") {
    terminal.out(text)
    return
  }
  const file = beginFile(output, 0o644)
  try {
    file.commit(new TextEncoder().encode(text))
  } finally {
    file.abandon()
  }
}
