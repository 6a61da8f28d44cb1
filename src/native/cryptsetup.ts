import { NativeError } from "../errors.ts"
import { type MemoryFile, memoryFile } from "./memory-file.ts"
import { inherited, type ProgramResult, programFailed, runProgram } from "./run-program.ts"

/** Exit code of cryptsetup when no keyslot opens with what it was given. Source: cryptsetup(8), "RETURN CODES". */
const NO_PERMISSION = 2
/** AES-256 in XTS mode, and HMAC-SHA-256 over each sector with its number. */
const CIPHER = "aes-xts-plain64"
const CIPHER_KEY_BITS = 512
const INTEGRITY = "hmac-sha256"
const INTEGRITY_KEY_BITS = 256
const SECTOR = 4096

/** Bytes of a volume key. */
export function volumeKeySize(integrity: boolean): number {
  return (CIPHER_KEY_BITS + (integrity ? INTEGRITY_KEY_BITS : 0)) / 8
}

/** How costly a guess of a passphrase is. */
export interface PassphraseCost {
  /** Memory in KiB. */
  readonly memory: number
  readonly passes: number
  readonly lanes: number
}

/** What opens a header's keyslots: a passphrase, or the volume key itself. */
export interface Key {
  readonly kind: "passphrase" | "volume-key"
  /** The caller wipes it. */
  readonly secret: Uint8Array
}

/** How a new keyslot protects its passphrase: `argon2id` for people's, `pbkdf2` with few rounds for 256 random bits. */
export type SlotKdf = PassphraseCost | "random-secret"

/**
 * cryptsetup(8), version 2.4 or later, without a terminal. Headers are memory files; keys reach it through memory files of
 * their own and are in no argument. `lock`: a descriptor that it keeps open while it runs, so that a process of ours that is
 * killed does not leave it working unnoticed.
 */
export class Cryptsetup {
  readonly #lock: number | null

  constructor(lock: number | null) {
    this.#lock = lock
  }

