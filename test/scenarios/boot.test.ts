/** ATTACKS, boot chain: honest evidence, one thing changed, judged by failure code and exit code. The unchanged twin verifies. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash, randomBytes } from "node:crypto"
import { EXIT } from "../../src/errors.ts"
import { describeEvent } from "../../src/formats/event-log/describe.ts"
import { encodeEventLog } from "../../src/formats/event-log/encode.ts"
import {
  EVENT_TYPE,
  LOG_ALGORITHM,
  type LogEvent,
  parseEventLog,
} from "../../src/formats/event-log/event-log.ts"
import type { Evidence } from "../../src/formats/evidence.ts"
import { encodeSavedEvidence, parseSavedEvidence } from "../../src/formats/saved-evidence.ts"
import { readBootLog } from "../../src/policy/boot-log.ts"
import { bootEventFindings } from "../../src/policy/boot-requirements.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "../../src/policy/snapshot.ts"
import { parseTomlPolicy } from "../../src/policy/toml-policy.ts"
import type { Check } from "../../src/policy/verdict.ts"
import type { JudgeInput } from "../../src/policy/verify-vm.ts"
import { replayEventLog } from "../../src/verify/event-log.ts"
import { Lab, outcome } from "./lab.ts"

let lab: Lab
let reference: Snapshot
const ok = { exit: EXIT.ok, codes: [] as string[] }

beforeAll(async () => {
  lab = await Lab.open()
  reference = await lab.snapshot()
}, 60_000)

afterAll(async () => {
  await lab.close()
})

async function judgement(
  change: (honest: Evidence) => Evidence = (honest) => honest,
  changes: Partial<JudgeInput> & { reference: Snapshot | null } = { reference },
  of = lab,
) {
  const nonce = randomBytes(32)
  return of.judge(change(await of.evidence(nonce)), nonce, changes)
}

const judged = async (...args: Parameters<typeof judgement>) => outcome(await judgement(...args))

function logOf(evidence: Evidence) {
  if (evidence.eventLog === undefined) throw new Error("the lab has an event log")
  return parseEventLog(evidence.eventLog)
}

/** Evidence with other events. The log's own first event is made anew. */
function withEvents(evidence: Evidence, change: (events: LogEvent[]) => LogEvent[]): Evidence {
  const events = change(logOf(evidence).events.slice(1)).map(({ register, type, data, digests }) => ({
    register,
    type,
    data,
    digests: new Map(
      (["sha1", "sha256"] as const).map((bank) => [
        bank,
        digests.get(LOG_ALGORITHM[bank]) ?? new Uint8Array(0),
      ]),
    ),
  }))
  return { ...evidence, eventLog: encodeEventLog(["sha1", "sha256"], events) }
}

/** An event as it is written: with the digest of one bank. */
function encodedOf({ register, type, data, digests }: LogEvent) {
  return {
    register,
    type,
    data,
    digests: new Map([["sha256" as const, digests.get(LOG_ALGORITHM.sha256) ?? new Uint8Array(0)]]),
  }
}

/** Position of the first event that is about something. */
function find(events: readonly LogEvent[], what: string): number {
  const at = events.findIndex((event) => describeEvent(event).what === what)
  if (at < 0) throw new Error(`no ${what}`)
  return at
}

const text = (words: string) => new TextEncoder().encode(words)

