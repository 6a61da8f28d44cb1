import { certChainPath, crlPath } from "../endorsements/amd-kds.ts"
import { AMD_ANCHORS } from "../endorsements/amd-roots.ts"
import { type CacheEntry, encodeExport } from "../endorsements/cache-entry.ts"
import { type CollateralSource, type Held, type IntelNeed, intelKeys } from "../endorsements/collateral.ts"
import { documentsIn } from "../endorsements/import.ts"
import { keyOf } from "../endorsements/resource.ts"
import { CATALOGUE, CodedError, UsageError } from "../errors.ts"
import { fromHex } from "../formats/hex.ts"
import { encodeCollateralBundle } from "../formats/intel/collateral.ts"
import { MAX_QUOTE_BYTES } from "../formats/intel/quote.ts"
import { printable } from "../formats/path-text.ts"
import { SNP_PRODUCTS } from "../formats/snp/tcb.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import type { CollateralOptions } from "./collateral.ts"
import { neededBy } from "./collateral-needs.ts"
import { cacheOf, collateralSourceOf } from "./collateral-source.ts"
import { parseFile } from "./input-files.ts"
import { interruptible } from "./interrupt.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

/** Reports with their certificates are smaller than the largest quote. */
const MAX_EVIDENCE_BYTES = MAX_QUOTE_BYTES
const MAX_IMPORT_BYTES = 64 * 1024 * 1024

interface Platform {
  /** Hex; null: none. */
  readonly fmspc: string | null
  readonly tee: string
  readonly ca: string
}

export interface FetchOptions extends CollateralOptions, Platform {
  /** A file; null: the documents are named by the other options. */
  readonly evidence: string | null
  readonly product: string | null
  readonly vlek: boolean
  readonly refresh: boolean
  /** Seconds. */
  readonly timeout: string
}

/** A document that was looked for. */
interface Outcome {
  readonly key: string
  readonly what: string
  readonly source: Held["source"] | null
  readonly validity: Held["validity"] | null
  readonly error: CodedError | null
}

/** `collateral fetch`. All that can be had is fetched; the first failure decides the exit code. */
export async function fetchCollateral(
  options: FetchOptions,
  terminal: Terminal = openTerminal(),
  anchors: readonly TrustAnchor[] = AMD_ANCHORS,
): Promise<number> {
  const timeoutMs = timeoutOf(options.timeout)
  const at = new Date()
  const outcomes: Outcome[] = []
  await interruptible(async (signal) => {
    const source = collateralSourceOf(options, anchors, terminal, signal, timeoutMs)
    const { keys, problems } = keysOf(source, options)
    outcomes.push(...problems.map((error) => ({ ...NOTHING, error })))
    // One after the other: AMD's service allows few requests at a time.
    for (const key of keys) outcomes.push(await outcomeOf(source, key, at, options.refresh))
  })
  if (options.json) terminal.out(jsonText({ documents: outcomes.map(jsonOf) }))
  else for (const outcome of outcomes) tell(outcome, options.quiet, terminal)
  return outcomes.find(({ error }) => error !== null)?.error?.exitCode ?? 0
}

const NOTHING = { key: "", what: "needed documents", source: null, validity: null }

function keysOf(
  source: CollateralSource,
  options: FetchOptions,
): { keys: string[]; problems: readonly CodedError[] } {
  const product = SNP_PRODUCTS.find((name) => name === options.product) ?? null
  if (options.evidence !== null) {
    const needed = parseFile(options.evidence, MAX_EVIDENCE_BYTES, neededBy)
    if (needed.kind === "intel") return { keys: intelKeys({ ...needed, revocation: true }), problems: [] }
    const { vcek, chain, crl, problems } = source.snpNeeds({ ...needed, product, revocation: true })
    return { keys: [vcek, chain, crl].filter((key) => key !== null), problems }
  }
  const platform = platformOf(options)
  if (product === null && platform === null)
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: "collateral fetch",
      expected: "a FILE with evidence, --product or --fmspc",
      found: "none of them",
      hint: "write for example cosmian_vm collateral fetch report.bin",
    })
  const kind = options.vlek ? "vlek" : "vcek"
  const paths = product === null ? [] : [certChainPath(kind, product), crlPath(kind, product)]
  const amd = paths.map((path) => keyOf({ service: "amd", path }))
  return { keys: [...amd, ...(platform === null ? [] : intelKeys(platform))], problems: [] }
}

