/** What fstool's command line says, and what is refused before anything is touched. */
import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { codeOf } from "../../test/fakes/simulated.ts"
import { UsageError } from "../errors.ts"
import { parseCommandLine } from "./command-line.ts"
import { fstoolCommand } from "./fstool.ts"

const dir = mkdtempSync(join(tmpdir(), "fstool-cli-"))
const file = (name: string, content: string) => {
  writeFileSync(join(dir, name), content)
  return join(dir, name)
}
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** Runs a command line as the tool itself is run. None of these gets as far as making anything. */
async function fstool(...argv: string[]): Promise<string> {
  const asked = await parseCommandLine(fstoolCommand, "cosmian_fstool", argv)
  return codeOf(
    Promise.resolve(
      asked.command.run?.({ args: asked.args, rawArgs: [...asked.rawArgs], cmd: asked.command }),
    ).then((exit) => {
      if (exit !== 0) throw new UsageError("ERR_INTERNAL", { found: `exit code ${exit}` })
    }),
  )
}

const common = ["--quiet", "--tpm", "none", "--volumes", join(dir, "none.toml")]

describe.skipIf(process.getuid?.() !== 0)("refused before anything is made", () => {
  const create = (...argv: string[]) => fstool("--location", join(dir, "vault"), ...common, ...argv)

  test("a size that is none, or none at all", async () => {
    expect(await create("--size", "many")).toBe("ERR_BAD_VALUE")
    expect(await create()).toBe("ERR_MISSING_ARGUMENT")
    expect(await create("--size", "1GB", "--container", "/dev/null")).toBe("ERR_MISSING_ARGUMENT")
  })

  test("a relative location, a name that is an option", async () => {
    expect(await fstool("--size", "1GB", "--location", "vault", ...common)).toBe("ERR_BAD_VALUE")
    expect(await create("--size", "1GB", "--name=--force")).toBe("ERR_BAD_VALUE")
  })

  test("two passwords, an empty one, one of several lines, one that is not there", async () => {
    const password = file("password", "x\n")
    expect(await create("--size", "1GB", "--password", "a", "--password-file", password)).toBe(
      "ERR_BAD_VALUE",
    )
    expect(await create("--size", "1GB", "--password", "a\nb")).toBe("ERR_PASSPHRASE")
    expect(await create("--size", "1GB", "--password-file", file("empty", "\n"))).toBe("ERR_PASSPHRASE")
    expect(await create("--size", "1GB", "--password-file", join(dir, "absent"))).toBe("ERR_PASSPHRASE")
    expect(await create("--size", "1GB", "--password-fd", "three")).toBe("ERR_BAD_VALUE")
  })

  test.skipIf(process.stderr.isTTY === true)("a generated password that nobody would see", async () => {
    expect(await create("--size", "1GB", "--generate-password")).toBe("ERR_PASSPHRASE")
    expect(await fstool("recovery-key", ...common)).toBe("ERR_PASSPHRASE")
  })

  test("conditions for a TPM that is not there", async () => {
    const password = file("password", "x\n")
    expect(await create("--size", "1GB", "--password-file", password, "--pcrs", "7")).toBe("ERR_NO_TPM")
    expect(await create("--size", "1GB", "--pcrs", "24")).toBe("ERR_BAD_VALUE")
    expect(await fstool("status", "--tpm", "whatever")).toBe("ERR_BAD_VALUE")
  })

  test("a volume that nobody knows", async () => {
    expect(await fstool("mount", ...common)).toBe("ERR_VOLUME_UNKNOWN")
    const volumes = file(
      "volumes.toml",
      `[[volume]]\nlocation = "/srv/one"\n[[volume]]\nlocation = "/srv/two"\n`,
    )
    const among = ["--quiet", "--tpm", "none", "--volumes", volumes]
    expect(await fstool("close", "three", ...among)).toBe("ERR_VOLUME_UNKNOWN")
    expect(await fstool("close", ...among)).toBe("ERR_VOLUME_UNKNOWN")
    expect(await fstool("mount", "one", "--all", ...among)).toBe("ERR_UNEXPECTED_ARGUMENT")
  })

  test("a list of volumes that is not understood", async () => {
    const volumes = file("volumes.toml", "[[volume]]\n")
    expect(await fstool("status", "--quiet", "--tpm", "none", "--volumes", volumes)).toBe("ERR_CONFIG")
  })

  test("and nothing was made", () => {
    expect(readdirSync(dir).filter((name) => name === "vault")).toEqual([])
  })
})

test("the bare form of Cosmian VM 1.3 is create", async () => {
  const asked = await parseCommandLine(fstoolCommand, "cosmian_fstool", [
    "--size",
    "100GB",
    "--password",
    "-",
  ])
  expect(asked.command).toBe(fstoolCommand)
  expect(asked.args).toMatchObject({ size: "100GB", location: "/var/lib/cosmian_vm", password: "-" })
})
