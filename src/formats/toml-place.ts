/**
 * Line (from 1) on which a key of a TOML text stands, for error messages; the line of its table's heading where the key
 * itself is not there; null where neither is found. Understands headings, bare and quoted keys and dotted keys, as people
 * write configuration; the value was read by a real parser before.
 * @param table names of the enclosing tables, outermost first; for one of an array of tables, `name[0]`, `name[1]`, ….
 */
export function lineOfKey(text: string, table: readonly string[], key: string): number | null {
  const wanted = [...table, key].join("\0")
  const heading = table.join("\0")
  let current: readonly string[] = []
  let headingLine: number | null = null
  const counts = new Map<string, number>()
  for (const [index, line] of text.split("\n").entries()) {
    const header = /^\s*\[\[?([^\]]+)\]\]?/.exec(line)
    if (header?.[1] !== undefined) {
      current = keyParts(header[1])
      if (current.join("\0") === wanted) return index + 1
      if (/^\s*\[\[/.test(line)) current = numbered(current, counts)
      if (current.join("\0") === heading) headingLine = index + 1
      continue
    }
    const assignment = /^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_.\-\s])+?)\s*=/.exec(line)
    if (assignment?.[1] === undefined) continue
    const parts = [...current, ...keyParts(assignment[1])]
    if (parts.join("\0") === wanted) return index + 1
  }
  return headingLine
}

/** The path of the next table of an array. */
function numbered(path: readonly string[], counts: Map<string, number>): string[] {
  const name = path.join("\0")
  const count = counts.get(name) ?? 0
  counts.set(name, count + 1)
  return [...path.slice(0, -1), `${path.at(-1)}[${count}]`]
}

function keyParts(text: string): string[] {
  const parts = text.match(/"[^"]*"|'[^']*'|[A-Za-z0-9_-]+/g) ?? []
  return parts.map((part) => part.replace(/^["']|["']$/g, ""))
}
