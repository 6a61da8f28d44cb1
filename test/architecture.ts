/** Reads import lines and tells which break the module map of the project. */
import { dirname, join } from "node:path"

/** A source file: path from the project's root, and text. */
export interface SourceFile {
  readonly path: string
  readonly text: string
}

/** From the right of the arrows to the left: a layer imports itself and what stands before it, never its equals. */
const LAYERS = [
  ["errors"],
  ["formats"],
  ["verify"],
  ["policy"],
  ["agent", "client", "endorsements", "acme"],
  ["commands"],
]
/** Same input, same output: everything else is an argument. */
const PURE = ["formats", "verify", "policy"]
/** Outside the layers: the two entries see everything, the version is seen by everyone. */
const ENTRIES = ["src/main.ts", "src/workers.ts"]
const SEEN_BY_ALL = ["src/errors.ts", "src/version.ts"]
/** Runs other programs, for native/ and all above it. */
const PROGRAMS = "src/programs.ts"
/** The one value of native/ that the agent needs to start its own threads. */
const WORKER_ENTRY = "src/native/worker-entry.ts"

interface Import {
  readonly from: string
  readonly typeOnly: boolean
}

/** One line per broken rule, empty when all hold. */
export function violations(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => [
    ...importsOf(file.text).flatMap((line) => brokenBy(file.path, line)),
    ...(PURE.includes(layerOf(file.path)) ? impureIn(file) : []),
  ])
}

function brokenBy(path: string, line: Import): string[] {
  const say = (rule: string) => [`${path} imports ${line.from}: ${rule}`]
  if (!line.from.startsWith("."))
    return impureImport(path, line.from) ? say("a pure layer takes it as an argument") : []
  const target = join(dirname(path), line.from)
  if (!path.startsWith("src/")) return []
  if (!target.startsWith("src/")) return target === "package.json" ? [] : say("src imports only src")
  if (ENTRIES.includes(path) || SEEN_BY_ALL.includes(target)) return []
  if (ENTRIES.includes(target)) return say("nothing imports an entry")
  const own = layerOf(path)
  if (target === PROGRAMS) return PURE.includes(own) ? say("a pure layer runs no program") : []
  const other = layerOf(target)
  if (own === other) return []
  if (own === "native") return other === "formats" ? [] : say("native imports errors and formats")
  if (other === "native") return nativeImport(own, target, line, say)
  if (rank(own) <= rank(other)) return say(`${own} does not stand to the left of ${other}`)
  return []
}

/** Devices are constructed in commands; everyone else knows their interfaces. */
function nativeImport(own: string, target: string, line: Import, say: (rule: string) => string[]): string[] {
  if (own === "commands" || (own === "agent" && target === WORKER_ENTRY)) return []
  if (PURE.includes(own)) return say("a pure layer knows no device")
  if (target !== "src/native/ports.ts")
    return say("only commands construct devices; others see native/ports.ts")
  return line.typeOnly ? [] : say("ports are interfaces: import type")
}

/** Modules of the runtime that compute and do nothing else. */
const PURE_MODULES = ["node:crypto", "node:buffer", "node:util"]

function impureImport(path: string, from: string): boolean {
  if (!PURE.includes(layerOf(path))) return false
  return (
    (from.startsWith("node:") || from === "bun" || from.startsWith("bun:")) && !PURE_MODULES.includes(from)
  )
}

const IMPURE: ReadonlyArray<readonly [RegExp, string]> = [
  [/\bprocess\s*\./, "process"],
  [/\bBun\s*\.\s*(?!SHA|MD|CryptoHasher|hash\b)/, "Bun, other than its hashes"],
  [/\bDate\s*\.\s*now\b|\bnew\s+Date\s*\(\s*\)|\bperformance\s*\./, "the clock"],
  [/\bMath\s*\.\s*random\b|\brandom(Bytes|UUID|Int|Fill|FillSync)\b|\bgetRandomValues\b/, "randomness"],
  [/\bgenerateKey(Pair)?(Sync)?\b/, "randomness"],
  [/\bfetch\s*\(/, "the network"],
]

function impureIn(file: SourceFile): string[] {
  const code = withoutComments(file.text)
  return IMPURE.filter(([pattern]) => pattern.test(code)).map(([, what]) => `${file.path} uses ${what}`)
}

function importsOf(text: string): Import[] {
  const code = withoutComments(text)
  const statements = /\b(?:import|export)\s+(type\s)?\s*(?:[\w*{][^"';]*?\bfrom\s*)?"([^"]+)"/g
  const calls = /\bimport\s*\(\s*"([^"]+)"/g
  return [
    ...[...code.matchAll(statements)].map((m) => ({ from: m[2] ?? "", typeOnly: m[1] !== undefined })),
    ...[...code.matchAll(calls)].map((m) => ({ from: m[1] ?? "", typeOnly: false })),
  ]
}

/** Good enough for code that a formatter has seen: a comment mark inside a string only hides the rest of that line. */
function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "$1")
}

/** First folder under src/; for a file directly in src/, its name. */
function layerOf(path: string): string {
  return path.startsWith("src/") ? (path.split("/")[1] ?? "").replace(/\.ts$/, "") : ""
}

function rank(layer: string): number {
  return LAYERS.findIndex((names) => names.includes(layer))
}
