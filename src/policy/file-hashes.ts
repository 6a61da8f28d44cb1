import { toHex } from "../formats/hex.ts"
import { pathToText, textToPath } from "../formats/path-text.ts"

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

const SPACE = 0x20
const UNDERSCORE = 0x5f
const SLASH = 0x2f

/**
 * Pairs of path and digest as bytes, in order, for binary search. Half a million files are held in a few large arrays;
 * strings are made only for those that are shown. A search tree by bytes and not a hash table: whoever chooses the file
 * names cannot make it slow.
 *
 * The kernel writes an underscore for each space of a path into the measurement list, so a space and an underscore
 * compare equal here.
 * Source: Linux 6.12, security/integrity/ima/ima_template_lib.c, ima_write_template_field_data.
 */
export class FileHashIndex implements FileHashes {
  readonly length: number
  readonly #paths: Uint8Array
  readonly #pathEnds: Uint32Array
  readonly #digests: Uint8Array
  readonly #digestEnds: Uint32Array
  /** Positions in order; null where the pairs came in order. */
  readonly #order: Uint32Array | null
  /** Number of the package that each pair belongs to, plus one; null where no pair belongs to one. */
  readonly #owners: Uint32Array | null

  /** Made by {@link FileHashIndexBuilder}. Ends are offsets: pair i begins where pair i - 1 ends. */
  constructor(
    length: number,
    paths: Uint8Array,
    pathEnds: Uint32Array,
    digests: Uint8Array,
    digestEnds: Uint32Array,
    owners: Uint32Array | null,
    claims: FileHashIndex | null,
  ) {
    this.length = length
    this.#paths = paths
    this.#pathEnds = pathEnds
    this.#digests = digests
    this.#digestEnds = digestEnds
    this.#order = this.#isOrdered() ? null : this.#sorted()
    this.#owners = claims === null ? owners : this.#claimed(claims, owners)
  }

