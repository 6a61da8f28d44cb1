import { expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { nitroCertificate, nitroKey, nitroPki } from "../../test/fakes/nitro-tpm.ts"
import { withDirectory } from "../../test/fakes/simulated.ts"
import { NITRO_ANCHORS } from "../endorsements/aws-roots.ts"
import { encodePem } from "../formats/pem.ts"
import { anchorsOf } from "./trust-roots.ts"

test("without a file, AWS's own root is the only one for NitroTPM documents", () => {
  expect(anchorsOf([]).nitro).toEqual(NITRO_ANCHORS)
  expect(NITRO_ANCHORS.map(({ simulated }) => simulated)).toEqual([false])
})

test("a root of that name counts as simulated, in PEM and in DER", async () => {
  const { rootDer, roots } = nitroPki()
  await withDirectory(async (dir) => {
    for (const content of [rootDer, encodePem("CERTIFICATE", rootDer)]) {
      const path = join(dir, "root")
      writeFileSync(path, content)
      const { nitro, amd, intel } = anchorsOf([path])
      expect(nitro.slice(1)).toEqual([...roots].map((fingerprint) => ({ fingerprint, simulated: true })))
      expect([...amd, ...intel].some(({ simulated }) => simulated)).toBeFalse()
    }
  })
})

test("a certificate of that name that is no root is refused", async () => {
  const [key, signer] = [nitroKey(), nitroKey()]
  const subject = "test aws.nitro-enclaves"
  const der = nitroCertificate({ subject, issuer: subject, key, signer, extensions: [] })
  await withDirectory(async (dir) => {
    const path = join(dir, "root")
    writeFileSync(path, der)
    expect(() => anchorsOf([path])).toThrowCode("ERR_TRUST_ROOT")
  })
})
