/** RA-TLS certificates: made honestly, one thing changed, judged by code and exit code beside the unchanged twin. */
import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { ANCHOR, AT, fakeCollateral, fakeSgxQuote, fakeTdxQuote } from "../../test/fakes/intel.ts"
import { certificateWith, derOf, ratlsCertificate, snpDevice } from "../../test/fakes/ratls.ts"
import { type FakeChip, fakeChip, fakeCrl, fakeReport } from "../../test/fakes/snp.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { INTEL_ANCHORS } from "../endorsements/intel-roots.ts"
import { EXIT } from "../errors.ts"
import {
  claimsReportData,
  encodeKeyClaims,
  encodeTaggedQuote,
  encodeWrappedReport,
  RATLS_OID,
  type RatlsEvidence,
  ratlsReportData,
} from "../formats/ratls/evidence.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import type { AnyReport, ReportDevice } from "../native/ports.ts"
import { type AttestationPolicy, defaultPolicy } from "./attestation-policy.ts"
import { type RatlsInput, type RatlsVerdict, validateRatls } from "./validate-ratls.ts"
import type { Check } from "./verdict.ts"

const chip: FakeChip = await fakeChip()
const crl = await fakeCrl()
const ZEROS = new Uint8Array(32)
const ANY = defaultPolicy({ allowDebug: false })
const PASSED = { exit: EXIT.ok, code: null }

interface Circumstances extends Partial<Omit<RatlsInput, "certificate" | "judgementOf">> {
  readonly policy?: AttestationPolicy
  readonly enclave?: { readonly mrEnclaves: readonly Uint8Array[] | null; readonly mrSigners: null }
}

function judged(certificate: Uint8Array, change: Circumstances = {}): RatlsVerdict {
  const { policy = ANY, enclave, at = AT, skip = new Set<Check>(), ...rest } = change
  const snp = {
    endorsements: {
      leaf: null,
      chain: null,
      crl: null,
      fetched: { certificates: [], crl, problems: [], crlProblem: null },
    },
    anchors: [chip.anchor],
    at,
    policy,
    product: null,
  }
  const intelFor = (tee: RatlsEvidence["tee"]) => ({
    collateral: fakeCollateral(tee === "sgx" ? SGX_COLLATERAL : {}),
    problems: [],
    anchors: [ANCHOR],
    at,
    policy,
    allowDebug: false,
    skip,
    ...(enclave === undefined ? {} : { enclave }),
  })
  return validateRatls({
    target: "test",
    certificate,
    at,
    extraData: ZEROS,
    skip,
    live: false,
    judgementOf: ({ tee }) => ({ snp, intel: intelFor(tee) }),
    ...rest,
  })
}

const SGX_COLLATERAL = {
  tcbInfo: { id: "SGX", tdxModule: undefined, tdxModuleIdentities: undefined },
  qeIdentity: { id: "QE", isvprodid: 1 },
}

function outcome({ exitCode, code }: RatlsVerdict): { exit: number; code: string | null } {
  return { exit: exitCode, code }
}

/** A trust domain that signs whatever it is asked for. */
const tdxDevice: ReportDevice<AnyReport> = {
  provider: "fake",
  getReport: async (reportData) => ({ kind: "tdx", quote: fakeTdxQuote({ body: { reportData } }) }),
}

const snpReport = (reportData: Uint8Array) => fakeReport(chip, { reportData })
const chained = (reportData: Uint8Array) => Buffer.concat([snpReport(reportData), PEMS])
const PEMS = Buffer.from(
  chip.certificates
    .map(
      (der) =>
        `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString("base64")}\n-----END CERTIFICATE-----\n`,
    )
    .join(""),
)

test("SEV-SNP: what honest code makes passes, and its evidence is judged once", async () => {
  const verdict = judged(await ratlsCertificate(snpDevice(chip)))
  expect(outcome(verdict)).toEqual(PASSED)
  expect(verdict.simulated).toBe(true)
  expect(verdict.evidence).toMatchObject([{ form: "predecessor", tee: "snp", extra_data: "00".repeat(32) }])
})

test("TDX: what honest code makes passes, and both quotes are judged", async () => {
  const verdict = judged(await ratlsCertificate(tdxDevice))
  expect(outcome(verdict)).toEqual(PASSED)
  expect(verdict.evidence).toMatchObject([
    { form: "predecessor", tee: "tdx" },
    { form: "dice", tee: "tdx" },
  ])
})

test("the DICE form alone passes: SEV-SNP with the chain from elsewhere, TDX", async () => {
  const snp = await certificateWith((spki) => [
    { oid: RATLS_OID.dice, value: encodeWrappedReport(snpReport(ratlsReportData(spki))) },
  ])
  const tdx = await certificateWith((spki) => {
    const claims = encodeKeyClaims(spki)
    const quote = fakeTdxQuote({ body: { reportData: claimsReportData(claims) } })
    return [{ oid: RATLS_OID.dice, value: encodeTaggedQuote(quote, claims) }]
  })
  expect(judged(snp).code).toBe("ERR_SNP_ENDORSEMENT_MISSING")
  expect(outcome(judged(tdx))).toEqual(PASSED)
})

