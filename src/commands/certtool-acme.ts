import { defineCommand } from "citty"
import {
  CHALLENGE_TYPES,
  DEFAULT_WORKSPACE,
  KEY_TYPES,
  REVOCATION_REASONS,
  type RevocationReason,
} from "../acme/kinds.ts"
import { hexOf } from "./attestation-validate.ts"
import { listOf, meta, repeatable } from "./command.ts"

const REASONS = Object.keys(REVOCATION_REASONS).filter(
  (name): name is RevocationReason => name in REVOCATION_REASONS,
)

/** Bytes. */
const MAX_SALT = 64
const CHALLENGES = [...CHALLENGE_TYPES]

const commonArgs = {
  workspace: {
    type: "string",
    alias: "w",
    valueHint: "DIR",
    default: DEFAULT_WORKSPACE,
    description: "where account, keys, certificates and their settings are kept, on the encrypted volume",
  },
  json: { type: "boolean", description: "print one JSON object on standard output" },
  quiet: { type: "boolean", alias: "q", description: "say only what is wrong; no progress" },
} as const

const challengeArgs = {
  challenge: {
    type: "enum",
    options: CHALLENGES,
    description: "how control of the names is proven: http-01 unless said, dns-01 with --dns-hook",
  },
  listen: {
    type: "string",
    valueHint: "[HOST:]PORT",
    description:
      "answer there instead of on port 80 (http-01) or 443 (tls-alpn-01) of all addresses; the authority still comes to those",
  },
  webroot: {
    type: "string",
    valueHint: "DIR",
    description: "http-01 through a web server that runs already and serves this directory",
  },
  "dns-hook": {
    type: "string",
    valueHint: '"PROGRAM ARGS…"',
    description:
      "dns-01: program that is run with present RECORD VALUE and remove RECORD VALUE after its own arguments; no shell",
  },
  "dns-wait": {
    type: "string",
    valueHint: "SECONDS",
    default: "10",
    description: "dns-01: time for the records to reach all name servers",
  },
} as const

export const acmeCommand = defineCommand({
  meta: meta({
    name: "acme",
    description: "get a certificate from an authority, inside the VM",
    details: [
      "The private key is made in the workspace and never leaves it. With --output the files cert.pem (chain) and key.pem there are links into the workspace: a renewal changes both at the same moment.",
      "A certificate that is there already, of the same kind and not due, is kept: the command may run at every start. What it was told is written down, and certtool renew needs no options.",
      "A run that was cut short is gone on with by the next one, with the same key and the same order. Registering accepts the authority's terms of service.",
    ],
    examples: [
      {
        line: "cosmian_vm certtool acme -d vm.example.com -e admin@example.com -o /var/lib/cosmian_vm/data",
        does: "for the agent: Let's Encrypt comes to port 80",
      },
      {
        line: 'cosmian_vm certtool acme -d vm.example.com -s www.vm.example.com --webroot /var/www/html --deploy-hook "nginx -s reload"',
        does: "through nginx, which takes each new certificate up without a gap",
      },
      {
        line: 'cosmian_vm certtool acme -d "*.example.com" --dns-hook /usr/local/sbin/dns-record --staging',
        does: "all names of a domain, tried out with an authority that nobody trusts",
      },
    ],
  }),
  args: {
    domain: {
      type: "string",
      alias: "d",
      valueHint: "NAME",
      required: true,
      description: "name that the certificate is for",
    },
    san: repeatable({
      type: "string",
      alias: "s",
      valueHint: "NAME",
      description: "another name in the same certificate",
    }),
    email: {
      type: "string",
      alias: "e",
      valueHint: "ADDRESS",
      description: "where the authority may write to",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "DIR",
      description: "directory that gets cert.pem and key.pem",
    },
    name: {
      type: "string",
      valueHint: "NAME",
      description: "what the certificate is called in the workspace; --domain unless said",
    },
    staging: {
      type: "boolean",
      description: "Let's Encrypt's staging authority: for trying out; nobody trusts its certificates",
    },
    directory: {
      type: "string",
      valueHint: "URL",
      description: "ACME directory of the authority; Let's Encrypt's unless said",
    },
    "ca-file": {
      type: "string",
      valueHint: "FILE",
      description: "PEM certificates that the ACME server's own certificate is checked by, and no others",
    },
    ...challengeArgs,
    "key-type": {
      type: "enum",
      options: [...KEY_TYPES],
      default: "p256",
      description: "kind of the certificate's key",
    },
    "reuse-key": {
      type: "boolean",
      description: "keep the key at renewals, where clients pin it",
    },
    "derived-from-tee": {
      type: "string",
      valueHint: "HEX",
      description:
        "derive the key from the TEE with this salt, bound to the measurement, instead of making it at random",
    },
    simulate: {
      type: "string",
      valueHint: "DIR",
      description: "with --derived-from-tee: take the simulated TEE in DIR (agent --simulate)",
    },
    "key-file": {
      type: "string",
      valueHint: "FILE",
      description:
        "certify the key in this PEM file, at renewals as well, instead of one of the certificate's own: that of the agent, say",
    },
    profile: {
      type: "string",
      valueHint: "NAME",
      description: "certificate profile, one of those that the authority offers",
    },
    "eab-kid": {
      type: "string",
      valueHint: "ID",
      description: "external account binding: key identifier that the authority gave",
    },
    "eab-key-file": {
      type: "string",
      valueHint: "FILE",
      description: "external account binding: file with the MAC key in base64url; - reads standard input",
    },
    "deploy-hook": repeatable({
      type: "string",
      valueHint: '"PROGRAM ARGS…"',
      description: "program that is run after each new certificate; no shell",
    }),
    force: { type: "boolean", description: "have a new certificate issued also where none is due" },
    ...commonArgs,
  },
  async run({ args }) {
    const { acme } = await import("./acme-actions.ts")
    const salt = args["derived-from-tee"]
    return acme({
      ...commonOf(args),
      domain: args.domain,
      san: listOf(args.san),
      email: args.email ?? null,
      output: args.output ?? null,
      name: args.name ?? null,
      staging: args.staging === true,
      directory: args.directory ?? null,
      caFile: args["ca-file"] ?? null,
      challenge: args.challenge ?? null,
      listen: args.listen ?? null,
      webroot: args.webroot ?? null,
      dnsHook: args["dns-hook"] ?? null,
      dnsWait: args["dns-wait"],
      keyType: args["key-type"],
      reuseKey: args["reuse-key"] === true,
      derivedFromTee: salt === undefined ? null : hexOf(salt, "--derived-from-tee", MAX_SALT),
      keyFile: args["key-file"] ?? null,
      simulate: args.simulate ?? null,
      profile: args.profile ?? null,
      eabKid: args["eab-kid"] ?? null,
      eabKeyFile: args["eab-key-file"] ?? null,
      deployHooks: listOf(args["deploy-hook"]),
      force: args.force === true,
    })
  },
})

