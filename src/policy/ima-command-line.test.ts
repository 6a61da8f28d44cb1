import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { bootAggregate, file, PCRS, quoted } from "../../test/fakes/measurement-list.ts"
import "../../test/setup.ts"
import { type EncodedEvent, encodeEventLog } from "../formats/event-log/encode.ts"
import { EVENT_TYPE, parseEventLog } from "../formats/event-log/event-log.ts"
import { replayEventLog } from "../verify/event-log.ts"
import { type BootLog, NO_LOG, readBootLog } from "./boot-log.ts"
import { appraiseIma } from "./ima.ts"
import { imaArgumentsOf } from "./ima-command-line.ts"
import type { ImaArguments } from "./ima-coverage.ts"
import { COVERAGE_POINTS, type CoveragePoint } from "./ima-points.ts"
import { SHIPPED_IMA_POLICY } from "./shipped-ima-policy.ts"
import { EMPTY_WHITELIST } from "./whitelist.ts"

const bytes = (text: string) => new TextEncoder().encode(text)
const ZEROS = new Uint8Array(32)

/** An event of GRUB. @param measured what its digest is over, where that is another text */
function event(text: string, measured = text): EncodedEvent {
  const digest = new Uint8Array(createHash("sha256").update(bytes(measured)).digest())
  return {
    register: 8,
    type: EVENT_TYPE.EV_IPL,
    data: bytes(`kernel_cmdline: ${text}`),
    digests: new Map([["sha256", digest]]),
  }
}

/** A log, read against registers that hold what it says and, where given, something more. */
function logOf(events: EncodedEvent[], more: EncodedEvent[] = []): BootLog {
  const encode = (all: EncodedEvent[]) => encodeEventLog(["sha256"], all)
  const pcrs = replayEventLog(parseEventLog(encode([...events, ...more])), "tcg", "sha256")
  const registers = new Map([8, 11, 12].map((pcr) => [pcr, pcrs.get(pcr) ?? ZEROS] as const))
  return readBootLog(encode(events), registers, { kind: "tcg", bank: "sha256" })
}

const lines = (...texts: string[]) => imaArgumentsOf(logOf(texts.map((text) => event(text))))
const LINE = "/vmlinuz root=/dev/vda1 ima_policy=tcb ima_hash=sha256 ima_template=ima-sig"

describe("IMA's arguments on the command line", () => {
  test("are proven by a log that gives the registers", () => {
    expect(lines(LINE)?.text).toBe("ima_policy=tcb ima_hash=sha256 ima_template=ima-sig")
    expect(lines(LINE)?.builtIn?.name).toContain("ima_policy=tcb")
    expect(lines("/vmlinuz ro")).toEqual({ text: "", builtIn: null })
  })

  test("are not by one whose register holds more, whose text was not measured, or by none", () => {
    expect(imaArgumentsOf(logOf([event(LINE)], [event("/other ro")]))).toBeNull()
    expect(imaArgumentsOf(logOf([event(LINE, "/vmlinuz ro")]))).toBeNull()
    expect(imaArgumentsOf(logOf([event(LINE), event("/b", "/c")]))).toBeNull()
    expect(imaArgumentsOf(logOf([]))).toBeNull()
    expect(imaArgumentsOf(NO_LOG)).toBeNull()
  })

  test.each([
    ["among others", "/v ima_policy=appraise_tcb|tcb"],
    ["in quotes", '/v ima_policy="appraise_tcb tcb"'],
    ["with dashes", "/v ima-policy=tcb"],
    ["twice", "/v ima_policy=secure_boot ima_policy=tcb"],
  ])("tcb counts %s", (_, line) => {
    expect(lines(line)?.builtIn).not.toBeNull()
  })

  test.each([
    ["no policy", "/v ima_hash=sha256"],
    ["a policy that only appraises", "/v ima_policy=appraise_tcb|secure_boot"],
    ["a policy about data alone", "/v ima_policy=critical_data"],
    ["another word", "/v ima_policy=tcbx xima_policy=tcb"],
    ["init's word", "/v -- ima_policy=tcb"],
    ["a word within a word", '/v root="x ima_policy=tcb"'],
    ["rules that do not measure loads, first", "/v ima_tcb ima_policy=tcb"],
    ["the same by another form", "/v ima_tcb=1 ima_policy=tcb"],
    ["more arguments from elsewhere", "/v bootconfig ima_policy=tcb"],
  ])("no rules are known with %s", (_, line) => {
    expect(lines(line)?.builtIn).toBeNull()
    expect(lines(line.replace(/ (?:ima_tcb\S*|bootconfig|--)/, ""), line)?.builtIn).toBeNull()
  })

  test("what every text has counts, where several may be the command line", () => {
    expect(lines(LINE, "/b ima_policy=tcb")?.builtIn).not.toBeNull()
    expect(lines(LINE, "/b ro")?.builtIn).toBeNull()
    const both = lines("/a ima_policy=tcb|critical_data", "/b ima_policy=tcb")
    expect(both?.builtIn?.coverage.get("critical-data")?.measured).toBe("no")
    expect(lines("/a ima_policy=tcb|critical_data")?.builtIn?.coverage.get("critical-data")?.measured).toBe(
      "yes",
    )
  })
})

describe("coverage with a proven command line", () => {
  const A = file("/usr/bin/a", "a")
  const judged = (
    commandLine: ImaArguments | null,
    { policy = null as string | null, required = [] as CoveragePoint[] } = {},
  ) =>
    appraiseIma(
      quoted(bootAggregate(), ...(policy === null ? [] : [file("/etc/ima/ima-policy", policy)]), A),
      null,
      {
        whitelist: EMPTY_WHITELIST,
        pcrs: PCRS,
        at: new Date(0),
        expectations: { violations: null, required },
        commandLine,
      },
    )

  test("the kernel's own policy is known where the list shows no other", () => {
    const { facts, status } = judged(lines(LINE))
    expect(facts).toMatchObject({ commandLine: "proven", measured: "nothing" })
    expect(facts["imaPolicy"]).toContain("ima_policy=tcb")
    expect(facts["partlyMeasured"]).toContain("tmpfs")
    expect(facts["notMeasured"]).toContain("kexec-command-line")
    expect(status).toBe("warning")
  })

  test("nothing is known of it without", () => {
    for (const commandLine of [null, lines("/vmlinuz ro")]) {
      const { facts, status } = judged(commandLine)
      expect(facts["imaPolicy"]).toBe("not in the list")
      expect(facts["measured"]).toBeUndefined()
      expect(status).toBe("warning")
    }
    expect(judged(null).facts["commandLine"]).toBe("not proven")
    expect(judged(lines("/vmlinuz ro")).facts).toMatchObject({ commandLine: "proven", imaArguments: "none" })
  })

  test("a policy that the list shows counts as before, known or not", () => {
    for (const policy of [SHIPPED_IMA_POLICY, "measure\n"]) {
      const { commandLine: _, imaArguments: __, ...proven } = judged(lines(LINE), { policy }).facts
      const { commandLine: ___, ...without } = judged(null, { policy }).facts
      expect(proven).toEqual(without)
    }
  })

  test("it meets no requirement, for others may have been loaded unseen from tmpfs", () => {
    const best = lines("/v ima_policy=tcb|critical_data")
    for (const point of COVERAGE_POINTS) {
      expect(judged(best, { required: [point] }).status).toBe("failed")
      expect(judged(null, { required: [point] }).status).toBe("failed")
    }
    expect(judged(best, { required: ["programs"], policy: SHIPPED_IMA_POLICY }).status).toBe("passed")
  })
})
