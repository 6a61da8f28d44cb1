import { ParseError } from "../errors.ts"
import type { JsonCursor, JsonRecord } from "../formats/strict-json.ts"
import { type FileHashIndex, FileHashIndexBuilder, NO_PACKAGE } from "./file-hashes.ts"
import { readPath } from "./snapshot-files.ts"

/**
 * A package that was installed on the VM. It is the VM's own word and explains what differs; no file is accepted or refused by it.
 */
export interface Package {
  readonly manager: "dpkg" | "rpm"
  readonly name: string
  readonly version: string
  /** Null where the package says none. */
  readonly architecture: string | null
  /** Where its files' digests are from, if the snapshot was updated with the package itself. Absent: as the VM had them. */
  readonly source?: PackageSource
  /** It is not installed any more and explains superseded files only. */
  readonly replaced?: true
}

/**
 * Why the content of a package is believed: listed by a signed repository, signed itself, of a digest that the administrator gave, or
 * for no reason, as the administrator wished.
 */
export type PackageSource = (typeof SOURCES)[number]

const SOURCES = ["repository", "signature", "digest", "unauthenticated"] as const
const MANAGERS = ["dpkg", "rpm"] as const
/** A large distribution has some ten thousand packages in all. */
const MAX_PACKAGES = 200_000
/** Of files of all packages: no more than there are files. */
const MAX_RANGES = 4_000_000
const MAX_TEXT = 512
const U32 = 2 ** 32 - 1
/** Lists of files that a package may have: those that are accepted, and those that it replaced. */
const LISTS = ["files", "superseded"] as const
type List = (typeof LISTS)[number]

/** Pairs of a list, by number and in the file's order, that belong to a package. */
interface Range {
  readonly list: List
  readonly owner: number
  readonly first: number
  readonly count: number
}

/**
 * Reads the member `packages`: `[{"manager","name","version","architecture","files":[…],"superseded":[…]},…]`. The lists name files by
 * ranges `[first,count]` of the members `filehashes` and `superseded`, or, as an agent writes them, by path. To which files they
 * apply is settled when those are known.
 */
export class PackagesReader {
  readonly packages: Package[] = []
  readonly #ranges: Range[] = []
  /** Paths with their package; the digests are empty. */
  #claims: FileHashIndexBuilder | null = null

