import { afterEach, beforeEach, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  certificateNames,
  createSelfSigned,
  isKeyExposed,
  loadOrMakeIdentity,
  readIdentity,
} from "./identity.ts"

const NOW = new Date("2026-01-02T03:04:05Z")
const NAMES = certificateNames("vm.example", "192.0.2.7")

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "identity-"))
})
afterEach(() => rmSync(directory, { recursive: true }))

const filesIn = (name: string) => ({
  certificate: join(directory, name, "cert.pem"),
  privateKey: join(directory, name, "key.pem"),
})

test("the first start makes a certificate for this machine's names and addresses", async () => {
  const files = filesIn("data")
  const { identity, made } = await loadOrMakeIdentity(files, NAMES, NOW)
  expect(made).toBe(true)
  const leaf = new X509Certificate(identity.leafDer)
  expect(leaf.subjectAltName).toBe(
    "DNS:vm.example, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP Address:192.0.2.7",
  )
  expect(leaf.ca).toBe(false)
  expect(leaf.verify(leaf.publicKey)).toBe(true)
  expect(new Date(leaf.validFrom).getTime()).toBeLessThan(NOW.getTime())
  expect(identity.notAfter.getUTCFullYear()).toBe(2035)
  expect(statSync(files.privateKey).mode & 0o777).toBe(0o600)
  expect(isKeyExposed(files)).toBe(false)
})

test("the second start takes the certificate that is there", async () => {
  const files = filesIn("data")
  const first = await loadOrMakeIdentity(files, NAMES, NOW)
  const second = await loadOrMakeIdentity(files, NAMES, NOW)
  expect(second.made).toBe(false)
  expect(second.identity.leafDer).toEqual(first.identity.leafDer)
})

test("a first start that was cut short after the key is completed with that key", async () => {
  const files = filesIn("data")
  await loadOrMakeIdentity(files, NAMES, NOW)
  const key = readFileSync(files.privateKey, "utf8")
  rmSync(files.certificate)
  writeFileSync(`${files.certificate}.new`, "half a certi")
  const { identity, made } = await loadOrMakeIdentity(files, NAMES, NOW)
  expect(made).toBe(true)
  expect(readFileSync(files.privateKey, "utf8")).toBe(key)
  expect(existsSync(`${files.certificate}.new`)).toBe(false)
  expect(identity.privateKeyPem).toBe(key)
})

test("a key that is not the certificate's is refused", async () => {
  await loadOrMakeIdentity(filesIn("a"), NAMES, NOW)
  await loadOrMakeIdentity(filesIn("b"), NAMES, NOW)
  const mixed = { certificate: filesIn("a").certificate, privateKey: filesIn("b").privateKey }
  expect(() => readIdentity(mixed)).toThrowCode("ERR_IDENTITY")
})

test("a certificate without key, and files that are no PEM, are refused", async () => {
  const files = filesIn("a")
  await loadOrMakeIdentity(files, NAMES, NOW)
  writeFileSync(files.certificate, "not PEM")
  expect(() => readIdentity(files)).toThrowCode("ERR_IDENTITY")
  rmSync(files.privateKey)
  expect(() => readIdentity(files)).toThrowCode("ERR_IDENTITY")
})

test("a key that others may read is noticed", async () => {
  const files = filesIn("a")
  await loadOrMakeIdentity(files, NAMES, NOW)
  chmodSync(files.privateKey, 0o640)
  expect(isKeyExposed(files)).toBe(true)
})

test("a host that means every address is no name of a certificate", () => {
  expect(certificateNames("vm", "0.0.0.0")).toEqual(["vm", "localhost", "127.0.0.1", "::1"])
  expect(certificateNames("vm", "::")).toEqual(["vm", "localhost", "127.0.0.1", "::1"])
  expect(certificateNames("not a name", "vm.example")).toEqual([
    "localhost",
    "127.0.0.1",
    "::1",
    "vm.example",
  ])
})

test("certificates differ in key and serial number", async () => {
  const [a, b] = await Promise.all([
    createSelfSigned({ hosts: ["a"], now: NOW }),
    createSelfSigned({ hosts: ["a"], now: NOW }),
  ])
  expect(a?.keyPem).not.toBe(b?.keyPem)
  expect(new X509Certificate(a?.certificatePem ?? "").serialNumber).not.toBe(
    new X509Certificate(b?.certificatePem ?? "").serialNumber,
  )
})
