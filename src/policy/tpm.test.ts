import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { makeSoftwareAk, quoteAttest, type SoftwareAk, softwareQuote } from "../../test/fakes/software-ak.ts"
import type { QuoteAttest } from "../formats/tpm/attest.ts"
import { verifyQuote } from "../verify/tpm.ts"
import type { Snapshot } from "./snapshot.ts"
import { appraiseTpm, tpmReferenceOf } from "./tpm.ts"

const PCRS = Array.from({ length: 16 }, (_, pcr) => pcr)
const VALUES = PCRS.map((pcr) => new Uint8Array(32).fill(pcr + 1))
const ak = makeSoftwareAk("ecdsa-p256")

function attestation(
  options: { key?: SoftwareAk; values?: readonly Uint8Array[]; changes?: Partial<QuoteAttest> } = {},
) {
  const { key = ak, values = VALUES, changes = {} } = options
  const digest = new Uint8Array(createHash("sha256").update(Buffer.concat(values)).digest())
  const quoted = softwareQuote(key, quoteAttest(PCRS, digest, changes))
  return verifyQuote(
    { ...quoted, akPublic: key.akPublic, pcrs: values },
    { qualifyingData: new Uint8Array(32), pcrSelection: PCRS },
  )
}

const SNAPSHOT: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: null,
  filehashes: null,
  taken_at: "2026-01-01T00:00:00.000Z",
  agent_version: "2.0.0",
  host: "vm",
  hash_algorithm: "sha256",
  tee_reference: null,
  ima_reference: null,
  unreadable: [],
  ...tpmReferenceOf(attestation()),
}

const changed = (pcr: number) => VALUES.map((value, index) => (index === pcr ? new Uint8Array(32) : value))

test("the machine of the snapshot passes", () => {
  const { tpm, reboot, boot } = appraiseTpm(attestation(), SNAPSHOT)
  expect([tpm.status, reboot.status, boot.status]).toEqual(["passed", "passed", "passed"])
})

test("without a reference only what needs none is judged", () => {
  const { tpm, reboot, boot } = appraiseTpm(attestation(), null)
  expect([tpm.status, reboot.status, boot.status]).toEqual(["passed", "passed", "passed"])
})

test("the reference holds every boot PCR and not PCR 10", () => {
  const { tpm_reference: reference } = tpmReferenceOf(attestation())
  expect(Object.keys(reference.pcrs).map(Number)).toEqual(PCRS.filter((pcr) => pcr !== 10))
  expect(Object.values(reference.pcrs).every((value) => /^[0-9a-f]{64}$/.test(value))).toBeTrue()
})

test("M1, M6: another key fails as another TPM, whatever it says of itself", () => {
  const { tpm, reboot } = appraiseTpm(attestation({ key: makeSoftwareAk("ecdsa-p256") }), SNAPSHOT)
  expect(tpm).toMatchObject({ status: "failed", failureClass: "tpm" })
  expect(tpm.findings.map((finding) => finding.code)).toEqual(["ERR_TPM_AK_CHANGED"])
  expect(reboot.status).toBe("passed")
})

describe("M6: counters", () => {
  test("a reboot has its own class", () => {
    const { tpm, reboot, boot } = appraiseTpm(attestation({ changes: { resetCount: 8 } }), SNAPSHOT)
    expect(tpm.status).toBe("passed")
    expect(reboot).toMatchObject({ status: "failed", failureClass: "reboot" })
    expect(reboot.findings.map((finding) => finding.code)).toEqual(["ERR_REBOOTED"])
    expect(boot.status).toBe("passed")
  })
  test("so has a suspend", () => {
    const { reboot } = appraiseTpm(attestation({ changes: { restartCount: 1 } }), SNAPSHOT)
    expect(reboot).toMatchObject({ status: "failed", failureClass: "reboot" })
    expect(reboot.findings.map((finding) => finding.code)).toEqual(["ERR_RESUMED"])
  })
  test("a counter that went back is an old TPM state", () => {
    const { tpm, reboot } = appraiseTpm(attestation({ changes: { resetCount: 6 } }), SNAPSHOT)
    expect(tpm).toMatchObject({ status: "failed", failureClass: "tpm" })
    expect(tpm.findings.map((finding) => finding.code)).toEqual(["ERR_TPM_ROLLED_BACK"])
    expect(reboot.status).toBe("failed")
  })
  test("a clock that went back within one boot is an old copy of the VM", () => {
    const { tpm } = appraiseTpm(attestation({ changes: { clock: 999n } }), SNAPSHOT)
    expect(tpm.findings.map(({ code, subject }) => [code, subject])).toEqual([
      ["ERR_TPM_ROLLED_BACK", "clock"],
    ])
    const after = attestation({ changes: { clock: 5n, resetCount: 8 } })
    expect(appraiseTpm(after, SNAPSHOT).tpm.status).toBe("passed")
  })
  test("a clock that is not safe is a warning", () => {
    const { reboot } = appraiseTpm(attestation({ changes: { safe: false } }), SNAPSHOT)
    expect(reboot.status).toBe("warning")
    expect(reboot.findings.map((finding) => finding.code)).toEqual(["ERR_TPM_CLOCK_UNSAFE"])
  })
})

