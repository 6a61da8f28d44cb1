import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { PathPattern } from "./path-pattern.ts"

const bytes = (text: string) => new TextEncoder().encode(text)
const matches = (pattern: string, path: string) => new PathPattern(bytes(pattern)).matches(bytes(path))

describe("patterns of paths", () => {
  test.each([
    ["/usr/bin/a", "/usr/bin/a", true],
    ["/usr/bin/a", "/usr/bin/ab", false],
    ["/usr/bin/a", "/usr/bin/", false],
    ["/opt/*/run", "/opt/app/run", true],
    ["/opt/*/run", "/opt/a/b/run", false],
    ["/opt/**/run", "/opt/a/b/run", true],
    ["/opt/**", "/opt/a/b/c", true],
    ["/opt/**", "/opt", false],
    ["/opt/**", "/other/a", false],
    ["/opt/v?/run", "/opt/v2/run", true],
    ["/opt/v?run", "/opt/v/run", false],
    ["/opt/*.so", "/opt/.so", true],
    ["/opt/*.so.*", "/opt/libx.so.1.2", true],
    ["/opt/\\*", "/opt/*", true],
    ["/opt/\\*", "/opt/x", false],
    ["/opt/my app/*", "/opt/my_app/x", true],
    ["/opt/***", "/opt/a/b", true],
  ])("%s with %s: %p", (pattern, path, expected) => {
    expect(matches(pattern, path)).toBe(expected)
  })

  test("agree with a regular expression that says the same", () => {
    const letter = fc.constantFrom("/", "a", "b", "*", "?", "**")
    fc.assert(
      fc.property(
        fc.array(letter, { maxLength: 8 }),
        fc.string({ unit: fc.constantFrom("/", "a", "b"), maxLength: 10 }),
        (parts, path) => {
          const pattern = `/${parts.join("")}`
          const source = pattern.replaceAll(
            /\*\*|\*|\?/g,
            (wild) => ({ "**": ".*", "*": "[^/]*" })[wild] ?? "[^/]",
          )
          expect(matches(pattern, `/${path}`)).toBe(new RegExp(`^${source}$`, "s").test(`/${path}`))
        },
      ),
      { numRuns: 5000 },
    )
  })

  test("take no time to speak of for what would keep others busy", () => {
    const started = performance.now()
    expect(matches(`/${"*a".repeat(200)}b`, `/${"a".repeat(4000)}`)).toBe(false)
    expect(performance.now() - started).toBeLessThan(2000)
  })
})
