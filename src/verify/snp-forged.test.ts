import { expect, test } from "bun:test"
import {
  anchorOf,
  attested,
  fakeAuthorities,
  fakeChip,
  fakeLeaf,
  fakeReport,
  JUDGED,
  leafExtensions,
} from "../../test/fakes/snp.ts"
import { AMD_ANCHORS } from "../endorsements/amd-roots.ts"
import { encodeSnpReport, parseSnpReport, type SnpReportFields } from "../formats/snp/report.ts"
import { encodeTcb } from "../formats/snp/tcb.ts"
import { verifySnp } from "./snp.ts"

const milan = await fakeChip("Milan")
const otherMilan = await fakeChip("Milan")
const turin = await fakeChip("Turin")
const ANCHORS = [milan.anchor, turin.anchor]

const verify = (report: Uint8Array, certificates: readonly Uint8Array[], anchors = ANCHORS) =>
  verifySnp({ report, certificates, anchors, crl: null, at: JUDGED })

test("honest chips of both layouts verify under their roots", () => {
  expect(attested(milan).reportedTcb).toEqual({ bootloader: 4, tee: 0, snp: 24, microcode: 219 })
  expect(attested(turin).reportedTcb).toEqual({ fmc: 1, bootloader: 1, tee: 1, snp: 4, microcode: 81 })
})

test("a self-made chain is refused by AMD's roots", () => {
  expect(() => verify(fakeReport(milan), milan.certificates, [...AMD_ANCHORS])).toThrowCode(
    "ERR_CERT_UNTRUSTED",
  )
})

test("a self-made root with the name of a trusted one is refused", () => {
  const impostor = { ...milan.anchor, spki: turin.anchor.spki }
  expect(() => verify(fakeReport(milan), milan.certificates, [impostor])).toThrowCode("ERR_CERT_UNTRUSTED")
})

test("a Milan chip under a root that is trusted for Turin only is refused", async () => {
  const wrong = { ...anchorOf(await fakeAuthorities("Milan")), product: "Turin" as const }
  expect(() => verify(fakeReport(milan), milan.certificates, [wrong])).toThrowCode("ERR_SNP_PRODUCT")
})

test("T3: a report with the certificates of another chip of the same product is refused", () => {
  expect(() => verify(fakeReport(milan), otherMilan.certificates)).toThrowCode("ERR_SNP_CHIP_ID")
})

test("T3: a report with the certificates of another product is refused", () => {
  expect(() => verify(fakeReport(turin), milan.certificates)).toThrowCode("ERR_SNP_PRODUCT")
  expect(() => verify(fakeReport(milan), turin.certificates)).toThrowCode("ERR_SNP_PRODUCT")
})

test("T3: a report signed by another chip that claims this chip's identifier is refused", () => {
  const forged = fakeReport(otherMilan, { chipId: milan.chip.hwId })
  expect(() => verify(forged, milan.certificates)).toThrowCode("ERR_SNP_SIGNATURE")
})

test("a reported TCB other than the certificate's is refused, in each component", () => {
  for (const component of ["bootloader", "tee", "snp", "microcode"] as const) {
    const tcb = { ...milan.chip.tcb, [component]: milan.chip.tcb[component] + 1 }
    const report = fakeReport(milan, { reportedTcb: encodeTcb(tcb, "Milan") })
    expect(() => verify(report, milan.certificates)).toThrowCode("ERR_SNP_CERTIFICATE_TCB")
  }
})

test("T6: Turin's TCB layout is not read as Milan's", () => {
  const report = fakeReport(milan, { reportedTcb: encodeTcb(turin.chip.tcb, "Turin") })
  expect(() => verify(report, milan.certificates)).toThrowCode("ERR_RESERVED_NOT_ZERO")
})

test("a processor that is not known is refused", () => {
  const raw = fakeReport(milan)
  raw[0x188] = 0x1b
  expect(() => verify(raw, milan.certificates)).toThrowCode("ERR_UNSUPPORTED")
})

