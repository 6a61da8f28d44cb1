import { toHex } from "../formats/hex.ts"
import { pathToText, textToPath } from "../formats/path-text.ts"
import {
  byteAt,
  comparePairs,
  comparePaths,
  comparePathsAt,
  DIGEST,
  DIGEST_END,
  digestAt,
  mostPairs,
  PATH,
  PATH_END,
  PLACES,
  pathAt,
  readPlainPairs,
  SPACE,
  UNDERSCORE,
} from "./file-hash-pairs.ts"

/** Pairs of path (as `formats/path-text.ts` makes text of it) and hex digest. A plain array of pairs is one. */
export interface FileHashes extends Iterable<readonly [path: string, digest: string]> {
  /** Number of pairs. */
  readonly length: number
}

/** Stands for "no package" where a pair's package is asked for. */
export const NO_PACKAGE = -1
/** Claims of one path that are looked at, where underscores and spaces make several paths equal. */
const MAX_EQUAL_CLAIMS = 16

/** What an index knows about a path and a digest. */
export type Lookup = "match" | "other-digest" | "unknown"

const SLASH = 0x2f

/**
 * Pairs of path and digest over a text that holds them, in order, for binary search: the path as its bytes, the digest in hex. Half
 * a million files are the text that they were read from and one array of offsets; strings are made only for those that are shown.
 * A search tree by bytes and not a hash table: whoever chooses the file names cannot make it slow.
 *
 * The kernel writes an underscore for each space of a path into the measurement list, so a space and an underscore
 * compare equal here.
 * Source: Linux 6.12, security/integrity/ima/ima_template_lib.c, ima_write_template_field_data.
 */
export class FileHashIndex implements FileHashes {
  readonly length: number
  readonly #text: Uint8Array
  readonly #places: Uint32Array
  /** Pairs in order; null where they came in order. */
  readonly #order: Uint32Array | null
  /** Number of the package that each pair belongs to, plus one; null where no pair belongs to one. */
  readonly #owners: Uint32Array | null

  /** Made by {@link FileHashIndexBuilder}. */
  constructor(
    length: number,
    text: Uint8Array,
    places: Uint32Array,
    ordered: boolean,
    owners: Uint32Array | null,
    claims: FileHashIndex | null,
  ) {
    this.length = length
    this.#text = text
    this.#places = places
    this.#order = ordered ? null : this.#sorted()
    this.#owners = claims === null ? owners : this.#claimed(claims, owners)
  }

  static readonly EMPTY = new FileHashIndex(0, new Uint8Array(0), new Uint32Array(0), true, null, null)

  /** Looks up the path at [pathStart, pathEnd) and the digest at [digestStart, digestEnd) of `bytes`. */
  find(
    bytes: Uint8Array,
    pathStart: number,
    pathEnd: number,
    digestStart: number,
    digestEnd: number,
  ): Lookup {
    // First pair that is not before the one sought. `lowCommon` and `highCommon` are lengths of path that the pairs
    // just outside the range share with it: everything between shares the shorter of them.
    let low = 0
    let high = this.length
    let lowCommon = 0
    let highCommon = 0
    const text = this.#text
    const places = this.#places
    const order = this.#order
    const length = pathEnd - pathStart
    while (low < high) {
      const middle = (low + high) >>> 1
      const pair = order === null ? middle : (order[middle] ?? 0)
      const start = places[pair * PLACES + PATH] ?? 0
      const otherLength = (places[pair * PLACES + PATH_END] ?? 0) - start
      const shorter = Math.min(length, otherLength)
      let common = Math.min(lowCommon, highCommon)
      let difference = 0
      while (common < shorter) {
        let a = text[start + common] ?? 0
        let b = bytes[pathStart + common] ?? 0
        if (a !== b) {
          if (a === SPACE) a = UNDERSCORE
          if (b === SPACE) b = UNDERSCORE
          difference = a - b
          if (difference !== 0) break
        }
        common += 1
      }
      if (difference === 0) difference = otherLength - length
      if (difference === 0) {
        difference = this.#compareDigest(pair, bytes, digestStart, digestEnd)
        if (difference === 0) return "match"
      }
      if (difference < 0) {
        low = middle + 1
        lowCommon = common
      } else {
        high = middle
        highCommon = common
      }
    }
    const sought = bytes.subarray(pathStart, pathEnd)
    return this.#hasPath(low, sought) || this.#hasPath(low - 1, sought) ? "other-digest" : "unknown"
  }

