import { beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { evidenceOf, judged, NONCE, outcomeOf, TLS_KEY, tdxMachine } from "../../test/fakes/machines.ts"
import { type FakeChip, fakeChip } from "../../test/fakes/snp.ts"
import { EXIT } from "../errors.ts"
import { type EncodedEvent, encodeEventLog } from "../formats/event-log/encode.ts"
import { EVENT_TYPE, parseEventLog } from "../formats/event-log/event-log.ts"
import { type Evidence, evidenceReportData } from "../formats/evidence.ts"
import { replayEventLog } from "../verify/event-log.ts"
import { bootReferenceFrom } from "./boot-reference-of.ts"
import { referenceOfTee } from "./prove-tee.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "./snapshot.ts"
import { parseTomlPolicy } from "./toml-policy.ts"
import type { Check } from "./verdict.ts"

const text = (words: string) => new TextEncoder().encode(words)
const ZEROS = new Uint8Array(48)
const WITHOUT_TPM = new Set<Check>(["tpm", "reboot", "ima"])

let chip: FakeChip
beforeAll(async () => {
  chip = await fakeChip("Milan")
}, 60_000)

function event(register: number, type: number, data: string, measured = data): EncodedEvent {
  const digest = new Uint8Array(createHash("sha384").update(text(measured)).digest())
  return { register, type, data: text(data), digests: new Map([["sha384", digest]]) }
}

const log = (initrd: string | null, line: string) =>
  encodeEventLog(
    ["sha384"],
    [
      event(1, EVENT_TYPE.EV_SEPARATOR, "\0\0\0\0"),
      event(2, EVENT_TYPE.EV_EFI_ACTION, "Calling EFI Application from Boot Option"),
      event(3, EVENT_TYPE.EV_IPL, `kernel_cmdline: ${line}\0`, line),
      ...(initrd === null ? [] : [event(3, EVENT_TYPE.EV_IPL, "/boot/initrd.img\0", initrd)]),
    ],
  )
const LOG = log("initrd", "/vmlinuz ro")

/** Evidence of a trust domain that measured what the log says, and sends another log where one is given. */
function trustDomain(measured: Uint8Array, sent: Uint8Array | null = measured, tpm = false): Evidence {
  const registers = replayEventLog(parseEventLog(measured), "cc", "sha384")
  const rtmr = (number: number) => registers.get(number) ?? ZEROS
  const machine = tdxMachine({ body: { rtmr0: rtmr(0), rtmr1: rtmr(1), rtmr2: rtmr(2) } })
  const ccEventLog = sent === null ? {} : { ccEventLog: sent }
  if (tpm) return { ...evidenceOf(machine), ...ccEventLog }
  return { tee: machine.tee(evidenceReportData(NONCE, TLS_KEY, null)), tpm: null, ima: null, ...ccEventLog }
}

async function snapshotOf(evidence: Evidence): Promise<Snapshot> {
  const { tee, boot } = await judged(evidence, chip, { skip: WITHOUT_TPM })
  if (tee === null) throw new Error("not proven")
  const members = { format: 2, ...referenceOfTee(tee), ...bootReferenceFrom(boot) }
  return parseSnapshot(text(encodeSnapshot(parseSnapshot(text(JSON.stringify(members))))))
}

describe("the boot of a trust domain without TPM", () => {
  const boot = async (evidence: Evidence, reference: Snapshot | null, policy: string | null = null) => {
    const change = policy === null ? {} : { policy: parseTomlPolicy(policy, "p.toml") }
    const judgement = await judged(evidence, chip, { reference, skip: WITHOUT_TPM, ...change })
    const claim = judgement.verdict.claims.find(({ check }) => check === "boot")
    return { ...outcomeOf(judgement), claim }
  }

  test("rests on its registers: the same ones pass, with the log and without", async () => {
    const known = await snapshotOf(trustDomain(LOG))
    expect(Object.keys(known.boot_reference?.rtmrs ?? {})).toEqual(["0", "1", "2"])
    expect(await boot(trustDomain(LOG), known)).toMatchObject({ exit: EXIT.ok, failed: {} })
    expect(await boot(trustDomain(LOG, null), known)).toMatchObject({ exit: EXIT.ok, failed: {} })
    expect(await boot(trustDomain(LOG), null)).toMatchObject({ exit: EXIT.ok, failed: {} })
  })

  test("other registers fail, and the event that differs is told", async () => {
    const known = await snapshotOf(trustDomain(LOG))
    const { exit, failed, claim } = await boot(trustDomain(log("another", "/vmlinuz ro")), known)
    expect([exit, failed["boot"]]).toEqual([EXIT.tee, ["ERR_TDX_RTMR"]])
    expect(claim?.findings[0]).toMatchObject({
      subject: "RTMR2, event 4",
      meaning: "changed: initial RAM disk: /boot/initrd.img: other content",
    })
    const unexplained = await boot(trustDomain(log("another", "/vmlinuz ro"), null), known)
    expect(unexplained.claim?.findings).toMatchObject([{ code: "ERR_TDX_RTMR", subject: "RTMR2" }])
  })

  test("B3: a log that does not give the registers, or contradicts itself, fails", async () => {
    const known = await snapshotOf(trustDomain(LOG))
    const other = log("another", "/vmlinuz ro")
    expect((await boot(trustDomain(LOG, other), known)).failed).toEqual({ boot: ["ERR_EVENT_LOG_REPLAY"] })
    const cut = LOG.subarray(0, -1)
    expect((await boot(trustDomain(LOG, cut), known)).failed).toEqual({ boot: ["ERR_TRUNCATED"] })
    const edited = Uint8Array.from(LOG)
    edited[Buffer.from(LOG).indexOf("Calling")] = 0x63
    expect((await boot(trustDomain(LOG, edited), known)).failed).toEqual({ boot: ["ERR_EVENT_DIGEST"] })
  })

  test("is judged by the policy's rules", async () => {
    const texts = log(null, "/vmlinuz ro")
    const known = await snapshotOf(trustDomain(texts))
    const rule = (word: string) => `[boot.command_line]\nrequired = "${word}"\n`
    expect((await boot(trustDomain(texts), known, rule("ro"))).failed).toEqual({})
    expect((await boot(trustDomain(texts), known, rule("rw"))).failed).toEqual({
      boot: ["ERR_BOOT_COMMAND_LINE"],
    })
    expect((await boot(trustDomain(texts, null), known, rule("ro"))).failed).toEqual({
      boot: ["ERR_EVENT_LOG_ABSENT"],
    })
  })

  test("what is only said to be a file may be the command line: then no rule about it holds", async () => {
    const known = await snapshotOf(trustDomain(LOG))
    const policy = '[boot.command_line]\nrequired = "ro"\n'
    expect((await boot(trustDomain(LOG), known, policy)).failed).toEqual({
      boot: ["ERR_BOOT_COMMAND_LINE_UNKNOWN"],
    })
  })

  test("nothing measured, and a snapshot of a VM with a TPM or without registers, never pass", async () => {
    const empty = encodeEventLog(["sha384"], [])
    expect((await boot(trustDomain(empty), null)).failed).toEqual({ boot: ["ERR_BOOT_NOT_MEASURED"] })
    const known = await snapshotOf(trustDomain(LOG))
    const tpm_reference = { ak_name: `000b${"00".repeat(32)}`, pcrs: {}, clock: null }
    expect((await boot(trustDomain(LOG), { ...known, tpm_reference })).failed["boot"]).toEqual([
      "ERR_NOT_JUDGED",
    ])
    const { failed } = await boot(trustDomain(LOG), { ...known, tee_reference: null })
    expect(failed["boot"]).toEqual(["ERR_NOT_JUDGED"])
  })
})

test("beside a TPM the trust domain's log is judged as well", async () => {
  const skip = new Set<Check>(["ima"])
  const codes = async (sent: Uint8Array | null) => {
    const judgement = await judged(trustDomain(LOG, sent, true), chip, { skip })
    return outcomeOf(judgement).failed
  }
  expect(await codes(LOG)).toEqual({})
  expect(await codes(null)).toEqual({})
  expect(await codes(LOG.subarray(0, -1))).toEqual({ boot: ["ERR_TRUNCATED"] })
})
