import { defineCommand } from "citty"
import { UsageError } from "../errors.ts"
import { RATLS_SKIPPABLE } from "../policy/validate-ratls.ts"
import { hexOf, productOf } from "./attestation-validate.ts"
import { collateralArgs, collateralChoiceOf } from "./collateral-source.ts"
import { listOf, meta, repeatable } from "./command.ts"
import { timeOf } from "./time-option.ts"

const SUBJECT = "CN=cosmian.io,O=Cosmian Tech,C=FR,L=Paris,ST=Ile-de-France"
const FORMS =
  "Evidence is written, and read, in two extensions: the predecessor's (1.2.840.113741.1337.6 SGX, .7 SEV-SNP, .8 TDX: the bare quote, whose report data are the SHA-256 of the P-256 point and 32 bytes of extra data) and TCG DICE's 2.23.133.5.4.9."

const generateCommand = defineCommand({
  meta: meta({
    name: "generate",
    description: "make a key and a certificate with evidence that the key is in this VM",
    details: [
      "Writes key.ratls.pem (PKCS #8, mode 0600) and cert.ratls.pem into the directory. Needs root, as the TEE's device does.",
      FORMS,
    ],
    examples: [
      {
        line: "cosmian_vm certtool ratls generate --san vm.example --days 90 -o /var/lib/cosmian_vm/data",
        does: "in the VM",
      },
    ],
  }),
  args: {
    subject: {
      type: "string",
      alias: "s",
      valueHint: "NAME",
      default: SUBJECT,
      description: "subject of the certificate, as in RFC 4514",
    },
    san: repeatable({
      type: "string",
      valueHint: "HOST",
      description: "name or address that the certificate is for; localhost unless said",
    }),
    days: {
      type: "string",
      alias: "d",
      valueHint: "N",
      default: "365",
      description: "days until the certificate expires",
    },
    "extra-data": {
      type: "string",
      alias: "e",
      valueHint: "FILE",
      description: "file with up to 32 bytes that the evidence is to hold too",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "DIR",
      default: ".",
      description: "where key and certificate are written to",
    },
    "random-secret-key": { type: "boolean", description: "make a new random key; so it is unless said" },
    "tee-secret-key": {
      type: "string",
      valueHint: "HEX",
      description:
        "derive the key from the TEE with this salt: the same VM and measurement get it again (SEV-SNP only)",
    },
    "tee-secret-key-no-salt": { type: "boolean", description: "the same without salt" },
    simulate: {
      type: "string",
      valueHint: "DIR",
      description: "take the simulated TEE in DIR (agent --simulate) instead of this machine's",
    },
    json: { type: "boolean", description: "print one JSON object on standard output" },
    quiet: { type: "boolean", alias: "q", description: "say nothing when it went well" },
  },
  async run({ args }) {
    const { generateRatls } = await import("./ratls-generate.ts")
    const names = listOf(args.san)
    return generateRatls({
      subject: args.subject,
      names: names.length === 0 ? ["localhost"] : names,
      days: daysOf(args.days),
      salt: saltOf(args),
      extraData: args["extra-data"] ?? null,
      output: args.output,
      simulate: args.simulate ?? null,
      json: args.json === true,
      quiet: args.quiet === true,
    })
  },
})

const endpointArgs = {
  hostname: { type: "string", valueHint: "HOST", description: "name or address of the server" },
  port: { type: "string", alias: "p", valueHint: "PORT", default: "443", description: "its port" },
  url: { type: "string", valueHint: "URL", description: "the same in one: https://host[:port]" },
  timeout: {
    type: "string",
    valueHint: "SECONDS",
    default: "60",
    description: "give up when the server does not answer for so long",
  },
} as const

