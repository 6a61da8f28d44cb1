import { expect, test } from "bun:test"
import { generateKeyPairSync, X509Certificate } from "node:crypto"
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { snpDevice } from "../../test/fakes/ratls.ts"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { fakeAuthorities, fakeChip } from "../../test/fakes/snp.ts"
import { encodePem } from "../formats/pem.ts"
import type { AnyReport, ReportDevice } from "../native/ports.ts"
import { createLog } from "./log.ts"
import { makeRatlsIdentity, RatlsRenewal, renewalAt } from "./ratls-identity.ts"

const tee = snpDevice(await fakeChip())
const NOW = new Date("2026-06-01T00:00:00Z")
const DAY = 24 * 3600 * 1000
const later = (days: number) => new Date(NOW.getTime() + days * DAY)
const filesIn = (dir: string) => ({
  certificate: join(dir, "data", "cert.pem"),
  privateKey: join(dir, "data", "key.pem"),
})
const silent = createLog(
  "json",
  () => undefined,
  () => NOW,
)

test("the key stays over renewals, the certificate does not, and the key is for its owner alone", () =>
  withDirectory(async (dir) => {
    const files = filesIn(dir)
    const first = await makeRatlsIdentity(files, ["vm.test"], tee, NOW)
    expect(first.notAfter).toEqual(later(30))
    const second = await makeRatlsIdentity(files, ["vm.test"], tee, later(10))
    expect(second.spki).toEqual(first.spki)
    expect(second.certificatePem).not.toBe(first.certificatePem)
    expect(second.notAfter).toEqual(later(40))
    expect(statSync(files.privateKey).mode & 0o777).toBe(0o600)
    expect(new X509Certificate(second.certificatePem).subjectAltName).toBe("DNS:vm.test")
  }))

test("what an authority issued is not overwritten, nor is what is no certificate; a key of another kind is refused", () =>
  withDirectory(async (dir) => {
    const files = filesIn(dir)
    await makeRatlsIdentity(files, ["vm.test"], tee, NOW)
    const issued = encodePem("CERTIFICATE", (await fakeAuthorities("Milan")).ask.der)
    for (const content of [issued, "no certificate"]) {
      writeFileSync(files.certificate, content)
      expect(await codeOf(makeRatlsIdentity(files, ["vm.test"], tee, NOW))).toBe("ERR_IDENTITY")
      expect(readFileSync(files.certificate, "utf8")).toBe(content)
    }
    const other = { certificate: join(dir, "other.pem"), privateKey: join(dir, "other.key") }
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-384" })
    for (const key of [privateKey.export({ type: "pkcs8", format: "pem" }).toString(), "no key"]) {
      writeFileSync(other.privateKey, key)
      expect(await codeOf(makeRatlsIdentity(other, ["vm.test"], tee, NOW))).toBe("ERR_IDENTITY")
    }
    expect(existsSync(other.certificate)).toBe(false)
  }))

test("the certificate does not outlast what vouches for its evidence", () =>
  withDirectory(async (dir) => {
    const leafEnds = new Date(new X509Certificate((await fakeChip()).leaf).validTo)
    const close = new Date(leafEnds.getTime() - 5 * DAY)
    const { notAfter } = await makeRatlsIdentity(filesIn(dir), ["vm.test"], tee, close)
    expect(notAfter).toEqual(leafEnds)
  }))

test("behind Azure's paravisor there is no such certificate", () =>
  withDirectory(async (dir) => {
    const azure: ReportDevice<AnyReport> = {
      provider: "azure-vtpm",
      getReport: async () => ({
        kind: "azure-snp",
        hclReport: new Uint8Array(0),
        tdQuote: null,
        certificates: [],
        certificatesMissing: null,
      }),
    }
    expect(await codeOf(makeRatlsIdentity(filesIn(dir), ["vm.test"], azure, NOW))).toBe("ERR_NO_TEE")
  }))

test("a renewal is due after a third of the time that is left, and never at once", () => {
  expect(renewalAt(NOW, later(30))).toEqual(later(10))
  expect(renewalAt(NOW, NOW).getTime() - NOW.getTime()).toBe(60_000)
})

test("a renewal has the server take the new certificate; one that fails leaves the present one", () =>
  withDirectory(async (dir) => {
    const files = filesIn(dir)
    const { notAfter, certificatePem } = await makeRatlsIdentity(files, ["vm.test"], tee, NOW)
    let reloads = 0
    let works = false
    const renewal = new RatlsRenewal(
      {
        files,
        names: ["vm.test"],
        tee: {
          provider: "fake",
          getReport: (data) => (works ? tee.getReport(data) : Promise.reject(new Error("no answer"))),
        },
        now: () => later(10),
        log: silent,
        reload: async () => void reloads++,
      },
      notAfter,
    )
    await renewal.renew()
    expect(reloads).toBe(0)
    expect(readFileSync(files.certificate, "utf8")).toBe(certificatePem)
    works = true
    await renewal.renew()
    renewal.stop()
    expect(reloads).toBe(1)
    expect(new Date(new X509Certificate(readFileSync(files.certificate)).validTo)).toEqual(later(40))
  }))
