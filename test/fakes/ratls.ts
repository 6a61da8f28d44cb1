import { createPrivateKey, createPublicKey } from "node:crypto"
import { type ExtensionRequest, makeP256Key, makeSelfSignedCertificate } from "../../src/agent/certificate.ts"
import { makeRatlsCertificate } from "../../src/agent/ratls.ts"
import { parsePem } from "../../src/formats/pem.ts"
import { SNP_CERTIFICATE_GUIDS } from "../../src/formats/snp/certificate-table.ts"
import type { AnyReport, ReportDevice } from "../../src/native/ports.ts"
import { type FakeChip, fakeReport } from "./snp.ts"

const NAMES = ["VCEK", "ASK", "ARK"] as const
export const YEAR = {
  notBefore: new Date("2026-01-01T00:00:00Z"),
  notAfter: new Date("2027-01-01T00:00:00Z"),
}

/** A SEV-SNP device that signs, with its chain beside the report. */
export function snpDevice(chip: FakeChip): ReportDevice<AnyReport> {
  return {
    provider: "fake",
    getReport: async (reportData) => ({
      kind: "sev-snp",
      report: fakeReport(chip, { reportData }),
      certificates: chip.certificates.map((der, index) => {
        const name = NAMES[index] ?? "VCEK"
        return { name, guid: SNP_CERTIFICATE_GUIDS[name], der }
      }),
    }),
  }
}

/** DER of a certificate that honest code makes. */
export async function ratlsCertificate(
  tee: ReportDevice<AnyReport>,
  extraData: Uint8Array = new Uint8Array(0),
): Promise<Uint8Array> {
  const made = await makeRatlsCertificate({ tee, names: ["vm.test"], ...YEAR, extraData, privateKey: null })
  return derOf(made.certificate)
}

/** DER of a certificate of a new key with whatever extensions, signed by that key. */
export async function certificateWith(
  extensions: (spki: Uint8Array) => readonly ExtensionRequest[] | Promise<readonly ExtensionRequest[]>,
): Promise<Uint8Array> {
  const privateKey = await makeP256Key()
  const spki = createPublicKey(createPrivateKey(privateKey)).export({ type: "spki", format: "der" })
  const made = await makeSelfSignedCertificate({
    names: ["vm.test"],
    ...YEAR,
    privateKey,
    extensions: await extensions(new Uint8Array(spki)),
  })
  return derOf(made.certificate)
}

export function derOf(pem: string): Uint8Array {
  const [block] = parsePem(pem)
  if (block === undefined) throw new Error("no PEM")
  return block.der
}
