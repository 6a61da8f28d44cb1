import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { violations } from "./architecture.ts"

const ROOT = join(import.meta.dir, "..")

function sources() {
  const paths = [...new Bun.Glob("src/**/*.ts").scanSync(ROOT)].filter((path) => !path.endsWith(".test.ts"))
  return paths.map((path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }))
}

describe("module map", () => {
  test("imports go from commands towards errors, and pure layers are pure", () => {
    expect(violations(sources())).toEqual([])
  })

  const BROKEN: ReadonlyArray<readonly [string, string]> = [
    ["src/formats/a.ts", 'import { b } from "../verify/b.ts"'],
    ["src/verify/a.ts", 'import type { B } from "../policy/b.ts"'],
    ["src/policy/a.ts", 'export * from "../agent/b.ts"'],
    ["src/agent/a.ts", 'const b = await import("../client/b.ts")'],
    ["src/client/a.ts", 'import { b } from "../commands/b.ts"'],
    ["src/commands/a.ts", 'import { main } from "../main.ts"'],
    ["src/commands/a.ts", 'import { run } from "../../test/executable.ts"'],
    ["src/native/a.ts", 'import { b } from "../verify/b.ts"'],
    ["src/agent/a.ts", 'import { openTpm } from "../native/tpm.ts"'],
    ["src/agent/a.ts", 'import { Tpm } from "../native/ports.ts"'],
    ["src/errors.ts", 'import { b } from "./formats/b.ts"'],
    ["src/verify/a.ts", 'import { runToEnd } from "../programs.ts"'],
    ["src/programs.ts", 'import { b } from "./agent/b.ts"'],
    ["src/formats/a.ts", 'import { readFileSync } from "node:fs"'],
    ["src/verify/a.ts", 'import {\n  connect,\n} from "node:tls"'],
    ["src/policy/a.ts", 'import "bun:ffi"'],
    ["src/policy/a.ts", "const at = new Date()"],
    ["src/verify/a.ts", "const nonce = randomBytes(32)"],
    ["src/formats/a.ts", 'const home = process.env["HOME"]'],
  ]
  for (const [path, text] of BROKEN)
    test(`${path} with ${JSON.stringify(text)} is refused`, () => {
      expect(violations([{ path, text }])).toHaveLength(1)
    })

  const ALLOWED: ReadonlyArray<readonly [string, string]> = [
    [
      "src/policy/a.ts",
      'import { hash } from "node:crypto"\nconst at = new Date(text)\nBun.SHA256.hash(a, b)',
    ],
    [
      "src/agent/a.ts",
      'import type { Tpm } from "../native/ports.ts"\nimport { readFileSync } from "node:fs"',
    ],
    ["src/native/a.ts", 'import { runToEnd } from "../programs.ts"'],
    ["src/agent/a.ts", 'import { runToEnd } from "../programs.ts"'],
    [
      "src/commands/a.ts",
      'import { openTpm } from "../native/tpm.ts"\nimport { judge } from "../policy/b.ts"',
    ],
    [
      "src/formats/a.ts",
      "/** Not the clock: new Date() is an argument. */\nexport const a = 1 // not process.env",
    ],
  ]
  for (const [path, text] of ALLOWED)
    test(`${path} with ${JSON.stringify(text)} is accepted`, () => {
      expect(violations([{ path, text }])).toEqual([])
    })
})
