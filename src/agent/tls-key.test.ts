import { expect, test } from "bun:test"
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { withDirectory } from "../../test/fakes/simulated.ts"
import { fakeAuthorities } from "../../test/fakes/snp.ts"
import { encodePem } from "../formats/pem.ts"
import { makeP256Key } from "./certificate.ts"
import { loadOrMakeIdentity } from "./identity.ts"
import { placeDerivedKey } from "./tls-key.ts"

const filesIn = (dir: string) => ({
  certificate: join(dir, "data", "cert.pem"),
  privateKey: join(dir, "data", "key.pem"),
})

test("a derived key takes the place of the agent's own and its certificate, once", () =>
  withDirectory(async (dir) => {
    const files = filesIn(dir)
    const random = await loadOrMakeIdentity(files, ["vm.test"], new Date())
    const derived = await makeP256Key()
    expect(placeDerivedKey(files, derived)).toBe(true)
    expect(existsSync(files.certificate)).toBe(false)
    expect(statSync(files.privateKey).mode & 0o777).toBe(0o600)
    const { identity } = await loadOrMakeIdentity(files, ["vm.test"], new Date())
    expect(identity.spki).not.toEqual(random.identity.spki)
    expect(placeDerivedKey(files, derived)).toBe(false)
    expect(readFileSync(files.certificate, "utf8")).toBe(identity.certificatePem)
  }))

test("what an authority issued for another key stays, and so does what is neither certificate nor key", () =>
  withDirectory(async (dir) => {
    const files = filesIn(dir)
    await loadOrMakeIdentity(files, ["vm.test"], new Date())
    const derived = await makeP256Key()
    const issued = encodePem("CERTIFICATE", (await fakeAuthorities("Milan")).ask.der)
    for (const content of [issued, "no certificate"]) {
      writeFileSync(files.certificate, content)
      expect(() => placeDerivedKey(files, derived)).toThrowCode("ERR_IDENTITY")
      expect(readFileSync(files.certificate, "utf8")).toBe(content)
    }
  }))
