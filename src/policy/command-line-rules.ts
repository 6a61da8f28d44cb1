import type { CommandLineExpectations } from "./boot-expectations.ts"

/** What is wrong with a command line: the pattern, and the word that shows it; null: no word fits. */
export interface CommandLineFault {
  readonly pattern: string
  readonly rule: "required" | "forbidden"
  readonly word: string | null
}

/** Judges a kernel's command line word by word. @param text a character for each byte. */
export function commandLineFaults(
  text: string,
  { required, forbidden }: CommandLineExpectations,
): CommandLineFault[] {
  const { kernel, init } = wordsOf(text)
  return [
    ...required.flatMap((pattern) => requiredFault(pattern, kernel)),
    ...forbidden.flatMap((pattern) => {
      const word = [...kernel, ...init].find((candidate) => fits(candidate, pattern))
      return word === undefined ? [] : [{ pattern, rule: "forbidden" as const, word }]
    }),
  ]
}

/** The last word of a name is often the one that counts, so that none may say something else. */
function requiredFault(pattern: string, words: readonly string[]): CommandLineFault[] {
  const rule = "required" as const
  const name = pattern.includes("=") ? nameOf(pattern) : null
  const other =
    name === null ? undefined : words.find((word) => nameOf(word) === name && !fits(word, pattern))
  if (other !== undefined) return [{ pattern, rule, word: other }]
  return words.some((word) => fits(word, pattern)) ? [] : [{ pattern, rule, word: null }]
}

/**
 * Words as the kernel takes them apart: at white space outside of quotes, where a quote counts as such wherever it stands, and only
 * those around a whole word or its value are taken off. What follows `--` is for init, not for the kernel.
 * Source: Linux 6.12, lib/cmdline.c (next_arg), lib/ctype.c, kernel/params.c (parse_args).
 */
export function wordsOf(text: string): { kernel: string[]; init: string[] } {
  const words = (text.match(/(?:"[^"]*(?:"|$)|[^ \t\n\v\f\r\xa0"])+/g) ?? []).map(unquoted)
  const end = words.indexOf("--")
  return end < 0 ? { kernel: words, init: [] } : { kernel: words.slice(0, end), init: words.slice(end + 1) }
}

function unquoted(word: string): string {
  const whole = word.startsWith('"') ? withoutLast(word.slice(1)) : word
  const equals = whole.indexOf("=", 1)
  if (equals < 0 || whole[equals + 1] !== '"') return whole
  return `${whole.slice(0, equals + 1)}${withoutLast(whole.slice(equals + 2))}`
}

function withoutLast(text: string): string {
  return text.endsWith('"') ? text.slice(0, -1) : text
}

/** In names the kernel takes dashes for underscores. Source: Linux 6.12, kernel/params.c (parameqn). */
export function nameOf(word: string): string {
  return (word.split("=", 1)[0] ?? "").replaceAll("-", "_")
}

function normalised(word: string): string {
  const name = nameOf(word)
  return `${name}${word.slice(name.length)}`
}

/**
 * `*` stands for any text, `?` for one character. The time is in proportion to pattern times word at most: a star that was passed
 * never has to be looked at again once there is another one.
 */
function fits(word: string, pattern: string): boolean {
  const text = normalised(word)
  const parts = normalised(Buffer.from(pattern, "utf8").toString("latin1"))
  let [at, part] = [0, 0]
  let star: { at: number; part: number } | null = null
  while (at < text.length)
    if (parts[part] === "*") {
      star = { at, part }
      part += 1
    } else if (parts[part] === "?" || (part < parts.length && parts[part] === text[at])) {
      at += 1
      part += 1
    } else if (star !== null) {
      star = { at: star.at + 1, part: star.part }
      ;[at, part] = [star.at, star.part + 1]
    } else return false
  while (parts[part] === "*") part += 1
  return part === parts.length
}
