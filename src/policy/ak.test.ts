import { describe, expect, test } from "bun:test"
import { generateKeyPairSync, randomBytes } from "node:crypto"
import {
  azureSnpMachine,
  evidenceOf,
  judged,
  type Machine,
  outcomeOf,
  snapshotOf,
  snpMachine,
  withQuote,
} from "../../test/fakes/machines.ts"
import { fakeChip } from "../../test/fakes/snp.ts"
import { akExtensions, makeTpmMaker } from "../../test/fakes/tpm-certificates.ts"
import { AgentError, EXIT, NativeError } from "../errors.ts"
import type { Evidence, TpmEvidence } from "../formats/evidence.ts"
import { tpmName } from "../formats/tpm/public.ts"
import { spkiOf } from "../verify/tpm-signature.ts"
import { encodeSnapshot, parseSnapshot } from "./snapshot.ts"
import { originValues, referenceValues } from "./snapshot-values.ts"
import type { JudgeInput } from "./verify-vm.ts"

const chip = await fakeChip()
const maker = makeTpmMaker()
const vm = snpMachine(chip)
const ek = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey
const ekCertificate = maker.issue(ek)
const ekSpki = Uint8Array.from(ek.export({ type: "spki", format: "der" }))
const akSpki = spkiOf(vm.ak.publicArea)
const tpmAuthorities = maker.authorities

function withCertificates(evidence: Evidence, certificates: Partial<TpmEvidence>): Evidence {
  if (evidence.tpm === null) throw new Error("no TPM part")
  return { ...evidence, tpm: { ...evidence.tpm, ...certificates } }
}

/** The TPM of `ek` was asked whether it holds this machine's key, and opened the secret. */
function answer(machine: Machine = vm, change: { returned?: Uint8Array } = {}) {
  const expected = Uint8Array.from(randomBytes(32))
  return { ekSpki, akName: tpmName(machine.ak.publicArea), expected, returned: expected, ...change }
}

async function judge(evidence: Evidence, change: Partial<JudgeInput> = {}) {
  const judgement = await judged(evidence, chip, change)
  const ak = judgement.verdict.claims.find(({ check }) => check === "ak")
  const { exit, label, failed } = outcomeOf(judgement)
  const { akProvenBy, meaning } = judgement.verdict.assurance
  return {
    judgement,
    shown: { exit, label, failed, status: ak?.status, by: akProvenBy },
    admitsIt: /nothing proves that its attestation key is held by a TPM/.test(meaning),
  }
}

const enrolled = await judge(withCertificates(evidenceOf(vm), { ekCertificate }), {
  tpmAuthorities,
  credential: answer(),
})
const reference = snapshotOf(enrolled.judgement)
const unenrolled = snapshotOf(await judged(evidenceOf(vm), chip))
const passes = { exit: EXIT.ok, label: "tpm-by-host" as const, failed: {} }
const fails = (...codes: string[]) => ({
  exit: EXIT.tpm,
  label: "tpm-by-host",
  failed: { ak: codes },
  status: "failed",
})

describe("without a proof", () => {
  test("a report that commits to the key is no proof, and the verdict says so", async () => {
    const { shown, admitsIt } = await judge(evidenceOf(vm))
    expect(shown).toEqual({ ...passes, status: "warning", by: "tee-report" })
    expect(admitsIt).toBe(true)
  })

  test("nor is that it is the snapshot's key", async () => {
    const { shown, admitsIt } = await judge(evidenceOf(vm), { reference: unenrolled })
    expect(shown).toEqual({ ...passes, status: "warning", by: "snapshot" })
    expect(admitsIt).toBe(true)
  })

  test("certificates say nothing where the user named no authority", async () => {
    const akCertificate = maker.issue(vm.ak.publicArea.type === "ecc" ? akSpki : ekSpki, {
      extensions: akExtensions(),
    })
    const { shown } = await judge(withCertificates(evidenceOf(vm), { akCertificate, ekCertificate }))
    expect(shown).toMatchObject({ ...passes, status: "warning", by: "tee-report" })
  })

  test("where a proof is asked for, nothing else passes", async () => {
    for (const change of [
      { tpmAuthorities },
      { tpmAuthorities, reference: unenrolled },
      { tpmAuthorities, reference },
    ])
      expect((await judge(evidenceOf(vm), change)).shown).toMatchObject(fails("ERR_TPM_AK_UNPROVEN"))
  })

  test("no quote is no answer to a user who asks for a proof; left out by name, it is said", async () => {
    const noTpm = { ...evidenceOf(vm), tpm: null }
    expect((await judge(noTpm, { tpmAuthorities })).shown.failed).toMatchObject({ ak: ["ERR_NOT_JUDGED"] })
    expect((await judge(noTpm)).shown.status).toBeUndefined()
    const skip = new Set(["ima", "ak"] as const)
    const { judgement } = await judge(evidenceOf(vm), { tpmAuthorities, skip })
    expect(judgement.verdict).toMatchObject({ passed: true, skipped: ["ak", "ima"] })
  })
})

