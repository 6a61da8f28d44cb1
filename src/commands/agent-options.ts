import { CHECKS } from "../policy/verdict.ts"
import { type CollateralChoice, collateralArgs, collateralChoiceOf } from "./collateral-source.ts"
import { listOf, repeatable } from "./command.ts"

/** Options that say which agent is meant and how to answer; they may stand before or after the subcommand. */
export const connectionArgs = {
  url: {
    type: "string",
    valueHint: "URL",
    default: "https://127.0.0.1:5555",
    description: "where the VM's agent answers",
  },
  "allow-insecure-tls": {
    type: "boolean",
    description:
      "accept a TLS certificate that no authority vouches for; the TEE report has to prove the key instead",
  },
  ratls: {
    type: "boolean",
    description:
      "verify the evidence of the TEE in the agent's TLS certificate before anything is sent, instead of asking for an authority",
  },
  timeout: {
    type: "string",
    valueHint: "SECONDS",
    default: "60",
    description: "give up when the agent does not answer for so long",
  },
  json: { type: "boolean", description: "print one JSON object on standard output" },
  quiet: { type: "boolean", alias: "q", description: "say only what is wrong; no progress" },
} as const

/** Whom to trust, and what to leave out. */
export const anchorArgs = {
  "trust-root": repeatable({
    type: "string",
    valueHint: "FILE",
    description:
      "also accept the root certificate in this PEM file, of a simulated TEE; the verdict then says SIMULATED",
  }),
  "tpm-ca": {
    type: "string",
    valueHint: "DIR",
    description:
      "directory with certificates of the TPM's maker: the attestation key has to be proven to be in such a TPM",
  },
  skip: repeatable({
    type: "enum",
    options: CHECKS.map((check) => check),
    valueHint: "CHECK",
    description: `leave a check out; the verdict says so. One of ${CHECKS.join(", ")}`,
  }),
  ...collateralArgs,
} as const

/** What shows the agent that this client may have it do something. */
export const credentialArgs = {
  "owner-key": {
    type: "string",
    valueHint: "FILE",
    description: "sign requests with this Ed25519 key, whose public half is in the agent's [auth] owner_keys",
  },
  "client-certificate": {
    type: "string",
    valueHint: "FILE",
    description: "certificate to show on the agent's port for clients with certificates, PEM",
  },
  "client-key": { type: "string", valueHint: "FILE", description: "its key, PEM" },
  "token-file": {
    type: "string",
    valueHint: "FILE",
    description: "file with the bearer token that the agent's [auth] asks for; - reads standard input",
  },
} as const

/** How measurement lists are judged, wherever they come from. */
export const imaArgs = {
  violations: {
    type: "enum",
    options: (["fail", "report"] as const).map((mode) => mode),
    description:
      "whether files that were written while they were measured fail; fail unless a policy says else",
  },
  "ima-policy": repeatable({
    type: "string",
    valueHint: "FILE",
    description:
      "text of an IMA policy that the VM may have loaded: what it measures is then known; that of the packages is built in",
  }),
} as const

/** What tells the VM that is meant from others, without a snapshot. */
const expectationArgs = {
  policy: {
    type: "string",
    valueHint: "FILE",
    description: "send only after the VM was verified against this policy",
  },
  measurement: {
    type: "string",
    valueHint: "HEX",
    description:
      "send only where this was launched: MEASUREMENT (SEV-SNP) or MRTD (TDX); nothing else is compared",
  },
  "any-vm": {
    type: "boolean",
    description:
      "send to whichever genuine confidential VM answers: anybody can rent one, so this protects nothing from the one who runs it",
  },
} as const

/** Which VM something is sent to, and by whom. */
export const appArgs = {
  ...connectionArgs,
  snapshot: {
    type: "string",
    alias: "s",
    valueHint: "FILE",
    description: "send only after the VM was verified against this snapshot",
  },
  ...expectationArgs,
  ...anchorArgs,
  ...credentialArgs,
} as const

/** Which agent, and how to answer. */
export interface ConnectionOptions {
  readonly url: string
  readonly insecureAllowed: boolean
  /** The certificate's evidence is verified before the first request. Absent: it is not looked at. */
  readonly ratls?: boolean
  readonly timeout: string
  readonly json: boolean
  readonly quiet: boolean
}

/** Whom to trust and what to leave out. */
export interface TrustOptions {
  /** PEM files. */
  readonly trustRoots: readonly string[]
  /** Directory with certificates of TPM makers; absent or null: none. */
  readonly tpmCa?: string | null
  /** Names of checks, as given. */
  readonly skip: readonly string[]
  /** Where vendors' documents come from. */
  readonly collateral: CollateralChoice
}

interface ConnectionArgs {
  url: string
  "allow-insecure-tls": boolean | undefined
  ratls: boolean | undefined
  timeout: string
  json: boolean | undefined
  quiet: boolean | undefined
}

export function connectionOf(args: ConnectionArgs): ConnectionOptions {
  return {
    url: args.url,
    insecureAllowed: args["allow-insecure-tls"] === true,
    ratls: args.ratls === true,
    timeout: args.timeout,
    json: args.json === true,
    quiet: args.quiet === true,
  }
}

interface TrustArgs {
  "trust-root": unknown
  "tpm-ca": string | undefined
  skip: unknown
  "kds-url": string
  "pcs-url": string
  "cache-dir": string | undefined
  offline: boolean | undefined
}

export function trustOf(args: TrustArgs): TrustOptions {
  return {
    trustRoots: listOf(args["trust-root"]),
    tpmCa: args["tpm-ca"] ?? null,
    skip: listOf(args.skip),
    collateral: collateralChoiceOf(args),
  }
}

/** Files with what shows who asks; null where not given. */
export interface CredentialFiles {
  readonly token: string | null
  readonly ownerKey: string | null
  readonly certificate: string | null
  readonly certificateKey: string | null
}

interface CredentialArgs {
  "token-file": string | undefined
  "owner-key": string | undefined
  "client-certificate": string | undefined
  "client-key": string | undefined
}

export function credentialsOf(args: CredentialArgs): CredentialFiles {
  return {
    token: args["token-file"] ?? null,
    ownerKey: args["owner-key"] ?? null,
    certificate: args["client-certificate"] ?? null,
    certificateKey: args["client-key"] ?? null,
  }
}

interface ExpectationArgs {
  policy: string | undefined
  measurement: string | undefined
  "any-vm": boolean | undefined
}

/** Which VM is meant, without a snapshot. */
export interface ExpectationOptions {
  /** File with a policy; null: none. */
  readonly policy: string | null
  /** What has to have been launched, hex; null: not said. */
  readonly measurement: string | null
  /** Any genuine VM will do, whatever is sent to it. */
  readonly anyVm: boolean
}

export function expectationOf(args: ExpectationArgs): ExpectationOptions {
  return {
    policy: args.policy ?? null,
    measurement: args.measurement ?? null,
    anyVm: args["any-vm"] === true,
  }
}

interface AppArgs extends ConnectionArgs, TrustArgs, CredentialArgs, ExpectationArgs {
  snapshot: string | undefined
}

/** Which VM something is sent to, and by whom. */
export interface AppOptions extends ConnectionOptions, TrustOptions, ExpectationOptions {
  /** Reference values to verify against before anything is sent; null: none. */
  readonly snapshot: string | null
  readonly credentials: CredentialFiles
}

export function appOf(args: AppArgs): AppOptions {
  return {
    ...connectionOf(args),
    ...trustOf(args),
    ...expectationOf(args),
    snapshot: args.snapshot ?? null,
    credentials: credentialsOf(args),
  }
}
