import { expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** Attacks that have to be caught: on channel, TEE, TPM, boot, IMA, snapshots, agent, volumes and certificates. */
const ATTACKS = [
  ...["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8"],
  ...["T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12"],
  ...["M1", "M2", "M3", "M4", "M5", "M6", "M7"],
  ...["B1", "B2", "B3", "B4"],
  ...["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"],
  ...["S1", "S2"],
  ...["A1", "A2", "A3", "A4", "A5"],
  ...["L1", "L2", "L3", "L4"],
  ...["R1"],
] as const
const ROOT = join(import.meta.dir, "..")
/** Steps of the run in a guest have titles, too. */
const GUEST = join("test", "guest", "e2e.ts")

/** Texts in quotes that begin with identifiers, as `C1, C2: a relay`, or name one at their end in parentheses. */
function titles(): string[] {
  const files = ["src", "test"].flatMap((directory) =>
    readdirSync(join(ROOT, directory), { recursive: true, encoding: "utf8" }).map((name) =>
      join(directory, name),
    ),
  )
  return files
    .filter((name) => name.endsWith(".test.ts") || name === GUEST)
    .flatMap((name) => readFileSync(join(ROOT, name), "utf8").split("\n"))
    .filter((line) => !/^ *(?:\/?\*|\/\/)/.test(line))
    .flatMap((line) => line.match(/["`](?:[A-Z]\d+\b[^"`]*:|[^"`]*\([A-Z]\d+\)["`])/g) ?? [])
}

test("each attack is named by a test", () => {
  const found = new Set(titles().flatMap((title) => title.match(/\b[A-Z]\d+\b/g) ?? []))
  expect(ATTACKS.filter((attack) => !found.has(attack))).toEqual([])
})
