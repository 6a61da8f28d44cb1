import { HEX_VALUE } from "../formats/hex.ts"

/** Where a pair's parts are in a text: numbers at 4 × pair. The path is there as its bytes, the digest in hex. */
export const PATH = 0
export const PATH_END = 1
export const DIGEST = 2
export const DIGEST_END = 3
export const PLACES = 4

export const SPACE = 0x20
export const UNDERSCORE = 0x5f
const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const NEWLINE = 0x0a
const OPENING = 0x5b
const CLOSING = 0x5d

/** By character code: 1 for what stands for itself in a JSON string. */
export const PLAIN = Uint8Array.from({ length: 256 }, (_, code) =>
  code >= 0x20 && code !== QUOTE && code !== BACKSLASH ? 1 : 0,
)
/** By two character codes, big-endian: 1 for two hex digits. */
export const HEX_PAIR = hexPairs()

function hexPairs(): Uint8Array {
  const pairs = new Uint8Array(1 << 16)
  const digits = [...HEX_VALUE.keys()].filter((code) => HEX_VALUE[code] !== 255)
  for (const high of digits) for (const low of digits) pairs[high * 256 + low] = 1
  return pairs
}

/** Pairs that were read one after another, and the end of the last of them. */
interface PairRun {
  readonly length: number
  readonly end: number
  /** Whether none of them comes before the one that it follows. */
  readonly ordered: boolean
}

/**
 * Reads the pairs that follow pair `length - 1` in the form in which they are written here: `,`, perhaps a line break,
 * `["path","hex"]`, with a digest of the same size. The same as the general way makes of them, in less time; what is otherwise
 * ends the run and is left to that. One loop over what is local to it, as it runs over all of a large file and from its first
 * pair on.
 * @param start behind pair `length - 1`. @param given bytes of the text that may be read.
 * @param places of the pairs before, with room for {@link mostPairs}.
 */
export function readPlainPairs(
  text: Uint8Array,
  start: number,
  given: number,
  places: Uint32Array,
  length: number,
): PairRun {
  const view = new DataView(text.buffer, text.byteOffset, text.byteLength)
  let pair = length
  let end = start
  let ordered = true
  let last = placeAt(places, pair - 1, PATH)
  // What was appended may hold bytes that mean something else in the text: nothing is taken from there.
  let lastEnd = last < given ? placeAt(places, pair - 1, PATH_END) : last
  const hexDigits = placeAt(places, pair - 1, DIGEST_END) - placeAt(places, pair - 1, DIGEST)
  while (end + hexDigits + PLAIN_SYNTAX <= given && text[end] === COMMA) {
    const path = text[end + 1] === NEWLINE ? end + 4 : end + 3
    if (text[path - 2] !== OPENING || text[path - 1] !== QUOTE) break
    // Mostly all but some bytes of the last path, which were looked at there: four at a time.
    let at = path
    let other = last
    const wordsEnd = Math.min(lastEnd, given - path + last) - 4
    while (other <= wordsEnd && view.getInt32(at) === view.getInt32(other)) {
      at += 4
      other += 4
    }
    while (other < lastEnd && text[at] === text[other]) {
      at += 1
      other += 1
    }
    const differs = at
    while (PLAIN[text[at] ?? 0] === 1) at += 1
    const digest = at + 3
    const digestEnd = digest + hexDigits
    if (at === path || digestEnd + 2 > given) break
    if (text[at] !== QUOTE || text[at + 1] !== COMMA || text[at + 2] !== QUOTE) break
    let hex = digest
    while (hex < digestEnd && HEX_PAIR[view.getUint16(hex)] === 1) hex += 2
    if (hex !== digestEnd || text[hex] !== QUOTE || text[hex + 1] !== CLOSING) break
    const place = pair * PLACES
    places[place + PATH] = path
    places[place + PATH_END] = at
    places[place + DIGEST] = digest
    places[place + DIGEST_END] = digestEnd
    if (ordered) {
      const byte = text[differs] ?? 0
      const lastByte = text[other] ?? 0
      // Most paths differ in a byte that says it all.
      const plainly = other < lastEnd && differs < at && byte !== SPACE && lastByte !== SPACE
      ordered = plainly ? lastByte < byte : comparePairs(text, places, pair - 1, text, places, pair, 0) <= 0
    }
    last = path
    lastEnd = at
    pair += 1
    end = digestEnd + 2
  }
  return { length: pair, end, ordered }
}

