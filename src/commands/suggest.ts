/**
 * The candidate that somebody most likely meant, or null where none is near: a candidate that begins with what was typed, else the
 * one with the smallest edit distance (a third of the length at most).
 */
export function suggest(typed: string, candidates: readonly string[]): string | null {
  const bare = typed.replace(/^-+/, "")
  const limit = Math.max(1, Math.floor(bare.length / 3))
  let best: string | null = null
  let bestDistance = limit + 1
  for (const candidate of candidates) {
    const name = candidate.replace(/^-+/, "")
    // One letter is near every other letter: a suggestion would be a guess.
    if (name.length < 2 || bare.length < 2) continue
    const distance = bare.length >= 3 && name.startsWith(bare) ? 1 : editDistance(bare, name)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let before: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1]
      const swapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]
      current.push(
        Math.min(
          (previous[column] ?? 0) + 1,
          (current[column - 1] ?? 0) + 1,
          (previous[column - 1] ?? 0) + (same ? 0 : 1),
          swapped ? (before[column - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY,
        ),
      )
    }
    before = previous
    previous = current
  }
  return previous[b.length] ?? 0
}
