import { ParseError } from "../../errors.ts"
import { fromHex } from "../hex.ts"
import { JsonRecord, parseJsonRecord } from "../strict-json.ts"

/** Claims of a paravisor: far below this today (1.2 kB). */
export const MAX_RUNTIME_DATA = 4096
const MAX_KEYS = 8
/** RSA moduli: 2048 to 4096 bits. */
const MODULUS_BYTES = { min: 256, max: 512 }
/** Bytes that a guest may have put into the claims. */
export const USER_DATA_SIZE = 64

/** An RSA public key from a JWK. */
export interface RsaJwk {
  /** What the key is: `HCLAkPub`. */
  readonly kid: string
  /** As written. Older paravisors write `encrypt` for a signing key, so nothing follows from it. */
  readonly keyOps: readonly string[]
  /** Big-endian, no leading zero. */
  readonly modulus: Uint8Array
  /** Big-endian. */
  readonly exponent: Uint8Array
}

/** What the host configured. The paravisor repeats it; whether it is acceptable is for appraisal. Null: not said. */
export interface AzureVmConfiguration {
  readonly consoleEnabled: boolean | null
  readonly secureBoot: boolean | null
  readonly tpmEnabled: boolean | null
  readonly tpmPersisted: boolean | null
  /** Base64url of the hash of the certificate that provisioned the VM's state. */
  readonly rootCertThumbprint: string | null
  /** A GUID. */
  readonly vmUniqueId: string | null
  /** Seconds since 1970, by the host's clock; older paravisors only. */
  readonly currentTime: number | null
  /** All members as written, those above included: newer paravisors add some. */
  readonly members: Readonly<Record<string, unknown>>
}

/** What Azure's paravisor states about its virtual TPM and the VM. */
export interface RuntimeClaims {
  /** `HCLAkPub`: the virtual TPM's attestation key. */
  readonly akPublicKey: RsaJwk
  /** `HCLEkPub`: its endorsement key; null in older claims. */
  readonly ekPublicKey: RsaJwk | null
  /** The 64 bytes of NV index 0x01400002 when the report was made; null in older claims, which cannot hold any. */
  readonly userData: Uint8Array | null
  readonly vmConfiguration: AzureVmConfiguration
}

/**
 * Reads runtime claims: JSON in which no name occurs twice and no unknown member or key stands, except within
 * `vm-configuration`, which grows with each paravisor.
 * Source: OpenHCL, openhcl_attestation_protocol, `RuntimeClaims` for AK_CERT_REQUEST; Microsoft, "Confidential VM guest
 * attestation design detail" (February 2025), section "Runtime claims".
 * @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_UNSUPPORTED
 */
export function parseRuntimeClaims(runtimeData: Uint8Array): RuntimeClaims {
  const root = parseJsonRecord("runtime claims", runtimeData, MAX_RUNTIME_DATA)
  const keys = parseKeys(root)
  const vmConfiguration = parseVmConfiguration(root.record("vm-configuration"))
  const userData = parseUserData(root)
  root.finish()
  const akPublicKey = keys.get("HCLAkPub")
  if (akPublicKey === undefined)
    throw new ParseError("ERR_MALFORMED", {
      at: root.place("keys"),
      expected: "the key HCLAkPub",
      found: [...keys.keys()].join(", ") || "none",
    })
  return { akPublicKey, ekPublicKey: keys.get("HCLEkPub") ?? null, userData, vmConfiguration }
}

function parseKeys(root: JsonRecord): Map<string, RsaJwk> {
  const values = root.array("keys")
  if (values.length > MAX_KEYS)
    throw new ParseError("ERR_TOO_LARGE", {
      at: root.place("keys"),
      expected: `at most ${MAX_KEYS}`,
      found: `${values.length}`,
    })
  const keys = new Map<string, RsaJwk>()
  for (const value of values) {
    if (!(value instanceof JsonRecord)) throw root.wrong("keys", "objects", value)
    const key = parseJwk(value)
    const known = key.kid === "HCLAkPub" || key.kid === "HCLEkPub"
    if (!known || keys.has(key.kid))
      throw new ParseError(known ? "ERR_DUPLICATE_KEY" : "ERR_UNSUPPORTED", {
        at: value.place("kid"),
        expected: "HCLAkPub and HCLEkPub, each once",
        found: JSON.stringify(key.kid.slice(0, 40)),
      })
    keys.set(key.kid, key)
  }
  return keys
}

function parseJwk(record: JsonRecord): RsaJwk {
  const kid = record.string("kid")
  const kty = record.string("kty")
  if (kty !== "RSA")
    throw new ParseError("ERR_UNSUPPORTED", {
      at: record.place("kty"),
      expected: "RSA",
      found: JSON.stringify(kty.slice(0, 40)),
    })
  const keyOps = record.array("key_ops").map((value) => {
    if (typeof value !== "string") throw record.wrong("key_ops", "strings", value)
    return value
  })
  const modulus = base64url(record, "n", MODULUS_BYTES.max)
  const exponent = base64url(record, "e", 8)
  record.finish()
  if (modulus.length < MODULUS_BYTES.min || (modulus[0] ?? 0) < 0x80)
    throw new ParseError("ERR_MALFORMED", {
      at: record.place("n"),
      expected: `a modulus of ${8 * MODULUS_BYTES.min} to ${8 * MODULUS_BYTES.max} bits`,
      found: `${modulus.length} bytes that begin with ${modulus[0] ?? "nothing"}`,
    })
  if (exponent[0] === 0)
    throw new ParseError("ERR_MALFORMED", {
      at: record.place("e"),
      expected: "an exponent without leading zeros",
      found: "zeros",
    })
  return { kid, keyOps, modulus, exponent }
}

/** Base64url without padding, in its one canonical form. */
function base64url(record: JsonRecord, name: string, maxBytes: number): Uint8Array {
  const text = record.string(name)
  const decoded = text.length <= Math.ceil((maxBytes * 4) / 3) ? Buffer.from(text, "base64url") : null
  if (decoded === null || decoded.length === 0 || decoded.toString("base64url") !== text)
    throw new ParseError("ERR_MALFORMED", {
      at: record.place(name),
      expected: `base64url of 1 to ${maxBytes} bytes`,
      found: `${text.length} characters`,
    })
  return Uint8Array.from(decoded)
}

function parseUserData(root: JsonRecord): Uint8Array | null {
  const text = root.stringOrNull("user-data")
  if (text === null) return null
  const userData = fromHex(text)
  if (userData?.length === USER_DATA_SIZE) return userData
  throw new ParseError("ERR_MALFORMED", {
    at: root.place("user-data"),
    expected: `${2 * USER_DATA_SIZE} hex digits`,
    found: `${text.length} characters`,
  })
}

function parseVmConfiguration(record: JsonRecord): AzureVmConfiguration {
  const flag = (name: string): boolean | null => {
    const value = record.take(name)
    if (value === null || typeof value === "boolean") return value
    throw record.wrong(name, "true or false", value)
  }
  return {
    consoleEnabled: flag("console-enabled"),
    secureBoot: flag("secure-boot"),
    tpmEnabled: flag("tpm-enabled"),
    tpmPersisted: flag("tpm-persisted"),
    rootCertThumbprint: record.stringOrNull("root-cert-thumbprint"),
    vmUniqueId: record.stringOrNull("vmUniqueId"),
    currentTime: record.countOrNull("current-time", Number.MAX_SAFE_INTEGER),
    members: record.toPlain(),
  }
}
