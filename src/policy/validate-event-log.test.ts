import { describe, expect, test } from "bun:test"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { EXIT } from "../errors.ts"
import { encodeEventLog } from "../formats/event-log/encode.ts"
import { defaultPolicy } from "./attestation-policy.ts"
import { parseTomlPolicy } from "./toml-policy.ts"
import { type ValidateInput, validate } from "./validate.ts"

const FOLDER = "gcp/gce-cos85-nonce9009"
const NO_DOCUMENTS = { collateral: null, problems: [], anchors: [], allowDebug: false, skip: new Set([]) }

function judged(change: {
  log?: Uint8Array | null
  policy?: string
  mode?: "vtpm" | "snp"
  pcrs?: Uint8Array
}) {
  const { log = null, policy: text = null, mode = "vtpm", pcrs = vector(`${FOLDER}/pcrs.json`) } = change
  const at = new Date("2026-01-01T00:00:00Z")
  const policy = text === null ? defaultPolicy({ allowDebug: false }) : parseTomlPolicy(text, "p.toml")
  const input: ValidateInput = {
    mode,
    target: "quote",
    file: vector(`${FOLDER}/quote-sha256/quote.msg`),
    at,
    reportData: null,
    nonce: Uint8Array.of(0x90, 0x09),
    snp: {
      endorsements: {
        leaf: null,
        chain: null,
        crl: null,
        fetched: { certificates: [], crl: null, problems: [], crlProblem: null },
      },
      anchors: [],
      at,
      policy,
      product: null,
    },
    intel: { ...NO_DOCUMENTS, at, policy },
    quote: {
      quote: null,
      signature: vector(`${FOLDER}/quote-sha256/quote.sig`),
      ak: vector(`${FOLDER}/quote-sha256/ak.tpmt`),
      pcrs,
      eventLog: log,
    },
    tdQuote: null,
    nitroRoots: new Set(),
    eventLog: log,
    skip: new Set(),
  }
  const { exitCode, claims } = validate(input)
  const boot = claims.find(({ name }) => name === "boot")
  return { exit: exitCode, status: boot?.status, codes: boot?.findings.map(({ code }) => code) ?? [] }
}

describe.skipIf(!HAVE_VECTORS)("a cloud's quote with its event log", () => {
  const log = () => vector(`${FOLDER}/eventlog.bin`)
  const rules = (body: string) => `[tpm.pcrs.sha256]\n0 = "${PCR0}"\n${body}`
  const PCR0 = HAVE_VECTORS
    ? JSON.parse(new TextDecoder().decode(vector(`${FOLDER}/pcrs.json`))).sha256["0"]
    : ""

  test("rules that hold", () => {
    expect(judged({ log: log(), policy: rules("[boot]\nsecure_boot = true\n") })).toEqual({
      exit: EXIT.ok,
      status: "passed",
      codes: [],
    })
    const line =
      '[boot.command_line]\nrequired = ["module.sig_enforce=1", "root=/dev/dm-?"]\nforbidden = ["debug"]\n'
    expect(judged({ log: log(), policy: rules(line) }).codes).toEqual([])
  })

  test("rules that do not", () => {
    const fails = (body: string) => judged({ log: log(), policy: rules(body) }).codes
    expect(fails('[boot.command_line]\nforbidden = ["init=*"]\n')).toContain("ERR_BOOT_COMMAND_LINE")
    expect(fails(`[boot]\nauthority = "${"00".repeat(32)}"\n`)).toEqual(["ERR_BOOT_AUTHORITY"])
    expect(fails(`[boot]\ndb = "${"00".repeat(32)}"\n`)).toContain("ERR_BOOT_DB")
  })

  test("rules without a log are not met, whatever the evidence is", () => {
    const policy = rules("[boot]\nsecure_boot = true\n")
    expect(judged({ policy })).toEqual({ exit: EXIT.boot, status: "failed", codes: ["ERR_EVENT_LOG_ABSENT"] })
    expect(judged({ policy: `${policy}\n[snp]\n`, mode: "snp" }).codes).toEqual(["ERR_EVENT_LOG_ABSENT"])
  })

  test("a log that gives only some PCRs is a warning, one of another machine or altered a failure", () => {
    const policy = rules("")
    expect(judged({ log: vector("gcp/gce-cos85-no-nonce/eventlog.bin"), policy }).codes).toEqual([])
    expect(judged({ log: vector("eventlog/gdc-host.bin"), policy }).status).toBe("failed")
    expect(judged({ log: encodeEventLog(["sha256"], []), policy }).status).toBe("failed")
    expect(judged({ log: log().subarray(0, -1), policy }).codes).toEqual(["ERR_TRUNCATED"])
    expect(judged({ log: vector("eventlog/cos-85-amd-sev.bin"), policy })).toMatchObject({ exit: EXIT.ok })
  })
})