export const renewCommand = defineCommand({
  meta: meta({
    name: "renew",
    description: "renew the certificates that are due",
    details: [
      "When a certificate is due is what the authority suggests (renewal information), else a third of its lifetime before its end. cosmian_vm_certtool.timer runs this command four times a day.",
      "Each certificate is tried whatever becomes of the others. Deploy hooks that failed are run again.",
    ],
    examples: [
      { line: "cosmian_vm certtool renew", does: "all certificates of the workspace" },
      { line: "cosmian_vm certtool renew vm.example.com --force", does: "one, whether it is due or not" },
    ],
  }),
  args: {
    names: repeatable({
      type: "positional",
      required: false,
      valueHint: "NAME",
      description: "certificates to renew; all of the workspace unless said",
    }),
    force: { type: "boolean", description: "renew also what is not due" },
    ...commonArgs,
  },
  async run({ args }) {
    const { renew } = await import("./acme-actions.ts")
    return renew({ ...commonOf(args), names: listOf(args.names), force: args.force === true })
  },
})

export const revokeCommand = defineCommand({
  meta: meta({
    name: "revoke",
    description: "have a certificate revoked",
    details: [
      "The certificate is not renewed any more, and its files stay. certtool acme makes a new one, with a new key.",
    ],
    examples: [
      {
        line: "cosmian_vm certtool revoke vm.example.com --reason key-compromise",
        does: "where somebody else may have the key",
      },
    ],
  }),
  args: {
    name: { type: "positional", required: true, valueHint: "NAME", description: "the certificate" },
    reason: {
      type: "enum",
      options: [...REASONS],
      default: "unspecified",
      description: "why",
    },
    ...commonArgs,
  },
  async run({ args }) {
    const { revoke } = await import("./acme-actions.ts")
    return revoke({ ...commonOf(args), name: args.name, reason: args.reason })
  },
})

function commonOf(args: { workspace: string; json: boolean | undefined; quiet: boolean | undefined }) {
  return { workspace: args.workspace, json: args.json === true, quiet: args.quiet === true }
}
