import type { CommandLineExpectations } from "./boot-expectations.ts"

/** What is wrong with a command line: the pattern, and the word that shows it; null: no word fits. */
export interface CommandLineFault {
  readonly pattern: string
  readonly rule: "required" | "forbidden"
  readonly word: string | null
}

/** Judges a kernel's command line word by word. */
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
 * Words as the kernel takes them apart: at white space outside of quotes. What follows `--` is for init, not for the kernel.
 * Source: Linux 6.12, lib/cmdline.c (next_arg), kernel/params.c (parse_args).
 */
function wordsOf(text: string): { kernel: string[]; init: string[] } {
  const words = [...text.matchAll(/(?:"[^"]*(?:"|$)|[^\s"])+/g)].map(([word]) => word.replaceAll('"', ""))
  const end = words.indexOf("--")
  return end < 0 ? { kernel: words, init: [] } : { kernel: words.slice(0, end), init: words.slice(end + 1) }
}

/** In names the kernel takes dashes for underscores. Source: Linux 6.12, kernel/params.c (parameqn). */
function nameOf(word: string): string {
  return (word.split("=", 1)[0] ?? "").replaceAll("-", "_")
}

function normalised(word: string): string {
  const name = nameOf(word)
  return `${name}${word.slice(name.length)}`
}

/** `*` stands for any text, `?` for one character. */
function fits(word: string, pattern: string): boolean {
  const source = [...normalised(pattern)]
    .map((char) => (char === "*" ? ".*" : char === "?" ? "." : char.replaceAll(/[\\^$.|+()[\]{}]/g, "\\$&")))
    .join("")
  return new RegExp(`^${source}$`, "su").test(normalised(word))
}
