import { defineCommand } from "citty"
import { UsageError } from "../errors.ts"
import { fromHex } from "../formats/hex.ts"
import { SNP_PRODUCTS, type SnpProduct } from "../formats/snp/tcb.ts"
import { VALIDATE_MODES, type ValidateMode } from "../policy/validate.ts"
import type { Check } from "../policy/verdict.ts"
import { collateralArgs, collateralChoiceOf } from "./collateral-source.ts"
import { listOf, meta, repeatable } from "./command.ts"
import { timeOf } from "./time-option.ts"

/** Checks that evidence is put to here. */
const SKIPPABLE = ["tee", "revocation", "tcb", "binding", "tpm", "boot"] as const satisfies readonly Check[]

const FILE_OPTIONS = [
  "policy",
  "vcek",
  "vlek",
  "chain",
  "crl",
  "collateral",
  "ak",
  "signature",
  "pcrs",
  "quote",
  "td-quote",
  "event-log",
] as const
export type FileOption = (typeof FILE_OPTIONS)[number]

/** Which options mean something in a mode. What would go unread is refused: it may be a check that somebody relies on. */
const SNP = ["report-data", "product", "vcek", "vlek", "chain", "crl"] as const
const TPM = ["nonce", "ak", "signature", "pcrs", "event-log"] as const
const USED: Readonly<Record<ValidateMode, readonly string[]>> = {
  snp: SNP,
  tdx: ["report-data", "collateral", "event-log"],
  sgx: ["report-data", "collateral"],
  vtpm: TPM,
  "nitro-tpm": ["nonce", "event-log", "tpm-ca"],
  "snp-vtpm": [...SNP, ...TPM, "quote"],
  "azure-snp": [...SNP, ...TPM, "quote"],
  "azure-tdx": ["report-data", "collateral", ...TPM, "quote", "td-quote"],
}
const DEPENDENT = [...new Set(Object.values(USED).flat())]

const file = (description: string) => ({ type: "string", valueHint: "FILE", description }) as const

