import { defineCommand } from "citty"
import { SNP_PRODUCTS } from "../formats/snp/tcb.ts"
import { type CollateralChoice, collateralArgs, collateralChoiceOf } from "./collateral-source.ts"
import { listOf, meta, repeatable } from "./command.ts"

const outputArgs = {
  json: { type: "boolean", description: "print one JSON object on standard output" },
  quiet: { type: "boolean", alias: "q", description: "say only what is wrong" },
} as const

const cacheArgs = { "cache-dir": collateralArgs["cache-dir"], ...outputArgs } as const

const TEES: ("tdx" | "sgx")[] = ["tdx", "sgx"]
const AUTHORITIES: ("platform" | "processor")[] = ["platform", "processor"]

const platformArgs = {
  fmspc: {
    type: "string",
    valueHint: "HEX",
    description: "Intel: the kind of platform, 6 bytes in hex, as its PCK certificate names it",
  },
  tee: {
    type: "enum",
    options: TEES,
    default: "tdx",
    description: "Intel: which TEE of the platform",
  },
  ca: {
    type: "enum",
    options: AUTHORITIES,
    default: "platform",
    description: "Intel: which authority issued the PCK certificate",
  },
} as const

const fetchCommand = defineCommand({
  meta: meta({
    name: "fetch",
    description: "get what a report, a processor family or a platform needs, into the cache",
    details: [
      "Documents that are cached and in date are not fetched again, unless --refresh asks the vendor whether they changed.",
    ],
    examples: [
      { line: "cosmian_vm collateral fetch report.bin", does: "all that this report or quote needs" },
      { line: "cosmian_vm collateral fetch --product Genoa", does: "AMD's intermediate and revocation list" },
      { line: "cosmian_vm collateral fetch --fmspc b0c06f000000", does: "Intel's documents of a platform" },
    ],
  }),
  args: {
    evidence: {
      type: "positional",
      required: false,
      valueHint: "FILE",
      description: "SEV-SNP report, TDX or SGX quote, or Azure HCL report; - reads standard input",
    },
    product: {
      type: "enum",
      options: [...SNP_PRODUCTS],
      description: "AMD: the processor family, where there is no report or the report does not name it",
    },
    vlek: {
      type: "boolean",
      description: "AMD: what VLEKs need, which cloud providers use in place of VCEKs",
    },
    ...platformArgs,
    refresh: { type: "boolean", description: "ask the vendor whether what is cached has changed" },
    timeout: {
      type: "string",
      valueHint: "SECONDS",
      default: "20",
      description: "give up on an answer after so long",
    },
    ...collateralArgs,
    ...outputArgs,
  },
  async run({ args }) {
    const { fetchCollateral } = await import("./collateral-actions.ts")
    return fetchCollateral({
      ...collateralChoiceOf(args),
      ...outputOf(args),
      evidence: args.evidence ?? null,
      product: args.product ?? null,
      vlek: args.vlek === true,
      fmspc: args.fmspc ?? null,
      tee: args.tee,
      ca: args.ca,
      refresh: args.refresh === true,
      timeout: args.timeout,
    })
  },
})

const listCommand = defineCommand({
  meta: meta({
    name: "list",
    description: "show what is in the cache and until when it holds",
    examples: [{ line: "cosmian_vm collateral list", does: "one line for each document" }],
  }),
  args: cacheArgs,
  async run({ args }) {
    const { listCollateral } = await import("./collateral-actions.ts")
    return listCollateral({ ...cacheOnly(args["cache-dir"]), ...outputOf(args) })
  },
})

const exportCommand = defineCommand({
  meta: meta({
    name: "export",
    description: "write what is in the cache to one file, for a site without network",
    details: [
      "With --fmspc the file is a bundle of Intel's documents of that platform, as other tools read it, too.",
    ],
    examples: [
      { line: "cosmian_vm collateral export -o collateral.json", does: "everything; for collateral import" },
      {
        line: "cosmian_vm collateral export --fmspc b0c06f000000 -o bundle.json",
        does: "one platform's documents as a bundle",
      },
    ],
  }),
  args: {
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      required: true,
      description: "where to write",
    },
    ...platformArgs,
    ...cacheArgs,
  },
  async run({ args }) {
    const { exportCollateral } = await import("./collateral-actions.ts")
    return exportCollateral({
      ...cacheOnly(args["cache-dir"]),
      ...outputOf(args),
      output: args.output,
      fmspc: args.fmspc ?? null,
      tee: args.tee,
      ca: args.ca,
    })
  },
})

const importCommand = defineCommand({
  meta: meta({
    name: "import",
    description: "put documents that came another way into the cache",
    details: [
      "Files: what collateral export writes, a bundle of Intel's documents, AMD's cert_chain in PEM, a VCEK or revocation list of AMD's in DER. What is not what it says it is is refused, and a document that holds longer is kept.",
    ],
    examples: [{ line: "cosmian_vm collateral import collateral.json", does: "on the site without network" }],
  }),
  args: {
    file: repeatable({
      type: "positional",
      valueHint: "FILE",
      description: "file to read; - reads standard input",
    }),
    ...cacheArgs,
  },
  async run({ args }) {
    const { importCollateral } = await import("./collateral-actions.ts")
    return importCollateral({
      ...cacheOnly(args["cache-dir"]),
      ...outputOf(args),
      files: listOf(args.file),
    })
  },
})

/** Vendors' documents: what evidence is verified with. */
export const collateralCommand = defineCommand({
  meta: meta({
    name: "collateral",
    description: "fetch, show and carry the vendors' certificates, TCB documents and revocation lists",
    examples: [
      { line: "cosmian_vm collateral fetch report.bin", does: "get what verifying this report needs" },
      { line: "cosmian_vm collateral list", does: "what is cached, and until when it holds" },
    ],
  }),
  subCommands: {
    fetch: fetchCommand,
    list: listCommand,
    export: exportCommand,
    import: importCommand,
  },
})

interface Output {
  readonly json: boolean
  readonly quiet: boolean
}

export type CollateralOptions = CollateralChoice & Output

function outputOf(args: { json: boolean | undefined; quiet: boolean | undefined }): Output {
  return { json: args.json === true, quiet: args.quiet === true }
}

/** Commands that never ask a vendor. */
function cacheOnly(cacheDir: string | undefined): CollateralChoice {
  const { "kds-url": kds, "pcs-url": pcs } = collateralArgs
  return { kdsUrl: kds.default, pcsUrl: pcs.default, cacheDir: cacheDir ?? null, offline: true }
}