describe("by the TPM's certificate and a challenge", () => {
  const evidence = withCertificates(evidenceOf(vm), { ekCertificate })

  test("passes", () => {
    expect(enrolled.shown).toEqual({ ...passes, status: "passed", by: "ek-certificate" })
    expect(enrolled.admitsIt).toBe(false)
  })

  test("the certificate alone proves nothing about the key", async () => {
    const { shown } = await judge(evidence, { tpmAuthorities })
    expect(shown).toMatchObject(fails("ERR_TPM_AK_UNPROVEN"))
  })

  test.each([
    ["another secret", { returned: new Uint8Array(32) }],
    ["half of it", { returned: new Uint8Array(16) }],
    ["nothing", { returned: new Uint8Array(0) }],
  ])("the TPM does not open the secret: %s", async (_, change) => {
    const { shown } = await judge(evidence, { tpmAuthorities, credential: answer(vm, change) })
    expect(shown).toMatchObject(fails("ERR_TPM_CREDENTIAL"))
  })

  test("a challenge that failed is told as what failed it", async () => {
    const credential = new NativeError("ERR_TPM_COMMAND", { at: "TPM2_ActivateCredential" })
    expect((await judge(evidence, { tpmAuthorities, credential })).shown).toMatchObject(
      fails("ERR_TPM_COMMAND"),
    )
  })

  test("an answer for another key, or to another TPM, is never taken for this one's", async () => {
    const elsewhere = { ...answer(), ekSpki: akSpki }
    for (const credential of [answer(snpMachine(chip)), elsewhere])
      expect((await judge(evidence, { tpmAuthorities, credential })).shown.failed).toMatchObject({
        ak: ["ERR_INTERNAL"],
      })
  })

  test("a certificate of a maker whom the user did not name", async () => {
    const stranger = withCertificates(evidenceOf(vm), { ekCertificate: makeTpmMaker("stranger").issue(ek) })
    const { shown } = await judge(stranger, { tpmAuthorities, credential: answer() })
    expect(shown).toMatchObject(fails("ERR_CERT_UNTRUSTED"))
  })
})

describe("by the key's own certificate", () => {
  const issue = (spki: Uint8Array) => maker.issue(spki, { extensions: akExtensions() })

  test("passes, and fails for another key", async () => {
    const own = withCertificates(evidenceOf(vm), { akCertificate: issue(akSpki) })
    expect((await judge(own, { tpmAuthorities })).shown).toEqual({
      ...passes,
      status: "passed",
      by: "ak-certificate",
    })
    const others = withCertificates(evidenceOf(vm), { akCertificate: issue(ekSpki) })
    expect((await judge(others, { tpmAuthorities })).shown).toMatchObject(fails("ERR_TPM_AK_CERTIFICATE"))
  })

  test("either certificate is enough; with both broken, both are told", async () => {
    const one = withCertificates(evidenceOf(vm), { akCertificate: issue(ekSpki), ekCertificate })
    const { shown } = await judge(one, { tpmAuthorities, credential: answer() })
    expect(shown).toMatchObject({ ...passes, by: "ek-certificate" })
    expect((await judge(one, { tpmAuthorities })).shown).toMatchObject(
      fails("ERR_TPM_AK_CERTIFICATE", "ERR_TPM_AK_UNPROVEN"),
    )
  })
})

describe("by an endorsement key that the user gave", () => {
  const noEk = (found: string) => new AgentError("ERR_AGENT_REFUSED", { at: "agent", found })

  test("passes without any certificate, and the snapshot that keeps it passes from then on", async () => {
    const { judgement, shown, admitsIt } = await judge(evidenceOf(vm), {
      endorsementKey: ekSpki,
      credential: answer(),
    })
    expect(shown).toEqual({ ...passes, status: "passed", by: "ek-key" })
    expect(admitsIt).toBe(false)
    expect(judgement.verdict.assurance.meaning).toContain("the administrator gave")
    const kept = parseSnapshot(new TextEncoder().encode(encodeSnapshot(snapshotOf(judgement))))
    expect(kept.tpm_reference?.ak_enrolment).toMatchObject({ kind: "ek-key" })
    const later = await judge(evidenceOf(vm), { reference: kept })
    expect(later.shown).toEqual({ ...passes, status: "passed", by: "enrolled" })
    expect(later.judgement.verdict.assurance.meaning).toContain("the administrator gave")
    const certified = withCertificates(evidenceOf(vm), { ekCertificate })
    // It is no proof by certificates, where these are asked for.
    expect((await judge(certified, { reference: kept, tpmAuthorities })).shown).toMatchObject(
      fails("ERR_TPM_AK_UNPROVEN"),
    )
  })

  test("nothing less passes: no challenge, a wrong answer, another TPM, a refusal", async () => {
    for (const [credential, code] of [
      [null, "ERR_TPM_AK_UNPROVEN"],
      [answer(vm, { returned: new Uint8Array(32) }), "ERR_TPM_CREDENTIAL"],
      [noEk("status 500, ERR_TPM_NO_EK: the TPM does not have this endorsement key"), "ERR_TPM_EK_OTHER"],
      [noEk("status 500, ERR_TPM_COMMAND"), "ERR_AGENT_REFUSED"],
    ] as const) {
      const change = { endorsementKey: ekSpki, credential }
      expect((await judge(evidenceOf(vm), change)).shown.failed).toEqual({ ak: [code] })
      // Neither does an enrolment of before.
      expect((await judge(evidenceOf(vm), { ...change, reference })).shown.failed).toEqual({ ak: [code] })
    }
    const noTpm = { ...evidenceOf(vm), tpm: null }
    expect((await judge(noTpm, { endorsementKey: ekSpki })).shown.failed).toMatchObject({
      ak: ["ERR_NOT_JUDGED"],
    })
  })
})