async function outcomeOf(
  source: CollateralSource,
  key: string,
  at: Date,
  refresh: boolean,
): Promise<Outcome> {
  const what = source.resource(key)?.what ?? key
  try {
    const { source: from, validity } = await source.get(key, { at, refresh })
    return { key, what, source: from, validity, error: null }
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERRUPTED") throw error
    return { key, what, source: null, validity: null, error }
  }
}

function jsonOf({ key, what, source, validity, error }: Outcome): Record<string, unknown> {
  return {
    key,
    what,
    source,
    valid_from: validity?.from.toISOString() ?? null,
    valid_until: validity?.until.toISOString() ?? null,
    error: error?.toJSON() ?? null,
  }
}

const SOURCE = { cache: "cached", fetched: "fetched", unchanged: "cached, unchanged" } as const

function tell({ what, source, validity, error }: Outcome, quiet: boolean, terminal: Terminal): void {
  const { outStyle: style } = terminal
  if (error !== null) {
    const found = error.found === undefined ? "" : `, found ${error.found}`
    terminal.out(`${style.red("[ FAIL ]")} ${printable(`${what}: ${CATALOGUE[error.code].title}${found}`)}`)
    terminal.out(`  ${style.dim(error.code)}\n`)
    if (error.hint !== undefined) terminal.out(`           what to do: ${printable(error.hint)}\n`)
  } else if (!quiet && source !== null && validity !== null)
    terminal.out(
      `${style.green("[ OK ]")} ${printable(what)}: ${SOURCE[source]}, holds until ${day(validity.until)}\n`,
    )
}

/** `collateral list`. */
export async function listCollateral(
  options: CollateralOptions,
  terminal: Terminal = openTerminal(),
  anchors: readonly TrustAnchor[] = AMD_ANCHORS,
): Promise<number> {
  const now = new Date()
  const source = quietSource(options, anchors, terminal)
  const found = await Promise.all((await cacheOf(options).list()).map((entry) => described(source, entry)))
  if (options.json) {
    terminal.out(
      jsonText({
        documents: found.map(({ entry, what, validity }) => ({
          key: entry.key,
          what,
          url: entry.url,
          bytes: entry.body.length,
          fetched_at: entry.fetchedAt.toISOString(),
          valid_from: validity?.from.toISOString() ?? null,
          valid_until: validity?.until.toISOString() ?? null,
          in_date: validity !== null && validity.from <= now && now <= validity.until,
        })),
      }),
    )
    return 0
  }
  const { outStyle: style } = terminal
  for (const { what, validity } of found) {
    if (validity === null) terminal.out(`${style.yellow("[ WARNING ]")} ${printable(what)}: not usable\n`)
    else if (now > validity.until)
      terminal.out(`${style.yellow("[ WARNING ]")} ${printable(what)}: held until ${day(validity.until)}\n`)
    else if (!options.quiet)
      terminal.out(`${style.green("[ OK ]")} ${printable(what)}: holds until ${day(validity.until)}\n`)
  }
  if (found.length === 0 && !options.quiet) terminal.talk("nothing is cached\n")
  return 0
}

async function described(source: CollateralSource, entry: CacheEntry) {
  const resource = source.resource(entry.key)
  const what = resource?.what ?? entry.key
  try {
    return { entry, what, validity: resource?.inspect(entry) ?? null }
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    return { entry, what, validity: null }
  }
}