  /** Digests (hex) that the index holds for a path, at most `limit` of them. */
  digestsOf(path: Uint8Array, limit: number): string[] {
    const { start, end } = this.positionsOf(path)
    const out: string[] = []
    for (let at = start; out.length < limit && at < end; at++) out.push(toHex(this.#digest(this.#at(at))))
    return out
  }

  /** Number of pairs whose path begins with a directory, which ends in a slash. */
  countBelow(directory: Uint8Array): number {
    // What follows a slash in order of bytes comes after all that begins with it.
    const behind = Uint8Array.from(directory)
    behind[behind.length - 1] = SLASH + 1
    return this.#firstNotBefore(behind) - this.#firstNotBefore(directory)
  }

  /** Positions of the pairs of a path: from `start` up to `end`, which are equal where there is none. */
  positionsOf(path: Uint8Array): { readonly start: number; readonly end: number } {
    const start = this.#firstNotBefore(path)
    let end = start
    while (this.#hasPath(end, path)) end += 1
    return { start, end }
  }

  #firstNotBefore(path: Uint8Array): number {
    let low = 0
    let high = this.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (comparePaths(this.#path(this.#at(middle)), path) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Number of the package that the pair at a position in order belongs to, or {@link NO_PACKAGE}. */
  packageAt(position: number): number {
    return this.#owners === null ? NO_PACKAGE : (this.#owners[this.#at(position)] ?? 0) + NO_PACKAGE
  }

  /** Bytes of the path of the pair at a position in order. A view: not to be written to. */
  pathAt(position: number): Uint8Array {
    return this.#path(this.#at(position))
  }

  /** Digest of the pair at a position in order. */
  digestAt(position: number): Uint8Array {
    return this.#digest(this.#at(position))
  }

  /** Order of two pairs' paths, each given by its index and its position there. A space equals an underscore. */
  comparePath(position: number, other: FileHashIndex, otherPosition: number): number {
    const pair = this.#at(position)
    const otherPair = other.#at(otherPosition)
    return comparePathsAt(this.#text, this.#places, pair, other.#text, other.#places, otherPair, 0)
  }

  /** The order in which an index holds its pairs. Zero for the same path, byte by byte, with the same digest. */
  compare(position: number, other: FileHashIndex, otherPosition: number): number {
    return this.#compare(this.#at(position), other, other.#at(otherPosition))
  }

  /** All pairs as text, in order of path, then digest. */
  *[Symbol.iterator](): IterableIterator<readonly [path: string, digest: string]> {
    for (let at = 0; at < this.length; at++) {
      const pair = this.#at(at)
      yield [pathToText(this.#path(pair)), toHex(this.#digest(pair))]
    }
  }

  toJSON(): (readonly [path: string, digest: string])[] {
    return [...this]
  }

  #at(position: number): number {
    return this.#order === null ? position : (this.#order[position] ?? 0)
  }

  #place(pair: number, part: number): number {
    return this.#places[pair * PLACES + part] ?? 0
  }

  #path(pair: number): Uint8Array {
    return pathAt(this.#text, this.#places, pair)
  }

  #digest(pair: number): Uint8Array {
    return digestAt(this.#text, this.#places, pair)
  }

  #hasPath(position: number, path: Uint8Array): boolean {
    if (position < 0 || position >= this.length) return false
    return comparePaths(this.#path(this.#at(position)), path) === 0
  }

  #compareDigest(pair: number, bytes: Uint8Array, start: number, end: number): number {
    const own = this.#place(pair, DIGEST)
    const ownLength = (this.#place(pair, DIGEST_END) - own) / 2
    const length = end - start
    const shorter = Math.min(length, ownLength)
    for (let index = 0; index < shorter; index++) {
      const difference = byteAt(this.#text, own + 2 * index) - (bytes[start + index] ?? 0)
      if (difference !== 0) return difference
    }
    return ownLength - length
  }

  /** Gives pairs without a package that of the claim on their path. */
  #claimed(claims: FileHashIndex, known: Uint32Array | null): Uint32Array {
    const owners = known ?? new Uint32Array(this.length)
    let next = 0
    for (let position = 0; position < this.length; position++) {
      while (next < claims.length && claims.comparePath(next, this, position) < 0) next += 1
      const pair = this.#at(position)
      if (owners[pair] !== 0) continue
      const last = Math.min(claims.length, next + MAX_EQUAL_CLAIMS)
      for (let claim = next; claim < last && claims.comparePath(claim, this, position) === 0; claim++)
        if (Buffer.compare(claims.pathAt(claim), this.#path(pair)) === 0) {
          owners[pair] = claims.packageAt(claim) - NO_PACKAGE
          break
        }
    }
    return owners
  }

  #sorted(): Uint32Array {
    const order = new Uint32Array(this.length)
    for (let pair = 0; pair < order.length; pair++) order[pair] = pair
    return order.sort((a, b) => this.#compare(a, this, b))
  }

  #compare(pair: number, other: FileHashIndex, otherPair: number): number {
    return comparePairs(this.#text, this.#places, pair, other.#text, other.#places, otherPair, 0)
  }
}

/**
 * Collects pairs into a {@link FileHashIndex}. Whoever reads them from a text says where they are in it; what is not there as it is
 * to be is appended to a copy.
 */
export class FileHashIndexBuilder {
  length = 0
  /** Digest sizes that occurred, in bytes. */
  readonly digestSizes = new Set<number>()
  #lastSize = -1
  #text: Uint8Array
  /** Size of the text that was given. */
  readonly #given: number
  /** Bytes of `#text` in use: all of what is given, so that it is never written to. */
  #used: number
  #places = new Uint32Array(64 * PLACES)
  /** Whether no pair so far comes before the one that it was added after. */
  #ordered = true
  #owners: Uint32Array | null = null

  /** @param text in which pairs are; it must not change while the index is in use. */
  constructor(text: Uint8Array = new Uint8Array(0)) {
    this.#text = text
    this.#given = text.length
    this.#used = text.length
  }

  /** Adds the pair at these offsets of the text: the path's bytes, and the digest as pairs of hex digits. */
  addAt(path: number, pathEnd: number, digest: number, digestEnd: number): void {
    const size = (digestEnd - digest) / 2
    if (size !== this.#lastSize) {
      this.digestSizes.add(size)
      this.#lastSize = size
    }
    const at = this.length * PLACES
    if (at === this.#places.length) this.#reserve(at * 2)
    this.#places[at + PATH] = path
    this.#places[at + PATH_END] = pathEnd
    this.#places[at + DIGEST] = digest
    this.#places[at + DIGEST_END] = digestEnd
    if (this.#ordered && this.length > 0)
      this.#ordered =
        comparePairs(this.#text, this.#places, this.length - 1, this.#text, this.#places, this.length, 0) <= 0
    this.length += 1
  }

  /** Adds the pairs behind the last one, which ends at `start`, as far as they are written like most are. @returns their end. */
  addPlainPairs(start: number): number {
    const most = this.length + mostPairs(this.#given - start, 2 * this.#lastSize)
    if (most * PLACES > this.#places.length) this.#reserve(Math.max(most * PLACES, this.#places.length * 2))
    const run = readPlainPairs(this.#text, start, this.#given, this.#places, this.length)
    this.length = run.length
    this.#ordered &&= run.ordered
    return run.end
  }

  add(path: Uint8Array, digest: Uint8Array, owner = NO_PACKAGE): void {
    const pathAt = this.append(path)
    const digestAt = this.append(Buffer.from(toHex(digest), "latin1"))
    this.addAt(pathAt, digestAt, digestAt, this.#used)
    if (owner !== NO_PACKAGE) this.own(this.length - 1, 1, owner)
  }

  #reserve(numbers: number): void {
    const places = new Uint32Array(numbers)
    places.set(this.#places.subarray(0, this.length * PLACES))
    this.#places = places
  }

  /** Appends to the text; gives the offset. */
  append(bytes: Uint8Array): number {
    const at = this.#used
    if (at + bytes.length > this.#text.length) {
      const text = new Uint8Array(Math.max(1 << 12, Math.ceil(this.#text.length * 1.5), at + bytes.length))
      text.set(this.#text.subarray(0, at))
      this.#text = text
    }
    this.#text.set(bytes, at)
    this.#used += bytes.length
    return at
  }

  /** Says that `count` pairs from the pair `first` on, in order of adding, belong to a package. False where one belongs to another. */
  own(first: number, count: number, owner: number): boolean {
    if (this.#owners === null || this.#owners.length < this.length) {
      const owners = new Uint32Array(this.#places.length / PLACES)
      if (this.#owners !== null) owners.set(this.#owners)
      this.#owners = owners
    }
    for (let pair = first; pair < first + count; pair++) {
      if (this.#owners[pair] !== 0) return false
      this.#owners[pair] = owner - NO_PACKAGE
    }
    return true
  }

  /** @param claims paths with their packages, for pairs that have none yet. */
  build(claims: FileHashIndex | null = null): FileHashIndex {
    return new FileHashIndex(this.length, this.#text, this.#places, this.#ordered, this.#owners, claims)
  }
}

/** Index of pairs given as text. Digests must be hex. An index is given back as it is. */
export function indexFileHashes(pairs: FileHashes): FileHashIndex {
  if (pairs instanceof FileHashIndex) return pairs
  const builder = new FileHashIndexBuilder()
  for (const [path, digest] of pairs) builder.add(textToPath(path), Buffer.from(digest, "hex"))
  return builder.build()
}
