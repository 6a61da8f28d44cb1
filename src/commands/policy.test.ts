import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { attested, fakeChip, fakeReport } from "../../test/fakes/snp.ts"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { appraiseByPolicy } from "../policy/appraise-by-policy.ts"
import { readPolicy } from "../policy/read-policy.ts"
import { parseCommandLine } from "./command-line.ts"
import { measureLaunch } from "./measure-launch.ts"
import { checkPolicy, convertPolicy, policyFromReport } from "./policy-actions.ts"
import { rootCommand } from "./root.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

const DIR = mkdtempSync(join(tmpdir(), "policy-test-"))
afterAll(() => rmSync(DIR, { recursive: true }))
const AT = new Date("2026-01-01T00:00:00Z")

function recorder(): Terminal & { readonly said: string[]; readonly talked: string[] } {
  const [said, talked]: [string[], string[]] = [[], []]
  return {
    said,
    talked,
    out: (text) => void said.push(text),
    talk: (text) => void talked.push(text),
    outStyle: PLAIN,
    talkStyle: PLAIN,
    live: false,
    columns: 80,
    outColumns: 80,
  }
}

async function codeOf(run: Promise<unknown>): Promise<string> {
  try {
    await run
  } catch (error) {
    if (error instanceof CodedError) return error.code
    throw error
  }
  return "nothing was thrown"
}

function file(name: string, content: Uint8Array | string): string {
  const path = join(DIR, name)
  writeFileSync(path, content)
  return path
}

describe("policy from-report", () => {
  test("writes a policy that the report fits, and that converts to Cocos' form and back", async () => {
    const chip = await fakeChip()
    const report = file("report.bin", fakeReport(chip))
    const [toml, json] = [join(DIR, "own.toml"), join(DIR, "own.json")]
    const terminal = recorder()
    expect(await policyFromReport({ file: report, product: null, output: toml }, terminal)).toBe(0)
    expect(await convertPolicy({ file: toml, to: "cocos", output: json }, terminal)).toBe(0)
    expect(terminal.said).toEqual([])
    for (const path of [toml, json]) {
      const { policy } = readPolicy(Uint8Array.from(readFileSync(path)), path)
      const { tee, tcb } = appraiseByPolicy(attested(chip), policy, AT)
      expect([tee.status, tcb.status]).toEqual(["passed", "passed"])
    }
  })

  test("a report of version 2 needs the processor family, from the user or its certificates", async () => {
    const chip = await fakeChip()
    const report = fakeReport(chip, { version: 2, cpuid: null })
    const path = file("v2.bin", report)
    const from = (product: "Milan" | null) =>
      policyFromReport({ file: path, product, output: null }, recorder())
    expect(await codeOf(from(null))).toBe("ERR_MISSING_ARGUMENT")
    expect(await from("Milan")).toBe(0)
  })

  test("a family other than the report's is refused", async () => {
    const path = file("milan.bin", fakeReport(await fakeChip()))
    const run = policyFromReport({ file: path, product: "Genoa", output: null }, recorder())
    expect(await codeOf(run)).toBe("ERR_BAD_VALUE")
  })

  test.skipIf(!HAVE_VECTORS)("a TDX quote gives a policy for TDX", async () => {
    const terminal = recorder()
    const quote = join(VECTORS, "tdx/v4-phala-uptodate/quote.bin")
    await policyFromReport({ file: quote, product: null, output: null }, terminal)
    const { policy } = readPolicy(new TextEncoder().encode(terminal.said.join("")), "p.toml")
    expect([policy.snp, policy.tdx?.mrTds?.length]).toEqual([null, 1])
  })

  test("something else is refused", async () => {
    const path = file("zeros.bin", new Uint8Array(1184))
    expect(await codeOf(policyFromReport({ file: path, product: null, output: null }, recorder()))).toBe(
      "ERR_UNSUPPORTED",
    )
  })
})

describe("policy check", () => {
  test("says what is fixed, for people and for programs", async () => {
    const path = file("check.toml", '[snp]\nproducts = ["Milan"]\n')
    const [text, json] = [recorder(), recorder()]
    expect(await checkPolicy({ file: path, json: false }, text)).toBe(0)
    expect(text.said.join("")).toContain("products: Milan")
    expect(text.said.join("")).toContain("any software may run")
    await checkPolicy({ file: path, json: true }, json)
    const printed: unknown = JSON.parse(json.said.join(""))
    expect(printed).toMatchObject({ policy: path, format: "toml", parts: [{ about: "SEV-SNP" }, {}] })
  })

  test("an error names the file with its line", async () => {
    const path = file("wrong.toml", "[snp]\nvmpl = 9\n")
    const run = checkPolicy({ file: path, json: false }, recorder())
    expect(await codeOf(run)).toBe("ERR_POLICY")
    expect(
      await checkPolicy({ file: path, json: false }, recorder()).catch((error: CodedError) => error.at),
    ).toBe(`${path}:2: snp.vmpl`)
  })
})

