import { CodedError } from "../errors.ts"
import { compareVersions } from "../formats/package-version.ts"
import { pathToText, textToPath } from "../formats/path-text.ts"
import { FileHashIndexBuilder } from "./file-hashes.ts"
import { fileHashIndex, type Package, type Snapshot, supersededIndex } from "./snapshot.ts"
import { without } from "./snapshot-merge.ts"
import { PackageTable, packageKey } from "./snapshot-packages.ts"

/** A package and its files, as the package itself has them. */
export interface NewPackage {
  readonly package: Package
  readonly files: readonly NewFile[]
}

export interface NewFile {
  readonly path: string
  /** Hex, of the snapshot's algorithm. */
  readonly digest: string
  /** The VM may have its own version of it, which an update leaves as it is. */
  readonly isConfiguration: boolean
}

export interface UpdateOptions {
  /** Go on accepting the files that are replaced. */
  readonly keepOld: boolean
  /** Packages may be older than those of the snapshot. */
  readonly allowDowngrade: boolean
}

/** What a package changed, in numbers of files. */
export interface PackageUpdate {
  readonly package: Package
  /** Versions that the snapshot had. */
  readonly before: readonly string[]
  /** Files that the snapshot did not have at all. */
  readonly added: number
  readonly unchanged: number
  /** Digests that are accepted no more. */
  readonly superseded: number
  /** Older digests that are still accepted. */
  readonly kept: number
}

/**
 * A snapshot with the files of packages in place of those that these packages had before. The replaced digests are accepted no more,
 * so that a rollback is noticed, unless `keepOld` says otherwise; own versions of configuration files stay. In the predecessor's format
 * there is no place for packages: there only the digests change.
 * @throws CodedError ERR_PACKAGE_DOWNGRADE
 */
export function updateSnapshot(
  snapshot: Snapshot,
  packages: readonly NewPackage[],
  options: UpdateOptions,
): { readonly snapshot: Snapshot; readonly updates: readonly PackageUpdate[] } {
  const update = new Update(snapshot, packages, options)
  if (!options.allowDowngrade) for (const one of packages) update.refuseDowngrade(one.package)
  return { snapshot: update.make(), updates: update.updates }
}

/** A file of a new package while the old ones are looked through. */
interface Wanted extends NewFile {
  readonly number: number
  readonly counts: Counts
  found: boolean
}

type Counts = { -readonly [K in keyof PackageUpdate]: PackageUpdate[K] }

class Update {
  readonly updates: Counts[]
  readonly #snapshot: Snapshot
  readonly #options: UpdateOptions
  readonly #table = new PackageTable()
  readonly #oldNumbers: readonly number[]
  /** By {@link packageKey} of the package that is new. */
  readonly #byKey = new Map<string, Counts>()
  /** By path as the kernel's list has it: files whose names differ in spaces alone are one there. */
  readonly #wanted = new Map<string, Wanted[]>()

  constructor(snapshot: Snapshot, packages: readonly NewPackage[], options: UpdateOptions) {
    this.#snapshot = snapshot
    this.#options = options
    const isNew = new Set(packages.map((one) => packageKey(one.package)))
    const old = (snapshot.packages ?? []).map((one) =>
      isNew.has(packageKey(one)) && !options.keepOld ? { ...one, replaced: true as const } : one,
    )
    this.#oldNumbers = this.#table.numbers(old)
    const places = new DirectoryPlaces(snapshot)
    this.updates = packages.map(({ package: one, files }) => {
      const before = this.#versionsOf(one)
      const counts: Counts = { package: one, before, added: 0, unchanged: 0, superseded: 0, kept: 0 }
      this.#byKey.set(packageKey(one), counts)
      const number = this.#table.number(one)
      for (const file of files) {
        const path = places.really(file.path)
        const wanted = { ...file, path, number, counts, found: false }
        const known = this.#wanted.get(listName(path))
        // Of two packages with one file the last one counts, as when they are installed.
        if (known === undefined) this.#wanted.set(listName(path), [wanted])
        else known.splice(0, known.length, ...known.filter((other) => other.path !== path), wanted)
      }
      return counts
    })
  }

