import { describe, expect, test } from "bun:test"
import { fakeAuthorities, fakeChip, fakeCrl, fakeReport, JUDGED } from "../../test/fakes/snp.ts"
import { type ErrorCode, EXIT } from "../errors.ts"
import { evidenceReportData } from "../formats/evidence.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { CHECKS, type Check } from "./verdict.ts"
import { judge } from "./verify-vm.ts"
import { EMPTY_WHITELIST } from "./whitelist.ts"

const milan = await fakeChip("Milan")
const { ask } = await fakeAuthorities("Milan")
const askSerial = parseCertificate(ask.der).serial
const [empty, revoking, turin] = await Promise.all([
  fakeCrl("Milan"),
  fakeCrl("Milan", { revoked: [askSerial], thisUpdate: new Date("2026-01-01T12:00:00Z") }),
  fakeCrl("Turin"),
])
const nonce = new Uint8Array(32).fill(1)
const spki = new Uint8Array(91).fill(2)

/** The verdict on a machine that has nothing but its TEE, as far as revocation goes. */
function verdictOf(options: {
  readonly shipped?: readonly Uint8Array[]
  readonly own?: Uint8Array
  readonly tee?: boolean
  readonly skip?: readonly Check[]
  /** The root counts as AMD's, so that the label says more than `simulated`. */
  readonly genuine?: boolean
}) {
  const report = fakeReport(milan, { reportData: evidenceReportData(nonce, spki, null) })
  const certificates = [...milan.certificates, ...(options.shipped ?? [])]
  const without: readonly Check[] = ["tpm", "reboot", "boot", "ima"]
  return judge({
    target: "vm",
    at: JUDGED,
    nonce,
    evidence: {
      tee: options.tee === false ? null : { kind: "sev-snp", report, certificates },
      tpm: null,
      ima: null,
    },
    channel: { spki, authorized: true, reason: null, insecureAllowed: false },
    reference: null,
    whitelist: EMPTY_WHITELIST,
    anchors: [{ ...milan.anchor, simulated: options.genuine !== true }],
    crl: options.own ?? null,
    crlAbsence: null,
    intel: { anchors: [], collateral: null, problems: [] },
    applications: [],
    skip: new Set([...without, ...(options.skip ?? [])]),
  }).verdict
}

function outcomeOf(options: Parameters<typeof verdictOf>[0]) {
  const verdict = verdictOf(options)
  const claim = verdict.claims.find(({ check }) => check === "revocation")
  return {
    exit: verdict.exitCode,
    status: claim?.status,
    codes: claim?.findings.map(({ code }) => code) ?? [],
  }
}

const PASSED = { exit: EXIT.ok, status: "passed" as const, codes: [] }
const failed = (code: ErrorCode) => ({ exit: EXIT.tee, status: "failed" as const, codes: [code] })

describe("the revocation check", () => {
  test("stands after the TEE check", () => {
    expect(CHECKS.indexOf("revocation")).toBe(CHECKS.indexOf("tee") + 1)
  })

  test("fails without a list", () => {
    expect(outcomeOf({})).toEqual(failed("ERR_REVOCATION_NOT_CHECKED"))
  })

  test("passes with the verifier's own list, and with one that came with the report", () => {
    expect(outcomeOf({ own: empty })).toEqual(PASSED)
    expect(outcomeOf({ shipped: [empty] })).toEqual(PASSED)
  })

  test("fails where a list names the ASK or the VCEK", async () => {
    expect(outcomeOf({ own: revoking })).toEqual(failed("ERR_CERT_REVOKED"))
    const vcek = await fakeCrl("Milan", { revoked: [parseCertificate(milan.leaf).serial] })
    expect(outcomeOf({ own: vcek })).toEqual(failed("ERR_CERT_REVOKED"))
  })

  test("goes by the verifier's own list, whatever came with the report", () => {
    expect(outcomeOf({ own: revoking, shipped: [empty] })).toEqual(failed("ERR_CERT_REVOKED"))
    expect(outcomeOf({ own: turin, shipped: [empty] })).toEqual(failed("ERR_CRL_ISSUER"))
  })

  test("goes by the newest of several lists that came with the report", () => {
    expect(outcomeOf({ shipped: [empty, revoking] })).toEqual(failed("ERR_CERT_REVOKED"))
    expect(outcomeOf({ shipped: [revoking, empty] })).toEqual(failed("ERR_CERT_REVOKED"))
  })

  test("fails on lists that are altered, out of date or another product's", async () => {
    const altered = empty.slice()
    altered[altered.length - 1] = (altered.at(-1) ?? 0) ^ 1
    const stale = await fakeCrl("Milan", { nextUpdate: new Date("2026-01-01T12:00:00Z") })
    expect(outcomeOf({ shipped: [altered] })).toEqual(failed("ERR_CRL_SIGNATURE"))
    expect(outcomeOf({ shipped: [stale] })).toEqual(failed("ERR_CRL_EXPIRED"))
    expect(outcomeOf({ shipped: [turin] })).toEqual(failed("ERR_CRL_ISSUER"))
  })

  test("is left out by name only, and the verdict says so and that it would have failed", () => {
    const verdict = verdictOf({ own: revoking, skip: ["revocation"] })
    expect(verdict).toMatchObject({ passed: true })
    expect(verdict.skipped).toContain("revocation")
    const claim = verdict.claims.find(({ check }) => check === "revocation")
    expect(claim?.summary).toContain("would have failed")
  })

  test("without a TEE report it fails, too", () => {
    expect(outcomeOf({ tee: false, own: empty })).toEqual(failed("ERR_NOT_JUDGED"))
    const skip: readonly Check[] = ["tee", "tcb", "binding"]
    expect(outcomeOf({ tee: false, skip }).exit).toBe(EXIT.tee)
    expect(outcomeOf({ tee: false, skip: [...skip, "revocation"] }).exit).toBe(EXIT.ok)
  })

  test("that failed leaves the answer unproven", () => {
    expect(verdictOf({ genuine: true }).assurance.label).toBe("unproven")
    expect(verdictOf({ genuine: true, own: empty }).assurance.label).toBe("no-tpm")
  })
})
