import { defineCommand } from "citty"
import { type DescribedFile, describeEvidence } from "../formats/describe/evidence.ts"
import { meta } from "./command.ts"
import { parseFile } from "./input-files.ts"
import { jsonText } from "./json-text.ts"
import { renderShown } from "./render-shown.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

/** Measurement lists are the largest files; one of half a million entries is below this. */
const MAX_FILE_BYTES = 64 * 1024 * 1024

export const attestationShowCommand = defineCommand({
  meta: meta({
    name: "show",
    description: "decode a report, a quote or what vouches for it",
    details: [
      "What the file is, is found out from its content: SEV-SNP report (alone, with certificate table, in the form of earlier versions), TDX or SGX quote, Azure HCL report, TPM quote (TPMS_ATTEST), IMA measurement list, certificates, revocation list, bundle of Intel's collateral.",
      "Nothing is verified: what is shown is what the file says.",
    ],
    examples: [
      { line: "cosmian_vm attestation show report.bin", does: "each field, with the names of bits" },
      { line: "cosmian_vm attestation show --json - < quote.bin", does: "the same for a program" },
    ],
  }),
  args: {
    file: {
      type: "positional",
      required: true,
      valueHint: "FILE",
      description: "the file; - is standard input",
    },
    json: { type: "boolean", description: "print one JSON object on standard output" },
  },
  run: ({ args }) => showAttestation(args.file, args.json === true),
})

/** `attestation show`: prints what a file says. Returns the exit code. */
export function showAttestation(file: string, json: boolean, terminal: Terminal = openTerminal()): number {
  const described = parseFile(file, MAX_FILE_BYTES, describeEvidence)
  terminal.out(json ? jsonText(jsonOf(described)) : textOf(described, terminal))
  return 0
}

function jsonOf({ kind, fields }: DescribedFile): unknown {
  return { kind, verified: false, evidence: fields }
}

function textOf({ title, fields }: DescribedFile, { outStyle }: Terminal): string {
  return `${outStyle.bold(title)}  ${outStyle.dim("(not verified)")}\n${renderShown(fields, outStyle)}`
}
