/**
 * Orders of versions, so that an older package is recognised.
 * Source: Debian Policy Manual 4.6.2, section 5.6.12; RPM 4.18, docs/manual/dependencies.md and rpmio/rpmvercmp.c.
 */

/** Negative where `a` is older than `b`, zero where they are equal. Both as `epoch:version-release`. */
export function compareVersions(manager: "dpkg" | "rpm", a: string, b: string): number {
  const [left, right] = [partsOf(a), partsOf(b)]
  const compare = manager === "dpkg" ? compareDebian : compareRpm
  return (
    compareNumbers(left.epoch, right.epoch) ||
    compare(left.version, right.version) ||
    compare(left.release, right.release)
  )
}

function partsOf(text: string): { epoch: string; version: string; release: string } {
  const [, epoch = "0", rest = text] = /^([0-9]+):(.*)$/s.exec(text) ?? []
  const dash = rest.lastIndexOf("-")
  return dash < 0
    ? { epoch, version: rest, release: "" }
    : { epoch, version: rest.slice(0, dash), release: rest.slice(dash + 1) }
}

/** Alternately what is no digit, by a special order, and digits, as a number. */
function compareDebian(a: string, b: string): number {
  let [left, right] = [a, b]
  while (left !== "" || right !== "") {
    const [x, y] = [/^[^0-9]*/.exec(left)?.[0] ?? "", /^[^0-9]*/.exec(right)?.[0] ?? ""]
    for (let at = 0; at < Math.max(x.length, y.length); at++) {
      const difference = debianOrder(x[at]) - debianOrder(y[at])
      if (difference !== 0) return difference
    }
    left = left.slice(x.length)
    right = right.slice(y.length)
    const [m, n] = [/^[0-9]*/.exec(left)?.[0] ?? "", /^[0-9]*/.exec(right)?.[0] ?? ""]
    const difference = compareNumbers(m, n)
    if (difference !== 0) return difference
    left = left.slice(m.length)
    right = right.slice(n.length)
  }
  return 0
}

/** A tilde before the end, the end before letters, letters before all else. */
function debianOrder(char: string | undefined): number {
  if (char === undefined) return 0
  if (char === "~") return -1
  const code = char.charCodeAt(0)
  return /[A-Za-z]/.test(char) ? code : code + 256
}

/** Digits of any length, without leading zeros, by length and then by text. */
function compareNumbers(a: string, b: string): number {
  const [x, y] = [a.replace(/^0+/, ""), b.replace(/^0+/, "")]
  return x.length - y.length || (x < y ? -1 : x > y ? 1 : 0)
}

/** Runs of letters or digits; what separates them does not count, save tilde (before the end) and caret (after it). */
function compareRpm(a: string, b: string): number {
  const segments = (text: string) => text.match(/[0-9]+|[A-Za-z]+|~|\^/g) ?? []
  const [left, right] = [segments(a), segments(b)]
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    const difference = compareSegments(left[at], right[at])
    if (difference !== 0) return difference
  }
  return 0
}

function compareSegments(x: string | undefined, y: string | undefined): number {
  if (x === y) return 0
  if (x === "~" || y === "~") return x === "~" ? -1 : 1
  if (x === "^") return y === undefined ? 1 : -1
  if (y === "^") return x === undefined ? -1 : 1
  if (x === undefined || y === undefined) return x === undefined ? -1 : 1
  const [numeric, otherNumeric] = [/^[0-9]/.test(x), /^[0-9]/.test(y)]
  if (numeric && otherNumeric) return compareNumbers(x, y)
  if (numeric !== otherNumeric) return numeric ? 1 : -1
  return x < y ? -1 : 1
}
