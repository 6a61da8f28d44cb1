import { defineCommand } from "citty"
import { meta } from "./command.ts"

/** `certtool`: the certificates that tie TLS to the VM. */
export const certtoolCommand = defineCommand({
  meta: meta({
    name: "certtool",
    description: "certificates: from an authority by ACME, RA-TLS, keys derived from the TEE",
  }),
  subCommands: {
    ratls: async () => (await import("./ratls.ts")).ratlsCommand,
    key: async () => (await import("./key.ts")).keyCommand,
    acme: async () => (await import("./certtool-acme.ts")).acmeCommand,
    renew: async () => (await import("./certtool-acme.ts")).renewCommand,
    revoke: async () => (await import("./certtool-acme.ts")).revokeCommand,
  },
})