test("T3: a VLEK report needs a VLEK, and a VLEK certificate no VCEK report", async () => {
  const asVlek = fakeReport(milan, { flags: 1 << 2 })
  expect(() => verify(asVlek, milan.certificates)).toThrowCode("ERR_SNP_SIGNING_KEY")
  const { hwId: _, ...extensions } = leafExtensions(milan)
  const vlek = await fakeLeaf(milan, { subject: "SIMULATED SEV-VLEK", extensions: Object.values(extensions) })
  const certificates = [vlek, ...milan.certificates.slice(1)]
  expect(() => verify(fakeReport(milan), certificates)).toThrowCode("ERR_SNP_SIGNING_KEY")
  // The ASK, which issues VCEKs, may not stand in for the ASVK.
  expect(() => verify(asVlek, certificates)).toThrowCode("ERR_CERT_NAME")
})

test("a leaf with hardware identifier and provider, or with neither, is refused", async () => {
  const { hwId: _, cspId: __, ...neither } = leafExtensions(milan)
  for (const extensions of [leafExtensions(milan), neither]) {
    const leaf = await fakeLeaf(milan, { extensions: Object.values(extensions) })
    const certificates = [leaf, ...milan.certificates.slice(1)]
    expect(() => verify(fakeReport(milan), certificates)).toThrowCode("ERR_MALFORMED")
  }
})

test("a leaf without one of the patch levels is refused", async () => {
  for (const component of ["bootloader", "tee", "snp", "microcode"]) {
    const { cspId: _, ...extensions } = leafExtensions(milan)
    const left = Object.entries(extensions).filter(([name]) => name !== component)
    const leaf = await fakeLeaf(milan, { extensions: left.map(([, extension]) => extension) })
    const certificates = [leaf, ...milan.certificates.slice(1)]
    expect(() => verify(fakeReport(milan), certificates)).toThrowCode("ERR_MALFORMED")
  }
})

test("an unsigned report is refused", () => {
  for (const flags of [7 << 2, 1 << 1])
    expect(() => verify(fakeReport(milan, { flags }), milan.certificates)).toThrowCode("ERR_SNP_NOT_SIGNED")
})

test("r or s that is zero, the group's order or longer is refused", () => {
  const order = Buffer.from(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    "hex",
  ).reverse()
  const field = (bytes: Uint8Array) => Uint8Array.from([...bytes, ...new Uint8Array(72 - bytes.length)])
  const long = new Uint8Array(72)
  long[48] = 1
  const { signedBytes: _, raw, ...fields } = parseSnpReport(fakeReport(milan))
  for (const value of [new Uint8Array(72), field(order), long])
    for (const name of ["signatureR", "signatureS"] as const) {
      const report: SnpReportFields = { ...fields, [name]: value }
      expect(() => verify(encodeSnpReport(report), milan.certificates)).toThrowCode("ERR_SNP_SIGNATURE")
    }
  expect(verify(raw, milan.certificates).signer).toBe("VCEK")
})

test("entries that are no certificates, and certificates of other TCBs and chips, do not get in the way", async () => {
  const older = { ...milan.chip.tcb, snp: 20 }
  const stale = await fakeChip("Milan", older)
  const certificates = [
    Uint8Array.of(0x30, 0),
    stale.leaf,
    otherMilan.leaf,
    ...milan.certificates.toReversed(),
  ]
  expect(verify(fakeReport(milan), certificates).chipId).toEqual(milan.chip.hwId)
})

test("too many certificates are refused", () => {
  const many = Array.from({ length: 17 }, () => milan.leaf)
  expect(() => verify(fakeReport(milan), many)).toThrowCode("ERR_TOO_LARGE")
})

test("without leaf or without issuer the missing one is named", () => {
  const [leaf = new Uint8Array(), ask = new Uint8Array(), ark = new Uint8Array()] = milan.certificates
  expect(() => verify(fakeReport(milan), [ask, ark])).toThrowCode("ERR_SNP_ENDORSEMENT_MISSING")
  expect(() => verify(fakeReport(milan), [leaf, ark])).toThrowCode("ERR_SNP_ENDORSEMENT_MISSING")
  expect(verify(fakeReport(milan), [leaf, ask]).signer).toBe("VCEK")
})

test("a time that is no time is refused", () => {
  const judge = () =>
    verifySnp({
      report: fakeReport(milan),
      certificates: milan.certificates,
      anchors: ANCHORS,
      crl: null,
      at: new Date(Number.NaN),
    })
  expect(judge).toThrowCode("ERR_INTERNAL")
})
