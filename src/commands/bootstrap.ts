import { defineCommand } from "citty"
import type { BootstrapState } from "../client/agent-client.ts"
import { UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { isProvisionName, ORDER_CHALLENGES, PROVISION_NAME_RULE } from "../formats/provision.ts"
import { type AppOptions, appArgs, appOf } from "./agent-options.ts"
import { afterAttestation } from "./app.ts"
import { type OrderOptions, orderOf } from "./bootstrap-order.ts"
import { listOf, meta, repeatable } from "./command.ts"
import { type FleetMember, readFleet } from "./fleet.ts"
import { readInput } from "./input-files.ts"
import { openTerminal, type Terminal } from "./terminal.ts"

/** Longest value. The agent has a limit of its own for all of them together. */
const MAX_VALUE_BYTES = 16 * 1024 * 1024

export const bootstrapCommand = defineCommand({
  meta: meta({
    name: "bootstrap",
    description: "bring an application its secrets, once its VM has attested, and start it",
    details: [
      "For an agent with a table [bootstrap]: its application waits for secrets, on a port that takes nothing else and closes when the application runs. They are sealed to a key that the VM's evidence vouches for, and sent over the very connection that was verified.",
      "With --acme-domain the VM gets a certificate for the application by ACME, before it is started: for the VM's own TLS key, which never leaves it and which verify and connect know from the evidence. The authority has to reach the VM by that name.",
      "A value on the command line can be seen by other users of this machine: write NAME=@FILE to have it read from a file, NAME=@- from standard input.",
    ],
    examples: [
      {
        line: "cosmian_vm --url https://vm.example:5557 bootstrap -s vm.snapshot --set db_password=@password --file tls.key=server.key --owner-key owner.pem",
        does: "two secrets, one of them a file",
      },
      {
        line: "cosmian_vm --url https://vm.example:5557 bootstrap -s vm.snapshot --set db_password=@password --acme-domain vm.example --acme-email admin@example.com --owner-key owner.pem",
        does: "and a certificate of Let's Encrypt, whose challenge the VM answers on port 80",
      },
      {
        line: "cosmian_vm bootstrap --fleet servers.toml --policy vm.toml --set db_password=@password --owner-key owner.pem",
        does: "the same to several servers, one after the other",
      },
    ],
  }),
  args: {
    ...appArgs,
    set: repeatable({
      type: "string",
      valueHint: "NAME=VALUE",
      description: "a secret; VALUE as text, or @FILE",
    }),
    file: repeatable({
      type: "string",
      valueHint: "NAME=PATH",
      description: "a secret that is the content of a file, byte for byte",
    }),
    "no-start": {
      type: "boolean",
      description: "hand the secrets over and do not start the application: more of them follow",
    },
    "acme-domain": repeatable({
      type: "string",
      valueHint: "NAME",
      description: "have the VM get a certificate for this name, and for more when given again",
    }),
    "acme-email": {
      type: "string",
      valueHint: "ADDRESS",
      description: "where the authority may write to",
    },
    "acme-directory": {
      type: "string",
      valueHint: "URL",
      description: "ACME directory of the authority (default: Let's Encrypt's)",
    },
    "acme-ca-file": {
      type: "string",
      valueHint: "FILE",
      description:
        "PEM certificates that the VM checks the ACME server's own certificate by, and no others; the file is sent",
    },
    "acme-challenge": {
      type: "enum",
      options: ORDER_CHALLENGES.map((challenge) => challenge),
      default: "http-01",
      description: "how the VM proves to the authority that the name is its",
    },
    "acme-port": {
      type: "string",
      valueHint: "PORT",
      description: "where the VM answers instead of on port 80 (http-01) or 443 (tls-alpn-01)",
    },
    fleet: {
      type: "string",
      valueHint: "FILE.toml",
      description:
        "the servers to bring them to, instead of --url: [[server]] with url, and snapshot or policy",
    },
  },
  async run({ args }) {
    return bootstrap({
      ...appOf(args),
      set: listOf(args.set),
      files: listOf(args.file),
      start: args["no-start"] !== true,
      order: {
        domains: listOf(args["acme-domain"]),
        email: args["acme-email"] ?? null,
        directory: args["acme-directory"] ?? null,
        caFile: args["acme-ca-file"] ?? null,
        challenge: args["acme-challenge"],
        port: args["acme-port"] ?? null,
      },
      fleet: args.fleet ?? null,
    })
  },
})

export interface BootstrapOptions extends AppOptions {
  /** `NAME=VALUE`, as given. */
  readonly set: readonly string[]
  /** `NAME=PATH`, as given. */
  readonly files: readonly string[]
  readonly start: boolean
  readonly order: OrderOptions
  /** File that names the servers; null: the one of `url`. */
  readonly fleet: string | null
}

/** `bootstrap`: returns the exit code; of several servers the first that is not 0. */
export async function bootstrap(
  options: BootstrapOptions,
  terminal: Terminal = openTerminal(),
): Promise<number> {
  const values = valuesOf(options)
  const certificate = orderOf(options.order)
  if (certificate !== null && options.fleet !== null)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--acme-domain",
      expected: "no --fleet beside it",
      found: "both",
      hint: "a name leads to one server: run the command once for each",
    })
  const servers: readonly FleetMember[] =
    options.fleet === null ? [{ url: options.url, snapshot: null, policy: null }] : readFleet(options.fleet)
  let first = 0
  for (const { url, snapshot, policy } of servers) {
    const server = {
      ...options,
      url,
      snapshot: snapshot ?? options.snapshot,
      policy: policy ?? options.policy,
      boundToConnection: true,
    }
    const code = await afterAttestation(server, terminal, async (client, sealingKey) => {
      if (values.size > 0 || certificate !== null) await client.bootstrap({ values, certificate }, sealingKey)
      if (certificate !== null && options.start && !options.quiet && !options.json)
        terminal.talk(
          `the VM gets its certificate for ${printable(certificate.names.join(", "))}: some minutes at most\n`,
        )
      const state = options.start ? await client.bootstrapStart() : await client.bootstrapStatus()
      const missing = state.wanted.filter((name) => !state.received.includes(name))
      const summary = options.start
        ? `${values.size} values sent, application started${certificateText(state)}`
        : `${values.size} values sent${missing.length === 0 ? "" : `, missing: ${printable(missing.join(", "))}`}`
      return { summary, bootstrap: state }
    })
    if (first === 0) first = code
  }
  return first
}