  refuseDowngrade(one: Package): void {
    for (const known of this.#versionsOf(one))
      if (compareVersions(one.manager, one.version, known) < 0)
        throw new CodedError("ERR_PACKAGE_DOWNGRADE", {
          at: one.name,
          expected: `${known} or newer`,
          found: one.version,
          hint: "get the newest version; --allow-downgrade accepts an older one on purpose",
        })
  }

  make(): Snapshot {
    const files = fileHashIndex(this.#snapshot)
    const kept = new FileHashIndexBuilder()
    const replaced = new FileHashIndexBuilder()
    for (let at = 0; at < files.length; at++) {
      const old = files.packageAt(at)
      const owner = this.#oldNumbers[old]
      const path = files.pathAt(at)
      const wanted = this.#wanted.get(listName(pathToText(path))) ?? []
      const ofPackage = this.#snapshot.packages?.[old]
      const counts = wanted[0]?.counts ?? (ofPackage && this.#byKey.get(packageKey(ofPackage)))
      const digest = files.digestAt(at)
      const same = wanted.length === 0 ? undefined : sameContent(wanted, digest)
      if (counts === undefined) kept.add(path, digest, owner)
      else if (same !== undefined) {
        if (!same.found) counts.unchanged += 1
        same.found = true
        kept.add(path, digest, same.number)
      } else if (this.#options.keepOld || wanted.some(({ isConfiguration }) => isConfiguration)) {
        counts.kept += 1
        kept.add(path, digest, owner)
      } else {
        counts.superseded += 1
        replaced.add(path, digest, owner)
      }
    }
    for (const { path, digest, number, found, counts } of [...this.#wanted.values()].flat()) {
      if (found) continue
      counts.added += 1
      kept.add(textToPath(path), Buffer.from(digest, "hex"), number)
    }
    return this.#with(kept, replaced)
  }

  #with(kept: FileHashIndexBuilder, replaced: FileHashIndexBuilder): Snapshot {
    const { superseded: earlier, packages, ...rest } = this.#snapshot
    const filehashes = kept.build()
    if (rest.format === 1) return { ...rest, filehashes }
    const old = supersededIndex(this.#snapshot)
    for (let at = 0; at < old.length; at++)
      replaced.add(old.pathAt(at), old.digestAt(at), this.#oldNumbers[old.packageAt(at)])
    const superseded = without(replaced.build(), filehashes)
    return {
      ...rest,
      filehashes,
      packages: this.#table.packages,
      ...(superseded.length === 0 ? {} : { superseded }),
    }
  }

  /** Versions of a package that the snapshot has installed. */
  #versionsOf(one: Package): string[] {
    const key = packageKey(one)
    const known = (this.#snapshot.packages ?? []).filter(
      (other) => other.replaced === undefined && packageKey(other) === key,
    )
    return known.map(({ version }) => version)
  }
}

function listName(path: string): string {
  return path.replaceAll(" ", "_")
}

function sameContent(wanted: readonly Wanted[], digest: Uint8Array): Wanted | undefined {
  const hex = Buffer.from(digest).toString("hex")
  return wanted.find((file) => file.digest === hex)
}

/** Directories that have moved below /usr on most systems: packages may still name them as before. */
const MERGED = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"]

/** Where the files of a package are on the VM, as its snapshot shows. */
class DirectoryPlaces {
  readonly #merged: ReadonlySet<string>

  constructor(snapshot: Snapshot) {
    const files = fileHashIndex(snapshot)
    const below = (directory: string) => files.countBelow(textToPath(directory))
    // A few files may be named as before all the same: an initial RAM disk has directories of its own.
    this.#merged = new Set(MERGED.filter((name) => below(`/usr/${name}/`) > below(`/${name}/`)))
  }

  really(path: string): string {
    const top = path.slice(1, path.indexOf("/", 1))
    return this.#merged.has(top) ? `/usr${path}` : path
  }
}
