import { defineCommand } from "citty"
import { EXIT } from "../errors.ts"
import { CHECKS } from "../policy/verdict.ts"
import { type CollateralChoice, collateralArgs, collateralChoiceOf } from "./collateral-source.ts"
import { listOf, meta, repeatable } from "./command.ts"
import { snapshotSubCommands } from "./snapshot-commands.ts"

const EXIT_CODES = Object.entries(EXIT)
  .map(([name, code]) => `${code} ${name}`)
  .join(", ")

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

const anchorArgs = {
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
const credentialArgs = {
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

const snapshotCommand = defineCommand({
  meta: meta({
    name: "snapshot",
    description: "record the VM's state: what it is verified against from now on",
    details: [
      "The VM has to attest first: nothing is recorded through a relay or from a machine that does not prove itself. Then the agent hashes the files of the VM, and hardware, boot and TPM values of the verified evidence are added.",
      "The file is written whole or not at all. Keep it where nobody else can change it. Where its name ends in .zst it is compressed; every command reads both.",
      "The commands below work on snapshots that were taken, and ask no VM.",
    ],
    examples: [
      {
        line: "cosmian_vm --url https://vm.example:5555 --allow-insecure-tls snapshot -o vm.snapshot",
        does: "a VM with the agent's own certificate",
      },
      {
        line: "cosmian_vm snapshot --trust-root sim/tee/trust-root.pem --allow-insecure-tls",
        does: "a simulated VM on this machine",
      },
    ],
  }),
  args: {
    ...connectionArgs,
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      default: "cosmian_vm.snapshot",
      description: "where to write the snapshot",
    },
    "save-evidence": {
      type: "string",
      valueHint: "FILE",
      description: "keep the evidence that the VM was verified by; the snapshot names it",
    },
    ...imaArgs,
    ...anchorArgs,
    ...credentialArgs,
  },
  subCommands: snapshotSubCommands,
  async run({ args }) {
    const { takeSnapshot } = await import("./snapshot.ts")
    return takeSnapshot({
      ...connectionOf(args),
      ...trustOf(args),
      output: args.output,
      credentials: credentialsOf(args),
      saveEvidence: args["save-evidence"] ?? null,
      violations: args.violations ?? null,
      imaPolicies: listOf(args["ima-policy"]),
    })
  },
})

/** What is kept of a verification, and verification of what was kept. */
const recordArgs = {
  report: { type: "string", valueHint: "FILE.html", description: "write the verdict as a page for people" },
  junit: { type: "string", valueHint: "FILE.xml", description: "write the verdict as JUnit XML" },
  sarif: { type: "string", valueHint: "FILE.json", description: "write the verdict as SARIF 2.1.0" },
  "save-evidence": {
    type: "string",
    valueHint: "FILE",
    description: "keep everything that was judged, for --evidence; zstd where the name ends in .zst",
  },
  evidence: {
    type: "string",
    valueHint: "FILE",
    description: "judge saved evidence instead of asking a VM; nothing is fetched",
  },
  at: {
    type: "string",
    valueHint: "RFC3339",
    description: "with --evidence: judge certificates and revocation lists as of this time; now unless said",
  },
} as const

const verifyCommand = defineCommand({
  meta: meta({
    name: "verify",
    description: "verify the running VM against its snapshot",
    details: [
      "Each check is shown with what was proven, or with what was expected, what was found, what that means and what to do. Exit code 0 means that every check ran and passed, save those left out with --skip.",
      `Exit codes: ${EXIT_CODES}. The first failed check in this order decides.`,
    ],
    examples: [
      {
        line: "cosmian_vm --url https://vm.example:5555 --allow-insecure-tls verify -s vm.snapshot",
        does: "the usual case",
      },
      {
        line: "cosmian_vm --url https://vm.example:5555 verify -s vm.snapshot -w extra.txt -a vm.example:443",
        does: "files that may run besides the snapshot's, and an application that must answer from inside the VM",
      },
      {
        line: "cosmian_vm --url https://vm.example:5555 verify -s vm.snapshot --policy vm.toml",
        does: "what a policy asks for beside it, such as Secure Boot",
      },
      {
        line: "cosmian_vm verify -s vm.snapshot --accept-reboot --json",
        does: "the VM may have been rebooted, as long as the same booted; result for a program",
      },
      {
        line: "cosmian_vm verify -s vm.snapshot --report vm.html --save-evidence vm.evidence.zst",
        does: "a page for an auditor, and what the answer was made from",
      },
      {
        line: "cosmian_vm verify -s vm.snapshot --evidence vm.evidence.zst --allow-insecure-tls --at 2026-01-31T12:00:00Z",
        does: "the same verdict later, on another machine, without a connection",
      },
    ],
  }),
  args: {
    ...connectionArgs,
    snapshot: {
      type: "string",
      alias: "s",
      valueHint: "FILE",
      required: true,
      description: "the snapshot to compare with",
    },
    whitelist: {
      type: "string",
      alias: "w",
      valueHint: "FILE",
      description: "more files that may run: lines of path and hex digest, or with patterns and dates",
    },
    "ima-key": repeatable({
      type: "string",
      valueHint: "FILE",
      description:
        "also accept files that this key signed (security.ima), whatever their path and version; certificate or public key, PEM or DER",
    }),
    "evm-key": repeatable({
      type: "string",
      valueHint: "FILE",
      description: "the same for portable signatures of EVM (security.evm; template evm-sig)",
    }),
    application: repeatable({
      type: "string",
      alias: "a",
      valueHint: "HOST[:PORT]",
      description: "an application whose TLS has to end inside the VM; port 443 unless said",
    }),
    "accept-reboot": {
      type: "boolean",
      description: "a restart is no failure where TPM key and boot PCRs are the snapshot's",
    },
    policy: {
      type: "string",
      valueHint: "FILE",
      description:
        "what is asked for beside the snapshot: our TOML or Cocos' JSON; it can only make the verdict stricter",
    },
    ...imaArgs,
    ...recordArgs,
    ...anchorArgs,
  },
  async run({ args }) {
    const { verifyAgainstSnapshot } = await import("./verify.ts")
    return verifyAgainstSnapshot({
      ...connectionOf(args),
      ...trustOf(args),
      snapshot: args.snapshot,
      whitelist: args.whitelist ?? null,
      imaKeys: listOf(args["ima-key"]),
      evmKeys: listOf(args["evm-key"]),
      applications: listOf(args.application),
      acceptReboot: args["accept-reboot"] === true,
      policy: args.policy ?? null,
      violations: args.violations ?? null,
      imaPolicies: listOf(args["ima-policy"]),
      evidence: args.evidence ?? null,
      at: args.at ?? null,
      outputs: {
        report: args.report ?? null,
        junit: args.junit ?? null,
        sarif: args.sarif ?? null,
        evidence: args["save-evidence"] ?? null,
      },
    })
  },
})

const connectCommand = defineCommand({
  meta: meta({
    name: "connect",
    description: "let local programs speak with an application inside the VM, over attested TLS",
    details: [
      "Verifies the VM, then listens. Each local connection is piped through a TLS connection to the target, once that one has been found to end at the key that the VM attested: the application shares the agent's certificate and key. The local program speaks its protocol in clear.",
      "The VM is verified again at intervals. When it does not verify any more, or cannot be asked for a while, all connections are cut and the exit code tells why. Ctrl-C ends it with exit code 0.",
    ],
    examples: [
      {
        line: "cosmian_vm connect --url https://vm.example:5555 --allow-insecure-tls -s vm.snapshot --listen 127.0.0.1:6379 --target vm.example:6380",
        does: "then: redis-cli -p 6379",
      },
      {
        line: "cosmian_vm connect --url https://vm.example:5555 --ratls -s vm.snapshot --listen 127.0.0.1:5432 --target vm.example:5432 --alpn postgresql",
        does: "an agent with an RA-TLS certificate; PostgreSQL 17 with direct TLS",
      },
    ],
  }),
  args: {
    ...connectionArgs,
    listen: {
      type: "string",
      valueHint: "ADDRESS:PORT",
      required: true,
      description: "where local programs connect to; port 0 takes a free one",
    },
    target: {
      type: "string",
      valueHint: "HOST[:PORT]",
      description: "the application's TLS endpoint inside the VM (default: the agent's host, port 443)",
    },
    snapshot: {
      type: "string",
      alias: "s",
      valueHint: "FILE",
      description: "the snapshot to compare with",
    },
    whitelist: {
      type: "string",
      alias: "w",
      valueHint: "FILE",
      description: "more files that may run: lines of path and hex digest",
    },
    policy: {
      type: "string",
      valueHint: "FILE",
      description: "requirements on TEE, TPM and boot, beside those of the snapshot",
    },
    "accept-reboot": {
      type: "boolean",
      description: "a restart is no failure where TPM key and boot PCRs are the snapshot's",
    },
    interval: {
      type: "string",
      valueHint: "SECONDS",
      default: "60",
      description: "verify again after so long",
    },
    "max-connections": {
      type: "string",
      valueHint: "N",
      default: "64",
      description: "local connections at the same time",
    },
    alpn: repeatable({
      type: "string",
      valueHint: "NAME",
      description: "protocol to offer in the TLS handshake, for servers that ask for one",
    }),
    ...anchorArgs,
  },
  async run({ args }) {
    const { connectThrough } = await import("./connect.ts")
    return connectThrough({
      ...connectionOf(args),
      ...trustOf(args),
      listen: args.listen,
      target: args.target ?? null,
      snapshot: args.snapshot ?? null,
      whitelist: args.whitelist ?? null,
      policy: args.policy ?? null,
      acceptReboot: args["accept-reboot"] === true,
      interval: args.interval,
      maxConnections: args["max-connections"],
      alpn: listOf(args.alpn),
    })
  },
})

export const appArgs = {
  ...connectionArgs,
  snapshot: {
    type: "string",
    alias: "s",
    valueHint: "FILE",
    description: "send only after the VM was verified against this snapshot",
  },
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
  ...anchorArgs,
  ...credentialArgs,
} as const

const VM = "cosmian_vm --url https://vm.example:5555"
const APP_DETAILS =
  "Nothing is sent before the VM has attested on the very connection that is used, and was found to be the one that --snapshot or --policy describes."

const appInitCommand = defineCommand({
  meta: meta({
    name: "init",
    description: "hand the application its configuration, and start it",
    details: [APP_DETAILS],
    examples: [
      {
        line: "cosmian_vm --url https://vm.example:5555 app init -c app.toml -s vm.snapshot --owner-key owner.pem",
        does: "verify, then send the configuration, sealed to the VM",
      },
    ],
  }),
  args: {
    ...appArgs,
    configuration: {
      type: "string",
      alias: ["c", "conf"],
      valueHint: "FILE",
      required: true,
      description: "the application's configuration file",
    },
  },
  async run({ args }) {
    const { initApp } = await import("./app.ts")
    return initApp({ ...appOf(args), configuration: args.configuration })
  },
})

/** The commands that take no more than what all have. */
const APP_ORDERS = {
  restart: {
    description: "restart the application",
    example: {
      line: `${VM} app restart -s vm.snapshot --owner-key owner.pem`,
      does: "after a change of its configuration",
    },
  },
  stop: {
    description: "stop the application",
    example: {
      line: `${VM} app stop -s vm.snapshot --owner-key owner.pem`,
      does: "it stays stopped until app restart",
    },
  },
  status: {
    description: "tell whether the application runs and has a configuration",
    example: { line: `${VM} app status -s vm.snapshot --token-file token --json`, does: "for a program" },
  },
} as const

function appOrder(name: keyof typeof APP_ORDERS) {
  const { description, example } = APP_ORDERS[name]
  return defineCommand({
    meta: meta({ name, description, details: [APP_DETAILS], examples: [example] }),
    args: appArgs,
    async run({ args }) {
      const { orderApp } = await import("./app.ts")
      return orderApp(name, appOf(args))
    },
  })
}

const appLogsCommand = defineCommand({
  meta: meta({
    name: "logs",
    description: "show the last lines of the application's log",
    details: [APP_DETAILS],
    examples: [
      {
        line: `${VM} app logs --lines 100 -s vm.snapshot --token-file token`,
        does: "more than the usual 20",
      },
    ],
  }),
  args: {
    ...appArgs,
    lines: { type: "string", valueHint: "N", default: "20", description: "how many, 1000 at most" },
  },
  async run({ args }) {
    const { showAppLogs } = await import("./app.ts")
    return showAppLogs({ ...appOf(args), lines: args.lines })
  },
})

const appCommand = defineCommand({
  meta: meta({ name: "app", description: "set up and look after the application inside the VM" }),
  args: connectionArgs,
  subCommands: {
    init: appInitCommand,
    restart: appOrder("restart"),
    stop: appOrder("stop"),
    status: appOrder("status"),
    logs: appLogsCommand,
  },
})

const ownerKeyCommand = defineCommand({
  meta: meta({
    name: "key",
    description: "make an owner's key",
    details: [
      "Writes an Ed25519 key (PEM, mode 0600) and prints the line for [auth] in the agent's configuration. The same kind of key signs snapshots.",
    ],
    examples: [
      { line: "cosmian_vm owner key -o owner.pem", does: "then put the printed line into agent.toml" },
    ],
  }),
  args: {
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      required: true,
      description: "where to write the private key; an existing file is kept and its public half printed",
    },
    json: connectionArgs.json,
  },
  async run({ args }) {
    const { makeOwnerKey } = await import("./owner.ts")
    return makeOwnerKey({ output: args.output, json: args.json === true })
  },
})

