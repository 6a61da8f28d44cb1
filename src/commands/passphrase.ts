import { closeSync, openSync, readSync } from "node:fs"
import { UsageError } from "../errors.ts"
import { askHidden } from "./hidden-prompt.ts"

/** Where a passphrase comes from. Never an argument or the environment: others see those. */
export type PassphraseSource =
  /** Typed, without echo. `confirm`: asked for twice, because a typing error would lock its owner out. */
  | { readonly from: "terminal"; readonly prompt: string; readonly confirm: boolean }
  /** Standard input is `{ from: "descriptor", fd: 0 }`. */
  | { readonly from: "descriptor"; readonly fd: number }
  | { readonly from: "file"; readonly path: string }

/** As many as cryptsetup reads from a terminal, so that it can be typed there as well. */
const MAX_PASSPHRASE = 512
/** RFC 4648 base32: no character is taken for another, and none needs a shift key. */
const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
const GROUP = 4

/**
 * A passphrase: the bytes of one line, without its end, in whatever encoding they came. The caller wipes it.
 * @throws UsageError ERR_PASSPHRASE where there is none, it is empty or over 512 bytes, holds a line break or zero byte,
 *   or was typed differently the second time. @throws CodedError ERR_INTERRUPTED on Ctrl-C
 */
export async function readPassphrase(source: PassphraseSource): Promise<Uint8Array> {
  if (source.from === "terminal") return typed(source.prompt, source.confirm)
  if (source.from === "descriptor") return oneLine(readAll(source.fd), `descriptor ${source.fd}`)
  const fd = openFile(source.path)
  try {
    return oneLine(readAll(fd), source.path)
  } finally {
    closeSync(fd)
  }
}

/**
 * A passphrase of 256 random bits, for people to write down: base32 in groups of four, with dashes. `random`: 32 bytes,
 * which are wiped. The dashes are part of it.
 */
export function encodePassphrase(random: Uint8Array): Uint8Array {
  const out: number[] = []
  let bits = 0
  let held = 0
  let written = 0
  const put = (index: number): void => {
    if (written > 0 && written % GROUP === 0) out.push(0x2d)
    out.push(BASE32.charCodeAt(index))
    written += 1
  }
  for (const byte of random) {
    held = (held << 8) | byte
    bits += 8
    while (bits >= 5) {
      bits -= 5
      put((held >> bits) & 31)
    }
    held &= (1 << bits) - 1
  }
  if (bits > 0) put((held << (5 - bits)) & 31)
  wipe(random)
  return Uint8Array.from(out)
}

/** Overwrites a secret. What has been copied elsewhere, to a string above all, stays: do not make such copies. */
export function wipe(...secrets: readonly (Uint8Array | null)[]): void {
  for (const secret of secrets) secret?.fill(0)
}

async function typed(prompt: string, confirm: boolean): Promise<Uint8Array> {
  const first = oneLine(await askHidden(prompt), "terminal")
  if (!confirm) return first
  const second = await askHidden("The same again: ")
  try {
    if (Buffer.compare(first, second) === 0) return first
    wipe(first)
    throw new UsageError("ERR_PASSPHRASE", {
      at: "terminal",
      expected: "the same twice",
      found: "two different ones",
    })
  } finally {
    wipe(second)
  }
}

/** Everything up to the end, at most a line of the largest size. */
function readAll(fd: number): Uint8Array {
  const buffer = new Uint8Array(MAX_PASSPHRASE + 3)
  let size = 0
  for (let some = -1; some !== 0 && size < buffer.length; size += some) some = readSome(fd, buffer, size)
  return buffer.subarray(0, size)
}

function readSome(fd: number, buffer: Uint8Array, at: number): number {
  try {
    return readSync(fd, buffer, at, buffer.length - at, null)
  } catch (cause) {
    throw new UsageError("ERR_PASSPHRASE", {
      at: `descriptor ${fd}`,
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, "r")
  } catch (cause) {
    throw new UsageError("ERR_PASSPHRASE", {
      at: path,
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

/** A copy of the line without its end; `bytes` is wiped. */
function oneLine(bytes: Uint8Array, at: string): Uint8Array {
  try {
    let end = bytes.length
    if (bytes[end - 1] === 0x0a) end -= bytes[end - 2] === 0x0d ? 2 : 1
    const line = bytes.subarray(0, end)
    const problem = problemOf(line)
    if (problem !== null)
      throw new UsageError("ERR_PASSPHRASE", {
        at,
        expected: `one line of 1 to ${MAX_PASSPHRASE} bytes`,
        found: problem,
      })
    return line.slice()
  } finally {
    wipe(bytes)
  }
}

function problemOf(line: Uint8Array): string | null {
  if (line.length === 0) return "nothing"
  if (line.includes(0x0a) || line.includes(0x0d)) return "more than one line"
  if (line.includes(0)) return "a zero byte"
  return line.length > MAX_PASSPHRASE ? "more" : null
}
