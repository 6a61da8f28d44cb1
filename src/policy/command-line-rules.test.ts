import { describe, expect, test } from "bun:test"
import { commandLineFaults } from "./command-line-rules.ts"

const required = (text: string, pattern: string) =>
  commandLineFaults(text, { required: [pattern], forbidden: [], initrds: [] }).length === 0
const forbidden = (text: string, pattern: string) =>
  commandLineFaults(text, { required: [], forbidden: [pattern], initrds: [] }).length === 0

describe("a required word", () => {
  test.each([
    ["ro ima_policy=tcb quiet", "ima_policy=tcb", true],
    ["ro ima-policy=tcb", "ima_policy=tcb", true],
    ["ima_policy=tcb\tquiet", "ima_policy=*", true],
    ['"ima_policy=tcb" ro', "ima_policy=tcb", true],
    ['dm="1 ima_policy=tcb" ro', "ima_policy=tcb", false],
    ["xima_policy=tcb", "ima_policy=tcb", false],
    ["ima_policy=tcbx", "ima_policy=tcb", false],
    ["ima_policy=tcb ima_policy=critical_data", "ima_policy=tcb", false],
    ["ima_hash=sha256 ima-hash=sha1", "ima_hash=sha256", false],
    ["console=tty0 console=ttyS0", "console=tty*", true],
    ["ro -- ima_policy=tcb", "ima_policy=tcb", false],
    ["lockdown=confidentiality", "lockdown=conf?dentiality", true],
    ["a.b=c", "a.b=c", true],
    ["axb=c", "a.b=c", false],
    ["quiet", "quiet", true],
    ["", "quiet", false],
    ['ima_policy="tcb"', "ima_policy=tcb", true],
    // To the kernel these are other words.
    ['ima_pol"icy=tcb"', "ima_policy=tcb", false],
    ['x"y"z', "xyz", false],
    ["x\u3000ima_policy=tcb", "*", true],
    ["x\u3000ima_policy=tcb", "ima_policy=tcb", false],
    ['ro "--" ima_policy=tcb', "ima_policy=tcb", false],
    ["abxbyb", "a*b?b", true],
    ["abxbyc", "a*b?b", false],
  ])("%j has %j: %p", (text, pattern, holds) => expect(required(text, pattern)).toBe(holds))
})

describe("a forbidden word", () => {
  test.each([
    ["ro quiet", "init=*", true],
    ["ro init=/bin/sh", "init=*", false],
    ["ro rdinit=/bin/sh", "init=*", true],
    ['ro "init=/bin/sh -c x"', "init=*", false],
    ["ro ima-appraise=off", "ima_appraise=off", false],
    ["ro -- init=/bin/sh", "init=*", false],
    ["ro init=/b\u0000in", "init=*", false],
    // The kernel takes this byte for white space, as which it ends the letter à in UTF-8.
    ["x\xc3\xa0init=/bin/sh", "init=*", false],
  ])("%j without %j: %p", (text, pattern, holds) => expect(forbidden(text, pattern)).toBe(holds))
})

test("a long word and a pattern of many stars take no time", () => {
  const begin = performance.now()
  expect(forbidden("ab".repeat(20_000), "*a*b*a*b*a*b*c")).toBe(true)
  expect(performance.now() - begin).toBeLessThan(2000)
})
