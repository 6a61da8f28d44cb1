import { expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe } from "./command.ts"
import { completionScript } from "./completion.ts"
import { manPages } from "./man.ts"
import { rootCommand } from "./root.ts"

const root = await describe(rootCommand, ["cosmian_vm"])

/** What bash offers when the cursor is at the end of the last word. */
function offered(words: readonly string[]): string[] {
  const dir = mkdtempSync(join(tmpdir(), "completion-"))
  try {
    const script = join(dir, "script.bash")
    writeFileSync(
      script,
      `${completionScript("bash", root)}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_cosmian_vm 2>/dev/null
printf '%s\\n' "\${COMPREPLY[@]}"
`,
    )
    const { stdout, exitCode } = Bun.spawnSync(["bash", script, ...words])
    expect(exitCode).toBe(0)
    return stdout.toString().trim().split("\n")
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

test("bash completes commands, options and the values of options", () => {
  expect(offered(["cosmian_vm", "ver"])).toEqual(["verify"])
  expect(offered(["cosmian_vm", "cli", "app", "in"])).toEqual(["init"])
  expect(offered(["cosmian_vm", "--url", "https://x", "verify", "--app"])).toEqual(["--application"])
  expect(offered(["cosmian_vm", "verify", "--skip", "t"])).toEqual(["tee", "tcb", "tpm"])
  expect(offered(["cosmian_vm", "completion", "z"])).toEqual(["zsh"])
})

test("the scripts of all shells name every command", () => {
  for (const shell of ["bash", "zsh", "fish"] as const) {
    const script = completionScript(shell, root)
    for (const name of ["snapshot", "verify", "restart", "agent", "completion"])
      expect(script).toContain(name)
  }
})

test("every command has a manual page, and every option is in it", () => {
  const pages = manPages(root)
  expect([...pages.keys()]).toContain("cosmian_vm-app-init.1")
  const verify = pages.get("cosmian_vm-verify.1") ?? ""
  for (const option of ["\\-\\-allow\\-insecure\\-tls", "\\-\\-skip", "\\-\\-help"])
    expect(verify).toContain(option)
})

test("every command says what it does, and every option what it is for", () => {
  const check = (command: typeof root): void => {
    expect(command.summary).not.toBe("")
    for (const option of [...command.options, ...command.positionals]) expect(option.description).not.toBe("")
    if (command.children.length === 0) expect(command.examples.length).toBeGreaterThan(0)
    command.children.forEach(check)
  }
  check(root)
})
