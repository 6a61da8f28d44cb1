/** Made-up confidential VMs of each kind, which answer a request for evidence as honest ones do. */
import { createHash, randomBytes } from "node:crypto"
import { NativeError } from "../../src/errors.ts"
import { encodeHclReport } from "../../src/formats/azure/hcl.ts"
import { encodeTdReport } from "../../src/formats/azure/td-report.ts"
import {
  committedBytes,
  EVIDENCE_PCRS,
  type Evidence,
  evidenceQualifyingData,
  evidenceReportData,
  type TeeEvidence,
  type TpmEvidence,
} from "../../src/formats/evidence.ts"
import { toHex } from "../../src/formats/hex.ts"
import { SNP_CERTIFICATE_GUIDS } from "../../src/formats/snp/certificate-table.ts"
import { tpmName } from "../../src/formats/tpm/public.ts"
import type {
  AnyReport,
  Devices,
  ReportDevice,
  TeeCertificate,
  Tpm,
  TpmQuote,
} from "../../src/native/ports.ts"
import { referenceOfTee } from "../../src/policy/prove-tee.ts"
import { parseSnapshot, type Snapshot } from "../../src/policy/snapshot.ts"
import { tpmReferenceOf } from "../../src/policy/tpm.ts"
import type { Check } from "../../src/policy/verdict.ts"
import { type JudgeInput, type Judgement, judge } from "../../src/policy/verify-vm.ts"
import { EMPTY_WHITELIST } from "../../src/policy/whitelist.ts"
import { fakeClaims, fakeHclReport } from "./azure.ts"
import { ANCHOR, AT, type Change, fakeCollateral, fakeTdxQuote } from "./intel.ts"
import { type FakeChip, fakeCrl, fakeReport } from "./snp.ts"
import { makeSoftwareAk, quoteAttest, type SoftwareAk, softwareQuote } from "./software-ak.ts"

export const NONCE = Uint8Array.from(randomBytes(32))
export const TLS_KEY = new Uint8Array(91).fill(2)
const PCRS = EVIDENCE_PCRS.map((pcr) => new Uint8Array(32).fill(pcr + 1))

/** What a VM is made of. `tee` makes its TEE part over 64 bytes. */
export interface Machine {
  readonly ak: SoftwareAk
  readonly tee: (reportData: Uint8Array) => TeeEvidence
}

export function snpMachine(chip: FakeChip): Machine {
  const tee = (reportData: Uint8Array): TeeEvidence => ({
    kind: "sev-snp",
    report: fakeReport(chip, { reportData }),
    certificates: chip.certificates,
  })
  return { ak: makeSoftwareAk("ecdsa-p256"), tee }
}

export function tdxMachine(change: Change = {}): Machine {
  const tee = (reportData: Uint8Array): TeeEvidence => ({
    kind: "tdx",
    quote: boundQuote(reportData, change),
  })
  return { ak: makeSoftwareAk("ecdsa-p256"), tee }
}

export function azureSnpMachine(chip: FakeChip): Machine {
  const ak = makeSoftwareAk("rsassa")
  const tee = (reportData: Uint8Array): TeeEvidence => ({
    kind: "azure-snp",
    hcl: fakeHclReport(chip, claimsOf(ak, reportData)),
    certificates: chip.certificates,
  })
  return { ak, tee }
}

export function azureTdxMachine(change: Change = {}): Machine {
  const ak = makeSoftwareAk("rsassa")
  const tee = (userData: Uint8Array): TeeEvidence => {
    const runtimeData = Uint8Array.from(Buffer.from(claimsOf(ak, userData)))
    const reportData = new Uint8Array(64)
    reportData.set(createHash("sha256").update(runtimeData).digest())
    const hardwareReport = fakeTdReport(reportData)
    const hcl = encodeHclReport(
      { kind: "tdx", version: 2, hardwareReport, hash: "sha256", runtimeData },
      2600,
    )
    return { kind: "azure-tdx", hcl, quote: boundQuote(reportData, change) }
  }
  return { ak, tee }
}

/** Claims of a paravisor that name this key. */
export function claimsOf(ak: SoftwareAk, userData: Uint8Array): string {
  if (ak.publicArea.type !== "rsa") throw new Error("claims name RSA keys")
  const n = Buffer.from(ak.publicArea.modulus).toString("base64url")
  return fakeClaims(
    { jwk: { key_ops: ["sign"], kty: "RSA", e: "AQAB", n } },
    { "user-data": toHex(userData) },
  )
}

export function boundQuote(reportData: Uint8Array, change: Change = {}): Uint8Array {
  return fakeTdxQuote({ ...change, body: { ...change.body, reportData } })
}

function fakeTdReport(reportData: Uint8Array): Uint8Array {
  const zeros = (size: number) => new Uint8Array(size)
  return encodeTdReport({
    type: 0x81,
    subtype: 0,
    version: 0,
    cpuSvn: zeros(16),
    teeTcbInfoHash: zeros(48),
    teeInfoHash: zeros(48),
    reportData,
    mac: zeros(32),
    teeTcbInfoValid: 0n,
    teeTcbSvn: zeros(16),
    mrSeam: zeros(48),
    mrSignerSeam: zeros(48),
    seamAttributes: 0n,
    teeTcbSvn2: zeros(16),
    tdAttributes: 0n,
    xfam: 0n,
    mrTd: zeros(48),
    mrConfigId: zeros(48),
    mrOwner: zeros(48),
    mrOwnerConfig: zeros(48),
    rtmr0: zeros(48),
    rtmr1: zeros(48),
    rtmr2: zeros(48),
    rtmr3: zeros(48),
    servTdHash: zeros(48),
  })
}

