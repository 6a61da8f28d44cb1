import { expect, test } from "bun:test"
import { count, duration, ProgressLine, size, snapshotLine } from "./progress.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

function terminal(live: boolean): { terminal: Terminal; text: () => string } {
  let text = ""
  const talk = (more: string) => {
    text += more
  }
  return {
    terminal: { out: talk, talk, outStyle: PLAIN, talkStyle: PLAIN, live, columns: 40, outColumns: null },
    text: () => text,
  }
}

test("files, bytes, rate and time left", () => {
  const line = snapshotLine({ files: 12_345, bytes: 1_200_000_000, total: 24_690 }, 10)
  expect(line).toBe("hashing: 12 345 of 24 690 files, 1.2 GB, 120 MB/s, 10 s left")
  expect(snapshotLine({ files: 5, bytes: 400, total: null }, 0)).toBe("hashing: 5 files, 400 B")
  expect(snapshotLine(null, 3)).toContain("3 s")
})

test("sizes, durations and counts for people", () => {
  expect([size(999), size(1000), size(123_456), size(2.5e12)]).toEqual([
    "999 B",
    "1.0 kB",
    "123 kB",
    "2.5 TB",
  ])
  expect([duration(0.2), duration(119), duration(240)]).toEqual(["1 s", "119 s", "4 min"])
  expect([count(1), count(1000), count(1_234_567)]).toEqual(["1", "1 000", "1 234 567"])
})

test("without a terminal there is no progress", () => {
  const { terminal: quiet, text } = terminal(false)
  const line = new ProgressLine(quiet, true)
  line.step("x")
  line.clear()
  expect(text()).toBe("")
})

test("on a terminal the line is rewritten, kept within its width, and removed", () => {
  const { terminal: live, text } = terminal(true)
  const line = new ProgressLine(live, true)
  line.step("y".repeat(100))
  expect(text()).toBe(`\r\u001b[K${"y".repeat(39)}`)
  line.clear()
  expect(text().endsWith("\r\u001b[K")).toBe(true)
})
