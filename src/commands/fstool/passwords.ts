import { randomBytes } from "node:crypto"
import { writeSync } from "node:fs"
import { UsageError } from "../../errors.ts"
import { encodePassphrase, type PassphraseSource, readPassphrase, wipe } from "../passphrase.ts"
import type { Unlocking } from "./open-volume.ts"
import type { CreateOptions, NewPasswordOptions, UnlockOptions } from "./options.ts"

/** A secret that is read when it is first needed, kept for as long as the command runs, and wiped at its end. */
class Remembered {
  readonly #source: PassphraseSource
  #value: Uint8Array | null = null

  constructor(source: PassphraseSource) {
    this.#source = source
  }

  /** A copy, which the caller wipes. */
  async read(): Promise<Uint8Array> {
    this.#value ??= await readPassphrase(this.#source)
    return this.#value.slice()
  }

  wipe(): void {
    wipe(this.#value)
  }
}

/** Runs with the ways in which a volume may be opened, by what the command line says. */
export async function withUnlocking<T>(
  options: UnlockOptions,
  use: (unlocking: Unlocking) => Promise<T>,
): Promise<T> {
  const given = givenSource(options)
  const terminal = process.stdin.isTTY === true
  const asked: PassphraseSource = { from: "terminal", prompt: "Password: ", confirm: false }
  const passphrase = given !== null ? new Remembered(given) : terminal ? new Remembered(asked) : null
  const pinSource = pinSourceOf(options.pinFile, terminal, "PIN: ", false)
  const pin = pinSource === null ? null : new Remembered(pinSource)
  try {
    return await use({
      passphrase: passphrase === null ? null : () => passphrase.read(),
      pin: pin === null ? null : () => pin.read(),
      first: given === null ? "tpm" : "passphrase",
    })
  } finally {
    passphrase?.wipe()
    pin?.wipe()
  }
}

/** The password that a volume is made with. */
export interface ChosenPassword {
  /** The caller wipes it. */
  readonly password: Uint8Array
  readonly generated: boolean
}

/**
 * The password of a new volume.
 * @throws UsageError ERR_BAD_VALUE where it is said in two ways; ERR_PASSPHRASE
 */
export async function choosePassword(
  options: CreateOptions,
  warn: (message: string) => void,
): Promise<ChosenPassword> {
  const written = options.password !== null && options.password !== "-"
  const ways = [
    options.password !== null,
    options.passwordFile !== null,
    options.passwordFd !== null,
    options.generatePassword,
  ]
  if (ways.filter(Boolean).length > 1)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--password",
      expected: "one of --password, --password-file, --password-fd and --generate-password",
      found: "more than one",
    })
  if (options.generatePassword) {
    if (!options.keepPassword) checkTerminal("--generate-password", "or keep it inside with --keep-password")
    return { password: newPassword(), generated: true }
  }
  if (written) {
    warn("a password on the command line is seen by every user of this machine, and kept by shells")
    return { password: fromCommandLine(options.password ?? ""), generated: false }
  }
  const source: PassphraseSource =
    options.password === "-"
      ? { from: "descriptor", fd: 0 }
      : (givenSource(options) ?? { from: "terminal", prompt: "Password of the new volume: ", confirm: true })
  return { password: await readPassphrase(source), generated: false }
}

/** The password that takes the place of another, or joins it. */
export async function chooseNewPassword(options: NewPasswordOptions): Promise<ChosenPassword> {
  if (options.generatePassword) {
    if (options.newPasswordFile !== null)
      throw new UsageError("ERR_BAD_VALUE", {
        at: "--new-password-file",
        expected: "one of --new-password-file and --generate-password",
        found: "both",
      })
    checkTerminal("--generate-password", "or give one in --new-password-file")
    return { password: newPassword(), generated: true }
  }
  const source: PassphraseSource =
    options.newPasswordFile !== null
      ? fileOrInput(options.newPasswordFile)
      : { from: "terminal", prompt: "New password: ", confirm: true }
  return { password: await readPassphrase(source), generated: false }
}

/** A PIN for a new enrolment; null where none is wanted. The caller wipes it. */
export async function choosePin(wanted: boolean, file: string | null): Promise<Uint8Array | null> {
  if (!wanted && file === null) return null
  const source = pinSourceOf(file, true, "PIN of the new enrolment: ", true)
  return source === null ? null : readPassphrase(source)
}

/** 256 random bits. The caller wipes them. */
export function newPassword(): Uint8Array {
  return encodePassphrase(new Uint8Array(randomBytes(32)))
}

/** Shows a secret on the terminal, and nowhere else: standard error, which was checked to be one. */
export function showOnTerminal(title: string, secret: Uint8Array): void {
  writeSync(2, `\n${title}, shown only now:\n\n    `)
  writeSync(2, secret)
  writeSync(2, "\n\n")
}

/** @throws UsageError ERR_PASSPHRASE where what is shown could end up in a log */
export function checkTerminal(at: string, otherwise: string): void {
  if (process.stderr.isTTY === true) return
  throw new UsageError("ERR_PASSPHRASE", {
    at,
    expected: "a terminal to show the secret on",
    found: "none",
    hint: `run it in a terminal, ${otherwise}`,
  })
}

/** @throws UsageError ERR_BAD_VALUE where a password is said in two ways */
function givenSource(options: UnlockOptions): PassphraseSource | null {
  if (options.passwordFile !== null && options.passwordFd !== null)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--password-fd",
      expected: "one of --password-file and --password-fd",
      found: "both",
    })
  if (options.passwordFile !== null) return fileOrInput(options.passwordFile)
  if (options.passwordFd === null) return null
  if (!/^[0-9]{1,4}$/.test(options.passwordFd))
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--password-fd",
      expected: "the number of an open file descriptor",
      found: options.passwordFd,
    })
  return { from: "descriptor", fd: Number(options.passwordFd) }
}

function pinSourceOf(
  file: string | null,
  terminal: boolean,
  prompt: string,
  confirm: boolean,
): PassphraseSource | null {
  if (file !== null) return fileOrInput(file)
  return terminal ? { from: "terminal", prompt, confirm } : null
}

function fileOrInput(path: string): PassphraseSource {
  return path === "-" ? { from: "descriptor", fd: 0 } : { from: "file", path }
}

/** @throws UsageError ERR_PASSPHRASE */
function fromCommandLine(text: string): Uint8Array {
  if (text !== "" && !/[\r\n\0]/.test(text) && Buffer.byteLength(text) <= 512)
    return new Uint8Array(Buffer.from(text))
  throw new UsageError("ERR_PASSPHRASE", { at: "--password", expected: "one line of 1 to 512 bytes" })
}