const ownerClaimCommand = defineCommand({
  meta: meta({
    name: "claim",
    description: "become the owner of a VM that has none yet",
    details: [
      "For images that are built without an owner's key and with first_owner = true in [auth]. The VM has to attest first, so compare it with a snapshot or policy. Whoever is first owns the VM for good: where this fails because there is an owner already, and it was not you, do not use the VM.",
    ],
    examples: [
      {
        line: `${VM} owner claim --owner-key owner.pem -s vm.snapshot`,
        does: "once, right after the VM started",
      },
    ],
  }),
  args: appArgs,
  async run({ args }) {
    const { claimVm } = await import("./owner.ts")
    return claimVm(appOf(args))
  },
})

export const ownerCommand = defineCommand({
  meta: meta({ name: "owner", description: "keys that may have the agent do something" }),
  args: connectionArgs,
  subCommands: { key: ownerKeyCommand, claim: ownerClaimCommand },
})

const enrollCommand = defineCommand({
  meta: meta({
    name: "enroll",
    description: "have the VM's TPM prove its attestation key, and keep the proof in the snapshot",
    details: [
      "The VM is verified against the snapshot; then its TPM has to open a secret that only the TPM with this certificate can open, and only for this attestation key. From then on every verification against the snapshot asks for the key that was proven. A snapshot that was taken with --tpm-ca is enrolled already.",
      "A signature over the snapshot has to be made again.",
    ],
    examples: [
      {
        line: "cosmian_vm enroll --url https://vm.example:5555 --allow-insecure-tls -s vm.snapshot --tpm-ca tpm-ca",
        does: "enroll the TPM of a VM whose snapshot was taken before",
      },
    ],
  }),
  args: {
    ...connectionArgs,
    snapshot: {
      type: "string",
      alias: "s",
      valueHint: "FILE",
      required: true,
      description: "the VM's snapshot",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "where to write the enrolled snapshot, instead of over the snapshot",
    },
    "accept-reboot": {
      type: "boolean",
      description: "a restart is no failure where TPM key and boot PCRs are the snapshot's",
    },
    ...anchorArgs,
  },
  async run({ args }) {
    const { enrollKey } = await import("./enroll.ts")
    return enrollKey({
      ...connectionOf(args),
      ...trustOf(args),
      snapshot: args.snapshot,
      output: args.output ?? null,
      acceptReboot: args["accept-reboot"] === true,
    })
  },
})

