import { ParseError } from "../../errors.ts"
import { ALG, algorithmText } from "./algorithms.ts"
import { OBJECT } from "./public.ts"
import { encodeWire, parseWire, sized, struct, u16, u32, WireReader } from "./wire.ts"

/**
 * A sealed data object: TPMT_PUBLIC of type KEYEDHASH without a scheme. Source: TPM 2.0 Part 2, rev. 1.59, tables
 * "TPMT_PUBLIC", "TPMS_KEYEDHASH_PARMS".
 */
const SEALED_PUBLIC = struct({
  type: u16,
  nameAlg: u16,
  objectAttributes: u32,
  authPolicy: sized(64),
  scheme: u16,
  /** Digest of the secret and a seed. */
  unique: sized(64),
})
/** TPM2B_PRIVATE: encrypted by the parent; larger than any that a TPM makes of a sealed object. */
const PRIVATE = sized(2048)
const PUBLIC = sized(1024)

/** A sealed object apart: both parts as they are handed to TPM2_Load, without their sizes. */
export interface SealedObject {
  readonly privateArea: Uint8Array
  readonly publicArea: Uint8Array
  /** The policy that has to be met, a SHA-256 digest. */
  readonly authPolicy: Uint8Array
}

/**
 * Public area of an object to be made: bound to its TPM and parent, to be unsealed by its policy and no other way.
 * `guessable`: its policy asks for a PIN, so that the TPM has to count wrong ones.
 */
export function sealedTemplate(authPolicy: Uint8Array, guessable: boolean): Uint8Array {
  return encodeWire(SEALED_PUBLIC, {
    type: ALG.keyedHash,
    nameAlg: ALG.sha256,
    objectAttributes: OBJECT.fixedTPM | OBJECT.fixedParent | (guessable ? 0 : OBJECT.noDA),
    authPolicy,
    scheme: ALG.null,
    unique: new Uint8Array(0),
  })
}

/** TPM2B_PRIVATE, then TPM2B_PUBLIC. */
export function encodeSealed(privateArea: Uint8Array, publicArea: Uint8Array): Uint8Array {
  return encodeWire(struct({ private: PRIVATE, public: PUBLIC }), {
    private: privateArea,
    public: publicArea,
  })
}

/**
 * Takes the blob of a token apart.
 * @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE; ERR_UNSUPPORTED where it is no sealed object, or one
 *   that may leave its TPM or be unsealed in another way than by its policy
 */
export function parseSealed(blob: Uint8Array): SealedObject {
  const from = new WireReader("sealed secret", blob)
  const privateArea = PRIVATE.read(from)
  const publicArea = PUBLIC.read(from)
  from.end()
  const { type, nameAlg, objectAttributes, authPolicy, scheme } = parseWire(
    "TPMT_PUBLIC",
    SEALED_PUBLIC,
    publicArea,
  )
  const stays = OBJECT.fixedTPM | OBJECT.fixedParent
  const others = stays | OBJECT.noDA
  const byPolicyOnly = (objectAttributes & stays) === stays && (objectAttributes & ~others) === 0
  const known = type === ALG.keyedHash && nameAlg === ALG.sha256 && scheme === ALG.null
  if (!known || !byPolicyOnly || authPolicy.length !== 32)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: "sealed secret",
      expected: "a sealed object with a SHA-256 policy",
      found: `${algorithmText(type)}, attributes 0x${objectAttributes.toString(16)}`,
    })
  return { privateArea, publicArea, authPolicy }
}
