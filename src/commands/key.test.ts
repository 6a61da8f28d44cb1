/** `certtool key` on a simulated TEE. */
import { expect, test } from "bun:test"
import { createPrivateKey } from "node:crypto"
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { parseCommandLine } from "./command-line.ts"
import { rootCommand } from "./root.ts"

async function key(dir: string, output: string, ...options: string[]): Promise<unknown> {
  const line = ["certtool", "key", "--simulate", join(dir, "vm"), "-o", join(dir, output), "-q", ...options]
  const { command, args, rawArgs } = await parseCommandLine(rootCommand, "cosmian_vm", line)
  return command.run?.({ args, rawArgs: [...rawArgs], cmd: command })
}

const secretIn = (dir: string, output: string) =>
  readFileSync(join(dir, output, "x25519_sk.bin")).toString("hex")

test("four files of one key, the private ones for their owner alone", () =>
  withDirectory(async (dir) => {
    expect(await key(dir, "out")).toBe(0)
    const mode = (name: string) => statSync(join(dir, "out", name)).mode & 0o777
    expect([mode("x25519_sk.pem"), mode("x25519_sk.bin")]).toEqual([0o600, 0o600])
    const pem = createPrivateKey(readFileSync(join(dir, "out", "x25519_sk.pem"), "utf8"))
    const { d = "", x = "" } = pem.export({ format: "jwk" })
    expect(Buffer.from(d, "base64url").toString("hex")).toBe(secretIn(dir, "out"))
    expect(Buffer.from(x, "base64url")).toEqual(readFileSync(join(dir, "out", "x25519_pk.bin")))
  }))

test("the same again; another measurement, salt, purpose or binding gives another key", () =>
  withDirectory(async (dir) => {
    const keys: string[] = []
    for (const options of [
      [],
      ["--salt", "0011"],
      ["--purpose", "backup"],
      ["--bind", "policy,measurement"],
    ]) {
      await key(dir, "out", ...options)
      keys.push(secretIn(dir, "out"))
    }
    await key(dir, "again")
    expect(secretIn(dir, "again")).toBe(keys[0] ?? "")
    writeFileSync(join(dir, "vm", "launch"), "another kernel")
    await key(dir, "out")
    keys.push(secretIn(dir, "out"))
    expect(new Set(keys).size).toBe(5)
  }))

test("bindings that do not exist, salts that are no hex and labels with a zero byte are refused", () =>
  withDirectory(async (dir) => {
    for (const options of [
      ["--bind", "measurment"],
      ["--bind", ""],
      ["--bind", "measurement,measurement"],
      ["--salt", "xyz"],
      ["--salt", "00".repeat(65)],
      ["--purpose", "a\0b"],
    ])
      expect(await codeOf(key(dir, "out", ...options))).toBe("ERR_BAD_VALUE")
    expect(existsSync(join(dir, "out"))).toBe(false)
  }))

test.skipIf(existsSync("/dev/sev-guest"))(
  "on a machine without the device it says so, and leaves no file behind",
  () =>
    withDirectory(async (dir) => {
      const line = ["certtool", "key", "-o", dir]
      const { command, args, rawArgs } = await parseCommandLine(rootCommand, "cosmian_vm", line)
      const running = Promise.resolve(command.run?.({ args, rawArgs: [...rawArgs], cmd: command }))
      expect(await codeOf(running)).toBe("ERR_NO_TEE")
      expect(existsSync(join(dir, "x25519_sk.bin"))).toBe(false)
    }),
)