export const attestationValidateCommand = defineCommand({
  meta: meta({
    name: "validate",
    description: "verify a report or quote, and judge it by a policy",
    details: [
      "Without --policy what is judged is that the evidence is genuine, and that nothing gives it away: no debugging, no TCB status but UpToDate. Which software has to run is for a policy to say.",
      "Exit code 0 means that every check was made and passed, save those left out by --skip, which the result repeats. Evidence that is malformed or cannot be checked (no certificate, no revocation list, no collateral) is refused like evidence that is wrong: 11 TEE, 12 TCB, 13 binding, 14 TPM, 15 boot. 1 and 2 say nothing about the evidence: a file could not be read, an option is wrong.",
      "Certificates, revocation lists and collateral that are not given are taken from the cache or fetched from the vendor, unless --offline is given.",
      "Mode vtpm: FILE is the quote (TPMS_ATTEST). Mode nitro-tpm: FILE is what nitro-tpm-attest writes on an AWS instance; its certificates live for hours, so give --at for an older one. Modes azure-snp and azure-tdx: FILE is the HCL report, and --report-data is what it was asked with (its user data).",
    ],
    examples: [
      {
        line: "cosmian_vm attestation validate report.bin --mode snp --policy vm.toml --report-data 00112233",
        does: "a SEV-SNP report, with AMD's documents fetched",
      },
      {
        line: "cosmian_vm attestation validate report.bin --mode snp --vcek vcek.pem --chain cert_chain.pem --crl crl.der --offline",
        does: "the same without network",
      },
      {
        line: "cosmian_vm attestation validate quote.bin --mode tdx --collateral bundle.json --at 2025-07-04T10:16:31Z --json",
        does: "a TDX quote as of a past time, for a program",
      },
      {
        line: "cosmian_vm attestation validate quote.msg --mode vtpm --ak ak.pub --signature quote.sig --pcrs pcrs.txt --nonce 1234",
        does: "a TPM quote",
      },
      {
        line: "cosmian_vm attestation validate document.cbor --mode nitro-tpm --nonce 1234 --policy vm.toml",
        does: "an AWS NitroTPM attestation document, by PCRs of the SHA-384 bank",
      },
    ],
  }),
  args: {
    file: {
      type: "positional",
      required: true,
      valueHint: "FILE",
      description: "the evidence; - is standard input",
    },
    mode: {
      type: "enum",
      options: [...VALIDATE_MODES],
      required: true,
      description: "what the evidence is",
    },
    policy: file("what is expected of the VM: our TOML, Cocos' JSON, or a snapshot"),
    "report-data": {
      type: "string",
      valueHint: "HEX",
      description: "report data that the evidence was asked with, up to 64 bytes; zeros follow",
    },
    nonce: {
      type: "string",
      valueHint: "HEX",
      description: "nonce that the TPM quote or document was asked with, exactly; may be empty",
    },
    product: {
      type: "string",
      valueHint: SNP_PRODUCTS.join("|"),
      description: "AMD processor family that has to have made the report",
    },
    vcek: file("the chip's certificate, PEM or DER"),
    vlek: file("the cloud provider's certificate, PEM or DER"),
    chain: file("the certificate above it (ASK or ASVK; the root is passed over), PEM or DER"),
    crl: file("the AMD root's revocation list, PEM or DER"),
    collateral: {
      type: "string",
      valueHint: "FILE|DIR",
      description: "Intel's documents: one JSON file, or a directory of the single files",
    },
    ak: file("the TPM's attestation key: TPM2B_PUBLIC, TPMT_PUBLIC, or the bare key in PEM or DER"),
    signature: file("the TPM quote's signature: TPMT_SIGNATURE, or the bare signature"),
    pcrs: file("PCR values: JSON by bank and number, or what tpm2_pcrread prints"),
    quote: file("modes snp-vtpm and azure: the TPM quote (TPMS_ATTEST)"),
    "td-quote": file("mode azure-tdx: the TDX quote over the TDREPORT of the HCL report"),
    "event-log": file(
      "mode tdx: the TD's event log (CCEL), which has to give the quote's RTMRs; with a TPM quote: the firmware's, for [boot] of the policy",
    ),
    "tpm-ca": {
      type: "string",
      valueHint: "DIR",
      description:
        "mode nitro-tpm: certificates to trust in place of AWS's root, for a partition with its own",
    },
    "trust-root": repeatable(
      file("also accept this root certificate, PEM or DER; the result then says SIMULATED"),
    ),
    "allow-debug": {
      type: "boolean",
      description: "accept evidence of a VM whose memory the host may read; for tests",
    },
    skip: repeatable({
      type: "enum",
      options: [...SKIPPABLE],
      valueHint: "CHECK",
      description: `leave a check out; the result says so. One of ${SKIPPABLE.join(", ")}`,
    }),
    at: {
      type: "string",
      valueHint: "RFC3339",
      description: "judge as of this time, for example 2025-07-04T10:16:31Z; now unless said",
    },
    ...collateralArgs,
    json: { type: "boolean", description: "print one JSON object on standard output" },
    quiet: { type: "boolean", alias: "q", description: "say only what is wrong" },
  },
  async run({ args }) {
    const skip = listOf(args.skip)
    const options: ValidateOptions = {
      ...collateralChoiceOf(args),
      file: args.file,
      mode: args.mode,
      files: filesOf(args),
      reportData: args["report-data"] === undefined ? null : reportDataOf(args["report-data"]),
      nonce: args.nonce === undefined ? null : hexOf(args.nonce, "--nonce", 64),
      product: args.product === undefined ? null : productOf(args.product),
      tpmCa: args["tpm-ca"] ?? null,
      trustRoots: listOf(args["trust-root"]),
      allowDebug: args["allow-debug"] === true,
      skip: new Set(SKIPPABLE.filter((check) => skip.includes(check))),
      at: args.at === undefined ? null : timeOf(args.at),
      json: args.json === true,
      quiet: args.quiet === true,
    }
    refuseUnread(
      args.mode,
      DEPENDENT.filter((name) => name in args),
    )
    refuseTwoInputs(options)
    const { runValidation } = await import("./validate-evidence.ts")
    return runValidation(options)
  },
})