describe("B2: boot chain", () => {
  test.each(PCRS.filter((pcr) => pcr !== 10))("PCR %i differs", (pcr) => {
    const { boot } = appraiseTpm(attestation({ values: changed(pcr) }), SNAPSHOT)
    expect(boot).toMatchObject({ status: "failed", failureClass: "boot" })
    expect(boot.findings.map(({ code, subject }) => [code, subject])).toEqual([
      ["ERR_BOOT_PCR", `PCR ${pcr}`],
    ])
  })
  test("PCR 10 moves with each program", () => {
    expect(appraiseTpm(attestation({ values: changed(10) }), SNAPSHOT).boot.status).toBe("passed")
  })
  test("each PCR that differs is a finding", () => {
    const values = VALUES.map(() => new Uint8Array(32).fill(0xee))
    expect(appraiseTpm(attestation({ values }), SNAPSHOT).boot.findings.length).toBe(15)
  })
  test("a PCR that the snapshot lacks fails", () => {
    const reference = SNAPSHOT.tpm_reference
    if (reference === null) throw new Error("no reference")
    const { "7": _, ...pcrs } = reference.pcrs
    const { boot } = appraiseTpm(attestation(), { ...SNAPSHOT, tpm_reference: { ...reference, pcrs } })
    expect(boot.findings.map(({ code, subject }) => [code, subject])).toEqual([["ERR_BOOT_PCR", "PCR 7"]])
  })
  test("firmware that measures nothing fails: nothing is known about what booted", () => {
    const values = VALUES.map((value, pcr) => (pcr < 8 ? new Uint8Array(32) : value))
    const { boot } = appraiseTpm(attestation({ values }), null)
    expect(boot.failureClass).toBe("boot")
    expect(boot.findings.map((finding) => finding.code)).toEqual(["ERR_BOOT_NOT_MEASURED"])
  })
})

describe("a snapshot without reference values never passes", () => {
  test("format 1 has counters only", () => {
    const old: Snapshot = { ...SNAPSHOT, format: 1, tpm_reference: null }
    const { tpm, reboot, boot } = appraiseTpm(attestation(), old)
    expect([tpm.status, reboot.status, boot.status]).toEqual(["failed", "passed", "failed"])
    expect([tpm.failureClass, boot.failureClass]).toEqual(["tpm", "boot"])
    for (const claim of [tpm, boot]) expect(claim.findings[0]?.code).toBe("ERR_TPM_REFERENCE_ABSENT")
  })
  test("none at all", () => {
    const none: Snapshot = { ...SNAPSHOT, tpm_policy: null, tpm_reference: null }
    const { tpm, reboot, boot } = appraiseTpm(attestation(), none)
    expect([tpm.status, reboot.status, boot.status]).toEqual(["failed", "failed", "failed"])
    expect(reboot).toMatchObject({ failureClass: "reboot" })
  })
  test("an AK name that is no hex", () => {
    const reference = {
      ...SNAPSHOT,
      tpm_reference: { ak_name: "", pcrs: SNAPSHOT.tpm_reference?.pcrs ?? {}, clock: null },
    }
    expect(appraiseTpm(attestation(), reference).tpm.status).toBe("failed")
  })
})
