import { generateKeyPairSync, randomBytes } from "node:crypto"
import { SNP_OID, SNP_TCB_OID } from "../../src/formats/snp/leaf-certificate.ts"
import type { SnpReportFields } from "../../src/formats/snp/report.ts"
import { type SnpProduct, type Tcb, tcbComponents } from "../../src/formats/snp/tcb.ts"
import { parseCertificate } from "../../src/formats/x509/certificate.ts"
import { CRL_OID } from "../../src/formats/x509/crl.ts"
import { encodeDer, encodeInteger, TAG } from "../../src/formats/x509/der.ts"
import {
  createSimulatedAuthorities,
  encodeCertificate,
  encodeCrl,
  encodeExtension,
  issueSimulatedVcek,
  type SimulatedAuthorities,
} from "../../src/native/simulated-certificates.ts"
import {
  type SimulatedChip,
  signSimulatedReport,
  simulatedMeasurement,
} from "../../src/native/simulated-report.ts"
import { type SnpAttestation, type TrustAnchor, verifySnp } from "../../src/verify/snp.ts"
import type { Verified } from "../../src/verify/verified.ts"

/** When fake certificates are made; they are judged a day later. */
export const MADE = new Date("2026-01-01T00:00:00Z")
export const JUDGED = new Date("2026-01-02T00:00:00Z")

export const MILAN_TCB: Tcb = { bootloader: 4, tee: 0, snp: 24, microcode: 219 }
export const TURIN_TCB: Tcb = { fmc: 1, bootloader: 1, tee: 1, snp: 4, microcode: 81 }

/** A made-up chip under a made-up root, which signs whatever a test wants. */
export interface FakeChip {
  readonly chip: SimulatedChip
  readonly leaf: Uint8Array
  /** Leaf, ASK, ARK. */
  readonly certificates: readonly Uint8Array[]
  readonly anchor: TrustAnchor
}

const authorities = new Map<SnpProduct, Promise<SimulatedAuthorities>>()

/** The made-up ARK and ASK of a product: one for each test process, as their keys take a while. */
export function fakeAuthorities(product: SnpProduct): Promise<SimulatedAuthorities> {
  const known = authorities.get(product) ?? createSimulatedAuthorities(product, MADE)
  authorities.set(product, known)
  return known
}

/** A new chip of a product, with a certificate for this TCB. */
export async function fakeChip(
  product: SnpProduct = "Milan",
  tcb: Tcb = product === "Turin" ? TURIN_TCB : MILAN_TCB,
): Promise<FakeChip> {
  const made = await fakeAuthorities(product)
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-384" })
  const hwId = Uint8Array.from(randomBytes(product === "Turin" ? 8 : 64))
  const leaf = issueSimulatedVcek({ product, ask: made.ask, publicKey, hwId, tcb, now: MADE })
  return {
    chip: {
      product,
      key: privateKey,
      hwId,
      tcb,
      measurement: simulatedMeasurement(hwId),
      reportId: new Uint8Array(32).fill(1),
    },
    leaf,
    certificates: [leaf, made.ask.der, made.ark.der],
    anchor: anchorOf(made),
  }
}

/** A root as `--trust-root` would make it of the ARK's file. */
export function anchorOf({ product, ark }: SimulatedAuthorities): TrustAnchor {
  return { product, name: ark.name, spki: parseCertificate(ark.der).spki, simulated: true }
}

/** A leaf certificate with any extensions, signed by the product's ASK. */
export async function fakeLeaf(
  { chip }: FakeChip,
  change: { readonly subject?: string; readonly extensions: readonly Uint8Array[] },
): Promise<Uint8Array> {
  const { ask } = await fakeAuthorities(chip.product)
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-384" })
  return encodeCertificate({
    subject: change.subject ?? "SIMULATED SEV-VCEK",
    issuer: ask.name,
    publicKey,
    issuerKey: ask.key,
    notBefore: MADE,
    notAfter: new Date("2030-01-01T00:00:00Z"),
    extensions: change.extensions,
  })
}

/** AMD's extensions by name, for leaving some out. */
export function leafExtensions({ chip }: FakeChip): Record<string, Uint8Array> {
  const levels = tcbComponents(chip.product).map((component) => [
    component,
    encodeExtension(SNP_TCB_OID[component], false, encodeInteger(chip.tcb[component] ?? 0)),
  ])
  const text = (value: string) => encodeDer(TAG.ia5String, Buffer.from(value))
  return {
    productName: encodeExtension(SNP_OID.productName, false, text(chip.product)),
    hwId: encodeExtension(SNP_OID.hwId, false, chip.hwId),
    cspId: encodeExtension(SNP_OID.cspId, false, text("CN=cloud.example")),
    ...Object.fromEntries(levels),
  }
}

/** A revocation list of a product's root that differs from an empty one in these parts. */
export async function fakeCrl(
  product: SnpProduct = "Milan",
  change: Partial<Parameters<typeof encodeCrl>[0]> = {},
): Promise<Uint8Array> {
  const { ark } = await fakeAuthorities(product)
  return encodeCrl({
    issuer: ark.name,
    issuerKey: ark.key,
    thisUpdate: MADE,
    nextUpdate: new Date("2027-01-01T00:00:00Z"),
    revoked: [],
    extensions: [encodeExtension(CRL_OID.number, false, encodeInteger(1))],
    ...change,
  })
}

/** A report by the chip that differs from an ordinary one in these fields. */
export function fakeReport({ chip }: FakeChip, overrides: Partial<SnpReportFields> = {}): Uint8Array {
  return signSimulatedReport(chip, { reportData: new Uint8Array(64).fill(0x5a), overrides })
}

/** What verification makes of such a report. */
export function attested(fake: FakeChip, overrides: Partial<SnpReportFields> = {}): Verified<SnpAttestation> {
  return verifySnp({
    report: fakeReport(fake, overrides),
    certificates: fake.certificates,
    anchors: [fake.anchor],
    crl: null,
    at: JUDGED,
  })
}
