import { describe, expect, test } from "bun:test"
import { memoryFile } from "./memory-file.ts"
import { hasProgram, inherited, mustRun, runProgram } from "./run-program.ts"

describe("programs", () => {
  test("get a fixed environment and the descriptors that are named, nothing else", async () => {
    process.env["FSTOOL_TEST_SECRET"] = "x"
    const file = await memoryFile(Buffer.from("in memory"), { name: "test", sealed: false })
    try {
      const result = await runProgram("sh", ["-c", `env; cat ${inherited(0)}; ls /proc/self/fd`], {
        descriptors: [file.fd],
      })
      const lines = Buffer.from(result.stdout).toString().trim().split("\n")
      expect(lines.filter((line) => line.includes("="))).toEqual(
        expect.arrayContaining(["LC_ALL=C", expect.stringMatching(/^PATH=\/usr\/local\/sbin:/)]),
      )
      expect(lines.join("\n")).not.toContain("FSTOOL_TEST_SECRET")
      expect(lines.join("\n")).toContain("in memory")
      // 4 is ls's own.
      expect(lines.slice(-5).map((line) => line.replace("in memory", ""))).toEqual(["0", "1", "2", "3", "4"])
    } finally {
      delete process.env["FSTOOL_TEST_SECRET"]
      file.close()
    }
  })

  test("read what they are given on standard input", async () => {
    expect(Buffer.from(await mustRun("cat", [], { stdin: Buffer.from("in") })).toString()).toBe("in")
  })

  test("that fail are named with what they said", async () => {
    const failure = await mustRun("sh", ["-c", "echo no >&2; exit 3"]).catch((error) => error)
    expect(failure).toMatchObject({ code: "ERR_PROGRAM_FAILED", found: "exit code 3: no" })
  })

  test("that are not installed are named with their package", async () => {
    expect(hasProgram("sh")).toBe(true)
    expect(hasProgram("no-such-program")).toBe(false)
    await expect(runProgram("no-such-program", [])).rejects.toMatchObject({ code: "ERR_PROGRAM_MISSING" })
  })
})
