import { expect, test } from "bun:test"
import { CATALOGUE } from "../src/errors.ts"

const SOURCES = [...new Bun.Glob("{src,test}/**/*.ts").scanSync({ cwd: `${import.meta.dir}/..` })]
const read = (path: string) => Bun.file(`${import.meta.dir}/../${path}`).text()

test("every error code is thrown by the product and produced by a test", async () => {
  const product = (await Promise.all(SOURCES.filter(isProduct).map(read))).join("\n")
  const tests = (await Promise.all(SOURCES.filter((path) => !isProduct(path)).map(read))).join("\n")
  const mentioned = (text: string, code: string) => new RegExp(`\\b${code}\\b`).test(text)
  const codes = Object.keys(CATALOGUE)
  expect(codes.filter((code) => !mentioned(product, code))).toEqual([])
  expect(codes.filter((code) => !mentioned(tests, code))).toEqual([])
})

/** The catalogue itself does not count as a use. */
function isProduct(path: string): boolean {
  return path.startsWith("src/") && !path.endsWith(".test.ts") && path !== "src/errors.ts"
}
