import { ParseError } from "../../errors.ts"
import { type Certificate, OID_EXTENDED_KEY_USAGE } from "./certificate.ts"
import { inside, oidText, single, TAG } from "./der.ts"

/** A certificate names a few purposes. */
const MAX_PURPOSES = 32

/**
 * Object identifiers of the purposes that a certificate is restricted to; null: not restricted.
 * Source: RFC 5280, section 4.2.1.12.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE
 */
export function extendedKeyUsage({ extensions }: Pick<Certificate, "extensions">): readonly string[] | null {
  const extension = extensions.get(OID_EXTENDED_KEY_USAGE)
  if (extension === undefined) return null
  const reader = inside(single(extension.value, TAG.sequence, "certificate, extKeyUsage"))
  const purposes: string[] = []
  while (!reader.atEnd) {
    if (purposes.length === MAX_PURPOSES)
      throw new ParseError("ERR_TOO_LARGE", {
        at: "certificate, extKeyUsage",
        expected: `at most ${MAX_PURPOSES} purposes`,
      })
    purposes.push(oidText(reader.next(TAG.oid, "purpose")))
  }
  return purposes
}
