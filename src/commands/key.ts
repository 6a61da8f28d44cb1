import { defineCommand } from "citty"
import { DEFAULT_BINDING } from "../agent/derived-key.ts"
import { UsageError } from "../errors.ts"
import { DERIVED_KEY_TYPES } from "../formats/derived-key.ts"
import { DERIVED_KEY_FIELDS, type DerivedKeyField } from "../native/ports.ts"
import { hexOf } from "./attestation-validate.ts"
import { meta } from "./command.ts"

const MAX_SALT = 64
const SEALED_FILE = "/var/lib/cosmian_vm/data/sealed-key.json"
/** Firmware, option ROMs, boot loader, Secure Boot. */
export const SEALED_PCRS: readonly number[] = [0, 2, 4, 7]
const DEFAULT_TPM = "device:/dev/tpmrm0"

/** `certtool key`. */
export const keyCommand = defineCommand({
  meta: meta({
    name: "key",
    description: "derive a key from this VM's TEE: the same VM gets the same key again",
    details: [
      "SEV-SNP: from a secret of the chip that no software sees (SNP_GET_DERIVED_KEY) and the fields that --bind names, then by HKDF-SHA256 with salt, type and purpose. By default the key is bound to the measurement: another firmware or kernel gets another key.",
      "TDX and Azure have no such call. There --source tpm keeps a random secret in a file that only this TPM opens, and only while the PCRs are as when it was made. What that is worth depends on who runs the TPM: outside Azure and SVSM setups the host does, and can have the secret.",
      "Writes TYPE_sk.pem (PKCS #8), TYPE_sk.bin (32 raw bytes), TYPE_pk.pem and TYPE_pk.bin into the directory; the private ones with mode 0600. Needs root, as the TEE's device does.",
    ],
    examples: [
      { line: "cosmian_vm certtool key -o /var/lib/cosmian_vm/data", does: "an X25519 key" },
      {
        line: "cosmian_vm certtool key --type p256 --purpose backup --salt 00112233 --bind measurement,policy -o .",
        does: "a P-256 key for one purpose, also bound to the guest policy",
      },
      {
        line: "cosmian_vm certtool key --source tpm --pcrs 0,2,4,7,8,9 -o /var/lib/cosmian_vm/data",
        does: "on Azure or TDX, also bound to kernel and command line",
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
      description: "what the key is for: another purpose, another key",
    },
    source: {
      type: "enum",
      options: ["tee", "tpm"],
      default: "tee",
      description: "where the secret comes from: SEV-SNP's firmware, or a file that only this TPM opens",
    },
    bind: {
      type: "string",
      valueHint: "FIELD,…",
      description: `tee: what else the key depends on (default: ${DEFAULT_BINDING.join(",")}): ${DERIVED_KEY_FIELDS.join(", ")}`,
    },
    "root-key": {
      type: "enum",
      options: ["vcek", "vmrk"],
      description:
        "tee: the secret behind it: the chip's (vcek, unless said), or that of the VM's migration agent",
    },
    sealed: {
      type: "string",
      valueHint: "FILE",
      description: `tpm: file with the sealed secret, made where there is none (default: ${SEALED_FILE})`,
    },
    pcrs: {
      type: "string",
      valueHint: "N,…",
      description: `tpm: PCRs that have to be as when the secret was made (default: ${SEALED_PCRS.join(",")})`,
    },
    tpm: { type: "string", valueHint: "TCTI", description: `tpm: its address (default: ${DEFAULT_TPM})` },
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
    const { source, bind, "root-key": rootKey, simulate, sealed, pcrs, tpm } = args
    refuseUnread(source === "tee" ? { sealed, pcrs, tpm } : { bind, "root-key": rootKey, simulate }, source)
    return writeKey({
      output: args.output,
      salt: args.salt === undefined ? new Uint8Array(0) : hexOf(args.salt, "--salt", MAX_SALT),
      type: args.type,
      purpose: purposeOf(args.purpose ?? ""),
      source:
        source === "tee"
          ? {
              kind: "tee",
              fields: bind === undefined ? DEFAULT_BINDING : fieldsOf(bind),
              rootKey: rootKey ?? "vcek",
              simulate: simulate ?? null,
            }
          : {
              kind: "tpm",
              file: sealed ?? SEALED_FILE,
              pcrs: pcrs === undefined ? SEALED_PCRS : pcrsOf(pcrs),
              tcti: tpm ?? DEFAULT_TPM,
            },
      json: args.json === true,
      quiet: args.quiet === true,
    })
  },
})

/** What would go unread may be something that somebody relies on. */
function refuseUnread(options: Readonly<Record<string, unknown>>, source: string): void {
  const [unread] = Object.entries(options).find(([, value]) => value !== undefined) ?? []
  if (unread !== undefined)
    throw new UsageError("ERR_BAD_VALUE", {
      at: `--${unread}`,
      expected: `an option that --source ${source} has a use for`,
      found: `--${unread}`,
    })
}

function pcrsOf(text: string): readonly number[] {
  const numbers = text.split(",").map((part) => (/^[0-9]{1,2}$/.test(part.trim()) ? Number(part) : 99))
  if (numbers.every((pcr) => pcr < 24) && new Set(numbers).size === numbers.length)
    return numbers.sort((a, b) => a - b)
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--pcrs",
    expected: "numbers from 0 to 23, once each, with commas between",
    found: text.slice(0, 80),
  })
}

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
