import { createPublicKey, generateKeyPair, type KeyObject } from "node:crypto"
import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { NativeError } from "../errors.ts"
import { encodePem } from "../formats/pem.ts"
import { parsePublic } from "../formats/tpm/public.ts"
import { KEY_USAGE, OID_EXTENDED_KEY_USAGE, OID_KEY_USAGE } from "../formats/x509/certificate.ts"
import { encodeDer, encodeOid, TAG } from "../formats/x509/der.ts"
import type { DeviceWorker } from "./device-worker.ts"
import {
  authorityExtensions,
  encodeCertificate,
  encodeExtension,
  SIMULATED,
} from "./simulated-certificates.ts"
import type { TpmOperations } from "./tpm-operations.ts"

const generate = promisify(generateKeyPair)
/** NV index of the certificate of the P-256 endorsement key. */
const EK_CERTIFICATE_P256 = 0x01c0_000a
const YEARS = 20
const YEAR_MS = 365 * 24 * 3600 * 1000

/**
 * Gives a simulated machine's TPM a certificate for its endorsement key, as its maker would have, where it has none. The root is
 * made on the spot and its key thrown away; its certificate is put into `directory`, which is what `--tpm-ca` takes.
 */
export async function ensureEkCertificate(
  directory: string,
  worker: DeviceWorker<TpmOperations>,
  now: Date,
): Promise<void> {
  const path = join(directory, "root.pem")
  if (existsSync(path) && (await worker.call("readNv", EK_CERTIFICATE_P256)) !== null) return
  const ekPublic = await worker.call("endorsementKey", null)
  const root = await generate("rsa", { modulusLength: 2048 })
  const name = `${SIMULATED} TPM maker`
  const common = {
    issuer: name,
    issuerKey: root.privateKey,
    notBefore: now,
    notAfter: new Date(now.getTime() + YEARS * YEAR_MS),
  }
  const rootDer = encodeCertificate({
    ...common,
    subject: name,
    publicKey: root.publicKey,
    extensions: authorityExtensions(0),
  })
  const certificate = encodeCertificate({
    ...common,
    subject: `${SIMULATED} TPM`,
    publicKey: eccKeyOf(ekPublic),
    extensions: ekExtensions(KEY_USAGE.keyAgreement),
  })
  await worker.call("writeNv", { index: EK_CERTIFICATE_P256, data: certificate })
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  writeFileSync(`${path}.new`, encodePem("CERTIFICATE", rootDer))
  renameSync(`${path}.new`, path)
}

/** Extensions of a certificate for an endorsement key. @param usage keyAgreement for ECC, keyEncipherment for RSA. */
export function ekExtensions(usage: number): Uint8Array[] {
  const bits = Uint8Array.of(7 - (usage % 8), 0x80 >> usage)
  return [
    encodeExtension(OID_KEY_USAGE, true, encodeDer(TAG.bitString, bits)),
    encodeExtension(OID_EXTENDED_KEY_USAGE, false, encodeDer(TAG.sequence, encodeOid("2.23.133.8.1"))),
  ]
}

function eccKeyOf(ekPublic: Uint8Array): KeyObject {
  const key = parsePublic(ekPublic)
  if (key.type !== "ecc")
    throw new NativeError("ERR_INTERNAL", {
      at: "simulated TPM",
      found: "an endorsement key that is not ECC",
    })
  const coordinate = (bytes: Uint8Array) =>
    Buffer.concat([Buffer.alloc(32 - bytes.length), bytes]).toString("base64url")
  return createPublicKey({
    key: { kty: "EC", crv: "P-256", x: coordinate(key.x), y: coordinate(key.y) },
    format: "jwk",
  })
}