/** Evidence for a request, as the honest agent makes it: quote after report. */
export function evidenceOf(machine: Machine, nonce = NONCE, spki = TLS_KEY): Evidence {
  const tee = machine.tee(evidenceReportData(nonce, spki, tpmName(machine.ak.publicArea)))
  return withQuote(machine.ak, tee, nonce, spki)
}

/** A TEE part, and a quote by a key that commits to it. */
export function withQuote(ak: SoftwareAk, tee: TeeEvidence, nonce = NONCE, spki = TLS_KEY): Evidence {
  return { tee, tpm: tpmPart(ak, evidenceQualifyingData(nonce, spki, committedBytes(tee))), ima: null }
}

function tpmPart(ak: SoftwareAk, extraData: Uint8Array): TpmEvidence {
  const { attest, signature, pcrValues } = quoteOver(ak, EVIDENCE_PCRS, extraData)
  return {
    quote: attest,
    signature,
    akPublic: ak.akPublic,
    pcrs: pcrValues,
    akCertificate: null,
    ekCertificate: null,
  }
}

/** Judges with roots that count as the vendors', so that the label says more than `simulated`. IMA is left out. */
export async function judged(
  evidence: Evidence,
  chip: FakeChip,
  change: Partial<JudgeInput> = {},
): Promise<Judgement> {
  return judge({
    target: "vm",
    at: AT,
    nonce: NONCE,
    evidence,
    channel: { spki: TLS_KEY, authorized: true, reason: null, insecureAllowed: false },
    reference: null,
    whitelist: EMPTY_WHITELIST,
    anchors: [{ ...chip.anchor, simulated: false }],
    crl: await fakeCrl(chip.chip.product),
    crlAbsence: null,
    intel: { anchors: [{ ...ANCHOR, simulated: false }], collateral: fakeCollateral(), problems: [] },
    applications: [],
    skip: new Set<Check>(["ima"]),
    ...change,
  })
}

/** The snapshot that this evidence gives, as its file holds it. */
export function snapshotOf({ tee, tpm, enrolment }: Judgement): Snapshot {
  if (tee === null || tpm === null) throw new Error("not proven")
  const members = { format: 2, ...referenceOfTee(tee), ...tpmReferenceOf(tpm, enrolment) }
  return parseSnapshot(Buffer.from(JSON.stringify(members)))
}

/** Exit code, label, and the codes of what failed, by check. */
export function outcomeOf({ verdict }: Judgement) {
  const failed = verdict.claims.filter(({ status }) => status === "failed")
  return {
    exit: verdict.exitCode,
    label: verdict.assurance.label,
    failed: Object.fromEntries(
      failed.map(({ check, findings }) => [check, findings.map(({ code }) => code)]),
    ),
  }
}

/** The machine's devices, for an agent. The TPM holds its key at `akHandle` where a platform put it there. */
export function devicesOf({ ak, tee }: Machine, akHandle: number | null): Devices {
  const device: ReportDevice<AnyReport> = {
    provider: "fake",
    getReport: async (reportData) => reportOf(tee(reportData)),
  }
  const tpm: Tpm = {
    random: async (count) => Uint8Array.from(randomBytes(count)),
    ensureKeys: async () => {
      if (akHandle !== null) throw new Error("no key is to be made")
      return { ekPublic: ak.akPublic, akPublic: ak.akPublic }
    },
    ensureKey: async () => {
      throw new NativeError("ERR_TPM_NO_EK")
    },
    activateCredential: async () => {
      throw new NativeError("ERR_TPM_NO_EK")
    },
    readPublic: async (handle) => (handle === akHandle ? ak.akPublic : null),
    readNv: async () => null,
    writeNv: async () => undefined,
    nitroDocument: async () => null,
    close: async () => undefined,
    quote: async ({ pcrs, qualifyingData, keyHandle = null }) => {
      if (keyHandle !== akHandle) throw new Error("another key is to sign")
      return quoteOver(ak, pcrs, qualifyingData)
    },
  }
  return { tee: device, tpm, ima: null, ...(akHandle === null ? {} : { akHandle }) }
}

function quoteOver(ak: SoftwareAk, pcrs: readonly number[], extraData: Uint8Array): TpmQuote {
  const pcrValues = pcrs.map((pcr) => PCRS[pcr] ?? new Uint8Array(32))
  const digest = Uint8Array.from(createHash("sha256").update(Buffer.concat(pcrValues)).digest())
  const { quote, signature } = softwareQuote(ak, quoteAttest(pcrs, digest, { extraData }))
  return { attest: quote, signature, pcrValues }
}

function reportOf(tee: TeeEvidence): AnyReport {
  const named = (ders: readonly Uint8Array[]): TeeCertificate[] =>
    ders.map((der) => ({ name: "other", guid: SNP_CERTIFICATE_GUIDS.VCEK, der }))
  switch (tee.kind) {
    case "sev-snp":
      return { ...tee, certificates: named(tee.certificates) }
    case "tdx":
      return tee
    case "azure-snp":
      return {
        kind: tee.kind,
        hclReport: tee.hcl,
        tdQuote: null,
        certificates: named(tee.certificates),
        certificatesMissing: null,
      }
    case "azure-tdx":
      return {
        kind: tee.kind,
        hclReport: tee.hcl,
        tdQuote: tee.quote,
        certificates: [],
        certificatesMissing: null,
      }
  }
}