  static readonly EMPTY = new FileHashIndex(
    0,
    new Uint8Array(0),
    new Uint32Array(0),
    new Uint8Array(0),
    new Uint32Array(0),
    null,
    null,
  )

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
    const paths = this.#paths
    const length = pathEnd - pathStart
    while (low < high) {
      const middle = (low + high) >>> 1
      const pair = this.#at(middle)
      const start = this.#pathStart(pair)
      const otherLength = (this.#pathEnds[pair] ?? 0) - start
      const shorter = Math.min(length, otherLength)
      let common = Math.min(lowCommon, highCommon)
      let difference = 0
      while (common < shorter) {
        let a = paths[start + common] ?? 0
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

  /** Digest of the pair at a position in order. A view: not to be written to. */
  digestAt(position: number): Uint8Array {
    return this.#digest(this.#at(position))
  }

  /** Order of two pairs' paths, each given by its index and its position there. A space equals an underscore. */
  comparePath(position: number, other: FileHashIndex, otherPosition: number): number {
    return this.#comparePath(this.#at(position), other, other.#at(otherPosition))
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

  #pathStart(pair: number): number {
    return pair === 0 ? 0 : (this.#pathEnds[pair - 1] ?? 0)
  }

  #path(pair: number): Uint8Array {
    return this.#paths.subarray(this.#pathStart(pair), this.#pathEnds[pair])
  }

  #digest(pair: number): Uint8Array {
    return this.#digests.subarray(pair === 0 ? 0 : this.#digestEnds[pair - 1], this.#digestEnds[pair])
  }

  #hasPath(position: number, path: Uint8Array): boolean {
    if (position < 0 || position >= this.length) return false
    return comparePaths(this.#path(this.#at(position)), path) === 0
  }

  #compareDigest(pair: number, bytes: Uint8Array, start: number, end: number): number {
    const own = pair === 0 ? 0 : (this.#digestEnds[pair - 1] ?? 0)
    const ownLength = (this.#digestEnds[pair] ?? 0) - own
    const length = end - start
    const shorter = Math.min(length, ownLength)
    for (let index = 0; index < shorter; index++) {
      const difference = (this.#digests[own + index] ?? 0) - (bytes[start + index] ?? 0)
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

  #isOrdered(): boolean {
    for (let pair = 1; pair < this.length; pair++) if (this.#compare(pair - 1, this, pair) > 0) return false
    return true
  }

  #sorted(): Uint32Array {
    const order = new Uint32Array(this.length)
    for (let pair = 0; pair < order.length; pair++) order[pair] = pair
    return order.sort((a, b) => this.#compare(a, this, b))
  }

  #compare(pair: number, other: FileHashIndex, otherPair: number): number {
    const path = this.#comparePath(pair, other, otherPair)
    if (path !== 0) return path
    const digest = Buffer.compare(this.#digest(pair), other.#digest(otherPair))
    // Same digest under names that only differ in spaces: any fixed order will do.
    return digest === 0 ? Buffer.compare(this.#path(pair), other.#path(otherPair)) : digest
  }

  #comparePath(pair: number, other: FileHashIndex, otherPair: number): number {
    const paths = this.#paths
    const others = other.#paths
    const start = this.#pathStart(pair)
    const otherStart = other.#pathStart(otherPair)
    const length = (this.#pathEnds[pair] ?? 0) - start
    const otherLength = (other.#pathEnds[otherPair] ?? 0) - otherStart
    const shorter = Math.min(length, otherLength)
    for (let index = 0; index < shorter; index++) {
      const own = paths[start + index] ?? 0
      const byte = others[otherStart + index] ?? 0
      if (own !== byte) {
        const difference = folded(own) - folded(byte)
        if (difference !== 0) return difference
      }
    }
    return length - otherLength
  }
}

function folded(byte: number): number {
  return byte === SPACE ? UNDERSCORE : byte
}

function comparePaths(a: Uint8Array, b: Uint8Array): number {
  const shorter = Math.min(a.length, b.length)
  for (let index = 0; index < shorter; index++) {
    const difference = folded(a[index] ?? 0) - folded(b[index] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

/** Collects pairs into a {@link FileHashIndex}. Whoever reads them from a file writes into its buffers directly. */
export class FileHashIndexBuilder {
  length = 0
  /** Path bytes, one pair after the other; valid up to `pathBytes`. Replaced when it grows. */
  paths = new Uint8Array(1 << 12)
  digests = new Uint8Array(1 << 12)
  pathBytes = 0
  digestBytes = 0
  #pathEnds = new Uint32Array(64)
  #digestEnds = new Uint32Array(64)
  /** Digest sizes that occurred, in bytes. */
  readonly digestSizes = new Set<number>()
  #lastSize = -1
  #owners: Uint32Array | null = null

  /** Makes room for that many more bytes of path and of digest. */
  reserve(pathBytes: number, digestBytes: number): void {
    if (this.paths.length < this.pathBytes + pathBytes)
      this.paths = grown(this.paths, this.pathBytes + pathBytes)
    if (this.digests.length < this.digestBytes + digestBytes)
      this.digests = grown(this.digests, this.digestBytes + digestBytes)
  }

  /** Ends a pair at the given ends of `paths` and `digests`. */
  end(pathBytes: number, digestBytes: number): void {
    const size = digestBytes - this.digestBytes
    if (size !== this.#lastSize) {
      this.digestSizes.add(size)
      this.#lastSize = size
    }
    if (this.length === this.#pathEnds.length) {
      this.#pathEnds = doubled(this.#pathEnds)
      this.#digestEnds = doubled(this.#digestEnds)
    }
    this.#pathEnds[this.length] = pathBytes
    this.#digestEnds[this.length] = digestBytes
    this.pathBytes = pathBytes
    this.digestBytes = digestBytes
    this.length += 1
  }

  add(path: Uint8Array, digest: Uint8Array, owner = NO_PACKAGE): void {
    this.reserve(path.length, digest.length)
    this.paths.set(path, this.pathBytes)
    this.digests.set(digest, this.digestBytes)
    this.end(this.pathBytes + path.length, this.digestBytes + digest.length)
    if (owner !== NO_PACKAGE) this.own(this.length - 1, 1, owner)
  }

  /** Says that `count` pairs from the pair `first` on, in order of adding, belong to a package. False where one belongs to another. */
  own(first: number, count: number, owner: number): boolean {
    if (this.#owners === null || this.#owners.length < this.length) {
      const owners = new Uint32Array(this.#pathEnds.length)
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
    const ends = this.#digestEnds
    return new FileHashIndex(
      this.length,
      this.paths,
      this.#pathEnds,
      this.digests,
      ends,
      this.#owners,
      claims,
    )
  }
}

/** Index of pairs given as text. Digests must be hex. An index is given back as it is. */
export function indexFileHashes(pairs: FileHashes): FileHashIndex {
  if (pairs instanceof FileHashIndex) return pairs
  const builder = new FileHashIndexBuilder()
  for (const [path, digest] of pairs) builder.add(textToPath(path), Buffer.from(digest, "hex"))
  return builder.build()
}

function grown(bytes: Uint8Array, atLeast: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(Math.max(bytes.length * 2, atLeast))
  out.set(bytes)
  return out
}

function doubled(values: Uint32Array): Uint32Array<ArrayBuffer> {
  const out = new Uint32Array(values.length * 2)
  out.set(values)
  return out
}
