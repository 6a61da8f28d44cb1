import { ParseError } from "../../errors.ts"
import { type ArMember, parseAr } from "../ar.ts"

/** How a member of a .deb is compressed, by the end of its name. */
export type DebCompression = "none" | "gzip" | "xz" | "zstd"

/** A tar archive inside a .deb, compressed as it is. */
export interface DebArchive {
  readonly compression: DebCompression
  readonly content: Uint8Array
}

export interface DebFile {
  /** What describes the package: `control`, `conffiles`, scripts. */
  readonly control: DebArchive
  /** The package's files. */
  readonly data: DebArchive
}

const COMPRESSIONS: Readonly<Record<string, DebCompression>> = {
  "": "none",
  ".gz": "gzip",
  ".xz": "xz",
  ".zst": "zstd",
}

/**
 * The parts of a .deb. Members whose names begin with `_` are others' and left aside, as dpkg does.
 * Source: deb(5), dpkg 1.21.
 * @throws ParseError as parseAr; ERR_MALFORMED, ERR_UNSUPPORTED.
 */
export function parseDeb(bytes: Uint8Array): DebFile {
  const [version, control, data, ...rest] = parseAr(bytes).filter(({ name }) => !name.startsWith("_"))
  if (version?.name !== "debian-binary" || control === undefined || data === undefined || rest.length > 0)
    throw new ParseError("ERR_MALFORMED", {
      at: ".deb",
      expected: "debian-binary, control.tar and data.tar, in this order",
    })
  const format = Buffer.from(version.content.subarray(0, 20)).toString("latin1")
  if (!/^2\.[0-9]+\n/.test(format))
    throw new ParseError("ERR_UNSUPPORTED", {
      at: ".deb",
      expected: "format 2",
      found: JSON.stringify(format),
    })
  return { control: archive(control, "control.tar"), data: archive(data, "data.tar") }
}

function archive({ name, content }: ArMember, expected: string): DebArchive {
  if (!name.startsWith(expected)) throw new ParseError("ERR_MALFORMED", { at: ".deb", expected, found: name })
  const end = name.slice(expected.length)
  const compression = Object.hasOwn(COMPRESSIONS, end) ? COMPRESSIONS[end] : undefined
  if (compression === undefined)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: ".deb",
      expected: Object.keys(COMPRESSIONS)
        .map((known) => expected + known)
        .join(", "),
      found: name,
    })
  return { compression, content }
}