export interface ValidateOptions extends ReturnType<typeof collateralChoiceOf> {
  readonly file: string
  readonly mode: ValidateMode
  /** Paths. */
  readonly files: Readonly<Record<FileOption, string | null>>
  /** 64 bytes. */
  readonly reportData: Uint8Array | null
  readonly nonce: Uint8Array | null
  readonly product: SnpProduct | null
  /** Directory. */
  readonly tpmCa: string | null
  /** Paths. */
  readonly trustRoots: readonly string[]
  readonly allowDebug: boolean
  readonly skip: ReadonlySet<Check>
  /** Null: now. */
  readonly at: Date | null
  readonly json: boolean
  readonly quiet: boolean
}

function filesOf(
  args: Readonly<Record<FileOption, string | undefined>>,
): Readonly<Record<FileOption, string | null>> {
  const { policy = null, vcek = null, vlek = null, chain = null, crl = null, collateral = null } = args
  const { ak = null, signature = null, pcrs = null, quote = null } = args
  const { "td-quote": tdQuote = null, "event-log": eventLog = null } = args
  const intel = { collateral, "td-quote": tdQuote, "event-log": eventLog }
  return { policy, vcek, vlek, chain, crl, ak, signature, pcrs, quote, ...intel }
}

function refuseUnread(mode: ValidateMode, given: readonly string[]): void {
  const unread = given.find((name) => !USED[mode].includes(name))
  if (unread === undefined) {
    if (given.includes("vcek") && given.includes("vlek"))
      throw new UsageError("ERR_BAD_VALUE", { at: "--vlek", expected: "--vcek or --vlek", found: "both" })
    return
  }
  const other =
    unread === "nonce" && USED[mode].includes("report-data")
      ? "a report is asked with --report-data"
      : unread === "report-data"
        ? "a TPM quote is asked with --nonce"
        : `it is for ${VALIDATE_MODES.filter((candidate) => USED[candidate].includes(unread)).join(", ")}`
  throw new UsageError("ERR_BAD_VALUE", {
    at: `--${unread}`,
    expected: `an option that mode ${mode} has a use for`,
    found: `--${unread}`,
    hint: other,
  })
}

/** Standard input can be read once. */
function refuseTwoInputs({ file: evidence, files, trustRoots }: ValidateOptions): void {
  const paths = [evidence, ...Object.values(files), ...trustRoots]
  if (paths.filter((path) => path === "-").length > 1)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "-",
      expected: "standard input for one file",
      found: "for several",
    })
}

/** Bytes of a hex option. @throws UsageError ERR_BAD_VALUE */
export function hexOf(text: string, option: string, max: number): Uint8Array {
  const bytes = fromHex(text.replace(/^0x/i, ""))
  if (bytes !== null && bytes.length <= max) return bytes
  throw new UsageError("ERR_BAD_VALUE", {
    at: option,
    expected: `hex of at most ${max} bytes`,
    found: bytes === null ? text.slice(0, 160) : `${bytes.length} bytes`,
  })
}

/** Report data are 64 bytes; requests for fewer are filled with zeros everywhere. */
function reportDataOf(text: string): Uint8Array {
  const bytes = hexOf(text, "--report-data", 64)
  if (bytes.length === 0)
    throw new UsageError("ERR_BAD_VALUE", { at: "--report-data", expected: "hex", found: "nothing" })
  const padded = new Uint8Array(64)
  padded.set(bytes)
  return padded
}

/** Families that share all that concerns attestation have one name, and steppings (`Milan-B0`) count as their family. */
export function productOf(text: string): SnpProduct {
  const base = text.split("-")[0]?.toLowerCase() ?? ""
  const name = base === "bergamo" || base === "siena" ? "genoa" : base
  const product = SNP_PRODUCTS.find((candidate) => candidate.toLowerCase() === name)
  if (product !== undefined) return product
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--product",
    expected: SNP_PRODUCTS.join(", "),
    found: text.slice(0, 80),
  })
}
