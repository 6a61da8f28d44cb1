import { expect, test } from "bun:test"
import { defineCommand } from "citty"
import { CodedError, type ErrorCode } from "../errors.ts"
import { listOf, meta, repeatable } from "./command.ts"
import { parseCommandLine } from "./command-line.ts"

const shared = {
  url: { type: "string", default: "https://here" },
  json: { type: "boolean" },
} as const

const root = defineCommand({
  meta: meta({ name: "tool", description: "a tool" }),
  args: shared,
  subCommands: {
    verify: defineCommand({
      args: {
        ...shared,
        snapshot: { type: "string", alias: "s", required: true },
        application: repeatable({ type: "string", alias: "a" }),
        skip: repeatable({ type: "enum", options: ["tee", "boot"] }),
        "allow-insecure-tls": { type: "boolean" },
        quiet: { type: "boolean", alias: "q" },
        verbose: { type: "boolean", alias: "v" },
      },
    }),
    serve: async () => defineCommand({ args: { config: { type: "string", alias: ["c", "conf"] } } }),
    exec: defineCommand({
      args: {
        dir: { type: "positional", required: true },
        path: repeatable({ type: "positional", required: true }),
      },
    }),
  },
})

async function args(...argv: string[]) {
  return (await parseCommandLine(root, "tool", argv)).args
}

async function errorOf(...argv: string[]): Promise<CodedError> {
  try {
    await args(...argv)
  } catch (error) {
    if (error instanceof CodedError) return error
    throw error
  }
  throw new Error("nothing was thrown")
}

test("an option may stand before and after the subcommand", async () => {
  for (const argv of [
    ["--url", "u", "verify", "-s", "f"],
    ["verify", "--url", "u", "-s", "f"],
    ["verify", "-s", "f", "--url=u"],
  ]) {
    const { url, snapshot } = await args(...argv)
    expect([url, snapshot]).toEqual(["u", "f"])
  }
})

test("the value of an option before the subcommand is not taken for the subcommand", async () => {
  const asked = await parseCommandLine(root, "tool", ["--url", "verify", "verify", "-s", "verify"])
  expect(asked.path).toEqual(["tool", "verify"])
  expect(asked.args["url"]).toBe("verify")
})

test("values: with a space, with =, right behind a letter; empty and dash are values", async () => {
  for (const argv of [["-s", "f"], ["-sf"], ["-s=f"], ["--snapshot", "f"], ["--snapshot=f"]])
    expect((await args("verify", ...argv))["snapshot"]).toBe("f")
  expect((await args("verify", "-s", "-"))["snapshot"]).toBe("-")
  expect((await args("verify", "--snapshot="))["snapshot"]).toBe("")
  expect((await args("verify", "--snapshot=--x"))["snapshot"]).toBe("--x")
})

test("one-letter switches can be bundled, a value last", async () => {
  const values = await args("verify", "-qvsf")
  expect([values["quiet"], values["verbose"], values["snapshot"]]).toEqual([true, true, "f"])
})

test("repeatable options keep every value, others get their default", async () => {
  const values = await args(
    "verify",
    "-s",
    "f",
    "-a",
    "x",
    "--application=y",
    "--skip",
    "tee",
    "--skip",
    "boot",
  )
  expect(listOf(values["application"])).toEqual(["x", "y"])
  expect(listOf(values["skip"])).toEqual(["tee", "boot"])
  expect(values["url"]).toBe("https://here")
  expect(listOf((await args("verify", "-s", "f"))["application"])).toEqual([])
})

test("longer aliases have two dashes", async () => {
  expect((await args("serve", "--conf", "x"))["config"]).toBe("x")
  expect((await args("serve", "-c", "x"))["config"]).toBe("x")
})

test("positionals, and everything after --, are positionals", async () => {
  const values = await args("exec", "d", "--", "--a", "b")
  expect(values["dir"]).toBe("d")
  expect(listOf(values["path"])).toEqual(["--a", "b"])
})

test("an option with a dash is found under its camelCase name too", async () => {
  const values = await args("verify", "-s", "f", "--allow-insecure-tls")
  expect(values["allow-insecure-tls"]).toBe(true)
  expect(values["allowInsecureTls"]).toBe(true)
})

