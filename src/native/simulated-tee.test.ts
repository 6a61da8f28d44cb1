import { expect, test } from "bun:test"
import { generateKeyPairSync } from "node:crypto"
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { AMD_ANCHORS, trustAnchorFromPem } from "../endorsements/amd-roots.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { verifySnp } from "../verify/snp.ts"
import { signReport } from "./simulated-report.ts"
import { loadSimulatedTee, openSimulatedTee } from "./simulated-tee.ts"

const DATA = new Uint8Array(64).map((_, index) => index)

test("a simulated TEE: made once, trusted only by its own root, stable, private", () =>
  withDirectory(async (dir) => {
    // Two at once, as two programs of one machine might start.
    const [first, second] = await Promise.all([openSimulatedTee(dir), openSimulatedTee(dir)])
    const { report, certificates } = await first.getReport(DATA)
    const root = trustAnchorFromPem(readFileSync(join(dir, "trust-root.pem"), "utf8"))
    const ders = certificates.map(({ der }) => der)
    const at = new Date()

    const proven = verifySnp({ report, certificates: ders, anchors: [root], crl: null, at })
    expect(proven.report.reportData).toEqual(DATA)
    expect(proven.anchor.simulated).toBe(true)
    expect(() => verifySnp({ report, certificates: ders, anchors: AMD_ANCHORS, crl: null, at })).toThrowCode(
      "ERR_CERT_UNTRUSTED",
    )
    const [list, ...others] = ders.toReversed()
    for (const der of others) expect(parseCertificate(der).subject.commonName).toStartWith("SIMULATED ")
    const checked = verifySnp({ report, certificates: ders, anchors: [root], crl: list ?? null, at })
    expect(checked.revocation).toBe("checked")
    expect(checked.crl?.nextUpdate?.getTime()).toBeGreaterThan(at.getTime() + 19 * 365 * 24 * 3600 * 1000)

    const again = await (await openSimulatedTee(dir)).getReport(DATA)
    const other = await second.getReport(DATA)
    for (const { report: later } of [again, other]) {
      const same = verifySnp({ report: later, certificates: ders, anchors: [root], crl: null, at })
      expect(same.report.measurement).toEqual(proven.report.measurement)
      expect(same.chipId).toEqual(proven.chipId)
    }

    expect(statSync(join(dir, "tee", "vcek.key")).mode & 0o777).toBe(0o600)
    expect(statSync(join(dir, "tee")).mode & 0o777).toBe(0o700)
    expect(readdirSync(dir).sort()).toEqual(["tee", "trust-root.pem"])
    expect(await codeOf(first.getReport(new Uint8Array(63)))).toBe("ERR_MALFORMED")

    // A changed report signed anew by the same key verifies: the helper that tests use to forge is sound.
    const { chip } = await loadSimulatedTee(dir)
    const resigned = signReport(report, chip.key)
    expect(verifySnp({ report: resigned, certificates: ders, anchors: [root], crl: null, at }).signer).toBe(
      "VCEK",
    )

    rmSync(join(dir, "trust-root.pem"))
    await openSimulatedTee(dir)
    expect(trustAnchorFromPem(readFileSync(join(dir, "trust-root.pem"), "utf8"))).toEqual(root)
    await damaged(dir)
  }))

async function damaged(dir: string): Promise<void> {
  const file = (name: string) => join(dir, "tee", name)
  const [key, leaf] = [readFileSync(file("vcek.key")), readFileSync(file("vcek.der"))]
  const withFile = async (name: string, content: string | Uint8Array) => {
    writeFileSync(file("vcek.key"), key)
    writeFileSync(file("vcek.der"), leaf)
    writeFileSync(file(name), content)
    return codeOf(openSimulatedTee(dir))
  }
  const foreign = generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey
  expect(await withFile("vcek.key", "no key")).toBe("ERR_SIMULATED_TEE")
  expect(await withFile("vcek.key", foreign.export({ type: "pkcs8", format: "pem" }))).toBe(
    "ERR_SIMULATED_TEE",
  )
  expect(await withFile("vcek.der", readFileSync(file("ask.der")))).toBe("ERR_SIMULATED_TEE")
  expect(await withFile("vcek.der", leaf)).toBe("no error")
  rmSync(file("vcek.key"))
  expect(await codeOf(openSimulatedTee(dir))).toBe("ERR_IO")
}

test("a directory that cannot be made is said so", () =>
  withDirectory(async (dir) => {
    writeFileSync(join(dir, "file"), "")
    expect(await codeOf(openSimulatedTee(join(dir, "file", "sub")))).toBe("ERR_IO")
  }))
