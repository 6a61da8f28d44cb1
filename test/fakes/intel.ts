import type { IntelCollateral } from "../../src/formats/intel/collateral.ts"
import type { QuoteHeader, QuoteSignature } from "../../src/formats/intel/quote.ts"
import { QUOTE_HEADER } from "../../src/formats/intel/quote.ts"
import { encodePem } from "../../src/formats/pem.ts"
import { encodeSgxQuote } from "../../src/formats/sgx/quote.ts"
import { SGX_REPORT, type SgxReport } from "../../src/formats/sgx/report.ts"
import { parseTdBody, TD_BODY } from "../../src/formats/tdx/body.ts"
import { encodeTdxQuote } from "../../src/formats/tdx/quote.ts"
import { INTEL_NAME, type IntelAnchor } from "../../src/verify/intel-chain.ts"
import {
  CA_EXTENSIONS,
  type FakeCertificate,
  type FakeKey,
  type FakePlatform,
  fakeCertificate,
  fakeIntelCrl,
  fakeKey,
  pckExtension,
  pointOf,
  rawSignature,
  sha256,
  spkiOf,
} from "./intel-certificates.ts"

/** First word of each name, as in any chain that is not Intel's. */
export const PREFIX = "SIMULATED "
const name = (of: keyof typeof INTEL_NAME) => `${PREFIX}${INTEL_NAME[of]}`

export const KEYS = {
  root: fakeKey(),
  ca: fakeKey(),
  pck: fakeKey(),
  tcb: fakeKey(),
  attestation: fakeKey(),
  stranger: fakeKey(),
}

export const ANCHOR: IntelAnchor = { name: name("root"), spki: spkiOf(KEYS.root), simulated: true }
export const AT = new Date("2026-06-01T00:00:00Z")

export const PLATFORM: FakePlatform = {
  components: [3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0],
  pceSvn: 11,
  pceId: new Uint8Array(2),
  fmspc: Uint8Array.of(0xb0, 0xc0, 0x6f, 0, 0, 0),
}

/** Requests of an honest chain, to change some of their parts. */
export const CERTIFICATES = {
  pck: {
    subject: name("pck"),
    issuer: name("platformCa"),
    key: KEYS.pck,
    signer: KEYS.ca,
    serial: 5,
    extensions: [pckExtension(PLATFORM)],
  },
  ca: {
    subject: name("platformCa"),
    issuer: name("root"),
    key: KEYS.ca,
    signer: KEYS.root,
    serial: 2,
    extensions: CA_EXTENSIONS,
  },
  tcb: {
    subject: name("tcbSigning"),
    issuer: name("root"),
    key: KEYS.tcb,
    signer: KEYS.root,
    serial: 3,
  },
  root: {
    subject: name("root"),
    issuer: name("root"),
    key: KEYS.root,
    signer: KEYS.root,
    serial: 1,
    extensions: CA_EXTENSIONS,
  },
} as const satisfies Record<string, FakeCertificate>

export type Plain = Record<string, unknown>
const zeros = (size: number) => "00".repeat(size)
const module = { mrsigner: zeros(48), attributes: zeros(8), attributesMask: "FF".repeat(8) }
const components = (svns: readonly number[]) => svns.map((svn) => ({ svn }))
const upToDate = { tcbDate: "2025-01-01T00:00:00Z", tcbStatus: "UpToDate" }
const dates = {
  issueDate: "2026-01-01T00:00:00Z",
  nextUpdate: "2028-01-01T00:00:00Z",
  tcbEvaluationDataNumber: 17,
}

/** A level that the honest platform reaches exactly. */
export const LEVEL = {
  tcb: {
    sgxtcbcomponents: components(PLATFORM.components),
    pcesvn: PLATFORM.pceSvn,
    tdxtcbcomponents: components([0, 0, 3, ...new Array<number>(13).fill(0)]),
  },
  ...upToDate,
}

export const TCB_INFO: Plain = {
  id: "TDX",
  version: 3,
  ...dates,
  fmspc: "B0C06F000000",
  pceId: "0000",
  tcbType: 0,
  tdxModule: module,
  tdxModuleIdentities: [{ id: "TDX_01", ...module, tcbLevels: [{ tcb: { isvsvn: 3 }, ...upToDate }] }],
  tcbLevels: [LEVEL],
}

const TD_QE_SIGNER = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"

export const QE_IDENTITY: Plain = {
  id: "TD_QE",
  version: 2,
  ...dates,
  miscselect: zeros(4),
  miscselectMask: "FF".repeat(4),
  attributes: `11${zeros(15)}`,
  attributesMask: `FB${"FF".repeat(7)}${zeros(8)}`,
  mrsigner: TD_QE_SIGNER,
  isvprodid: 2,
  tcbLevels: [{ tcb: { isvsvn: 4 }, ...upToDate }],
}

/** What is changed against an honest quote with honest collateral. Signatures are made after the change. */
export interface Change {
  readonly certificates?: readonly Uint8Array[]
  readonly qeReport?: Partial<SgxReport>
  readonly qeSigner?: FakeKey
  readonly header?: Partial<QuoteHeader>
  readonly body?: Partial<Parameters<(typeof TD_BODY)["1.0"]["encode"]>[0]>
  readonly tcbInfo?: Plain
  readonly qeIdentity?: Plain
  readonly signerCertificate?: Partial<FakeCertificate>
  readonly collateral?: Partial<IntelCollateral>
}

