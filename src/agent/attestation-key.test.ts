import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { akExtensions, makeTpmMaker } from "../../test/fakes/tpm-certificates.ts"
import { NativeError } from "../errors.ts"
import { ALG, CURVE } from "../formats/tpm/algorithms.ts"
import { encodePublic, OBJECT, parsePublic, tpmName } from "../formats/tpm/public.ts"
import type { Tpm } from "../native/ports.ts"
import { openSimulatedMachine, type SimulatedMachine } from "../native/simulated-machine.ts"
import { openTpm } from "../native/tpm.ts"
import { verifyQuote } from "../verify/tpm.ts"
import { verifyAkCertificate } from "../verify/tpm-certificate.ts"
import { spkiOf } from "../verify/tpm-signature.ts"
import { AttestationKey, quoteRequest } from "./attestation-key.ts"

const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-ak-"))
const maker = makeTpmMaker("cloud")
let machine: SimulatedMachine
let tpm: Tpm

beforeAll(async () => {
  machine = await openSimulatedMachine(dir)
  tpm = await openTpm(machine.tcti)
}, 30_000)

afterAll(async () => {
  await tpm.close()
  await machine.close()
  rmSync(dir, { recursive: true, force: true })
})

/** A template as a cloud puts it into the TPM beside its key's certificate. `unique` makes it a key of its own. */
const template = (unique: number) =>
  encodePublic({
    type: "ecc",
    nameAlg: ALG.sha256,
    objectAttributes:
      OBJECT.fixedTPM |
      OBJECT.fixedParent |
      OBJECT.sensitiveDataOrigin |
      OBJECT.userWithAuth |
      OBJECT.restricted |
      OBJECT.sign,
    authPolicy: new Uint8Array(0),
    symmetric: null,
    scheme: { scheme: ALG.ecdsa, hash: ALG.sha256 },
    curveId: CURVE.p256,
    kdf: null,
    x: new Uint8Array(32).fill(unique),
    y: new Uint8Array(32),
  })

/** The same TPM with other content in some NV indexes. */
const withNv = (content: Readonly<Record<number, Uint8Array>>): Tpm => ({
  ...tpm,
  readNv: async (index) => content[index] ?? (await tpm.readNv(index)),
})

test("the agent's own key, with the certificate of the endorsement key", async () => {
  const info = await new AttestationKey(tpm).info()
  expect(info).toMatchObject({ akHandle: null, akCertificate: null, certificates: [] })
  expect(info.ekCertificate).not.toBeNull()
})

test("the cloud's key, where the TPM holds its template and a certificate for it", async () => {
  const made = await tpm.ensureKey(0x8100_0052, template(1))
  const akSpki = spkiOf(parsePublic(made))
  const akCertificate = maker.issue(akSpki, { extensions: akExtensions() })
  const filled = new Uint8Array([...akCertificate, ...new Uint8Array(100).fill(0xff)])
  const info = await new AttestationKey(withNv({ 29425666: filled, 29425667: template(1) })).info()
  expect(info).toMatchObject({ akPublic: made, akName: tpmName(parsePublic(made)), akHandle: 0x8100_0052 })
  expect(info.akCertificate).toEqual(akCertificate)
  expect(() => verifyAkCertificate(akCertificate, [], maker.authorities, akSpki, new Date())).not.toThrow()

  const qualifyingData = new Uint8Array(32).fill(7)
  const {
    attest: quote,
    signature,
    pcrValues: pcrs,
  } = await tpm.quote(quoteRequest(info, [0, 1], qualifyingData))
  expect(() =>
    verifyQuote({ quote, signature, akPublic: made, pcrs }, { qualifyingData, pcrSelection: [0, 1] }),
  ).not.toThrow()
})

test("a certificate that is not for the key of the template, or half of both, is nobody's", async () => {
  const other = maker.issue(maker.authorities.roots[0]?.spki ?? new Uint8Array(), {
    extensions: akExtensions(),
  })
  for (const content of [
    { 29425666: other, 29425667: template(1) },
    { 29425666: other },
    { 29425666: new Uint8Array(64).fill(0xff), 29425667: template(1) },
  ])
    expect(await new AttestationKey(withNv(content)).info()).toMatchObject({
      akHandle: null,
      akCertificate: null,
    })
})

test("authorities that the TPM holds come along, whole and over several indexes", async () => {
  const both = new Uint8Array([...maker.authorityDer, ...maker.rootDer])
  const info = await new AttestationKey(
    withNv({ 29360384: both.subarray(0, 500), 29360385: both.subarray(500) }),
  ).info()
  expect(info.certificates).toEqual([maker.authorityDer, maker.rootDer])
})

test("an index that may not be read is no certificate; a TPM that does not answer is told", async () => {
  const refusing = (code: "ERR_TPM_COMMAND" | "ERR_TPM_DEVICE"): Tpm => ({
    ...tpm,
    readNv: () => Promise.reject(new NativeError(code)),
  })
  expect(await new AttestationKey(refusing("ERR_TPM_COMMAND")).info()).toMatchObject({ ekCertificate: null })
  const silent = new AttestationKey(refusing("ERR_TPM_DEVICE"))
  expect(
    await silent.info().then(
      () => null,
      (error: unknown) => error,
    ),
  ).toMatchObject({ code: "ERR_TPM_DEVICE" })
})