const fetchCommand = defineCommand({
  meta: meta({
    name: "fetch",
    description: "save the certificate that a server presents",
    details: [
      "Writes cert.ratls.pem into the directory: the very bytes of the connection's leaf certificate, in PEM. Nothing is verified: that is for certtool ratls verify.",
    ],
    examples: [
      { line: "cosmian_vm certtool ratls fetch --hostname vm.example -p 8443", does: "into this directory" },
    ],
  }),
  args: {
    ...endpointArgs,
    output: {
      type: "string",
      alias: "o",
      valueHint: "DIR",
      default: ".",
      description: "where the certificate is written to",
    },
    json: { type: "boolean", description: "print one JSON object on standard output" },
    quiet: { type: "boolean", alias: "q", description: "say nothing when it went well" },
  },
  async run({ args }) {
    const { fetchRatls } = await import("./ratls-fetch.ts")
    return fetchRatls({
      server: serverOf(args) ?? missing("--hostname", "the server's name"),
      timeout: args.timeout,
      output: args.output,
      json: args.json === true,
      quiet: args.quiet === true,
    })
  },
})

const file = (description: string) => ({ type: "string", valueHint: "FILE", description }) as const
const value = (description: string) => ({ type: "string", valueHint: "HEX", description }) as const

/** What is expected of the TEE behind a certificate. Also for other commands that verify one. */
export const ratlsExpectationArgs = {
  policy: file("what is expected of the VM: our TOML, Cocos' JSON, or a snapshot"),
  measurement: value("SEV-SNP: the expected launch measurement"),
  mrtd: value("TDX: the expected MRTD"),
  mrenclave: value("SGX: the expected MRENCLAVE"),
  mrsigner: value("SGX: the expected MRSIGNER"),
  "public-signer-key": file("SGX: the key that signs the enclave, PEM; MRSIGNER is computed from it"),
} as const

const verifyCommand = defineCommand({
  meta: meta({
    name: "verify",
    description: "verify a certificate with evidence in it, in a file or as a server presents it",
    details: [
      "That the certificate is in date and signed by its own key, that each piece of evidence in it is genuine, and that each was made for the certificate's key. Without a policy or expected value it is not judged which software has to run.",
      "Extra data that are not given with --extra-data are refused. A value of one TEE is not met by evidence of another.",
      FORMS,
      "Exit code 0 means that every check was made and passed, save those left out by --skip: 10 certificate, 11 TEE, 12 TCB, 13 not made for the certificate's key.",
    ],
    examples: [
      {
        line: "cosmian_vm certtool ratls verify --url https://vm.example:8443 --policy vm.toml",
        does: "the server's certificate, with TLS showing that it has the key",
      },
      {
        line: "cosmian_vm certtool ratls verify -c cert.ratls.pem --measurement 00112233… --json",
        does: "a certificate that was saved",
      },
    ],
  }),
  args: {
    cert: {
      type: "string",
      alias: "c",
      valueHint: "FILE",
      description: "the certificate, PEM or DER; - is standard input",
    },
    ...endpointArgs,
    ...ratlsExpectationArgs,
    "extra-data": value("what follows the key's hash in the report data, up to 32 bytes; zeros follow"),
    vcek: file("SEV-SNP: the chip's or provider's certificate (VCEK or VLEK), PEM or DER"),
    chain: file("SEV-SNP: the certificate above it, PEM or DER"),
    crl: file("SEV-SNP: the AMD root's revocation list, PEM or DER"),
    collateral: {
      type: "string",
      valueHint: "FILE|DIR",
      description: "Intel's documents: one JSON file, or a directory of the single files",
    },
    product: {
      type: "string",
      valueHint: "NAME",
      description: "AMD processor family that has to have made the report",
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
      options: [...RATLS_SKIPPABLE],
      valueHint: "CHECK",
      description: `leave a check out; the result says so. One of ${RATLS_SKIPPABLE.join(", ")}`,
    }),
    at: {
      type: "string",
      valueHint: "RFC3339",
      description: "judge a certificate in a file as of this time; now unless said",
    },
    ...collateralArgs,
    json: { type: "boolean", description: "print one JSON object on standard output" },
    quiet: { type: "boolean", alias: "q", description: "say only what is wrong" },
  },
  async run({ args }) {
    const { mrSignerOf } = await import("./ratls-judge.ts")
    const { readInput } = await import("./input-files.ts")
    const { verifyRatls } = await import("./ratls-verify.ts")
    const { mrsigner, "public-signer-key": signerKey } = args
    if (mrsigner !== undefined && signerKey !== undefined) throw oneOf("--mrsigner", "--public-signer-key")
    const server = serverOf(args)
    if ((args.cert === undefined) === (server === null)) throw oneOf("--cert", "--url")
    if (server !== null && args.at !== undefined)
      throw new UsageError("ERR_BAD_VALUE", {
        at: "--at",
        expected: "--cert beside it",
        found: "a running server",
        hint: "leave --at out: a running server is judged by this machine's clock",
      })
    const skip = listOf(args.skip)
    return verifyRatls({
      file: args.cert ?? null,
      server,
      timeout: args.timeout,
      policy: args.policy ?? null,
      measurement: exactly(args.measurement, "--measurement", 48),
      mrTd: exactly(args.mrtd, "--mrtd", 48),
      mrEnclave: exactly(args.mrenclave, "--mrenclave", 32),
      mrSigner:
        signerKey === undefined
          ? exactly(mrsigner, "--mrsigner", 32)
          : mrSignerOf(readInput(signerKey, 64 * 1024), signerKey),
      extraData: extraDataOf(args["extra-data"]),
      leaf: args.vcek ?? null,
      chain: args.chain ?? null,
      crl: args.crl ?? null,
      collateral: args.collateral ?? null,
      product: args.product === undefined ? null : productOf(args.product),
      trustRoots: listOf(args["trust-root"]),
      allowDebug: args["allow-debug"] === true,
      skip: new Set(RATLS_SKIPPABLE.filter((check) => skip.includes(check))),
      at: args.at === undefined ? null : timeOf(args.at),
      source: collateralChoiceOf(args),
      json: args.json === true,
      quiet: args.quiet === true,
    })
  },
})