  /** @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_LARGE. */
  read(cursor: JsonCursor): void {
    cursor.items("[", "]", () => {
      const owner = this.packages.length
      if (owner >= MAX_PACKAGES)
        throw new ParseError("ERR_TOO_LARGE", {
          at: cursor.place(),
          expected: `at most ${MAX_PACKAGES} packages`,
        })
      const record = cursor.record("packages", (name) => {
        const list = LISTS.find((known) => known === name)
        if (list === undefined) return undefined
        cursor.items("[", "]", () => this.#file(cursor, list, owner))
        return true
      })
      this.packages.push(packageOf(record))
    })
  }

  /**
   * The index of a list's files, each with its package.
   * @throws ParseError ERR_MALFORMED where a range leads beyond the files, or two packages have one file.
   */
  index(list: List, files: FileHashIndexBuilder): FileHashIndex {
    for (const range of this.#ranges) {
      if (range.list !== list) continue
      const { first, count, owner } = range
      if (first + count > files.length || !files.own(first, count, owner))
        throw new ParseError("ERR_MALFORMED", {
          at: `snapshot: packages[${owner}].${list}`,
          expected: `files of no other package, below ${files.length}`,
          found: `[${first},${count}]`,
        })
    }
    return files.build(list === "files" && this.#claims !== null ? this.#claims.build() : null)
  }

  #file(cursor: JsonCursor, list: List, owner: number): void {
    if (cursor.peek() === 0x5b) {
      const numbers: number[] = []
      cursor.items("[", "]", () => {
        if (numbers.length === 2) throw cursor.malformed("[first,count]")
        numbers.push(numberOf(cursor))
      })
      const [first, count = 0] = numbers
      if (first === undefined || count === 0) throw cursor.malformed("[first,count], of one file at least")
      if (this.#ranges.length === MAX_RANGES)
        throw new ParseError("ERR_TOO_LARGE", {
          at: cursor.place(),
          expected: `at most ${MAX_RANGES} ranges`,
        })
      this.#ranges.push({ list, owner, first, count })
      return
    }
    // A replaced file is known from this program's own files alone, which have ranges.
    if (list === "superseded") throw cursor.malformed("[first,count]")
    this.#claims ??= new FileHashIndexBuilder(cursor.bytes)
    const { start, end } = readPath(cursor, this.#claims)
    this.#claims.addAt(start, end, end, end)
    this.#claims.own(this.#claims.length - 1, 1, owner)
  }
}

function numberOf(cursor: JsonCursor): number {
  const value = cursor.value()
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= U32) return value
  throw cursor.malformed("a whole number")
}

function packageOf(record: JsonRecord): Package {
  const manager = MANAGERS.find((known) => known === record.string("manager"))
  if (manager === undefined) throw record.wrong("manager", MANAGERS.join(" or "), record.take("manager"))
  const text = (name: string, value: string | null) => {
    if (value !== null && (value === "" || value.length > MAX_TEXT))
      throw record.wrong(name, `1 to ${MAX_TEXT} characters`, value)
    return value
  }
  const result: Package = {
    manager,
    name: text("name", record.string("name")) ?? "",
    version: text("version", record.string("version")) ?? "",
    architecture: text("architecture", record.stringOrNull("architecture")),
    ...sourceOf(record),
    ...replacedOf(record),
  }
  for (const list of LISTS) record.take(list)
  record.finish()
  return result
}

function sourceOf(record: JsonRecord): Pick<Package, "source"> {
  const text = record.stringOrNull("source")
  const source = SOURCES.find((known) => known === text)
  if (text !== null && source === undefined) throw record.wrong("source", SOURCES.join(", "), text)
  return source === undefined ? {} : { source }
}

function replacedOf(record: JsonRecord): Pick<Package, "replaced"> {
  const value = record.take("replaced")
  if (value !== null && value !== true) throw record.wrong("replaced", "true, or no such member", value)
  return value === true ? { replaced: true } : {}
}

/** JSON of the member `packages`, a line for each. `superseded` are the pairs of that member. */
export function encodePackages(
  packages: readonly Package[],
  files: FileHashIndex,
  superseded: FileHashIndex,
): string {
  const fileRanges = rangesOf(files, packages.length)
  const supersededRanges = rangesOf(superseded, packages.length)
  const lines = packages.map(({ manager, name, version, architecture, source, replaced }, index) => {
    const old = supersededRanges[index]
    return JSON.stringify({
      ...{ manager, name, version, architecture, source, replaced },
      files: fileRanges[index] ?? [],
      ...(old === undefined ? {} : { superseded: old }),
    })
  })
  return lines.length === 0 ? "[]" : `[\n${lines.join(",\n")}\n]`
}

/** `[first,count]` of the pairs of each package, by position; undefined where it has none. */
function rangesOf(index: FileHashIndex, packages: number): ([number, number][] | undefined)[] {
  const ranges = new Array<[number, number][] | undefined>(packages).fill(undefined)
  for (let start = 0; start < index.length; ) {
    const owner = index.packageAt(start)
    let end = start + 1
    while (end < index.length && index.packageAt(end) === owner) end += 1
    if (owner !== NO_PACKAGE) {
      const known = ranges[owner]
      if (known === undefined) ranges[owner] = [[start, end - start]]
      else known.push([start, end - start])
    }
    start = end
  }
  return ranges
}

/** Packages that are installed, as far as the snapshot knows; null where it knows none. */
export function installedPackages(packages: readonly Package[] | undefined): readonly Package[] | null {
  return packages?.filter(({ replaced }) => replaced === undefined) ?? null
}

/** What makes two packages the same, without their version: two versions of one can be installed side by side only with rpm. */
export function packageKey({ manager, name, architecture }: Package): string {
  return JSON.stringify([manager, name, architecture])
}

/** Collects packages of several snapshots, each once. */
export class PackageTable {
  readonly packages: Package[] = []
  readonly #numbers = new Map<string, number>()

  /** Number of a package in this table. */
  number(one: Package): number {
    const key = JSON.stringify([packageKey(one), one.version, one.source, one.replaced])
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    this.#numbers.set(key, this.packages.length)
    return this.packages.push(one) - 1
  }

  /** Numbers in this table, by number in the other. */
  numbers(packages: readonly Package[]): readonly number[] {
    return packages.map((one) => this.number(one))
  }
}