/** The honest chain as it stands in a quote, parts changed. */
export function chain(change: { pck?: Partial<FakeCertificate>; ca?: Partial<FakeCertificate> } = {}) {
  const { pck, ca, root } = CERTIFICATES
  return [{ ...pck, ...change.pck }, { ...ca, ...change.ca }, root].map(fakeCertificate)
}

/** Input of a verification. */
export function scenario(change: Change = {}) {
  return { quote: fakeTdxQuote(change), collateral: fakeCollateral(change), anchors: [ANCHOR], at: AT }
}

export function fakeTdxQuote(change: Change = {}): Uint8Array {
  const raw = TD_BODY["1.0"].encode({
    teeTcbSvn: Uint8Array.of(3, 1, 3, ...new Uint8Array(13)),
    mrSeam: new Uint8Array(48),
    mrSignerSeam: new Uint8Array(48),
    seamAttributes: new Uint8Array(8),
    tdAttributes: 1n << 28n,
    xfam: 0xe7n,
    mrTd: new Uint8Array(48).fill(1),
    mrConfigId: new Uint8Array(48),
    mrOwner: new Uint8Array(48),
    mrOwnerConfig: new Uint8Array(48),
    rtmr0: new Uint8Array(48),
    rtmr1: new Uint8Array(48),
    rtmr2: new Uint8Array(48),
    rtmr3: new Uint8Array(48),
    reportData: new Uint8Array(64),
    ...change.body,
  })
  const header = fakeHeader(4, 0x81, change)
  const signature = fakeSignature(Buffer.concat([QUOTE_HEADER.encode(header), raw]), change)
  return encodeTdxQuote({ header, body: parseTdBody(raw, "1.0"), signature })
}

/** A quote of an SGX enclave; its quoting enclave is that of `change.qeReport`. */
export function fakeSgxQuote(body: Partial<SgxReport>, change: Change = {}): Uint8Array {
  const bodyBytes = SGX_REPORT.encode({ ...EMPTY_REPORT, ...body })
  const header = fakeHeader(3, 0, change)
  const signature = fakeSignature(Buffer.concat([QUOTE_HEADER.encode(header), bodyBytes]), change)
  return encodeSgxQuote({ header, bodyBytes, signature })
}

function fakeHeader(version: number, teeType: number, change: Change): QuoteHeader {
  return {
    version,
    attestationKeyType: 2,
    teeType,
    qeSvn: 0,
    pceSvn: 0,
    qeVendorId: Buffer.from("939a7233f79c4ca9940a0db3957f0607", "hex"),
    userData: new Uint8Array(20),
    ...change.header,
  }
}

const EMPTY_REPORT: SgxReport = {
  cpuSvn: new Uint8Array(16),
  miscSelect: new Uint8Array(4),
  isvExtProdId: new Uint8Array(16),
  attributes: Uint8Array.of(0x15, ...new Uint8Array(15)),
  mrEnclave: new Uint8Array(32),
  mrSigner: Buffer.from(TD_QE_SIGNER, "hex"),
  configId: new Uint8Array(64),
  isvProdId: 2,
  isvSvn: 6,
  configSvn: 0,
  isvFamilyId: new Uint8Array(16),
  reportData: new Uint8Array(64),
}

function fakeSignature(signedBytes: Uint8Array, change: Change): QuoteSignature {
  const attestationKey = pointOf(KEYS.attestation)
  const qeAuthData = Uint8Array.from({ length: 32 }, (_, index) => index)
  const binding = Buffer.concat([sha256(attestationKey, qeAuthData), new Uint8Array(32)])
  const qeReport = { ...EMPTY_REPORT, reportData: binding, ...change.qeReport }
  const qeReportBytes = SGX_REPORT.encode(qeReport)
  const certificates = change.certificates ?? chain()
  return {
    signature: rawSignature(signedBytes, KEYS.attestation),
    attestationKey,
    qeReport,
    qeReportBytes,
    qeReportSignature: rawSignature(qeReportBytes, change.qeSigner ?? KEYS.pck),
    qeAuthData,
    pckChain: Buffer.from(certificates.map((der) => encodePem("CERTIFICATE", der)).join("")),
    certificates,
  }
}

export function fakeCollateral(change: Change = {}): IntelCollateral {
  const tcbInfo = Buffer.from(JSON.stringify({ ...TCB_INFO, ...change.tcbInfo }))
  const qeIdentity = Buffer.from(JSON.stringify({ ...QE_IDENTITY, ...change.qeIdentity }))
  const signer = { ...CERTIFICATES.tcb, ...change.signerCertificate }
  const issuers = [fakeCertificate(signer), fakeCertificate(CERTIFICATES.root)]
  return {
    tcbInfo,
    tcbInfoSignature: rawSignature(tcbInfo, signer.key),
    tcbInfoIssuerChain: issuers,
    qeIdentity,
    qeIdentitySignature: rawSignature(qeIdentity, signer.key),
    qeIdentityIssuerChain: issuers,
    pckCrl: fakeIntelCrl(name("platformCa"), KEYS.ca, []),
    pckCrlIssuerChain: [fakeCertificate(CERTIFICATES.ca), fakeCertificate(CERTIFICATES.root)],
    rootCaCrl: fakeIntelCrl(name("root"), KEYS.root, []),
    ...change.collateral,
  }
}
