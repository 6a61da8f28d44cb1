import { fromHex, toHex } from "../formats/hex.ts"
import type { TomlTable } from "../formats/toml-table.ts"
import type { OneOf } from "./attestation-policy.ts"
import type { BootExpectations } from "./boot-expectations.ts"

/** Bytes of a certificate's SHA-256. */
const FINGERPRINT_SIZE = 32
/** Bytes of SHA-256, SHA-384 and SHA-512. */
const DIGEST_SIZES: readonly number[] = [32, 48, 64]

/** Reads `[boot]` of a policy. @throws UsageError ERR_POLICY */
export function parseBootTable(table: TomlTable): BootExpectations {
  const commandLine = table.table("command_line")
  const boot: BootExpectations = {
    secureBoot: table.boolean("secure_boot") ?? false,
    authorities: fingerprints(table, "authority"),
    db: fingerprints(table, "db"),
    commandLine: {
      required: patterns(commandLine, "required"),
      forbidden: patterns(commandLine, "forbidden"),
      initrds: digests(commandLine, "initrd"),
    },
  }
  commandLine?.finish()
  if (boot.authorities !== null && table.raw("secure_boot") === false)
    throw table.fault("secure_boot", "true, or nothing, beside authority", "false")
  table.finish()
  return boot
}

/** The sections that read back as these expectations. */
export function bootSections({ secureBoot, authorities, db, commandLine }: BootExpectations): string[][] {
  const line = (key: string, items: readonly string[] | null) =>
    items === null || items.length === 0
      ? []
      : [`${key} = [${items.map((item) => JSON.stringify(item)).join(", ")}]`]
  const words = [
    ...line("required", commandLine.required),
    ...line("forbidden", commandLine.forbidden),
    ...line("initrd", commandLine.initrds.map(toHex)),
  ]
  return [
    [
      "[boot]",
      ...(secureBoot ? ["secure_boot = true"] : []),
      ...line("authority", authorities?.map(toHex) ?? null),
      ...line("db", db?.map(toHex) ?? null),
    ],
    words.length === 0 ? [] : ["[boot.command_line]", ...words],
  ]
}

/** SHA-256 in hex, with or without the colons that openssl writes. */
function fingerprints(table: TomlTable, key: string): OneOf {
  return (
    table.strings(key)?.map((text) => {
      const bytes = fromHex(text.replaceAll(":", ""))
      if (bytes?.length === FINGERPRINT_SIZE) return bytes
      throw table.fault(key, "SHA-256 of a certificate, 32 bytes in hex", JSON.stringify(text))
    }) ?? null
  )
}

/** In hex, of one of the banks that prove something. */
function digests(table: TomlTable | null, key: string): readonly Uint8Array[] {
  const texts = table?.strings(key) ?? []
  return texts.flatMap((text) => {
    const bytes = fromHex(text)
    if (bytes !== null && DIGEST_SIZES.includes(bytes.length)) return [bytes]
    if (table === null) return []
    throw table.fault(key, "SHA-256, SHA-384 or SHA-512 of an initial RAM disk in hex", JSON.stringify(text))
  })
}

function patterns(table: TomlTable | null, key: string): readonly string[] {
  const words = table?.strings(key) ?? []
  for (const word of words)
    if (table !== null && !/^[^\s"]+$/.test(word))
      throw table.fault(key, "words without spaces and quotes, such as ima_policy=tcb", JSON.stringify(word))
  return words
}