describe("the event log", () => {
  test("the unchanged twin verifies, and so does a log that was written anew", async () => {
    expect(await judged()).toEqual(ok)
    expect(await judged((honest) => withEvents(honest, (events) => events))).toEqual(ok)
  })

  test("evidence of an agent that sends none verifies by its PCRs", async () => {
    expect(await judged(({ eventLog, ...others }) => others)).toEqual(ok)
  })

  const attacks: Readonly<Record<string, (events: LogEvent[]) => LogEvent[]>> = {
    "the last event is cut off": (events) => events.slice(0, -1),
    "all events are cut off": () => [],
    "an event is removed": (events) => events.toSpliced(find(events, "initial RAM disk"), 1),
    "an event is doubled": (events) => {
      const at = find(events, "kernel command line")
      return events.toSpliced(at, 0, ...events.slice(at, at + 1))
    },
    "two events of a PCR change places": (events) => {
      const [a, b] = [find(events, "kernel"), find(events, "initial RAM disk")]
      return events.toSpliced(a, 1, ...events.slice(b, b + 1)).toSpliced(b, 1, ...events.slice(a, a + 1))
    },
    "an event is moved to another PCR": (events) =>
      events.map((event, at) => (at === find(events, "kernel") ? { ...event, register: 8 } : event)),
    "a digest is another": (events) =>
      events.map((event, at) =>
        at === find(events, "kernel")
          ? {
              ...event,
              digests: new Map([...event.digests].map(([id, digest]) => [id, digest.map((b) => b ^ 1)])),
            }
          : event,
      ),
  }
  for (const [name, change] of Object.entries(attacks))
    test(`B3: ${name}`, async () => {
      expect(await judged((honest) => withEvents(honest, change))).toEqual({
        exit: EXIT.boot,
        codes: ["ERR_EVENT_LOG_REPLAY"],
      })
    })

  test("B3: events of different PCRs change places, which nothing tells and nothing rests on", async () => {
    expect(
      await judged((honest) =>
        withEvents(honest, (events) => events.toSorted((a, b) => a.register - b.register)),
      ),
    ).toEqual(ok)
  })

  test("B3: Secure Boot is said to be off, under the digest that says on", async () => {
    const relabelled = (events: LogEvent[]) =>
      events.map((event, at) => {
        if (at !== find(events, "Secure Boot")) return event
        const data = Uint8Array.from(event.data)
        data[data.length - 1] = 0
        return { ...event, data }
      })
    const wrong = { exit: EXIT.boot, codes: ["ERR_EVENT_DIGEST"] }
    expect(await judged((honest) => withEvents(honest, relabelled))).toEqual(wrong)
    // Neither is a snapshot taken from such a machine.
    expect(await judged((honest) => withEvents(honest, relabelled), { reference: null })).toEqual(wrong)
  })

  test("B3: cut off within an event, at each byte: never more than a shorter log that is found out", async () => {
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    const log = honest.eventLog ?? new Uint8Array(0)
    const codes = new Set<string>()
    for (let size = 0; size < log.length; size += 3) {
      const result = outcome(lab.judge({ ...honest, eventLog: log.subarray(0, size) }, nonce, { reference }))
      expect([size, result.exit]).toEqual([size, EXIT.boot])
      for (const code of result.codes) codes.add(code)
    }
    expect([...codes].sort()).toEqual(["ERR_EVENT_LOG_REPLAY", "ERR_TRUNCATED"])
  })

  test("a register that does not exist, and a log with another algorithm", async () => {
    const elsewhere = (events: LogEvent[]) => events.map((event) => ({ ...event, register: 24 }))
    expect(await judged((honest) => withEvents(honest, elsewhere))).toEqual({
      exit: EXIT.boot,
      codes: ["ERR_EVENT_REGISTER"],
    })
    // It explains nothing, like one that is absent.
    const sha1Only = (honest: Evidence): Evidence => ({ ...honest, eventLog: encodeEventLog(["sha1"], []) })
    expect(await judged(sha1Only)).toEqual(ok)
  })

  test("is kept in saved evidence, and judged the same", async () => {
    const nonce = randomBytes(32)
    const evidence = withEvents(await lab.evidence(nonce), (events) => events.slice(0, -1))
    const saved = parseSavedEvidence(
      text(
        encodeSavedEvidence({
          target: "vm.test:5555",
          collectedAt: new Date(),
          nonce,
          channel: { spki: lab.spki, authorized: false, reason: null },
          evidence,
          documents: { certificates: [], crl: null, intel: null },
          applications: [],
        }),
      ),
    )
    expect(outcome(lab.judge(saved.evidence, nonce, { reference })).codes).toEqual(["ERR_EVENT_LOG_REPLAY"])
  })
})

