import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** Runs with a directory of its own, which is gone afterwards. */
export async function withDirectory<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-test-"))
  try {
    return await use(dir)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** The code of the error that a promise is rejected with, or what else became of it. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "no error",
    (error: unknown) =>
      error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : `${error}`,
  )
}
