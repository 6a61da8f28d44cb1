import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inflateSync } from "node:zlib"
import { failedVerdict, HOSTILE, passedVerdict, updatedVerdict } from "../../test/fakes/verdicts.ts"
import { htmlReport } from "./report-html.ts"

const CONTEXT = { passedMeans: "is the machine of the snapshot", generator: "cosmian_vm 2.0.0 (test)" }
const CHROMIUM = Bun.which("chromium") ?? Bun.which("chromium-browser") ?? Bun.which("google-chrome")
const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-report-"))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

test("the answer stands first: what failed, and then each check with what to do", () => {
  const page = htmlReport(failedVerdict([]), CONTEXT)
  const order = [
    "<h1>Failed</h1>",
    "a file ran that is not in the snapshot (/usr/bin/nc.openbsd, and 2 more)",
    "<h2>Checks</h2>",
    'id="ima"',
    'id="channel"',
  ]
  const places = order.map((part) => page.indexOf(part))
  expect(places).toEqual([...places].sort((a, b) => a - b))
  for (const part of [
    "ERR_IMA_UNKNOWN_FILE",
    "/usr/bin/nc.openbsd",
    "a program or library ran",
    "find out where",
    "1204",
  ])
    expect(page).toContain(part)
})

test("a passed verdict says what it means, and a skipped check takes that back", () => {
  expect(htmlReport(passedVerdict(), CONTEXT)).toContain("vm.example:5555 is the machine of the snapshot")
  const skipped = { ...passedVerdict(), skipped: ["tcb"] as const }
  expect(htmlReport(skipped, CONTEXT)).toContain("passes every check that was not left out")
})

test("of saved evidence it says so at the top", () => {
  expect(htmlReport(passedVerdict(), CONTEXT)).not.toContain("<strong>saved</strong>")
  const { claims, ...verdict } = failedVerdict()
  const facts = { savedEvidence: true, collectedAt: "2026-05-01T00:00:00.000Z" }
  const saved = claims.map((claim) => (claim.check === "channel" ? { ...claim, facts } : claim))
  expect(htmlReport({ ...verdict, claims: saved }, CONTEXT)).toContain(
    "<strong>saved</strong> 2026-05-01 00:00:00 UTC",
  )
})

test("advice that findings share is given once, and the number of rows is bounded", () => {
  const paths = Array.from({ length: 5000 }, (_, index) => `/bin/${index}`)
  const page = htmlReport(failedVerdict(paths), CONTEXT)
  expect(page.match(/find out where it comes from/g)).toHaveLength(1)
  expect(page).toContain("5002 times")
  expect(page).toContain("and 3002 more")
})

test("nothing in the page runs, and nothing is fetched", () => {
  const page = htmlReport(failedVerdict(), CONTEXT)
  expect(page).toContain("default-src 'none'")
  expect(page).not.toMatch(/<(script|img|link|iframe|object|embed|form)\b/i)
  expect(page).not.toMatch(/<[a-z][^>]*\s(on[a-z]+|src|style)=/i)
  expect([...page.matchAll(/href="([^"]*)"/g)].every(([, target]) => target?.startsWith("#"))).toBeTrue()
  expect(page).not.toMatch(/url\(|@import/)
})

test("hostile text anywhere in the verdict stays text, without controls and direction marks", () => {
  const verdict = failedVerdict()
  const hostile = {
    ...verdict,
    target: HOSTILE,
    at: HOSTILE,
    assurance: { label: "unproven" as const, meaning: HOSTILE },
    claims: verdict.claims.map((claim) => ({
      ...claim,
      summary: HOSTILE,
      facts: { [HOSTILE]: HOSTILE },
      findings: claim.findings.map((finding) => ({
        ...finding,
        expected: HOSTILE,
        meaning: HOSTILE,
        remedy: HOSTILE,
      })),
    })),
  }
  const page = htmlReport(hostile, CONTEXT)
  expect(page.toLowerCase()).not.toMatch(/<script|<img/)
  expect(page.match(/<\/style>/g)).toHaveLength(1)
  expect(page.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e\u2028\udc80]/)
})

test("what differs comes first, by package and most alarming first; hostile names stay text", () => {
  const page = htmlReport(updatedVerdict(true), CONTEXT)
  const place = (part: string) => page.indexOf(part)
  expect(place('class="points alarm"')).toBeGreaterThan(0)
  expect(place('class="points alarm"')).toBeLessThan(place('class="points change"'))
  expect(place('class="points change"')).toBeLessThan(place('class="about"'))
  expect(page.toLowerCase()).not.toMatch(/<script|<img/)
  expect(page.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e\u2028\udc80]/)
  expect(htmlReport(passedVerdict(), CONTEXT)).not.toContain('class="points')
})

describe.skipIf(CHROMIUM === null)("in a browser (skipped where chromium is not installed)", () => {
  test("the hostile page keeps its title, has no scripts and images, and shows the text", async () => {
    const dom = await chromium(["--dump-dom"], htmlReport(failedVerdict(), CONTEXT))
    expect(dom).toContain("<title>FAILED: vm.example:5555</title>")
    expect(dom).not.toMatch(/<(script|img)\b/)
    expect(dom).toContain("&lt;script&gt;document.title")
  }, 90_000)

  test("it is drawn, light and dark", async () => {
    const grounds: number[][] = []
    for (const scheme of [1, 0]) {
      const picture = join(dir, `${scheme}.png`)
      const flags = ["--window-size=1000,1400", `--screenshot=${picture}`]
      await chromium(
        [...flags, `--blink-settings=preferredColorScheme=${scheme}`],
        htmlReport(failedVerdict(), CONTEXT),
      )
      const png = await Bun.file(picture).bytes()
      expect(png.length).toBeGreaterThan(20_000)
      grounds.push(firstPixel(png))
    }
    const [light = [], dark = []] = grounds
    expect(light).toEqual([255, 255, 255])
    expect(Math.max(...dark)).toBeLessThan(64)
  }, 120_000)

  test("it is printed", async () => {
    const file = join(dir, "report.pdf")
    await chromium([`--print-to-pdf=${file}`], htmlReport(failedVerdict(), CONTEXT))
    expect(new TextDecoder().decode((await Bun.file(file).bytes()).subarray(0, 5))).toBe("%PDF-")
  }, 90_000)
})

/** Opens a page in a browser of its own and returns what that writes. */
async function chromium(args: readonly string[], page: string): Promise<string> {
  const file = join(dir, "page.html")
  await Bun.write(file, page)
  const quiet = ["gpu", "quic", "background-networking", "component-update", "sync"].map(
    (name) => `--disable-${name}`,
  )
  const profile = `--user-data-dir=${mkdtempSync(join(dir, "profile-"))}`
  const fixed = ["--headless", "--no-sandbox", "--no-first-run", ...quiet, profile]
  const child = Bun.spawn([CHROMIUM ?? "", ...fixed, ...args, `file://${file}`], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    timeout: 60_000,
  })
  const text = await new Response(child.stdout).text()
  expect(await child.exited).toBe(0)
  return text
}

/** The top left pixel. In the first row, whichever filter, it is as it stands. */
function firstPixel(png: Uint8Array): number[] {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength)
  const parts: Uint8Array[] = []
  for (let at = 8; at < png.length; at += 12 + view.getUint32(at)) {
    const name = String.fromCharCode(...png.subarray(at + 4, at + 8))
    if (name === "IDAT") parts.push(png.subarray(at + 8, at + 8 + view.getUint32(at)))
  }
  return [...inflateSync(Buffer.concat(parts)).subarray(1, 4)]
}
