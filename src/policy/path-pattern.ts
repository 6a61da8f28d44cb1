/** What a pattern is made of: a byte, or one of the wildcards. */
type Part = number | "one" | "many" | "deep"

const [SLASH, STAR, QUESTION, BACKSLASH] = [0x2f, 0x2a, 0x3f, 0x5c]
const [SPACE, UNDERSCORE] = [0x20, 0x5f]

/**
 * A pattern of paths: `?` is one byte and `*` any number of them, neither of them a slash; `**` is any number of bytes; a
 * backslash before one of these takes its meaning away. As everywhere with measured paths, a space equals an underscore.
 * The time to match is in proportion to pattern times path, whatever the two are.
 */
export class PathPattern {
  readonly #parts: readonly Part[]
  /** Bytes before the first wildcard. */
  readonly #prefix: number

  /** @param pattern begins with a slash. */
  constructor(pattern: Uint8Array) {
    this.#parts = partsOf(pattern)
    const wild = this.#parts.findIndex((part) => typeof part !== "number")
    this.#prefix = wild < 0 ? this.#parts.length : wild
  }

  matches(path: Uint8Array): boolean {
    if (path.length < this.#prefix) return false
    for (let at = 0; at < this.#prefix; at++) if (this.#parts[at] !== folded(path[at] ?? 0)) return false
    return this.#matchesRest(path)
  }

  /** All places of the pattern where one may be, at once. */
  #matchesRest(path: Uint8Array): boolean {
    const end = this.#parts.length
    let places = new Uint8Array(end + 1)
    let next = new Uint8Array(end + 1)
    this.#reach(places, this.#prefix)
    for (let at = this.#prefix; at < path.length; at++) {
      const byte = folded(path[at] ?? 0)
      next.fill(0)
      for (let place = this.#prefix; place < end; place++)
        if (places[place] === 1) this.#step(next, place, byte)
      ;[places, next] = [next, places]
    }
    return places[end] === 1
  }

  #step(next: Uint8Array, place: number, byte: number): void {
    const part = this.#parts[place]
    if (part === "deep" || (part === "many" && byte !== SLASH)) this.#reach(next, place)
    else if (part === byte || (part === "one" && byte !== SLASH)) this.#reach(next, place + 1)
  }

  /** A wildcard of any number may also be of none. */
  #reach(places: Uint8Array, from: number): void {
    let place = from
    places[place] = 1
    while (this.#parts[place] === "many" || this.#parts[place] === "deep") {
      place += 1
      places[place] = 1
    }
  }
}

function partsOf(pattern: Uint8Array): Part[] {
  const parts: Part[] = []
  for (let at = 0; at < pattern.length; at++) {
    const byte = pattern[at] ?? 0
    const following = pattern[at + 1]
    if (byte === BACKSLASH && (following === STAR || following === QUESTION || following === BACKSLASH)) {
      parts.push(following)
      at += 1
    } else if (byte === STAR && following === STAR) {
      parts.push("deep")
      at += 1
    } else parts.push(byte === STAR ? "many" : byte === QUESTION ? "one" : folded(byte))
  }
  return parts
}

function folded(byte: number): number {
  return byte === SPACE ? UNDERSCORE : byte
}
