import { homedir } from "node:os"
import { setTimeout as sleep } from "node:timers/promises"
import { type CollateralCache, cacheDirectory, openCache } from "../endorsements/cache.ts"
import { CollateralSource } from "../endorsements/collateral.ts"
import { DEFAULT_SERVICES } from "../endorsements/resource.ts"
import { UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import type { Terminal } from "./terminal.ts"

/** Options of every command that may need a vendor's documents. */
export const collateralArgs = {
  "kds-url": {
    type: "string",
    valueHint: "URL",
    default: DEFAULT_SERVICES.kdsUrl,
    description: "AMD's key distribution service, or a mirror of it",
  },
  "pcs-url": {
    type: "string",
    valueHint: "URL",
    default: DEFAULT_SERVICES.pcsUrl,
    description: "Intel's provisioning certification service, or a caching service (PCCS)",
  },
  "cache-dir": {
    type: "string",
    valueHint: "DIR",
    description:
      "where vendors' documents are kept; $XDG_CACHE_HOME/cosmian_vm/collateral unless said, or ~/.cache/…",
  },
  offline: {
    type: "boolean",
    description: "use only documents that are cached or imported; no vendor is asked",
  },
} as const

/** Those options, read. */
export interface CollateralChoice {
  readonly kdsUrl: string
  readonly pcsUrl: string
  /** Null: the user's cache directory. */
  readonly cacheDir: string | null
  readonly offline: boolean
}

export function collateralChoiceOf(args: {
  "kds-url": string
  "pcs-url": string
  "cache-dir": string | undefined
  offline: boolean | undefined
}): CollateralChoice {
  return {
    kdsUrl: args["kds-url"],
    pcsUrl: args["pcs-url"],
    cacheDir: args["cache-dir"] ?? null,
    offline: args.offline === true,
  }
}

/** Longest wait for one answer of a vendor, unless the user says otherwise. */
const TIMEOUT_MS = 20_000

/** The cache that is meant. The environment is read here, in a command of the client: the agent never does. */
export function cacheOf({ cacheDir }: CollateralChoice): CollateralCache {
  return openCache(cacheDir ?? cacheDirectory(process.env, homedir()))
}

/**
 * The source that the options describe. With `--offline` it has no means of reaching anybody.
 * @throws UsageError ERR_BAD_VALUE for an address that is none
 */
export function collateralSourceOf(
  choice: CollateralChoice,
  anchors: readonly TrustAnchor[],
  terminal: Pick<Terminal, "talk">,
  signal: AbortSignal,
  timeoutMs: number = TIMEOUT_MS,
): CollateralSource {
  const services = {
    kdsUrl: baseUrl(choice.kdsUrl, "--kds-url"),
    pcsUrl: baseUrl(choice.pcsUrl, "--pcs-url"),
  }
  return new CollateralSource({
    cache: cacheOf(choice),
    http: choice.offline
      ? null
      : {
          fetch: (url, init) => fetch(url, init),
          sleep: async (ms, until) => void (await sleep(ms, undefined, { signal: until })),
          now: () => new Date(),
          random: () => Math.random(),
          timeoutMs,
          signal,
        },
    services,
    anchors,
    warn: (error) => terminal.talk(`[ WARNING ] ${printable(error.message)}\n`),
  })
}

/** A service's address, without a slash at its end. What is fetched is signed, so plain http is allowed. */
function baseUrl(text: string, option: string): string {
  const url = URL.parse(text)
  const fits =
    url !== null &&
    (url.protocol === "https:" || url.protocol === "http:") &&
    url.search === "" &&
    url.hash === "" &&
    url.username === "" &&
    url.password === ""
  if (!fits)
    throw new UsageError("ERR_BAD_VALUE", {
      at: option,
      expected: "https://host[:port][/path]",
      found: text,
      hint: `write for example ${option} https://mirror.example`,
    })
  return text.replace(/\/+$/, "")
}
