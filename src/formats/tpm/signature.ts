import { ParseError } from "../../errors.ts"
import { ALG, algorithmText } from "./algorithms.ts"
import { encodeWire, parseWire, sized, struct, u16, type Wire } from "./wire.ts"

/** Source: TPM 2.0 Part 2, rev. 1.59, table "TPMS_SIGNATURE_RSA". */
const RSA = struct({ hash: u16, signature: sized(512) })
/** Integers big-endian, leading zeros may be left out. Source: TPM 2.0 Part 2, rev. 1.59, table "TPMS_SIGNATURE_ECC". */
const ECC = struct({ hash: u16, r: sized(66), s: sized(66) })

/** TPMT_SIGNATURE of the schemes that attestation keys use. `hash`: identifier of the hash algorithm. */
export type TpmSignature =
  | { readonly scheme: "rsassa" | "rsapss"; readonly hash: number; readonly signature: Uint8Array }
  | { readonly scheme: "ecdsa"; readonly hash: number; readonly r: Uint8Array; readonly s: Uint8Array }

/** Source: TPM 2.0 Part 2, rev. 1.59, table "TPMT_SIGNATURE". */
const SIGNATURE: Wire<TpmSignature> = {
  read(from) {
    const { place } = from
    const scheme = u16.read(from)
    if (scheme === ALG.rsassa) return { scheme: "rsassa", ...RSA.read(from) }
    if (scheme === ALG.rsapss) return { scheme: "rsapss", ...RSA.read(from) }
    if (scheme === ALG.ecdsa) return { scheme: "ecdsa", ...ECC.read(from) }
    throw new ParseError("ERR_UNSUPPORTED", {
      at: place,
      expected: "a signature by rsassa, rsapss or ecdsa",
      found: algorithmText(scheme),
    })
  },
  write(value, to) {
    u16.write(ALG[value.scheme], to)
    if (value.scheme === "ecdsa") ECC.write(value, to)
    else RSA.write(value, to)
  },
}

/**
 * Parses a TPMT_SIGNATURE.
 * @throws ParseError ERR_UNSUPPORTED for another scheme, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE
 */
export function parseSignature(bytes: Uint8Array): TpmSignature {
  return parseWire("TPMT_SIGNATURE", SIGNATURE, bytes)
}

/** Bytes of a TPMT_SIGNATURE. */
export function encodeSignature(signature: TpmSignature): Uint8Array {
  return encodeWire(SIGNATURE, signature)
}
