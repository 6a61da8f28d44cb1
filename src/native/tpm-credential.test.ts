import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { makeSoftwareAk } from "../../test/fakes/software-ak.ts"
import { authorityCertificates, manufacture } from "../../test/guest/vtpm.ts"
import { ekKeyOf } from "../agent/ek-key.ts"
import { makeCredential } from "../client/make-credential.ts"
import { readTpmAuthorities } from "../commands/tpm-authorities.ts"
import { NativeError } from "../errors.ts"
import { encodePublic, OBJECT, parsePublic, tpmName } from "../formats/tpm/public.ts"
import { encodeWire, u16, u32 } from "../formats/tpm/wire.ts"
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

const RH_ENDORSEMENT = 0x4000_000b
const RH_NULL = 0x4000_0007

/** Bytes of any command. @param sessions one for each handle that needs authorization; empty passwords and HMACs. */
function rawCommand(
  code: number,
  handles: readonly number[],
  sessions: readonly number[],
  parameters: Uint8Array,
): Uint8Array {
  const area = Buffer.concat(
    sessions.map((session) => Buffer.concat([encodeWire(u32, session), Buffer.alloc(5)])),
  )
  const authorization = sessions.length === 0 ? [] : [encodeWire(u32, area.length), area]
  const body = Buffer.concat([...handles.map((each) => encodeWire(u32, each)), ...authorization, parameters])
  const tag = sessions.length === 0 ? 0x8001 : 0x8002
  const head = [encodeWire(u16, tag), encodeWire(u32, 10 + body.length), encodeWire(u32, code)]
  return Uint8Array.from(Buffer.concat([...head, body]))
}

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

test("M1: a software key's public area, loaded into the genuine TPM, opens nothing: neither by password nor by a policy of its own", async () => {
  const { ekSpki } = await certified(made, EKS["P-384"])
  const transport = (await loadTss2())(made.software.tcti)
  const send = (
    code: number,
    handles: readonly number[],
    sessions: readonly number[],
    parameters: Uint8Array,
  ) => Buffer.from(transport.transceive(rawCommand(code, handles, sessions, parameters)))
  const rcOf = (answer: Buffer) => answer.readUInt32BE(6)
  const commandCode = Uint8Array.of(0, 0, 1, 0x47)
  const policy = createHash("sha256")
    .update(new Uint8Array(32))
    .update(Uint8Array.of(0, 0, 1, 0x6c))
    .update(commandCode)
    .digest()
  const { publicArea } = makeSoftwareAk("ecdsa-p256")
  const withPolicy = {
    ...publicArea,
    objectAttributes: publicArea.objectAttributes | OBJECT.adminWithPolicy,
    authPolicy: Uint8Array.from(policy),
  }
  const made2b = (bytes: Uint8Array) => Buffer.concat([encodeWire(u16, bytes.length), bytes])
  for (const area of [publicArea, withPolicy]) {
    const load = Buffer.concat([
      encodeWire(u16, 0),
      made2b(encodePublic(area)),
      encodeWire(u32, RH_ENDORSEMENT),
    ])
    const loaded = send(0x167, [], [], load)
    expect(rcOf(loaded)).toBe(0)
    const handle = loaded.readUInt32BE(10)
    const { idObject, encryptedSecret } = makeCredential(ekSpki, tpmName(area), SECRET)
    const credential = Buffer.concat([made2b(idObject), made2b(encryptedSecret)])
    const start = Buffer.concat([made2b(new Uint8Array(16)), Uint8Array.of(0, 0, 1, 0, 0x10, 0, 0x0b)])
    const session = send(0x176, [RH_NULL, RH_NULL], [], start).readUInt32BE(10)
    expect(rcOf(send(0x16c, [session], [], commandCode))).toBe(0)
    for (const authorization of [commands.RS_PW, session])
      expect(rcOf(send(0x147, [handle, 0x8101_0016], [authorization, commands.RS_PW], credential))).not.toBe(
        0,
      )
    for (const each of [handle, session]) send(0x165, [], [], encodeWire(u32, each))
  }
  transport.close()
})

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