  /** Writes a new LUKS2 header, with one passphrase in slot 0, for a container that is not written to but for dm-integrity's own first sector. */
  async format(request: {
    readonly header: MemoryFile
    readonly container: string
    readonly integrity: boolean
    readonly volumeKey: Uint8Array
    readonly passphrase: Uint8Array
    readonly cost: PassphraseCost
  }): Promise<void> {
    const { volumeKey, passphrase } = request
    await this.#withSecrets([volumeKey, passphrase], (key, slot) => [
      [request.header.fd],
      (header) => [
        ...["luksFormat", "--batch-mode", "--type", "luks2", "--header", header],
        ...["--cipher", CIPHER, "--key-size", `${CIPHER_KEY_BITS}`, "--sector-size", `${SECTOR}`],
        ...(request.integrity ? ["--integrity", INTEGRITY, "--integrity-no-wipe"] : []),
        ...kdfArguments(request.cost),
        ...["--volume-key-file", key, "--key-file", slot, request.container],
      ],
    ])
  }

  /** Maps a container as /dev/mapper/NAME. `journal`: false only while there is nothing yet that a crash could lose. */
  async open(request: {
    readonly header: MemoryFile
    readonly container: string
    readonly name: string
    readonly key: Key
    readonly journal: boolean
    /** The one that the key belongs to; null: whichever it opens. */
    readonly keyslot: number | null
  }): Promise<void> {
    await this.#withSecrets([request.key.secret], (key) => [
      [request.header.fd],
      (header) => [
        ...["open", "--batch-mode", "--type", "luks2", "--header", header],
        ...keyArguments(request.key, key),
        ...(request.keyslot === null ? [] : ["--key-slot", `${request.keyslot}`]),
        ...(request.journal ? [] : ["--integrity-no-journal"]),
        ...[request.container, request.name],
      ],
    ])
  }

  /** The keyslot that a passphrase opens. @throws NativeError ERR_PASSPHRASE_WRONG where none does */
  async keyslotOf(header: MemoryFile, passphrase: Uint8Array): Promise<number> {
    const { stdout } = await this.#withSecrets([passphrase], (key) => [
      [header.fd],
      (file) => [
        ...["open", "--batch-mode", "--verbose", "--test-passphrase", "--type", "luks2", "--key-file", key],
        file,
      ],
    ])
    const slot = /Key slot ([0-9]+) unlocked/.exec(Buffer.from(stdout).toString())?.[1]
    if (slot !== undefined) return Number(slot)
    throw new NativeError("ERR_PROGRAM_FAILED", {
      at: "cryptsetup open --test-passphrase",
      expected: "the number of the keyslot",
      found: "none",
    })
  }

  /** Adds a passphrase to a header that may be written to. */
  async addKey(request: {
    readonly header: MemoryFile
    readonly key: Key
    readonly passphrase: Uint8Array
    readonly kdf: SlotKdf
    readonly keyslot: number
  }): Promise<void> {
    await this.#withSecrets([request.key.secret, request.passphrase], (key, added) => [
      [request.header.fd],
      (header) => [
        ...["luksAddKey", "--batch-mode", ...keyArguments(request.key, key), ...kdfArguments(request.kdf)],
        ...["--key-slot", `${request.keyslot}`, header, added],
      ],
    ])
  }

  /** Destroys a keyslot. Nothing is asked: which slots may go is the caller's concern. */
  async killSlot(header: MemoryFile, keyslot: number): Promise<void> {
    await this.#run([header.fd], (file) => ["luksKillSlot", "--batch-mode", file ?? "", `${keyslot}`])
  }

  async importToken(header: MemoryFile, token: Uint8Array): Promise<void> {
    await this.#withSecrets([token], (json) => [
      [header.fd],
      (file) => ["token", "import", "--batch-mode", "--json-file", json, file],
    ])
  }

  async removeToken(header: MemoryFile, token: number): Promise<void> {
    await this.#run([header.fd], (file) => [
      "token",
      "remove",
      "--batch-mode",
      "--token-id",
      `${token}`,
      file ?? "",
    ])
  }

  /** The key that the data are encrypted with. The caller wipes it. */
  async volumeKey(header: MemoryFile, passphrase: Uint8Array): Promise<Uint8Array> {
    const { stdout } = await this.#withSecrets([passphrase], (key) => [
      [header.fd],
      (file) => ["luksDump", "--batch-mode", "--dump-volume-key", "--key-file", key, file],
    ])
    try {
      return dumpedKey(stdout)
    } finally {
      stdout.fill(0)
    }
  }

  /** Takes a mapping away, with all that is below it. */
  async close(name: string): Promise<void> {
    await this.#run([], () => ["close", name])
  }

  /** Runs with secrets in memory files of their own, which are wiped afterwards. Their paths are as the child sees them. */
  async #withSecrets(
    secrets: readonly Uint8Array[],
    command: (
      ...paths: string[]
    ) => readonly [descriptors: readonly number[], args: (path: string) => string[]],
  ): Promise<ProgramResult> {
    const files: MemoryFile[] = []
    try {
      for (const secret of secrets) files.push(await memoryFile(secret, { name: "key", sealed: false }))
      const paths = files.map((_, index) => inherited(index))
      const [descriptors, args] = command(...paths)
      return await this.#run([...files.map(({ fd }) => fd), ...descriptors], () =>
        args(inherited(files.length)),
      )
    } finally {
      for (const file of files) file.close()
    }
  }

  async #run(
    descriptors: readonly number[],
    args: (first: string | undefined) => string[],
  ): Promise<ProgramResult> {
    const argv = args(descriptors.length > 0 ? inherited(0) : undefined)
    const lock = this.#lock === null ? [] : [this.#lock]
    // A plug-in that is installed would open a token by itself, instead of the key that was given.
    argv.push("--disable-external-tokens")
    const result = await runProgram("cryptsetup", argv, { descriptors: [...descriptors, ...lock] })
    if (result.exitCode === 0) return result
    const cause = programFailed("cryptsetup", argv, result)
    if (result.exitCode !== NO_PERMISSION) throw cause
    throw new NativeError("ERR_PASSPHRASE_WRONG", {
      at: `cryptsetup ${argv[0] ?? ""}`,
      found: "no keyslot opens with this key",
      hint: "check the keyboard's layout, and whether a line end belongs to the passphrase",
      cause,
    })
  }
}

function keyArguments(key: Key, path: string): string[] {
  return [key.kind === "passphrase" ? "--key-file" : "--volume-key-file", path]
}

function kdfArguments(kdf: SlotKdf): string[] {
  // As systemd-cryptenroll does: stretching adds nothing to 256 random bits.
  if (kdf === "random-secret")
    return ["--pbkdf", "pbkdf2", "--hash", "sha512", "--pbkdf-force-iterations", "1000"]
  return [
    ...["--pbkdf", "argon2id", "--pbkdf-force-iterations", `${kdf.passes}`],
    ...["--pbkdf-memory", `${kdf.memory}`, "--pbkdf-parallel", `${kdf.lanes}`],
  ]
}

/** Reads `MK dump:` and the lines of hexadecimal bytes after it, without making a string of them. */
function dumpedKey(output: Uint8Array): Uint8Array {
  const start = Buffer.from(output.buffer, output.byteOffset, output.length).indexOf("MK dump:")
  const digits: number[] = []
  for (const byte of start < 0 ? [] : output.subarray(start + "MK dump:".length)) {
    const digit = digitOf(byte)
    if (digit !== null) digits.push(digit)
  }
  const key = Uint8Array.from(
    { length: digits.length >> 1 },
    (_, index) => (digits[2 * index] ?? 0) * 16 + (digits[2 * index + 1] ?? 0),
  )
  digits.fill(0)
  if (key.length === volumeKeySize(true) || key.length === volumeKeySize(false)) return key
  throw new NativeError("ERR_PROGRAM_FAILED", {
    at: "cryptsetup luksDump --dump-volume-key",
    expected: `a key of ${volumeKeySize(false)} or ${volumeKeySize(true)} bytes`,
    found: `${key.length} bytes`,
  })
}

function digitOf(byte: number): number | null {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  return byte >= 0x61 && byte <= 0x66 ? byte - 0x57 : null
}