/** `,["","` and `"]`, and one byte of path. */
const PLAIN_SYNTAX = 9

/** How many pairs there can be at most in so many bytes, where the digest has so many hex digits. */
export function mostPairs(bytes: number, hexDigits: number): number {
  return Math.floor(bytes / (hexDigits + PLAIN_SYNTAX))
}

function placeAt(places: Uint32Array, pair: number, part: number): number {
  return places[pair * PLACES + part] ?? 0
}

/** The order of pairs: by path, a space being an underscore, then by digest. @param common bytes that the paths are known to have in common. */
export function comparePairs(
  text: Uint8Array,
  places: Uint32Array,
  pair: number,
  otherText: Uint8Array,
  otherPlaces: Uint32Array,
  otherPair: number,
  common: number,
): number {
  const path = comparePathsAt(text, places, pair, otherText, otherPlaces, otherPair, common)
  if (path !== 0) return path
  const digest = Buffer.compare(digestAt(text, places, pair), digestAt(otherText, otherPlaces, otherPair))
  // Same digest under names that only differ in spaces: any fixed order will do.
  return digest === 0
    ? Buffer.compare(pathAt(text, places, pair), pathAt(otherText, otherPlaces, otherPair))
    : digest
}

export function comparePathsAt(
  text: Uint8Array,
  places: Uint32Array,
  pair: number,
  otherText: Uint8Array,
  otherPlaces: Uint32Array,
  otherPair: number,
  common: number,
): number {
  const start = places[pair * PLACES + PATH] ?? 0
  const otherStart = otherPlaces[otherPair * PLACES + PATH] ?? 0
  const length = (places[pair * PLACES + PATH_END] ?? 0) - start
  const otherLength = (otherPlaces[otherPair * PLACES + PATH_END] ?? 0) - otherStart
  const shorter = Math.min(length, otherLength)
  for (let index = common; index < shorter; index++) {
    const own = text[start + index] ?? 0
    const byte = otherText[otherStart + index] ?? 0
    if (own !== byte) {
      const difference = folded(own) - folded(byte)
      if (difference !== 0) return difference
    }
  }
  return length - otherLength
}

export function pathAt(text: Uint8Array, places: Uint32Array, pair: number): Uint8Array {
  return text.subarray(places[pair * PLACES + PATH], places[pair * PLACES + PATH_END])
}

export function digestAt(text: Uint8Array, places: Uint32Array, pair: number): Uint8Array {
  const start = places[pair * PLACES + DIGEST] ?? 0
  const end = places[pair * PLACES + DIGEST_END] ?? 0
  const digest = new Uint8Array((end - start) / 2)
  for (let index = 0; index < digest.length; index++) digest[index] = byteAt(text, start + 2 * index)
  return digest
}

/** The byte that two hex digits stand for. */
export function byteAt(text: Uint8Array, at: number): number {
  return (HEX_VALUE[text[at] ?? 0] ?? 0) * 16 + (HEX_VALUE[text[at + 1] ?? 0] ?? 0)
}

function folded(byte: number): number {
  return byte === SPACE ? UNDERSCORE : byte
}

export function comparePaths(a: Uint8Array, b: Uint8Array): number {
  const shorter = Math.min(a.length, b.length)
  for (let index = 0; index < shorter; index++) {
    const difference = folded(a[index] ?? 0) - folded(b[index] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}
