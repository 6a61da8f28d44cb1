import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { HAVE_VECTORS, VECTORS } from "../../test/setup.ts"
import { type EncodedEvent, encodeEventLog } from "../formats/event-log/encode.ts"
import { EVENT_TYPE, LOG_ALGORITHM, parseEventLog } from "../formats/event-log/event-log.ts"
import type { HashName } from "../formats/tpm/algorithms.ts"
import { type LogKind, replayEventLog } from "../verify/event-log.ts"
import { areProven, commandLinesOf } from "./boot-command-line.ts"
import { readBootLog } from "./boot-log.ts"
import { bootEventFindings } from "./boot-requirements.ts"
import { imaArgumentsOf } from "./ima-command-line.ts"
import { parseTomlPolicy } from "./toml-policy.ts"

const ascii = (text: string) => new TextEncoder().encode(text)
const utf16 = (text: string) => new Uint8Array(Buffer.from(text, "utf16le"))
const LINE = "root=/dev/vda1 ro ima_policy=tcb name=ä😀"
const {
  EV_EVENT_TAG,
  EV_IPL,
  EV_SEPARATOR,
  EV_EFI_ACTION,
  EV_EFI_BOOT_SERVICES_APPLICATION: EV_APP,
} = EVENT_TYPE

/** @param data what the log says of it, which is not what was measured */
function event(
  register: number,
  measured: Uint8Array,
  { type = EV_EVENT_TAG as number, data = ascii("a claim"), bank = "sha256" as HashName } = {},
): EncodedEvent {
  const digest = new Uint8Array(createHash(bank).update(measured).digest())
  return { register, type, data, digests: new Map([[bank, digest]]) }
}

const OPTIONS = event(9, utf16(`${LINE}\0`))
const OTHER = event(9, utf16("root=/dev/vdb\0"))
const INITRD = event(9, ascii("an initial RAM disk"))
const action = (text: string) => event(4, ascii(text), { type: EV_EFI_ACTION, data: ascii(text) })
const separator = event(4, new Uint8Array(4), { type: EV_SEPARATOR, data: new Uint8Array(4) })
const program = (name: string) => event(4, ascii(name), { type: EV_APP })
const ONE_PROGRAM = [
  program("kernel"),
  action("Calling EFI Application from Boot Option"),
  separator,
  action("Returning from EFI Application from Boot Option"),
]

/** A log, and a claim of what the kernel shows. */
function logOf(events: readonly EncodedEvent[], claimed: string | Uint8Array | null, kind: LogKind = "tcg") {
  const bank = kind === "tcg" ? "sha256" : "sha384"
  const bytes = encodeEventLog([bank], [...events])
  const given = replayEventLog(parseEventLog(bytes), kind, bank)
  const zeros = new Uint8Array(kind === "tcg" ? 32 : 48)
  const all = kind === "tcg" ? [4, 8, 9, 11, 12] : [0, 1, 2]
  const registers = new Map(all.map((register) => [register, given.get(register) ?? zeros] as const))
  return readBootLog(bytes, registers, {
    kind,
    bank,
    claimedCommandLine: typeof claimed === "string" ? ascii(claimed) : claimed,
  })
}

/** The command lines that count; null: they are not proven. */
function proven(
  events: readonly EncodedEvent[],
  {
    claimed = `${LINE}\n` as string | Uint8Array | null,
    initrds = [] as Uint8Array[],
    kind = "tcg" as LogKind,
  } = {},
): string[] | null {
  const log = logOf(events, claimed, kind)
  if (log.state !== "read") throw new Error(log.state)
  const lines = commandLinesOf(log.events, { text: log.claimedCommandLine, initrds })
  return areProven(lines) ? lines.texts.map((text) => Buffer.from(text, "latin1").toString()) : null
}

const digestOf = ({ digests }: EncodedEvent) => [...digests.values()][0] ?? new Uint8Array(0)

