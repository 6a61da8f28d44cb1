import { type Paragraph, parseParagraphs } from "./paragraphs.ts"

/**
 * What dpkg knows about the packages that are installed.
 * Source: dpkg 1.21, dpkg-query(1), dpkg-divert(1), deb-md5sums(5); lib/dpkg/db-fsys-files.c, db-fsys-divert.c.
 */

export interface InstalledPackage {
  readonly name: string
  readonly version: string
  readonly architecture: string
  /** Name of its list of files in `info/`, without `.list`: several architectures of one package have one each. */
  readonly listName: string
}

/** Packages whose files are there, by the text of `status`. @throws ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY */
export function parseDpkgStatus(text: string): InstalledPackage[] {
  const out: InstalledPackage[] = []
  for (const paragraph of parseParagraphs("dpkg status", text)) {
    const name = paragraph.get("package") ?? ""
    const version = paragraph.get("version") ?? ""
    const architecture = paragraph.get("architecture") ?? ""
    // A name is part of a file's name.
    if (!/^[a-z0-9][a-z0-9+.-]*$/.test(name) || version === "" || !/^[a-z0-9-]+$/.test(architecture)) continue
    if (!hasFiles(paragraph)) continue
    const listName = paragraph.get("multi-arch") === "same" ? `${name}:${architecture}` : name
    out.push({ name, version, architecture, listName })
  }
  return out
}

/** `want flag state`; of packages that are removed, configuration files at most are left. */
function hasFiles(paragraph: Paragraph): boolean {
  const state = paragraph.get("status")?.split(" ")[2] ?? ""
  return state !== "" && state !== "not-installed" && state !== "config-files"
}

/** A file that all packages but one find under another name. */
export interface Diversion {
  readonly to: string
  /** The package that keeps the name; `:` for the administrator's own. */
  readonly by: string
}

/** By the name that is diverted, from the text of `diversions`: three lines each. */
export function parseDiversions(text: string): ReadonlyMap<string, Diversion> {
  const lines = text.split("\n")
  const out = new Map<string, Diversion>()
  for (let at = 0; at + 2 < lines.length; at += 3) {
    const [from = "", to = "", by = ""] = lines.slice(at, at + 3)
    out.set(from, { to, by })
  }
  return out
}

/**
 * Paths of a package's list that may be files, where they really are.
 * @param text content of the list: a path a line, directories before what is in them.
 */
export function parseFileList(
  text: string,
  owner: string,
  diversions: ReadonlyMap<string, Diversion>,
): string[] {
  const lines = text.split("\n")
  const out: string[] = []
  lines.forEach((path, index) => {
    if (!path.startsWith("/") || path === "/." || lines[index + 1]?.startsWith(`${path}/`)) return
    const diversion = diversions.get(path)
    out.push(diversion === undefined || diversion.by === owner ? path : diversion.to)
  })
  return out
}
