import { afterAll, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { makeTpmMaker } from "../../test/fakes/tpm-certificates.ts"
import { encodePem } from "../formats/pem.ts"
import { readTpmAuthorities } from "./tpm-authorities.ts"

const top = mkdtempSync(join(tmpdir(), "cosmian-vm-tpm-ca-"))
afterAll(() => rmSync(top, { recursive: true, force: true }))

const maker = makeTpmMaker()
const pem = (der: Uint8Array) => encodePem("CERTIFICATE", der)

/** A directory with these files. */
function directory(files: Record<string, string | Uint8Array>): string {
  const path = mkdtempSync(join(top, "d-"))
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content)
  return path
}

test("roots are those that signed themselves; PEM with several and DER count alike", () => {
  for (const files of [
    { "all.pem": pem(maker.authorityDer) + pem(maker.rootDer) },
    { "a.crt": maker.rootDer, "b.cer": maker.authorityDer, ".hidden": "no certificate" },
  ]) {
    const path = directory(files)
    mkdirSync(join(path, "below"))
    const { roots, intermediates } = readTpmAuthorities(path)
    expect(roots.map(({ der }) => Buffer.from(der))).toEqual([Buffer.from(maker.rootDer)])
    expect(intermediates.map(({ der }) => Buffer.from(der))).toEqual([Buffer.from(maker.authorityDer)])
  }
})

test("without a root there is nobody to believe", () => {
  expect(() => readTpmAuthorities(directory({ "a.crt": maker.authorityDer }))).toThrowCode("ERR_TPM_CA")
  expect(() => readTpmAuthorities(directory({}))).toThrowCode("ERR_TPM_CA")
  expect(() => readTpmAuthorities(join(top, "absent"))).toThrowCode("ERR_TPM_CA")
  expect(() => readTpmAuthorities(join(directory({ file: "x" }), "file"))).toThrowCode("ERR_TPM_CA")
})

test("a file that is no certificate is named, and not passed over", () => {
  const path = directory({ "a.crt": maker.rootDer, README: "certificates of our TPMs" })
  expect(() => readTpmAuthorities(path)).toThrow(join(path, "README"))
})

test("too many are refused", () => {
  const many = pem(maker.rootDer).repeat(60)
  const files = Array.from({ length: 17 }, (_, index) => [`${index}.pem`, many] as const)
  expect(() => readTpmAuthorities(directory(Object.fromEntries(files)))).toThrowCode("ERR_TPM_CA")
  expect(readTpmAuthorities(directory(Object.fromEntries(files.slice(1)))).roots).toHaveLength(960)
})
