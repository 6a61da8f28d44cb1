import { defineCommand } from "citty"
import { DEFAULT_BINDING } from "../agent/derived-key.ts"
import { UsageError } from "../errors.ts"
import { DERIVED_KEY_TYPES } from "../formats/derived-key.ts"
import { DERIVED_KEY_FIELDS, type DerivedKeyField } from "../native/ports.ts"
import { hexOf } from "./attestation-validate.ts"
import { meta } from "./command.ts"

const MAX_SALT = 64

/** `certtool key`. */
export const keyCommand = defineCommand({
  meta: meta({
    name: "key",
    description: "derive a key from this VM's TEE: the same VM gets the same key again",
    details: [
      "SEV-SNP: from a secret of the chip that no software sees (SNP_GET_DERIVED_KEY) and the fields that --bind names, then by HKDF-SHA256 with salt, type and purpose. By default the key is bound to the measurement: another firmware or kernel gets another key.",
      "Writes TYPE_sk.pem (PKCS #8), TYPE_sk.bin (32 raw bytes), TYPE_pk.pem and TYPE_pk.bin into the directory; the private ones with mode 0600. Needs root, as the TEE's device does.",
    ],
    examples: [
      { line: "cosmian_vm certtool key -o /var/lib/cosmian_vm/data", does: "an X25519 key" },
      {
        line: "cosmian_vm certtool key --type p256 --purpose backup --salt 00112233 --bind measurement,policy -o .",
        does: "a P-256 key for one purpose, also bound to the guest policy",
      },
    ],
  }),
  args: {
    output: {
      type: "string",
      alias: "o",
      valueHint: "DIR",
      default: ".",
      description: "where the keys are written to",
    },
    salt: {
      type: "string",
      valueHint: "HEX",
      description: `mixed in, up to ${MAX_SALT} bytes: another salt, another key`,
    },
    type: {
      type: "enum",
      options: [...DERIVED_KEY_TYPES],
      default: "x25519",
      description: "kind of key",
    },
    purpose: {
      type: "string",
      valueHint: "LABEL",
      default: "",
      description: "what the key is for: another purpose, another key",
    },
    bind: {
      type: "string",
      valueHint: "FIELD,…",
      default: DEFAULT_BINDING.join(","),
      description: `what else the key depends on: ${DERIVED_KEY_FIELDS.join(", ")}`,
    },
    "root-key": {
      type: "enum",
      options: ["vcek", "vmrk"],
      default: "vcek",
      description: "the secret behind it: the chip's, or that of the VM's migration agent",
    },
    simulate: {
      type: "string",
      valueHint: "DIR",
      description: "take the simulated TEE in DIR (agent --simulate) instead of this machine's",
    },
    json: {
      type: "boolean",
      description: "print one JSON object on standard output; it holds no private key",
    },
    quiet: { type: "boolean", alias: "q", description: "say nothing when it went well" },
  },
  async run({ args }) {
    const { writeKey } = await import("./key-derive.ts")
    return writeKey({
      output: args.output,
      salt: args.salt === undefined ? new Uint8Array(0) : hexOf(args.salt, "--salt", MAX_SALT),
      type: args.type,
      purpose: purposeOf(args.purpose),
      fields: fieldsOf(args.bind),
      rootKey: args["root-key"],
      simulate: args.simulate ?? null,
      json: args.json === true,
      quiet: args.quiet === true,
    })
  },
})

/** The value of `--bind`. The measurement is left out only where somebody says what else there is to be. @throws UsageError */
function fieldsOf(text: string): readonly DerivedKeyField[] {
  const names = text.split(",").map((name) => name.trim())
  const fields = DERIVED_KEY_FIELDS.filter((field) => names.includes(field))
  if (fields.length === names.length && fields.length > 0) return fields
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--bind",
    expected: `some of ${DERIVED_KEY_FIELDS.join(", ")}, once each, with commas between`,
    found: text.slice(0, 80),
  })
}

/** Zero bytes end the parts of what is hashed. */
function purposeOf(text: string): string {
  if (text.length <= 200 && !text.includes("\0")) return text
  throw new UsageError("ERR_BAD_VALUE", { at: "--purpose", expected: "a label of at most 200 characters" })
}