describe("a boot that differs", () => {
  /** Findings of the check `boot` of another boot of the same machine. */
  async function afterwards(
    tamper: (machine: Lab) => Promise<void>,
    change?: (honest: Evidence) => Evidence,
  ) {
    const mine = await Lab.open()
    try {
      const known = parseSnapshot(text(encodeSnapshot(await mine.snapshot())))
      await tamper(mine)
      const { verdict } = await judgement(change, { reference: known, acceptReboot: true }, mine)
      const boot = verdict.claims.find(({ check }) => check === "boot")
      return { exit: verdict.exitCode, findings: boot?.findings ?? [] }
    } finally {
      await mine.close()
    }
  }

  test("B2: another initial RAM disk is told by its event, and the same one passes", async () => {
    const same = await afterwards((mine) => mine.reboot())
    expect(same).toEqual({ exit: EXIT.ok, findings: [] })
    const { exit, findings } = await afterwards(async (mine) => {
      await mine.setInitrd("another")
      await mine.reboot()
    })
    expect(exit).toBe(EXIT.boot)
    expect(findings).toMatchObject([
      {
        code: "ERR_BOOT_PCR",
        subject: expect.stringMatching(/^PCR 9, event \d+$/),
        meaning: "changed: initial RAM disk: /boot/initrd.img-simulated: other content",
      },
    ])
  }, 60_000)

  test("B2: another kernel command line is told with both texts", async () => {
    const { exit, findings } = await afterwards(async (mine) => {
      await mine.setCommandLine("root=/dev/vda1 init=/bin/sh")
      await mine.reboot()
    })
    expect(exit).toBe(EXIT.boot)
    const [finding] = findings
    expect(finding).toMatchObject({ code: "ERR_BOOT_PCR", subject: expect.stringMatching(/^PCR 8, event/) })
    expect(finding?.expected).toContain("ima_policy=tcb")
    expect(finding?.found).toContain("init=/bin/sh")
  }, 60_000)

  test("B2: Secure Boot was turned off", async () => {
    const { exit, findings } = await afterwards(async (mine) => {
      await mine.setSecureBoot(false)
      await mine.reboot()
    })
    expect(exit).toBe(EXIT.boot)
    expect(findings[0]?.meaning).toBe("changed: Secure Boot: on → Secure Boot: off")
  }, 60_000)

  test("B2: something was measured in addition; without its event only the PCR tells", async () => {
    const { exit, findings } = await afterwards((mine) => mine.extend(9, text("later")))
    expect(exit).toBe(EXIT.boot)
    expect(findings).toMatchObject([{ code: "ERR_BOOT_PCR", subject: "PCR 9" }])
  }, 60_000)

  test("B2: without a log the values are told", async () => {
    const { exit, findings } = await afterwards(
      async (mine) => {
        await mine.setInitrd("another")
        await mine.reboot()
      },
      ({ eventLog, ...others }) => others,
    )
    expect(exit).toBe(EXIT.boot)
    expect(findings).toMatchObject([{ code: "ERR_BOOT_PCR", subject: "PCR 9" }])
  }, 60_000)
})

describe("what the command line says of IMA", () => {
  const facts = async (change?: (honest: Evidence) => Evidence, skip: Check[] = []) => {
    const { verdict } = await judgement(change, { reference, skip: new Set(skip) })
    return verdict.claims.find(({ check }) => check === "ima")?.facts
  }

  test("is proven by the log of a boot that is the snapshot's", async () => {
    expect(await facts()).toMatchObject({
      commandLine: "proven",
      imaArguments: "ima_policy=tcb ima_hash=sha256 ima_template=ima-ng",
    })
  })

  test("is not without the log, with one that was altered, or where the boot is left out", async () => {
    expect((await facts(({ eventLog, ...others }) => others))?.["commandLine"]).toBe("not proven")
    const cut = (honest: Evidence) => withEvents(honest, (events) => events.slice(0, -1))
    expect((await facts(cut))?.["commandLine"]).toBe("not proven")
    expect((await facts(undefined, ["boot"]))?.["commandLine"]).toBe("not proven")
  })
})

