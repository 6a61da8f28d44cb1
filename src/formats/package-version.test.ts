import { expect, test } from "bun:test"
import { compareVersions } from "./package-version.ts"

const ORDERED = {
  // Each is newer than the one before it.
  dpkg: [
    "0~",
    "0",
    "1.0~rc1-1",
    "1.0-1~bpo1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-2",
    "1.0a-1",
    "1.0+dfsg-1",
    "1.0.1-1",
    "1.9-1",
    "1.10-1",
    "2.0-1",
    "1:0.1-1",
  ],
  rpm: [
    "1.0~rc1-1",
    "1.0-1",
    "1.0-2",
    "1.0-10",
    "1.0^git1-1",
    "1.0a-1",
    "1.0.1-1",
    "1.9-1",
    "1.10-1",
    "2:0.1-1",
  ],
} as const

for (const manager of ["dpkg", "rpm"] as const) {
  const versions = ORDERED[manager]
  test(`versions of ${manager} have its order`, () => {
    versions.forEach((a, at) => {
      versions.forEach((b, other) => {
        expect([a, b, Math.sign(compareVersions(manager, a, b))]).toEqual([a, b, Math.sign(at - other)])
      })
    })
  })
}

test("dpkg itself agrees", () => {
  const versions = ORDERED.dpkg
  for (let at = 1; at < versions.length; at++) {
    const run = Bun.spawnSync([
      "dpkg",
      "--compare-versions",
      versions[at - 1] ?? "",
      "lt",
      versions[at] ?? "",
    ])
    expect([versions[at], run.exitCode]).toEqual([versions[at], 0])
  }
})

test("rpm itself agrees", () => {
  const versions = ORDERED.rpm.map((version) => version.replace(/^[0-9]+:|-[0-9]+$/g, ""))
  for (const a of versions)
    for (const b of versions) {
      const run = Bun.spawnSync(["rpm", "--eval", `%{lua:print(rpm.vercmp("${a}", "${b}"))}`])
      const sign = Math.sign(compareVersions("rpm", `${a}-1`, `${b}-1`))
      expect([a, b, run.stdout.toString().trim()]).toEqual([a, b, `${sign}`])
    }
})

test("leading zeros and what separates do not count", () => {
  expect(compareVersions("dpkg", "1.01-1", "1.1-1")).toBe(0)
  expect(compareVersions("rpm", "1.01-1", "1_1-1")).toBe(0)
})