test("SGX: an enclave's certificate passes, and its measurement is compared", async () => {
  const mrEnclave = new Uint8Array(32).fill(9)
  const certificate = await certificateWith((spki) => [
    {
      oid: RATLS_OID.sgx,
      value: fakeSgxQuote({ mrEnclave, reportData: ratlsReportData(spki) }, { qeReport: { isvProdId: 1 } }),
    },
  ])
  const expecting = (value: Uint8Array) => ({ enclave: { mrEnclaves: [value], mrSigners: null } })
  expect(outcome(judged(certificate))).toEqual(PASSED)
  expect(outcome(judged(certificate, expecting(mrEnclave)))).toEqual(PASSED)
  expect(outcome(judged(certificate, expecting(new Uint8Array(32))))).toEqual({
    exit: EXIT.tee,
    code: "ERR_TEE_MEASUREMENT",
  })
  const policy = { ...ANY, source: "vm.toml" }
  expect(outcome(judged(certificate, { policy }))).toEqual({ exit: EXIT.tee, code: "ERR_POLICY_PLATFORM" })
})

describe("C7: the key", () => {
  test("evidence copied from another certificate is refused, in each form", async () => {
    for (const device of [snpDevice(chip), tdxDevice]) {
      const theirs = parseCertificate(await ratlsCertificate(device))
      for (const oid of [RATLS_OID.snp, RATLS_OID.tdx, RATLS_OID.dice]) {
        const extension = theirs.extensions.get(oid)
        if (extension === undefined) continue
        const copied = await certificateWith(() => [{ oid, value: extension.value }])
        const result = judged(copied)
        // A bare SEV-SNP report has no chain here, so that it fails before.
        const bare = oid === RATLS_OID.dice && theirs.extensions.has(RATLS_OID.snp)
        expect(outcome(result)).toEqual(
          bare
            ? { exit: EXIT.tee, code: "ERR_SNP_ENDORSEMENT_MISSING" }
            : { exit: EXIT.binding, code: "ERR_RATLS_KEY" },
        )
      }
    }
  })

  test("a copied piece beside a good one is refused: each has to hold", async () => {
    const theirs = parseCertificate(await ratlsCertificate(tdxDevice)).extensions.get(RATLS_OID.dice)
    const mixed = await certificateWith((spki) => [
      { oid: RATLS_OID.tdx, value: fakeTdxQuote({ body: { reportData: ratlsReportData(spki) } }) },
      { oid: RATLS_OID.dice, value: theirs?.value ?? ZEROS },
    ])
    expect(outcome(judged(mixed))).toEqual({ exit: EXIT.binding, code: "ERR_RATLS_KEY" })
  })

  test("claims that name the key, under a quote that does not commit to them", async () => {
    const forged = await certificateWith((spki) => {
      const quote = fakeTdxQuote({ body: { reportData: claimsReportData(encodeKeyClaims(ZEROS)) } })
      return [{ oid: RATLS_OID.dice, value: encodeTaggedQuote(quote, encodeKeyClaims(spki)) }]
    })
    expect(outcome(judged(forged))).toEqual({ exit: EXIT.binding, code: "ERR_RATLS_KEY" })
  })

  test("extra data have to be the expected ones, and nobody's are refused", async () => {
    const extra = new Uint8Array(32).fill(0xee)
    const certificate = await ratlsCertificate(snpDevice(chip), extra)
    expect(outcome(judged(certificate, { extraData: extra }))).toEqual(PASSED)
    const refused = { exit: EXIT.binding, code: "ERR_RATLS_EXTRA_DATA" }
    expect(outcome(judged(certificate))).toEqual(refused)
    expect(outcome(judged(certificate, { extraData: new Uint8Array(32).fill(1) }))).toEqual(refused)
    const plain = await ratlsCertificate(snpDevice(chip))
    expect(outcome(judged(plain, { extraData: extra }))).toEqual(refused)
  })

  test("a report that the agent's old interface gives anybody makes no certificate", async () => {
    // GET /quote/tee: 32 bytes of the caller's choice, then the hash of the agent's certificate.
    const agentCertificate = createHash("sha256").update("the agent's certificate").digest()
    const forged = await certificateWith((attacker) => {
      const nonce = ratlsReportData(attacker).subarray(0, 32)
      return [{ oid: RATLS_OID.snp, value: chained(Buffer.concat([nonce, agentCertificate])) }]
    })
    expect(outcome(judged(forged))).toEqual({ exit: EXIT.binding, code: "ERR_RATLS_EXTRA_DATA" })
  })

  test("binding is no check that can be left out", async () => {
    const copied = await certificateWith(() => [{ oid: RATLS_OID.snp, value: chained(new Uint8Array(64)) }])
    const skip = new Set<Check>(["revocation", "tcb"])
    expect(outcome(judged(copied, { skip }))).toEqual({ exit: EXIT.binding, code: "ERR_RATLS_KEY" })
  })
})