describe("what a policy asks of the boot", () => {
  const withPolicy = (
    toml: string,
    change?: (honest: Evidence) => Evidence,
    of = lab,
    known = reference,
    skip: ReadonlySet<Check> = new Set(),
  ) => judged(change, { reference: known, policy: parseTomlPolicy(toml, "vm.toml"), skip }, of)
  const failing = (...codes: string[]) => ({ exit: EXIT.boot, codes })
  const RIGHT = `required = ["ima_policy=tcb", "ima_hash=sha256", "ima-template=ima-*"]\nforbidden = ["init=*"]`

  /** SHA-256 of the certificate in the log. */
  async function signer(): Promise<string> {
    const { events } = logOf(await lab.evidence(randomBytes(32)))
    const event = events[1 + find(events.slice(1), "signer that let something start (db)")]
    if (event === undefined) throw new Error("no signer")
    return JSON.parse(JSON.stringify(describeEvent(event).details)).certificate.sha256
  }

  test("what holds, passes", async () => {
    const [certificate, other] = [await signer(), "ab".repeat(32)]
    expect(await withPolicy("[boot]\nsecure_boot = true\n")).toEqual(ok)
    expect(await withPolicy(`[boot]\nauthority = ["${other}", "${certificate}"]\n`)).toEqual(ok)
    expect(await withPolicy(`[boot]\ndb = "${certificate}"\n`)).toEqual(ok)
    expect(await withPolicy(`[boot.command_line]\n${RIGHT}\n`)).toEqual(ok)
  })

  test("other signers fail", async () => {
    const other = "ab".repeat(32)
    expect(await withPolicy(`[boot]\nauthority = "${other}"\n`)).toEqual(failing("ERR_BOOT_AUTHORITY"))
    expect(await withPolicy(`[boot]\ndb = "${other}"\n`)).toEqual(failing("ERR_BOOT_DB"))
  })

  test("other words on the command line fail", async () => {
    for (const rule of [
      'required = "ima_policy=critical_data"',
      'required = "lockdown=*"',
      'forbidden = "ima_h?sh=*"',
      'forbidden = "quiet"',
    ])
      expect(await withPolicy(`[boot.command_line]\n${rule}\n`)).toEqual(failing("ERR_BOOT_COMMAND_LINE"))
  })

  test("nothing holds without a log, by a log that does not give the PCR, or by one that was altered", async () => {
    const rules = [
      ["secure_boot = true", "ERR_BOOT_SECURE_BOOT"],
      [`db = "${await signer()}"`, "ERR_BOOT_DB"],
      [`[boot.command_line]\n${RIGHT}`, "ERR_BOOT_COMMAND_LINE_UNKNOWN"],
    ] as const
    for (const [rule, code] of rules) {
      const policy = `[boot]\n${rule}\n`
      expect(await withPolicy(policy, ({ eventLog, ...others }) => others)).toEqual(
        failing("ERR_EVENT_LOG_ABSENT"),
      )
      // A snapshot from before there were logs does not notice that one was altered. The rule does.
      const { boot_reference, ...old } = reference
      const cut = (events: LogEvent[]) => events.filter(({ register }) => register !== 7 && register !== 8)
      expect(await withPolicy(policy, (honest) => withEvents(honest, cut), lab, old)).toEqual(failing(code))
    }
    const altered = (honest: Evidence) => ({
      ...honest,
      eventLog: honest.eventLog?.subarray(0, -1) ?? text(""),
    })
    expect(await withPolicy("[boot]\nsecure_boot = true\n", altered)).toEqual(
      failing("ERR_TRUNCATED", "ERR_EVENT_LOG_ABSENT"),
    )
  })

  describe("of a kernel that the firmware starts itself", () => {
    let direct: Lab
    let known: Snapshot
    beforeAll(async () => {
      direct = await Lab.open()
      await direct.setBootLoader("none")
      await direct.reboot()
      known = await direct.snapshot()
    }, 60_000)
    afterAll(() => direct.close())

    const RULES = '[boot.command_line]\nrequired = "ima_policy=tcb"\nforbidden = "init=*"\n'
    const claiming =
      (words: string | null) =>
      ({ kernelCommandLine: _, ...others }: Evidence): Evidence =>
        words === null ? others : { ...others, kernelCommandLine: text(words) }

    test("the command line that the VM shows is the one that was measured", async () => {
      expect(await withPolicy(RULES, undefined, direct, known)).toEqual(ok)
      const forbidden = '[boot.command_line]\nforbidden = "quiet"\n'
      expect(await withPolicy(forbidden, undefined, direct, known)).toEqual(failing("ERR_BOOT_COMMAND_LINE"))
      const { verdict } = await judgement(undefined, { reference: known }, direct)
      expect(verdict.claims.find(({ check }) => check === "ima")?.facts).toMatchObject({
        commandLine: "proven",
        imaArguments: "ima_policy=tcb ima_hash=sha256 ima_template=ima-ng",
      })
    }, 60_000)

    test("B2: another claim, or none, proves nothing", async () => {
      for (const words of [null, "root=/dev/vda1 ima_policy=tcb\n"])
        expect(await withPolicy(RULES, claiming(words), direct, known)).toEqual(
          failing("ERR_BOOT_COMMAND_LINE_UNKNOWN"),
        )
    }, 60_000)

    test("B2: root measures the command line that it would have liked", async () => {
      const mine = await Lab.open()
      try {
        await mine.setBootLoader("none")
        await mine.setCommandLine("root=/dev/vda1 ro init=/bin/sh")
        await mine.reboot()
        const good = "root=/dev/vda1 ima_policy=tcb"
        const measured = new Uint8Array(Buffer.from(`${good}\0`, "utf16le"))
        await mine.extend(9, measured)
        const digest = (bank: "sha1" | "sha256") => new Uint8Array(createHash(bank).update(measured).digest())
        const forged = (honest: Evidence) =>
          claiming(good)(
            withEvents(honest, (events) => [
              ...events,
              {
                position: 0,
                register: 9,
                type: EVENT_TYPE.EV_EVENT_TAG,
                data: text("LoadOptions"),
                digests: new Map([
                  [LOG_ALGORITHM.sha1, digest("sha1")],
                  [LOG_ALGORITHM.sha256, digest("sha256")],
                ]),
              },
            ]),
          )
        // The kernel's list tells that PCR 9 was extended later; the rule holds without it.
        const skip = new Set<Check>(["ima"])
        const snapshot = await mine.snapshot({ skip })
        expect(await withPolicy(RULES, forged, mine, snapshot, skip)).toEqual(
          failing("ERR_BOOT_COMMAND_LINE_UNKNOWN"),
        )
        expect(await withPolicy(RULES, undefined, mine, snapshot, skip)).not.toEqual(ok)
      } finally {
        await mine.close()
      }
    }, 60_000)
  })

  describe("by root in a machine that booted otherwise", () => {
    let mine: Lab
    beforeAll(async () => {
      mine = await Lab.open()
      await mine.setSecureBoot(false)
      await mine.setCommandLine("root=/dev/vda1 ro")
      await mine.reboot()
    }, 60_000)
    afterAll(() => mine.close())

    // What the kernel wrote down of PCRs 0 to 9 when it started says that they were extended later. The rules hold without it.
    const skip = new Set<Check>(["ima"])
    const snapshot = () => mine.snapshot({ skip })

    /** What was measured into PCR 7 after the boot so far. */
    const faked: LogEvent[] = []

    /** Measures what the policy asks for after the boot, and writes it into the log. */
    async function fake(event: LogEvent): Promise<(events: LogEvent[]) => LogEvent[]> {
      await mine.extend(event.register, event.data)
      if (event.register === 7) faked.push(event)
      return (events) => [...events, event]
    }

    function eventOf(register: number, type: number, data: Uint8Array): LogEvent {
      const digest = (bank: "sha1" | "sha256") => new Uint8Array(createHash(bank).update(data).digest())
      return {
        position: 0,
        register,
        type,
        data,
        digests: new Map([
          [LOG_ALGORITHM.sha1, digest("sha1")],
          [LOG_ALGORITHM.sha256, digest("sha256")],
        ]),
      }
    }

    test("Secure Boot is off, whatever is measured later", async () => {
      const policy = "[boot]\nsecure_boot = true\n"
      const honest = await snapshot()
      expect(await withPolicy(policy, undefined, mine, honest, skip)).toEqual(failing("ERR_BOOT_SECURE_BOOT"))
      const { events } = logOf(await lab.evidence(randomBytes(32)))
      const on = events[1 + find(events.slice(1), "Secure Boot")]
      if (on === undefined) throw new Error("no event")
      const forged = await fake(on)
      // The snapshot is of the forged state: the PCRs are the same.
      const known = await snapshot()
      expect(await withPolicy(policy, (e) => withEvents(e, forged), mine, known, skip)).toEqual(
        failing("ERR_BOOT_SECURE_BOOT"),
      )
    })

    /** The log with an event under the name of another type, and with other data where some are given. */
    const renamed =
      (is: (event: LogEvent) => boolean, type: number, data?: Uint8Array) => (events: LogEvent[]) =>
        events.map((event) => (is(event) ? { ...event, type, data: data ?? event.data } : event))

    test("B3: Secure Boot is off, though the log calls everything else than it was and pretends another end", async () => {
      const { events } = logOf(await lab.evidence(randomBytes(32)))
      const honest = events.slice(1).filter(({ register }) => register === 7)
      const hidden = (all: LogEvent[]) =>
        all.map((event) =>
          event.register === 7
            ? { ...event, type: EVENT_TYPE.EV_IPL, data: text(`hidden ${event.position}`) }
            : event,
        )
      // All that a machine with Secure Boot measures, once more.
      for (const event of honest) await mine.extend(7, event.data)
      const { events: now } = logOf(await mine.evidence(randomBytes(32)))
      const known = await snapshot()
      const before = now.slice(1).filter(({ register }) => register === 7).length
      const forged = (all: LogEvent[]) => [...hidden(all), ...faked, ...honest]
      const rules = [
        ["[boot]\nsecure_boot = true\n", "ERR_BOOT_SECURE_BOOT"],
        [`[boot]\ndb = "${await signer()}"\n`, "ERR_BOOT_DB"],
      ] as const
      expect(before).toBeGreaterThan(0)
      for (const [policy, code] of rules)
        expect(await withPolicy(policy, (e) => withEvents(e, forged), mine, known, skip)).toEqual(
          failing(code),
        )
    })

    test("B3: who signed what was started is hidden under another type of event", async () => {
      const { events } = logOf(await lab.evidence(randomBytes(32)))
      const good = events[1 + find(events.slice(1), "signer that let something start (db)")]
      if (good === undefined) throw new Error("no event")
      const policy = `[boot]\nauthority = "${await signer()}"\n`
      const bad = { ...good, data: Uint8Array.from(good.data) }
      bad.data[bad.data.length - 1] = (bad.data.at(-1) ?? 0) ^ 1
      const evil = eventOf(7, EVENT_TYPE.EV_EFI_VARIABLE_AUTHORITY, bad.data)
      const on = events[1 + find(events.slice(1), "Secure Boot")]
      const separator = eventOf(7, EVENT_TYPE.EV_SEPARATOR, new Uint8Array(4))
      if (on === undefined) throw new Error("no event")
      // What such a firmware measures, as a log of its own that gives PCR 7.
      const judge = (list: LogEvent[]) => {
        const bank = "sha256"
        const value = replayEventLog(parseEventLog(encodeEventLog([bank], list.map(encodedOf))), "tcg", bank)
        const log = readBootLog(encodeEventLog([bank], list.map(encodedOf)), value, { kind: "tcg", bank })
        return bootEventFindings(parseTomlPolicy(policy, "vm.toml").boot, [log]).map(({ code }) => code)
      }
      expect(judge([on, separator, good])).toEqual([])
      expect(judge([on, separator, evil, good])).toEqual(["ERR_BOOT_AUTHORITY"])
      for (const type of [EVENT_TYPE.EV_POST_CODE, EVENT_TYPE.EV_EFI_VARIABLE_DRIVER_CONFIG])
        expect(judge([on, separator, { ...evil, type }, good])).toEqual(["ERR_BOOT_AUTHORITY"])
      const hidden = { ...evil, type: EVENT_TYPE.EV_POST_CODE, data: text("hidden") }
      expect(judge([on, separator, hidden, good])).toEqual(["ERR_BOOT_AUTHORITY"])
      // Behind a label, or a name, which are not measured.
      const header = Buffer.alloc(32)
      header.writeBigUInt64LE(BigInt(evil.data.length), 24)
      for (const [type, before] of [
        [EVENT_TYPE.EV_IPL, text("grub_cmd: ")],
        [EVENT_TYPE.EV_EFI_VARIABLE_BOOT, header],
      ] as const) {
        const data = Uint8Array.from([...before, ...evil.data])
        expect(judge([on, separator, { ...evil, type, data }, good])).toEqual(["ERR_BOOT_AUTHORITY"])
      }
      // No variable at all, and a firmware that may be debugged under another name.
      const garbage = eventOf(7, EVENT_TYPE.EV_EFI_VARIABLE_DRIVER_CONFIG, text("garbage"))
      expect(judge([on, separator, garbage, good])).toEqual([])
      const debug = { ...eventOf(7, 0, text("UEFI Debug Mode")), type: EVENT_TYPE.EV_POST_CODE }
      expect(judge([on, { ...debug, data: text("x") }, separator, good])).toContain("ERR_BOOT_SECURE_BOOT")
    })

    test("the real command line stays in the log, whatever it is called", async () => {
      const policy = `[boot.command_line]\n${RIGHT}\n`
      expect(await withPolicy(policy, undefined, mine, await snapshot(), skip)).toEqual(
        failing("ERR_BOOT_COMMAND_LINE"),
      )
      const good = text("/boot/vmlinuz ima_policy=tcb ima_hash=sha256 ima_template=ima-ng")
      const forged = await fake(eventOf(8, EVENT_TYPE.EV_IPL, good))
      const known = await snapshot()
      const called = (label: string) => (events: LogEvent[]) =>
        forged(events).map((event) => {
          const words = Buffer.from(event.data).toString()
          const at = /^(?:kernel_cmdline|grub_cmd): (?=linux |\/)/.exec(words)?.[0].length
          return event.register !== 8 || at === undefined
            ? event
            : { ...event, data: text(`${label}${words.slice(at)}`) }
        })
      for (const label of ["kernel_cmdline: ", "grub_cmd: ", "module_cmdline: "])
        expect(await withPolicy(policy, (e) => withEvents(e, called(label)), mine, known, skip)).toEqual(
          failing("ERR_BOOT_COMMAND_LINE"),
        )
      // A text that is not shown at all may be anything, whatever the event is called.
      const isLine = (event: LogEvent) => Buffer.from(event.data).toString().includes("/dev/vda1")
      for (const type of [EVENT_TYPE.EV_IPL, EVENT_TYPE.EV_EVENT_TAG]) {
        const hidden = (events: LogEvent[]) => forged(renamed(isLine, type, text("hidden\0"))(events))
        expect(await withPolicy(policy, (e) => withEvents(e, hidden), mine, known, skip)).toEqual(
          failing("ERR_BOOT_COMMAND_LINE_UNKNOWN"),
        )
      }
    })
  })
})