function certificateText({ certificate }: BootstrapState): string {
  if (certificate === null) return ""
  return printable(`; certificate ${certificate.certificate}, until ${certificate.not_after.slice(0, 10)}`)
}

function valuesOf(options: BootstrapOptions): Map<string, Uint8Array> {
  const values = new Map<string, Uint8Array>()
  const add = (option: string, text: string, read: (rest: string) => Uint8Array) => {
    const at = text.indexOf("=")
    const name = text.slice(0, Math.max(at, 0))
    // What follows the name is not repeated: it is a secret.
    if (at < 0 || !isProvisionName(name))
      throw new UsageError("ERR_BAD_VALUE", {
        at: option,
        expected: `NAME=…, NAME: ${PROVISION_NAME_RULE}`,
        found: at < 0 ? "no =" : "another name",
      })
    if (values.has(name))
      throw new UsageError("ERR_OPTION_REPEATED", { at: `${option} ${name}`, expected: "each name once" })
    values.set(name, read(text.slice(at + 1)))
  }
  for (const text of options.set)
    add("--set", text, (rest) =>
      rest.startsWith("@") ? withoutNewline(readInput(rest.slice(1), MAX_VALUE_BYTES)) : Buffer.from(rest),
    )
  for (const text of options.files) add("--file", text, (path) => readInput(path, MAX_VALUE_BYTES))
  return values
}

/** A password in a file usually ends in a line end that is not part of it. */
function withoutNewline(bytes: Uint8Array): Uint8Array {
  return bytes.at(-1) === 0x0a ? bytes.subarray(0, -1) : bytes
}