describe("once enrolled", () => {
  test("the snapshot keeps it, and its text reads back", () => {
    expect(reference.tpm_reference?.ak_enrolment).toMatchObject({ kind: "ek-certificate" })
    expect(parseSnapshot(Buffer.from(encodeSnapshot(reference)))).toEqual(reference)
    expect(unenrolled.tpm_reference).not.toHaveProperty("ak_enrolment")
  })

  test("the same key passes without a challenge, also from saved evidence with the certificate", async () => {
    const { shown, admitsIt } = await judge(evidenceOf(vm), { reference })
    expect(shown).toEqual({ ...passes, status: "passed", by: "enrolled" })
    expect(admitsIt).toBe(false)
    const saved = withCertificates(evidenceOf(vm), { ekCertificate })
    expect((await judge(saved, { reference, tpmAuthorities })).shown).toMatchObject({
      ...passes,
      by: "enrolled",
    })
  })

  test("another key of the same machine fails, whatever it is said to be", async () => {
    const other = snpMachine(chip)
    for (const change of [{}, { tpmAuthorities }]) {
      const { shown } = await judge(evidenceOf(other), { reference, ...change })
      expect(shown).toMatchObject({ exit: EXIT.tpm, status: "failed" })
      expect(shown.failed).toEqual({ tpm: ["ERR_TPM_AK_CHANGED"], ak: ["ERR_TPM_AK_UNPROVEN"] })
    }
  })

  test("what is wrong in the member is refused", () => {
    const text = encodeSnapshot(reference)
    for (const [from, to] of [
      [`"kind":"ek-certificate"`, `"kind":"certificate"`],
      [`"kind":"ek-certificate"`, `"kind":"ek-certificate","more":1`],
      [`"root":"`, `"root":"00`],
    ] as const) {
      expect(text).toContain(from)
      expect(() => parseSnapshot(Buffer.from(text.replace(from, to)))).toThrow()
    }
  })

  test("two snapshots of one enrolled machine differ by their times only", async () => {
    const again = await judge(withCertificates(evidenceOf(vm), { ekCertificate }), {
      tpmAuthorities,
      credential: answer(),
      at: new Date("2026-01-03T00:00:00Z"),
    })
    const second = snapshotOf(again.judgement)
    expect(referenceValues(second)).toEqual(referenceValues(reference))
    expect(originValues(second)).not.toEqual(originValues(reference))
    expect(referenceValues(unenrolled)).not.toEqual(referenceValues(reference))
  })
})

describe("by claims of a paravisor", () => {
  const azure = azureSnpMachine(chip)

  test("which the snapshot's launch measurement says is Azure's", async () => {
    const first = await judge(evidenceOf(azure))
    expect(first.shown).toMatchObject({ exit: EXIT.ok, status: "warning", by: "azure-claims" })
    const { shown } = await judge(evidenceOf(azure), {
      reference: snapshotOf(first.judgement),
      tpmAuthorities,
    })
    expect(shown).toMatchObject({
      exit: EXIT.ok,
      label: "tpm-inside-tee",
      status: "passed",
      by: "azure-claims",
    })
  })

  test("and which anybody can write where no snapshot says so: no proof for who asks for one", async () => {
    const { shown } = await judge(evidenceOf(azure), { tpmAuthorities })
    expect(shown).toMatchObject({ exit: EXIT.tpm, failed: { ak: ["ERR_TPM_AK_UNPROVEN"] } })
  })
})

test("the key of a quote that was put in from elsewhere is not the one that is proven", async () => {
  const other = snpMachine(chip)
  const honest = evidenceOf(vm)
  if (honest.tee === null) throw new Error("no TEE part")
  const mixed = withCertificates(withQuote(other.ak, honest.tee), { ekCertificate })
  const { shown } = await judge(mixed, { tpmAuthorities, credential: answer(other) })
  expect(shown).toMatchObject({ exit: EXIT.binding })
})