/** `snapshot`, `verify`, `enroll`, `app`, `connect`: under `cosmian_vm cli` and directly under the executable. */
export const cliCommands = {
  snapshot: snapshotCommand,
  verify: verifyCommand,
  enroll: enrollCommand,
  app: appCommand,
  connect: connectCommand,
}

export const cliCommand = defineCommand({
  meta: meta({
    name: "cli",
    description: "snapshot, verify, app and connect, as the tool of earlier versions had them",
    examples: [
      {
        line: "cosmian_vm cli --url https://vm.example:5555 --allow-insecure-tls verify -s vm.snapshot",
        does: "the same as without cli",
      },
    ],
  }),
  args: connectionArgs,
  subCommands: cliCommands,
})

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

function connectionOf(args: ConnectionArgs): ConnectionOptions {
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

function trustOf(args: TrustArgs): TrustOptions {
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

function credentialsOf(args: CredentialArgs): CredentialFiles {
  return {
    token: args["token-file"] ?? null,
    ownerKey: args["owner-key"] ?? null,
    certificate: args["client-certificate"] ?? null,
    certificateKey: args["client-key"] ?? null,
  }
}

interface AppArgs extends ConnectionArgs, TrustArgs, CredentialArgs {
  snapshot: string | undefined
  policy: string | undefined
  measurement: string | undefined
  "any-vm": boolean | undefined
}

/** Which VM something is sent to, and by whom. */
export interface AppOptions extends ConnectionOptions, TrustOptions {
  /** Reference values to verify against before anything is sent; null: none. */
  readonly snapshot: string | null
  readonly policy: string | null
  /** What has to have been launched, hex; null: not said. */
  readonly measurement: string | null
  /** Any genuine VM will do. Without it, a snapshot or a policy has to be given. */
  readonly anyVm: boolean
  readonly credentials: CredentialFiles
}

export function appOf(args: AppArgs): AppOptions {
  return {
    ...connectionOf(args),
    ...trustOf(args),
    snapshot: args.snapshot ?? null,
    policy: args.policy ?? null,
    measurement: args.measurement ?? null,
    anyVm: args["any-vm"] === true,
    credentials: credentialsOf(args),
  }
}
