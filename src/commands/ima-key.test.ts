import { afterAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EVMCTL_SAMPLES, fileSigner } from "../../test/fakes/file-signatures.ts"
import { encodePem } from "../formats/pem.ts"
import { appraisalOf } from "./appraisal.ts"

const directory = mkdtempSync(join(tmpdir(), "ima-key-"))
afterAll(() => rmSync(directory, { recursive: true }))

function fileOf(name: string, content: string | Uint8Array): string {
  const path = join(directory, name)
  writeFileSync(path, content)
  return path
}

const appraisal = (...imaKeys: string[]) =>
  appraisalOf({
    trustRoots: [],
    skip: [],
    collateral: { kdsUrl: "", pcsUrl: "", cacheDir: null, offline: true },
    imaKeys,
  })

test("--ima-key reads PEM and DER, each file with its keys", () => {
  const der = fileOf("rsa.der", Buffer.from(EVMCTL_SAMPLES.rsa.certificate, "base64"))
  const pem = fileOf("keys.pem", encodePem("PUBLIC KEY", fileSigner("P-256").spki))
  expect(appraisal().imaKeys).toEqual([])
  expect(appraisal(der, pem).imaKeys.map(({ key }) => key.asymmetricKeyType)).toEqual(["rsa", "ec"])
})

test("--evm-key gives keys for metadata, and for nothing else", () => {
  const path = fileOf("evm.pem", encodePem("PUBLIC KEY", fileSigner("P-256").spki))
  const both = appraisalOf({
    trustRoots: [],
    skip: [],
    collateral: { kdsUrl: "", pcsUrl: "", cacheDir: null, offline: true },
    imaKeys: [path],
    evmKeys: [path],
  })
  expect(both.imaKeys.map(({ signs }) => signs)).toEqual(["content", "metadata"])
})

test("what is no key is refused with the file's name, before the VM is asked", () => {
  const path = fileOf("noise", "noise")
  expect(() => appraisal(path)).toThrowCode("ERR_IMA_KEY")
  expect(() => appraisal(path)).toThrow(path)
  expect(() => appraisal(join(directory, "absent"))).toThrowCode("ERR_IO")
})