test("help and version are asked for, not run", async () => {
  const kind = async (...argv: string[]) => (await parseCommandLine(root, "tool", argv)).kind
  expect(await kind("--help")).toBe("help")
  expect(await kind("verify", "-h")).toBe("help")
  expect(await kind("help", "verify")).toBe("help")
  expect(await kind("-V")).toBe("version")
  expect((await errorOf("verify", "-V")).code).toBe("ERR_UNKNOWN_OPTION")
})

const FAULTS: [ErrorCode, string, string | null, string[]][] = [
  ["ERR_UNKNOWN_COMMAND", "verfy", "tool verify", ["verfy"]],
  ["ERR_UNKNOWN_COMMAND", "constructor", null, ["constructor"]],
  ["ERR_MISSING_COMMAND", "tool", null, []],
  ["ERR_MISSING_COMMAND", "tool", null, ["--json"]],
  ["ERR_UNKNOWN_OPTION", "--snapsot", "--snapshot", ["verify", "--snapsot", "f"]],
  ["ERR_UNKNOWN_OPTION", "--allow-insecure", "--allow-insecure-tls", ["verify", "--allow-insecure"]],
  ["ERR_UNKNOWN_OPTION", "--url", null, ["--url", "u", "serve"]],
  ["ERR_UNKNOWN_OPTION", "-x", null, ["verify", "-x"]],
  ["ERR_UNKNOWN_OPTION", "--__proto__", null, ["verify", "--__proto__=x"]],
  ["ERR_OPTION_REPEATED", "--snapshot", null, ["verify", "-s", "f", "--snapshot", "g"]],
  ["ERR_OPTION_REPEATED", "--url", null, ["--url", "a", "verify", "--url", "b", "-s", "f"]],
  ["ERR_MISSING_VALUE", "--snapshot", null, ["verify", "--snapshot"]],
  ["ERR_MISSING_VALUE", "-s", null, ["verify", "-s", "--json"]],
  ["ERR_MISSING_ARGUMENT", "tool verify", null, ["verify"]],
  ["ERR_MISSING_ARGUMENT", "tool exec", null, ["exec", "d"]],
  ["ERR_UNEXPECTED_ARGUMENT", "more", null, ["verify", "-s", "f", "more"]],
  ["ERR_BAD_VALUE", "--json", null, ["verify", "--json=yes", "-s", "f"]],
  ["ERR_BAD_VALUE", "--skip", "boot", ["verify", "-s", "f", "--skip", "bot"]],
]
for (const [code, place, hint, argv] of FAULTS)
  test(`"tool ${argv.join(" ")}" is ${code} at ${place}`, async () => {
    const error = await errorOf(...argv)
    expect([error.code, error.at, error.exitCode]).toEqual([code, place, 2])
    if (hint !== null) expect(error.hint).toContain(hint)
  })

test("underscores in a long option's name are hyphens", async () => {
  expect(await args("verify", "-s", "f", "--allow_insecure_tls")).toMatchObject({
    "allow-insecure-tls": true,
  })
  expect((await errorOf("verify", "-s", "f", "--allow_insecure_tsl")).code).toBe("ERR_UNKNOWN_OPTION")
})

test("a command with subcommands may run by itself; a word after it always names a subcommand", async () => {
  const both = defineCommand({
    args: { output: { type: "string", alias: "o", default: "out" }, quiet: { type: "boolean" } },
    subCommands: { show: defineCommand({ args: { file: { type: "positional" } } }) },
    run: () => 0,
  })
  const parse = (...argv: string[]) => parseCommandLine(both, "tool", argv)
  expect(await parse("-o", "x")).toMatchObject({ kind: "run", path: ["tool"], args: { output: "x" } })
  expect(await parse("show", "f")).toMatchObject({ path: ["tool", "show"], args: { file: "f" } })
  expect((await parse("--help")).kind).toBe("help")
  for (const [argv, code] of [
    [["shw", "f"], "ERR_UNKNOWN_COMMAND"],
    [["--quiet", "show", "f"], "ERR_UNKNOWN_OPTION"],
    [["show"], "ERR_MISSING_ARGUMENT"],
  ] as const)
    expect(
      await parse(...argv).catch((error: unknown) => (error instanceof CodedError ? error.code : error)),
    ).toBe(code)
})