describe("the certificate", () => {
  const at = (iso: string) => ({ at: new Date(iso) })

  test("out of date, either way", async () => {
    const certificate = await ratlsCertificate(snpDevice(chip))
    expect(outcome(judged(certificate, at("2026-12-31T00:00:00Z")))).toEqual(PASSED)
    const refused = { exit: EXIT.channel, code: "ERR_RATLS_VALIDITY" }
    expect(outcome(judged(certificate, at("2027-01-02T00:00:00Z")))).toEqual(refused)
    expect(outcome(judged(certificate, at("2025-12-31T00:00:00Z")))).toEqual(refused)
  })

  test("changed after it was signed, at places all over the signed part", async () => {
    const certificate = await ratlsCertificate(snpDevice(chip))
    const { tbs } = parseCertificate(certificate)
    const start = tbs.byteOffset - certificate.byteOffset
    for (let index = 0; index < tbs.length; index += 97) {
      const changed = Uint8Array.from(certificate)
      changed[start + index] = (changed[start + index] ?? 0) ^ 1
      expect(judged(changed).passed).toBe(false)
    }
  })

  test("signed by another key", async () => {
    const one = await ratlsCertificate(snpDevice(chip))
    const other = parseCertificate(await ratlsCertificate(snpDevice(chip)))
    const { signature } = parseCertificate(one)
    const swapped = Uint8Array.from(one)
    // Signatures of the same length only: the frame around them stays.
    if (other.signature.length === signature.length)
      swapped.set(other.signature, swapped.length - signature.length)
    else swapped[swapped.length - 1] = (swapped.at(-1) ?? 0) ^ 1
    expect(outcome(judged(swapped))).toEqual({ exit: EXIT.channel, code: "ERR_RATLS_SIGNATURE" })
  })

  test("without evidence, with evidence of two TEEs, with bytes that are none", async () => {
    const outcomes = [
      outcome(judged(await certificateWith(() => []))),
      outcome(
        judged(
          await certificateWith(() => [
            { oid: RATLS_OID.snp, value: ZEROS },
            { oid: RATLS_OID.tdx, value: ZEROS },
          ]),
        ),
      ),
      outcome(judged(await certificateWith(() => [{ oid: RATLS_OID.snp, value: ZEROS }]))),
      outcome(judged(await certificateWith(() => [{ oid: RATLS_OID.dice, value: Uint8Array.of(0xf6) }]))),
      outcome(judged(ZEROS)),
    ]
    expect(outcomes).toEqual([
      { exit: EXIT.tee, code: "ERR_RATLS_ABSENT" },
      { exit: EXIT.tee, code: "ERR_MALFORMED" },
      { exit: EXIT.tee, code: "ERR_TRUNCATED" },
      { exit: EXIT.tee, code: "ERR_MALFORMED" },
      { exit: EXIT.tee, code: "ERR_MALFORMED" },
    ])
  })
})

test("a measurement that differs, and a policy for another TEE, are refused", async () => {
  const certificate = await ratlsCertificate(snpDevice(chip))
  const { snp } = ANY
  if (snp === null) throw new Error("the default policy has a part for SEV-SNP")
  const wanting = (value: Uint8Array) => ({ policy: { ...ANY, snp: { ...snp, measurements: [value] } } })
  expect(outcome(judged(certificate, wanting(chip.chip.measurement)))).toEqual(PASSED)
  expect(outcome(judged(certificate, wanting(new Uint8Array(48))))).toEqual({
    exit: EXIT.tee,
    code: "ERR_TEE_MEASUREMENT",
  })
  expect(outcome(judged(certificate, { policy: { ...ANY, snp: null } }))).toEqual({
    exit: EXIT.tee,
    code: "ERR_POLICY_PLATFORM",
  })
})

test.skipIf(!HAVE_VECTORS)("a certificate of the predecessor verifies as the index says", () => {
  const certificate = derOf(Buffer.from(vector("tdx/v4-tee-tools-ratls/tdx-cert.ratls.pem")).toString())
  const at = new Date("2024-02-01T00:00:00Z")
  const skip = new Set<Check>(["revocation", "tcb"])
  const judge = (skipped: ReadonlySet<Check>) =>
    validateRatls({
      target: "vector",
      certificate,
      at,
      extraData: ZEROS,
      skip: skipped,
      live: false,
      judgementOf: () => ({
        snp: {
          endorsements: {
            leaf: null,
            chain: null,
            crl: null,
            fetched: { certificates: [], crl: null, problems: [], crlProblem: null },
          },
          anchors: [],
          at,
          policy: ANY,
          product: null,
        },
        intel: {
          collateral: null,
          problems: [],
          anchors: INTEL_ANCHORS,
          at,
          policy: ANY,
          allowDebug: false,
          skip: skipped,
        },
      }),
    })
  const verdict = judge(skip)
  expect(outcome(verdict)).toEqual(PASSED)
  expect(verdict.simulated).toBe(false)
  // No collateral is stored: without leaving the checks out they fail.
  expect(judge(new Set()).passed).toBe(false)
})