/** `certtool ratls`. */
export const ratlsCommand = defineCommand({
  meta: meta({
    name: "ratls",
    description: "certificates with evidence of the TEE in them",
    examples: [
      {
        line: "cosmian_vm certtool ratls verify --url https://vm.example:8443",
        does: "a server's certificate",
      },
    ],
  }),
  subCommands: { generate: generateCommand, fetch: fetchCommand, verify: verifyCommand },
})

/** Null where no server is named. @throws UsageError ERR_BAD_VALUE */
function serverOf(args: {
  hostname: string | undefined
  port: string
  url: string | undefined
}): string | null {
  const { hostname, port, url } = args
  if (hostname !== undefined && url !== undefined) throw oneOf("--hostname", "--url")
  if (url !== undefined) return url
  if (hostname === undefined) return null
  return `https://${hostname.includes(":") && !hostname.startsWith("[") ? `[${hostname}]` : hostname}:${port}`
}

function oneOf(first: string, second: string): UsageError {
  return new UsageError("ERR_BAD_VALUE", {
    at: second,
    expected: `${first} or ${second}`,
    found: "both, or none",
  })
}

function missing(option: string, what: string): never {
  throw new UsageError("ERR_MISSING_ARGUMENT", { at: option, expected: what })
}

/** Bytes of a hex option of a fixed size; null where it is not given. @throws UsageError ERR_BAD_VALUE */
function exactly(text: string | undefined, option: string, size: number): Uint8Array | null {
  if (text === undefined) return null
  const bytes = hexOf(text, option, size)
  if (bytes.length === size) return bytes
  throw new UsageError("ERR_BAD_VALUE", {
    at: option,
    expected: `hex of ${size} bytes`,
    found: `${bytes.length} bytes`,
  })
}

function extraDataOf(text: string | undefined): Uint8Array {
  const extra = new Uint8Array(32)
  if (text !== undefined) extra.set(hexOf(text, "--extra-data", extra.length))
  return extra
}

/** Null: a random key. */
function saltOf(args: {
  "random-secret-key": boolean | undefined
  "tee-secret-key": string | undefined
  "tee-secret-key-no-salt": boolean | undefined
}): Uint8Array | null {
  const { "tee-secret-key": salt } = args
  const unsalted = args["tee-secret-key-no-salt"] === true
  const given = [args["random-secret-key"] === true, salt !== undefined, unsalted].filter((one) => one)
  if (given.length > 1) throw oneOf("--random-secret-key", "--tee-secret-key")
  if (unsalted) return new Uint8Array(0)
  return salt === undefined ? null : hexOf(salt, "--tee-secret-key", 64)
}

function daysOf(text: string): number {
  const days = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0
  if (days > 0) return days
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--days",
    expected: "a number of days, 1 or more",
    found: text,
  })
}
