import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { generateKeyPairSync, randomBytes } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { makeSoftwareAk } from "../../test/fakes/software-ak.ts"
import { authorityCertificates, manufacture } from "../../test/guest/vtpm.ts"
import { ekKeyOf } from "../agent/ek-key.ts"
import { makeCredential } from "../client/make-credential.ts"
import { readTpmAuthorities } from "../commands/tpm-authorities.ts"
import { NativeError } from "../errors.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { verifyEkCertificate } from "../verify/tpm-certificate.ts"
import { spkiOf } from "../verify/tpm-signature.ts"
import type { Tpm } from "./ports.ts"
import { type SoftwareTpm, startSoftwareTpm } from "./swtpm.ts"
import { openTpm } from "./tpm.ts"
import * as commands from "./tpm-commands.ts"
import { loadTss2 } from "./tss2.ts"

const top = mkdtempSync(join(tmpdir(), "cosmian-vm-credential-"))
const SECRET = Uint8Array.from(randomBytes(32))

/** A software TPM as swtpm's tools make them: certificates for an RSA-2048 and a P-384 endorsement key. */
interface Made {
  readonly tpm: Tpm
  readonly software: SoftwareTpm
  readonly akName: Uint8Array
  readonly ca: string
}
let made: Made
let other: Made

async function make(name: string): Promise<Made> {
  const directory = join(top, name)
  mkdirSync(directory)
  await manufacture(directory, join(directory, "state"))
  const software = await startSoftwareTpm(join(directory, "state"))
  const tpm = await openTpm(software.tcti)
  const akName = tpmName(parsePublic((await tpm.ensureKeys()).akPublic))
  return { tpm, software, akName, ca: authorityCertificates(directory) }
}

beforeAll(async () => {
  made = await make("one")
  other = await make("other")
}, 60_000)

afterAll(async () => {
  for (const each of [made, other]) {
    await each?.tpm.close()
    await each?.software.stop()
  }
  rmSync(top, { recursive: true, force: true })
})

const EKS = { "RSA 2048": 0x01c0_0002, "P-384": 0x01c0_0016 } as const

/** The certificate at an NV index, and its key. */
async function certified({ tpm }: Made, index: number): Promise<{ der: Uint8Array; ekSpki: Uint8Array }> {
  const nv = await tpm.readNv(index)
  if (nv === null) throw new Error("no certificate")
  const der = nv.subarray(0, 4 + (nv[2] ?? 0) * 256 + (nv[3] ?? 0))
  return { der, ekSpki: parseCertificate(der).spki }
}

const activate = ({ tpm }: Made, ekSpki: Uint8Array, akName: Uint8Array) =>
  tpm.activateCredential({ ek: ekKeyOf(ekSpki), ...makeCredential(ekSpki, akName, SECRET) })

/** Code that a call fails with; null where it does not. (The runner's `rejects` waits without letting a worker's answer in.) */
const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => null,
    (error: unknown) => (error instanceof NativeError ? error.code : error),
  )

describe.each(Object.entries(EKS))("%s", (_, index) => {
  test("swtpm's certificate leads to its authority, and the TPM opens what is made for both of its keys", async () => {
    const { der, ekSpki } = await certified(made, index)
    const authorities = readTpmAuthorities(made.ca)
    expect(verifyEkCertificate(der, [], authorities, new Date()).certificate.spki).toEqual(ekSpki)
    expect(() => verifyEkCertificate(der, [], readTpmAuthorities(other.ca), new Date())).toThrowCode(
      "ERR_CERT_UNTRUSTED",
    )
    expect(await activate(made, ekSpki, made.akName)).toEqual(SECRET)
  })

  test("not for a key in software, nor for that of another TPM", async () => {
    const { ekSpki } = await certified(made, index)
    const software = tpmName(makeSoftwareAk("ecdsa-p256").publicArea)
    for (const name of [software, other.akName])
      expect(await codeOf(activate(made, ekSpki, name))).toBe("ERR_TPM_COMMAND")
  })

  test("nor on another TPM", async () => {
    const { ekSpki } = await certified(made, index)
    expect(await codeOf(activate(other, ekSpki, other.akName))).toBe("ERR_TPM_NO_EK")
  })

  test("nor where a byte of it was changed", async () => {
    const { ekSpki } = await certified(made, index)
    const honest = makeCredential(ekSpki, made.akName, SECRET)
    for (const part of ["idObject", "encryptedSecret"] as const) {
      const changed = Uint8Array.from(honest[part])
      changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1
      const request = { ek: ekKeyOf(ekSpki), ...honest, [part]: changed }
      expect(await codeOf(made.tpm.activateCredential(request))).toBe("ERR_TPM_COMMAND")
    }
  })
})

test("an endorsement key that is not persistent is made again from its template", async () => {
  // The agent's own: P-256, template L-2, used under its policy.
  const ekSpki = spkiOf(parsePublic((await made.tpm.ensureKeys()).ekPublic))
  expect(await activate(made, ekSpki, made.akName)).toEqual(SECRET)
  const transport = (await loadTss2())(made.software.tcti)
  commands.send((command) => transport.transceive(command), "evictControl", {
    handles: [commands.RH.owner, 0x8101_0001],
    authorized: 1,
    parameters: (to) => to.uint(4, 0x8101_0001),
  })
  transport.close()
  const { ekSpki: rsa } = await certified(made, EKS["RSA 2048"])
  expect(await made.tpm.readPublic(0x8101_0001)).toBeNull()
  expect(await activate(made, rsa, made.akName)).toEqual(SECRET)
}, 30_000)

test("sessions and keys are given back: it works more often than a TPM has slots", async () => {
  const { ekSpki } = await certified(made, EKS["P-384"])
  const own = spkiOf(parsePublic((await made.tpm.ensureKeys()).ekPublic))
  const wrong = tpmName(makeSoftwareAk("ecdsa-p256").publicArea)
  for (let round = 0; round < 8; round++) {
    await activate(made, own, wrong).catch(() => null)
    expect(await activate(made, ekSpki, made.akName)).toEqual(SECRET)
    expect(await activate(made, own, made.akName)).toEqual(SECRET)
  }
})

test("a key of a kind that no template is for is refused before anything is made", () => {
  for (const { publicKey } of [
    generateKeyPairSync("rsa", { modulusLength: 1024 }),
    generateKeyPairSync("ec", { namedCurve: "P-521" }),
    generateKeyPairSync("ed25519"),
  ]) {
    const spki = Uint8Array.from(publicKey.export({ type: "spki", format: "der" }))
    expect(() => makeCredential(spki, made.akName, SECRET)).toThrowCode("ERR_TPM_EK_KEY")
  }
})
