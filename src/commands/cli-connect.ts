import { defineCommand } from "citty"
import { anchorArgs, connectionArgs, connectionOf, trustOf } from "./agent-options.ts"
import { listOf, meta, repeatable } from "./command.ts"

export const connectCommand = defineCommand({
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
