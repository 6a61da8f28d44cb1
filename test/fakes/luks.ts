/** LUKS headers made by the real cryptsetup, and what a host that writes the disk can make of them. */
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export const PASSPHRASE = "correct horse"
const BINARY = 4096

// biome-ignore lint/suspicious/noExplicitAny: test data that tests take apart at will.
export type Json = Record<string, any>

/** Runs cryptsetup with something on its standard input, and other descriptors from 3 on. */
export function cryptsetup(args: readonly string[], input: string | Uint8Array = "", fds: number[] = []) {
  return Bun.spawnSync(["cryptsetup", ...args], {
    stdio: [Buffer.from(input), "pipe", "pipe", ...fds],
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
  })
}

let made: Uint8Array | null = null

/** A detached header as cryptsetup makes it: aes-xts-plain64, Argon2id at the policy's floor, no integrity (that needs device-mapper). */
export function luksHeader(): Uint8Array {
  made ??= format()
  return made.slice()
}

function format(): Uint8Array {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-luks-"))
  try {
    const [header, data] = [join(dir, "header"), join(dir, "data")]
    writeFileSync(data, "")
    truncateSync(data, 1 << 20)
    const cost = [
      "--pbkdf",
      "argon2id",
      "--pbkdf-memory",
      "65536",
      "--pbkdf-force-iterations",
      "4",
      "--pbkdf-parallel",
      "1",
    ]
    const run = cryptsetup(
      ["luksFormat", "--batch-mode", "--type", "luks2", "--header", header, ...cost, "--key-file", "-", data],
      PASSPHRASE,
    )
    if (run.exitCode !== 0) throw new Error(`cryptsetup: ${run.stderr}`)
    return new Uint8Array(readFileSync(header))
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** The metadata of a header. */
export function metadataOf(image: Uint8Array): Json {
  const text = Buffer.from(image.subarray(BINARY, headerSize(image))).toString("utf8")
  return JSON.parse(text.slice(0, text.indexOf("\0")))
}

/** A change of one member of the metadata: `keyslots.0.kdf.type`. Undefined takes it out. */
export function set(path: string, value: unknown): (metadata: Json) => void {
  return (metadata) => {
    const names = path.split(".")
    const last = names.pop() ?? ""
    const holder = names.reduce((at, name) => at[name], metadata)
    holder[last] = value
  }
}

/** The header with other metadata, in both copies, and right checksums: anybody who writes the disk can do this. */
export function withMetadata(image: Uint8Array, change: (metadata: Json) => void): Uint8Array {
  const metadata = metadataOf(image)
  change(metadata)
  return withMetadataText(image, JSON.stringify(metadata))
}

export function withMetadataText(image: Uint8Array, text: string): Uint8Array {
  const out = image.slice()
  const size = headerSize(image)
  const area = new Uint8Array(size - BINARY)
  area.set(Buffer.from(text))
  for (const offset of [0, size]) {
    out.set(area, offset + BINARY)
    resign(out, offset)
  }
  return out
}

/** Puts the right checksum into the copy at an offset. */
export function resign(image: Uint8Array, offset: number): void {
  const whole = image.subarray(offset, offset + headerSize(image))
  whole.fill(0, 448, 512)
  whole.set(createHash("sha256").update(whole).digest(), 448)
}

/** The same header as it is with `--integrity hmac-sha256`: 32 bytes of key more, and a larger area for it. */
export function withIntegrity(image: Uint8Array): Uint8Array {
  return withMetadata(image, (metadata) => {
    metadata["segments"]["0"].integrity = {
      type: "hmac(sha256)",
      journal_encryption: "none",
      journal_integrity: "none",
    }
    metadata["keyslots"]["0"].key_size = 96
    metadata["keyslots"]["0"].area.size = "385024"
  })
}

function headerSize(image: Uint8Array): number {
  return Number(Buffer.from(image.buffer, image.byteOffset).readBigUInt64BE(8))
}