describe.skipIf(!HAVE_VECTORS)("policy measure", () => {
  const options = {
    mode: "snp",
    ovmf: join(VECTORS, "measure/ovmf_AmdSev_suffix.bin"),
    ovmfHash: null,
    kernel: null,
    initrd: null,
    append: null,
    vcpus: "1",
    vcpuType: "EPYC-v4",
    vcpuSignature: null,
    guestFeatures: "0x1",
    vmm: "QEMU",
    json: false,
  } as const
  const EXPECTED =
    "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa"
  const booted = { ...options, kernel: "/dev/null", initrd: "/dev/null", append: "console=ttyS0 loglevel=7" }

  test("prints the measurement, alone or as JSON", async () => {
    const [text, json] = [recorder(), recorder()]
    expect(await measureLaunch(booted, text)).toBe(0)
    expect(text.said.join("")).toBe(`${EXPECTED}\n`)
    await measureLaunch({ ...booted, json: true }, json)
    expect(JSON.parse(json.said.join(""))).toEqual({ measurement: EXPECTED })
  })

  test("the processor model may be given by its signature", async () => {
    const terminal = recorder()
    await measureLaunch({ ...booted, vcpuType: null, vcpuSignature: "0x800f12" }, terminal)
    expect(terminal.said.join("")).toBe(`${EXPECTED}\n`)
  })

  const WRONG: ReadonlyArray<
    readonly [string, Partial<Record<keyof typeof options, string | null>>, string]
  > = [
    ["no model under QEMU", { vcpuType: null }, "ERR_MISSING_ARGUMENT"],
    ["a model that is not known", { vcpuType: "EPYC-v44" }, "ERR_BAD_VALUE"],
    ["model and signature", { vcpuSignature: "1" }, "ERR_BAD_VALUE"],
    ["no processors", { vcpus: "0" }, "ERR_MALFORMED"],
    ["processors in words", { vcpus: "two" }, "ERR_BAD_VALUE"],
    ["too many", { vcpus: "4097" }, "ERR_BAD_VALUE"],
    ["features beyond 64 bits", { guestFeatures: "0x10000000000000000" }, "ERR_BAD_VALUE"],
    ["an initial RAM disk alone", { initrd: "/dev/null" }, "ERR_MISSING_ARGUMENT"],
    ["a command line alone", { append: "x" }, "ERR_MISSING_ARGUMENT"],
    ["a hash that is none", { ovmfHash: "00" }, "ERR_BAD_VALUE"],
    ["a hash for SEV", { ovmfHash: "00".repeat(48), mode: "sev" }, "ERR_BAD_VALUE"],
    ["no such file", { ovmf: "/nonexistent" }, "ERR_IO"],
    [
      "a kernel where the firmware has no place for its hash",
      { ovmf: join(VECTORS, "measure/ovmf_OvmfX64_suffix.bin"), kernel: "/dev/null" },
      "ERR_KERNEL_HASHES",
    ],
  ]
  for (const [name, changes, code] of WRONG)
    test(`${name}: ${code}`, async () => {
      const mode = changes["mode"] === "sev" ? "sev" : "snp"
      const { ovmf = options.ovmf, vcpus = options.vcpus, guestFeatures = options.guestFeatures } = changes
      const text = (value: string | null, fallback: string) => value ?? fallback
      const run = measureLaunch(
        {
          ...options,
          ...changes,
          mode,
          vmm: "QEMU",
          json: false,
          ovmf: text(ovmf, ""),
          vcpus: text(vcpus, ""),
          guestFeatures: text(guestFeatures, ""),
        },
        recorder(),
      )
      expect(await codeOf(run)).toBe(code)
    })

  test("the command line takes its options with underscores too", async () => {
    const argv = [
      "policy",
      "measure",
      "--ovmf",
      "x",
      "--vcpus",
      "2",
      "--vmm_type",
      "ec2",
      "--guest_features",
      "33",
    ]
    const { args } = await parseCommandLine(rootCommand, "cosmian_vm", argv)
    expect(args).toMatchObject({ "vmm-type": "ec2", "guest-features": "33", mode: "snp" })
  })
})