/** `collateral export`. */
export async function exportCollateral(
  options: CollateralOptions & Platform & { readonly output: string },
  terminal: Terminal = openTerminal(),
  anchors: readonly TrustAnchor[] = AMD_ANCHORS,
): Promise<number> {
  const file = beginFile(options.output, 0o644)
  try {
    const platform = platformOf(options)
    const { text, count } =
      platform === null ? await wholeCache(options) : await bundle(options, platform, anchors, terminal)
    file.commit(new TextEncoder().encode(text))
    if (options.json) terminal.out(jsonText({ file: options.output, documents: count }))
    else if (!options.quiet)
      terminal.out(`[ OK ] ${count} documents written to ${printable(options.output)}\n`)
    return 0
  } finally {
    file.abandon()
  }
}

async function wholeCache(options: CollateralOptions): Promise<{ text: string; count: number }> {
  const entries = await cacheOf(options).list()
  return { text: encodeExport(entries), count: entries.length }
}

async function bundle(
  options: CollateralOptions,
  platform: IntelNeed,
  anchors: readonly TrustAnchor[],
  terminal: Terminal,
): Promise<{ text: string; count: number }> {
  const found = await quietSource(options, anchors, terminal).intel({ ...platform, at: new Date() })
  return { text: encodeCollateralBundle(found), count: 4 }
}

/** `collateral import`. A file is taken whole or not at all. */
export async function importCollateral(
  options: CollateralOptions & { readonly files: readonly string[] },
  terminal: Terminal = openTerminal(),
  anchors: readonly TrustAnchor[] = AMD_ANCHORS,
): Promise<number> {
  const source = quietSource(options, anchors, terminal)
  const now = new Date()
  const entries = options.files.flatMap((file) =>
    parseFile(file, MAX_IMPORT_BYTES, (bytes) => checked(source, documentsIn(bytes, now))),
  )
  const outcomes: { key: string; what: string; kept: boolean }[] = []
  for (const entry of entries) {
    const what = source.resource(entry.key)?.what ?? entry.key
    outcomes.push({ key: entry.key, what, kept: await source.put(entry) })
  }
  if (options.json) terminal.out(jsonText({ documents: outcomes }))
  else if (!options.quiet)
    for (const { what, kept } of outcomes)
      terminal.out(`[ OK ] ${printable(what)}${kept ? "" : ": the cached one holds longer and stays"}\n`)
  return 0
}

/** Each is what its name says, before the first one is kept. */
function checked(source: CollateralSource, entries: readonly CacheEntry[]): readonly CacheEntry[] {
  for (const entry of entries) source.check(entry)
  return entries
}

function quietSource(
  options: CollateralOptions,
  anchors: readonly TrustAnchor[],
  terminal: Terminal,
): CollateralSource {
  const never = new AbortController().signal
  return collateralSourceOf({ ...options, offline: true }, anchors, terminal, never)
}

/** The platform that the options name, or null. @throws UsageError ERR_BAD_VALUE */
function platformOf({ fmspc, tee, ca }: Platform): IntelNeed | null {
  if (fmspc === null) return null
  const bytes = fromHex(fmspc)
  if (bytes?.length !== 6)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--fmspc",
      expected: "6 bytes in hex",
      found: fmspc,
      hint: "write for example --fmspc b0c06f000000",
    })
  return {
    tee: tee === "sgx" ? "sgx" : "tdx",
    fmspc: bytes,
    authority: ca === "processor" ? "processor" : "platform",
    revocation: true,
  }
}

/** @throws UsageError ERR_BAD_VALUE */
function timeoutOf(text: string): number {
  const seconds = /^[0-9]{1,4}(\.[0-9]{1,3})?$/.test(text) ? Number(text) : 0
  if (seconds > 0) return seconds * 1000
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--timeout",
    expected: "seconds, more than 0",
    found: text,
    hint: "write for example --timeout 20",
  })
}

function day(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, "Z")
}
