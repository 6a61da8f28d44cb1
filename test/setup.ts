import { expect } from "bun:test"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { CodedError } from "../src/errors.ts"

/** Third-party vectors, kept beside the checkout and never in it. */
export const VECTORS =
  process.env["COSMIAN_VM_VECTORS"] ?? join(import.meta.dir, "..", "..", "shared", "vectors")
/** Tests that need the vectors are skipped by name where they are absent. */
export const HAVE_VECTORS = existsSync(join(VECTORS, "INDEX.json"))

declare module "bun:test" {
  interface Matchers<T> {
    toThrowCode(code: string): T
  }
}

expect.extend({
  /** The function throws a coded error with this very code. */
  toThrowCode(received: unknown, code: unknown) {
    if (typeof received !== "function") return { pass: false, message: () => "toThrowCode needs a function" }
    try {
      received()
    } catch (error) {
      const found = error instanceof CodedError ? error.code : `${error}`
      return { pass: found === code, message: () => `expected code ${code}, found ${found}` }
    }
    return { pass: false, message: () => `expected code ${code}, but nothing was thrown` }
  },
})
