import { describe, expect, test } from "bun:test"
import { EventEmitter } from "node:events"
import { openSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { askHidden, type KeySource } from "./hidden-prompt.ts"
import { encodePassphrase, readPassphrase, wipe } from "./passphrase.ts"

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8")

describe("a passphrase from a file or descriptor", () => {
  const read = (content: string | Uint8Array) =>
    withDirectory(async (dir) => {
      const path = join(dir, "passphrase")
      writeFileSync(path, content)
      const file = await codeOrText(readPassphrase({ from: "file", path }))
      const descriptor = await codeOrText(readPassphrase({ from: "descriptor", fd: openSync(path, "r") }))
      expect(descriptor).toBe(file)
      return file
    })

  test("is one line without its end", async () => {
    expect(await read("secret")).toBe("secret")
    expect(await read("secret\n")).toBe("secret")
    expect(await read("secret\r\n")).toBe("secret")
    expect(await read(" two words \n")).toBe(" two words ")
    expect(await read("pässwörd ☂\n")).toBe("pässwörd ☂")
    expect(await read("x".repeat(512))).toBe("x".repeat(512))
  })

  test("is refused where it is empty, too long or not one line", async () => {
    for (const content of ["", "\n", "a\nb", "a\n\n", "a\rb", "a\0b", "x".repeat(513), "x".repeat(5000)])
      expect(await read(content)).toBe("ERR_PASSPHRASE")
  })

  test("is refused where there is none", async () => {
    expect(await codeOf(readPassphrase({ from: "file", path: "/nonexistent/passphrase" }))).toBe(
      "ERR_PASSPHRASE",
    )
    expect(await codeOf(readPassphrase({ from: "descriptor", fd: 999 }))).toBe("ERR_PASSPHRASE")
  })
})

/** A terminal on which these keys are pressed once it is listened to; writes down what it is told. */
class Keyboard extends EventEmitter implements KeySource {
  readonly isTTY = true
  readonly #keys: readonly (Uint8Array | null)[]
  readonly #seen: string[]

  constructor(keys: readonly (Uint8Array | null)[], seen: string[]) {
    super()
    this.#keys = keys
    this.#seen = seen
  }

  setRawMode(raw: boolean): void {
    this.#seen.push(`raw ${raw}`)
  }

  resume(): void {
    for (const key of this.#keys)
      if (key === null) this.emit("end")
      else this.emit("data", key)
  }

  pause(): void {
    this.#seen.push("pause")
  }
}

describe("a passphrase that is typed", () => {
  /** A terminal on which these keys are pressed; says what was switched and shown. */
  async function typing(...keys: (string | null)[]) {
    const seen: string[] = []
    const terminal = new Keyboard(
      keys.map((key) => (key === null ? null : new Uint8Array(Buffer.from(key)))),
      seen,
    )
    const answer = await codeOrText(askHidden("Passphrase: ", terminal, (shown) => seen.push(shown)))
    return { answer, seen }
  }

  test("is not shown, and the terminal is put back", async () => {
    const { answer, seen } = await typing("sec", "ret\r")
    expect(answer).toBe("secret")
    expect(seen).toEqual(["Passphrase: ", "raw true", "pause", "raw false", "\n"])
  })

  test("is edited by character, not by byte", async () => {
    expect((await typing("aé\x7fb\x08c\n")).answer).toBe("ac")
    expect((await typing("\x7fwrong\x15right\n")).answer).toBe("right")
  })

  test("ends with Ctrl-C, and the terminal is put back", async () => {
    const { answer, seen } = await typing("sec\x03ret\n")
    expect(answer).toBe("ERR_INTERRUPTED")
    expect(seen.at(-2)).toBe("raw false")
    expect((await typing("\x04")).answer).toBe("ERR_INTERRUPTED")
    // The terminal goes away: null.
    expect((await typing("sec", null)).answer).toBe("ERR_INTERRUPTED")
  })

  test("wipes what the terminal handed over", async () => {
    const handed = new Uint8Array(Buffer.from("secret\n"))
    await askHidden("", new Keyboard([handed], []), () => {})
    expect(handed.every((byte) => byte === 0)).toBeTrue()
  })

  test("needs a terminal", async () => {
    const piped = Bun.spawnSync(
      [
        process.execPath,
        "-e",
        `const { readPassphrase } = await import("${import.meta.dir}/passphrase.ts")
       try { await readPassphrase({ from: "terminal", prompt: "", confirm: false }) } catch (e) { console.log(e.code) }`,
      ],
      { stdin: Buffer.from("secret\n") },
    )
    expect(`${piped.stdout}`.trim()).toBe("ERR_PASSPHRASE")
  })
})

describe("a generated passphrase", () => {
  test("has all 256 bits, in groups that can be written down", () => {
    const random = new Uint8Array(32).fill(0xff)
    const passphrase = text(encodePassphrase(random))
    expect(passphrase).toMatch(/^(7777-){12}777Q$/)
    expect(random.every((byte) => byte === 0)).toBeTrue()
    expect(text(encodePassphrase(Uint8Array.from(Buffer.from("foobar"))))).toBe("MZXW-6YTB-OI")
  })
})

test("wiping overwrites", () => {
  const secret = Uint8Array.of(1, 2, 3)
  wipe(secret, null)
  expect([...secret]).toEqual([0, 0, 0])
})

async function codeOrText(passphrase: Promise<Uint8Array>): Promise<string> {
  try {
    return text(await passphrase)
  } catch (error) {
    return error instanceof Error && "code" in error ? `${error.code}` : `${error}`
  }
}