describe("a command line that the kernel's stub measured", () => {
  test("is the one that the VM shows, with and without a NUL at the end", () => {
    expect(proven([OPTIONS])).toEqual([LINE])
    expect(proven([OPTIONS], { claimed: LINE })).toEqual([LINE])
    expect(proven([event(9, utf16(LINE))])).toEqual([LINE])
  })

  test("is not proven without a claim, nor by a claim of something else", () => {
    expect(proven([OPTIONS], { claimed: null })).toBeNull()
    for (const claimed of ["", "\n", `${LINE} `, `${LINE}\n\n`, LINE.slice(0, -1), "root=/dev/vdb"])
      expect(proven([OPTIONS], { claimed })).toBeNull()
    expect(proven([event(9, ascii(LINE))])).toBeNull()
    expect(proven([event(9, utf16(`${LINE}\n\0`))])).toBeNull()
  })

  test("is not where the kernel takes only a part of it, or another text", () => {
    for (const text of [`${LINE}\nima_policy=tcb`, `${LINE}\0ima_policy=tcb`, "a".repeat(2037)])
      expect(proven([event(9, utf16(`${text}\0`))], { claimed: text })).toBeNull()
    expect(proven([event(9, utf16(`${"a".repeat(2036)}\0`))], { claimed: "a".repeat(2036) })).not.toBeNull()
    const latin = Uint8Array.from([...ascii("root=/dev/vda1 "), 0xe4])
    expect(proven([event(9, utf16("root=/dev/vda1 \ufffd\0"))], { claimed: latin })).toBeNull()
  })

  test("B2: is not one that root measured after another one", () => {
    expect(proven([OTHER, OPTIONS])).toBeNull()
    expect(proven([INITRD, OPTIONS])).toBeNull()
    // Whatever the log calls the one before.
    const renamed = { ...OTHER, type: EV_IPL, data: ascii("grub_cmd: true") }
    expect(proven([renamed, OPTIONS])).toBeNull()
  })

  test("B2: is not one measured into a register that the stub does not use", () => {
    for (const register of [4, 8, 11, 12]) expect(proven([event(register, utf16(`${LINE}\0`))])).toBeNull()
  })

  test("B2: is not that of a kernel that gave up, before another one was started", () => {
    for (const later of [OTHER, INITRD]) {
      expect(proven([OPTIONS, later])).toBeNull()
      expect(proven([...ONE_PROGRAM, program("another kernel"), OPTIONS, later])).toBeNull()
      // A program by any other name.
      const hidden = { ...program("another"), type: EV_EFI_ACTION, data: ascii("another") }
      expect(proven([...ONE_PROGRAM, hidden, OPTIONS, later])).toBeNull()
    }
    expect(proven([OPTIONS, OPTIONS])).toEqual([LINE])
  })

  test("may be followed by an initial RAM disk that is known, or where the firmware loaded one program alone", () => {
    expect(proven([OPTIONS, INITRD], { initrds: [digestOf(INITRD)] })).toEqual([LINE])
    expect(proven([OPTIONS, INITRD, OTHER], { initrds: [digestOf(INITRD)] })).toBeNull()
    expect(proven([...ONE_PROGRAM, OPTIONS, INITRD])).toEqual([LINE])
  })

  test("stands beside what the boot loader measured", () => {
    const loader = (text: string) => event(12, utf16(`${text}\0`), { type: EV_IPL, data: utf16(`${text}\0`) })
    expect(proven([loader(LINE), OPTIONS])).toEqual([LINE])
    expect(proven([loader("another"), OPTIONS])).toEqual([LINE, "another"])
    expect(proven([event(12, ascii("credentials")), OPTIONS])).toBeNull()
  })

  test("of a unified kernel image: what it was given beside is not the whole", () => {
    const image = event(11, ascii(".linux\0"), { type: EV_IPL, data: ascii(".linux\0") })
    const addon = event(12, utf16("quiet\0"), { type: EV_IPL, data: utf16("quiet\0") })
    expect(proven([addon], { claimed: null })).toEqual(["quiet"])
    expect(proven([image, addon], { claimed: null })).toBeNull()
    expect(proven([image, addon, OPTIONS])).toEqual([LINE, "quiet"])
    expect(proven([image, OPTIONS])).toEqual([LINE])
  })
})

test("rules and IMA's arguments are judged by it", () => {
  const judged = (policy: string, events = [OPTIONS]) =>
    bootEventFindings(parseTomlPolicy(policy, "vm.toml").boot, [logOf(events, LINE)]).map(({ code }) => code)
  const rules = '[boot.command_line]\nrequired = "ima_policy=tcb"\n'
  expect(judged(rules)).toEqual([])
  expect(judged('[boot.command_line]\nforbidden = "ro"\n')).toEqual(["ERR_BOOT_COMMAND_LINE"])
  expect(judged(rules, [OPTIONS, INITRD])).toEqual(["ERR_BOOT_COMMAND_LINE_UNKNOWN"])
  const initrd = Buffer.from(digestOf(INITRD)).toString("hex")
  expect(judged(`${rules}initrd = "${initrd}"\n`, [OPTIONS, INITRD])).toEqual([])
  expect(imaArgumentsOf(logOf([OPTIONS], LINE))?.text).toBe("ima_policy=tcb")
  expect(imaArgumentsOf(logOf([OPTIONS], "ima_policy=tcb"))).toBeNull()
})

describe.skipIf(!HAVE_VECTORS)("a trust domain whose firmware loads the kernel (real log)", () => {
  const real = () =>
    parseEventLog(new Uint8Array(readFileSync(join(VECTORS, "ccel", "trustee-ovmf.bin")))).events.slice(1)
  /** The real events, the command line among them exchanged for one whose text is known here. */
  const events = (more: readonly EncodedEvent[] = []): EncodedEvent[] => [
    ...real().map(({ register, type, data, digests }) => {
      const isOptions = Buffer.from(data).toString("latin1").includes("LoadOptions")
      const known = digestOf(event(3, utf16(`${LINE}\0`), { bank: "sha384" }))
      const digest = isOptions ? known : (digests.get(LOG_ALGORITHM.sha384) ?? new Uint8Array(0))
      return { register, type, data, digests: new Map([["sha384" as const, digest]]) }
    }),
    ...more,
  ]

  test("its command line is proven, beside an initial RAM disk", () => {
    expect(proven(events(), { kind: "cc" })).toEqual([LINE])
    expect(proven(events(), { kind: "cc", claimed: "ro" })).toBeNull()
  })

  test("it is not where a second program was loaded", () => {
    const second = event(2, ascii("a second kernel"), { bank: "sha384", type: EV_APP })
    expect(proven(events([second]), { kind: "cc" })).toBeNull()
  })
})
