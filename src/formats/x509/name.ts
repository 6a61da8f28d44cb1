import { bytesEqual } from "../hex.ts"
import { type DerElement, inside, single, stringValue, TAG } from "./der.ts"

/** A distinguished name. */
export interface DistinguishedName {
  /** DER. Names within one chain are compared by these bytes. */
  readonly der: Uint8Array
  /** Null where there is none, or more than one. */
  readonly commonName: string | null
}

/** Content of the object identifier 2.5.4.3. */
const OID_COMMON_NAME = Uint8Array.of(0x55, 0x04, 0x03)

/** String types whose content is UTF-8 or a subset of it: the same text in another of them is the same name. */
const TEXT_TAGS: ReadonlySet<number> = new Set([TAG.utf8String, TAG.printableString, TAG.ia5String])

/** Reads a Name. Source: RFC 5280, section 4.1.2.4. @throws ParseError ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_MALFORMED */
export function parseName(name: DerElement): DistinguishedName {
  const commonNames = attributesOf(name).filter(({ type }) => bytesEqual(type.content, OID_COMMON_NAME))
  const [only] = commonNames.length === 1 ? commonNames : []
  return { der: name.raw, commonName: only === undefined ? null : stringValue(only.value) }
}

/**
 * Whether two names have the same attributes in the same order. Certificate authorities do not always keep to one string
 * type, so text is compared as text; case and spaces count, unlike in RFC 5280, section 7.1.
 * @param a @param b DER. @throws ParseError where one of them is no name
 */
export function sameName(a: Uint8Array, b: Uint8Array): boolean {
  if (bytesEqual(a, b)) return true
  const [left, right] = [a, b].map((der) => attributesOf(single(der, TAG.sequence, "name")))
  if (left === undefined || right === undefined || left.length !== right.length) return false
  return left.every((attribute, index) => {
    const other = right[index]
    return (
      other !== undefined &&
      attribute.set === other.set &&
      bytesEqual(attribute.type.content, other.type.content) &&
      sameValue(attribute.value, other.value)
    )
  })
}

interface Attribute {
  /** Position of the relative name that it belongs to. */
  readonly set: number
  readonly type: DerElement
  readonly value: DerElement
}

function attributesOf(name: DerElement): Attribute[] {
  const attributes: Attribute[] = []
  const reader = inside(name)
  for (let set = 0; !reader.atEnd; set++) {
    const relative = inside(reader.next(TAG.set, "relative name"))
    while (!relative.atEnd) {
      const attribute = inside(relative.next(TAG.sequence, "attribute"))
      const type = attribute.next(TAG.oid, "type")
      const value = attribute.next(attribute.peek() ?? 0, "value")
      attribute.end()
      attributes.push({ set, type, value })
    }
  }
  return attributes
}

function sameValue(a: DerElement, b: DerElement): boolean {
  const text = TEXT_TAGS.has(a.tag) && TEXT_TAGS.has(b.tag)
  return bytesEqual(a.content, b.content) && (text || a.tag === b.tag)
}
