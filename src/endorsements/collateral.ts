import { CodedError, EndorsementError } from "../errors.ts"
import type { IntelCollateral } from "../formats/intel/collateral.ts"
import { parseSnpLeaf } from "../formats/snp/leaf-certificate.ts"
import type { SnpReport } from "../formats/snp/report.ts"
import { parseTcb, type SnpProduct, tcbComponents } from "../formats/snp/tcb.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { isSignedBy } from "../verify/certificate-chain.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import {
  certChainPath,
  certificatesOfChain,
  crlPath,
  type KdsKey,
  kdsResource,
  vcekPathOf,
} from "./amd-kds.ts"
import type { CollateralCache } from "./cache.ts"
import type { CacheEntry } from "./cache-entry.ts"
import { fetchDocument, type Http } from "./http.ts"
import {
  assembleCollateral,
  type IntelTee,
  type PckAuthority,
  pckCrlPath,
  pcsResource,
  qeIdentityPath,
  ROOT_CA_CRL_PATH,
  tcbInfoPath,
} from "./intel-pcs.ts"
import { keyOf, type Resource, type Services, type Validity, type VendorDocument } from "./resource.ts"

/** Where collateral comes from. */
export interface CollateralOptions {
  readonly cache: CollateralCache
  /** Null: nothing is ever fetched (`--offline`). */
  readonly http: Http | null
  readonly services: Services
  /** AMD's roots, and simulated ones, which have no service. */
  readonly anchors: readonly TrustAnchor[]
  /** Told what went wrong without preventing an answer: a cache that cannot be written to. */
  warn(error: CodedError): void
}

/** A document with its dates. */
export interface Held extends VendorDocument {
  readonly key: string
  readonly validity: Validity
  readonly source: "cache" | "fetched" | "unchanged"
}

/** What a report needs besides itself. */
export interface SnpCollateral {
  /** Those that came with the report, and those that were missing. */
  readonly certificates: readonly Uint8Array[]
  /** DER; null where it was not to be had, or for a simulated root. */
  readonly crl: Uint8Array | null
  /** Why something is missing. Verification goes on without it, and fails where it needs it. */
  readonly problems: readonly CodedError[]
}

export interface SnpNeed {
  readonly report: SnpReport
  /** DER, from the host. */
  readonly certificates: readonly Uint8Array[]
  /** What the user knows; null: what the report or its certificate says. */
  readonly product: SnpProduct | null
  /** False where the user leaves the revocation check out. */
  readonly revocation: boolean
  readonly at: Date
}

/** A platform of Intel's, and whose documents about it are needed. */
export interface IntelNeed {
  readonly tee: IntelTee
  /** 6 bytes. */
  readonly fmspc: Uint8Array
  readonly authority: PckAuthority
  /** False leaves out the revocation lists. */
  readonly revocation: boolean
}

/** Keys of the documents that a TDX or SGX quote needs. */
export function intelKeys({ tee, fmspc, authority, revocation }: IntelNeed): string[] {
  const lists = revocation ? [pckCrlPath(authority), ROOT_CA_CRL_PATH] : []
  const paths = [tcbInfoPath(tee, fmspc), qeIdentityPath(tee), ...lists]
  return paths.map((path) => keyOf({ service: "intel", path }))
}

/** Keys of the documents that a SEV-SNP report needs; null: not needed. */
export interface SnpNeeds {
  readonly vcek: string | null
  readonly chain: string | null
  readonly crl: string | null
  readonly problems: readonly CodedError[]
}

/**
 * Finds what the evidence at hand needs, in the cache where it is in date and at the vendor's otherwise. Answers are checked
 * to be what was asked for before they are kept; verifying them is left to `verify/`.
 */
export class CollateralSource {
  readonly #options: CollateralOptions
  /** Of one process: the same document is asked for once. */
  readonly #running = new Map<string, Promise<Held>>()

  constructor(options: CollateralOptions) {
    this.#options = options
  }

  /** The resource that a key names, or null where it names none. */
  resource(key: string): Resource | null {
    const [service = "", path = ""] = splitOnce(key)
    const { services, anchors } = this.#options
    if (service === "amd")
      return kdsResource(
        path,
        services,
        anchors.filter(({ simulated }) => !simulated),
      )
    return service === "intel" ? pcsResource(path, services) : null
  }

  /**
   * One document. It comes from the cache where it is there and in date at `at`.
   * @param request.refresh ask the vendor even so; a document that is in date still serves when that fails.
   * @throws EndorsementError ERR_COLLATERAL_*, ERR_TIMEOUT, ERR_TOO_LARGE, ERR_INTERRUPTED, ERR_IO; ParseError
   */
  get(key: string, request: { readonly at: Date; readonly refresh?: boolean }): Promise<Held> {
    const running = this.#running.get(key)
    if (running !== undefined) return running
    const started = this.#get(key, request).finally(() => this.#running.delete(key))
    this.#running.set(key, started)
    return started
  }

  /** Everything for a SEV-SNP report. Never throws for what is missing: see `problems`. */
  async snp(need: SnpNeed): Promise<SnpCollateral> {
    const needed = this.snpNeeds(need)
    const problems = [...needed.problems]
    const get = async (key: string | null) =>
      key === null ? null : collect(() => this.get(key, { at: need.at }), problems)
    const vcek = await get(needed.vcek)
    const chain = await get(needed.chain)
    const crl = await get(needed.crl)
    return {
      certificates: [
        ...need.certificates,
        ...(vcek === null ? [] : [vcek.body]),
        ...(chain === null ? [] : certificatesOfChain(chain)),
      ],
      crl: crl?.body ?? null,
      problems,
    }
  }

  /** Keys of the documents that a SEV-SNP report needs besides what came with it; null: not needed. */
  snpNeeds(need: Omit<SnpNeed, "at">): SnpNeeds {
    const { report } = need
    const nothing = { vcek: null, chain: null, crl: null, problems: [] }
    const pool = need.certificates.flatMap(certificateIn)
    const leaf = leafOf(pool, report)
    if (this.#isSimulated(pool) || (leaf !== null && !leaf.byAmd)) return nothing
    const product = need.product ?? report.product ?? leaf?.product ?? null
    if (product === null) return { ...nothing, problems: [unknownProduct()] }
    const problems: CodedError[] = []
    const kind: KdsKey = report.signingKey === "VLEK" ? "vlek" : "vcek"
    const amd = (path: string) => keyOf({ service: "amd", path })
    return {
      vcek: leaf === null && kind === "vcek" ? vcekKey(report, product, problems) : null,
      chain: hasAuthority(pool, kind, product) ? null : amd(certChainPath(kind, product)),
      crl: need.revocation ? amd(crlPath(kind, product)) : null,
      problems,
    }
  }

  /** Everything for a TDX or SGX quote. @throws as `get` */
  async intel(need: IntelNeed & { readonly at: Date; readonly refresh?: boolean }): Promise<IntelCollateral> {
    const { at, refresh = false } = need
    const found = await Promise.all(intelKeys(need).map((key) => this.get(key, { at, refresh })))
    const [tcbInfo, qeIdentity, pckCrl = null, rootCaCrl = null] = found
    if (tcbInfo === undefined || qeIdentity === undefined) throw noSuchDocument("intel")
    return assembleCollateral({ tcbInfo, qeIdentity, pckCrl, rootCaCrl })
  }

  /** That a document is what its key says. @throws EndorsementError ERR_COLLATERAL_CONTENT; ParseError */
  check(entry: CacheEntry): { resource: Resource; validity: Validity } {
    const resource = this.resource(entry.key)
    if (resource === null) throw noSuchDocument(entry.key)
    return { resource, validity: inspectAnswer(resource, entry) }
  }

  /**
   * Puts a document that came another way into the cache, in place of an older one.
   * @returns false where the one that is there holds longer.
   * @throws EndorsementError ERR_COLLATERAL_CONTENT where it is not what its key says, ERR_IO; ParseError
   */
  async put(entry: CacheEntry): Promise<boolean> {
    const { resource, validity } = this.check(entry)
    const known = await this.#cached(resource)
    if (known !== null && known.validity.until > validity.until) return false
    await this.#options.cache.write(entry)
    return true
  }

  async #get(key: string, request: { readonly at: Date; readonly refresh?: boolean }): Promise<Held> {
    const resource = this.resource(key)
    if (resource === null) throw noSuchDocument(key)
    const cached = await this.#cached(resource)
    const { http } = this.#options
    // Too new for `at`, as when old evidence is judged: the vendor has nothing older.
    const inDate = cached !== null && request.at <= cached.validity.until
    if (cached !== null && inDate && (request.refresh !== true || http === null)) return held(cached, "cache")
    if (http === null) throw offline(resource, cached)
    try {
      return await this.#fetch(http, resource, cached)
    } catch (error) {
      if (cached === null || !inDate || !(error instanceof CodedError)) throw error
      this.#options.warn(error)
      return held(cached, "cache")
    }
  }

  async #fetch(http: Http, resource: Resource, cached: Cached | null): Promise<Held> {
    const { url, what, accept, maxBytes } = resource
    const { etag = null, lastModified = null } = cached?.entry ?? {}
    const answer = await fetchDocument(http, { url, what, accept, maxBytes, etag, lastModified })
    const header = (name: string) => answer.headers.get(name)
    if (answer.body === null && cached !== null) {
      await this.#keep({ ...cached.entry, fetchedAt: http.now() })
      return held(cached, "unchanged")
    }
    const entry: CacheEntry = {
      key: keyOf(resource),
      url,
      fetchedAt: http.now(),
      etag: header("etag"),
      lastModified: header("last-modified"),
      issuerChain: issuerChainOf(resource, answer.headers),
      body: resource.decode(answer.body ?? new Uint8Array(0)),
    }
    const validity = inspectAnswer(resource, entry)
    await this.#keep(entry)
    return held({ entry, validity }, "fetched")
  }

  /** Without its cache a client is slower, and no less right. */
  async #keep(entry: CacheEntry): Promise<void> {
    try {
      await this.#options.cache.write(entry)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      this.#options.warn(error)
    }
  }

  /** The cached document, unless it is not what it should be. */
  async #cached(resource: Resource): Promise<Cached | null> {
    const entry = await this.#options.cache.read(keyOf(resource))
    if (entry === null) return null
    try {
      return { entry, validity: resource.inspect(entry) }
    } catch (error) {
      if (error instanceof CodedError) return null
      throw error
    }
  }

  /** A chain under a root that was made for a trial: no vendor knows it, and none is asked about it. */
  #isSimulated(pool: readonly Certificate[]): boolean {
    const roots = this.#options.anchors.filter(({ simulated }) => simulated)
    return pool.some((certificate) =>
      roots.some(({ name, spki }) => certificate.issuer.commonName === name && isSignedBy(certificate, spki)),
    )
  }
}

interface Cached {
  readonly entry: CacheEntry
  readonly validity: Validity
}

function held({ entry, validity }: Cached, source: Held["source"]): Held {
  return { key: entry.key, body: entry.body, issuerChain: entry.issuerChain, validity, source }
}

function splitOnce(key: string): [string, string] {
  const colon = key.indexOf(":")
  return [key.slice(0, colon), key.slice(colon + 1)]
}

/** Percent-encoded PEM. @throws EndorsementError ERR_COLLATERAL_CONTENT */
function issuerChainOf(resource: Resource, headers: Headers): string | null {
  const [found = null] = resource.chainHeaders.flatMap((name) => headers.get(name) ?? [])
  if (found === null) return null
  try {
    return decodeURIComponent(found)
  } catch (cause) {
    throw new EndorsementError("ERR_COLLATERAL_CONTENT", {
      at: resource.url,
      expected: "a percent-encoded chain in the response header",
      found: "something else",
      cause,
    })
  }
}

/** What is not even readable came from somebody else: a login page, a wrong address. */
function inspectAnswer(resource: Resource, entry: CacheEntry): Validity {
  try {
    return resource.inspect(entry)
  } catch (cause) {
    if (!(cause instanceof CodedError) || cause.code === "ERR_COLLATERAL_CONTENT") throw cause
    throw new EndorsementError("ERR_COLLATERAL_CONTENT", {
      at: resource.url,
      expected: resource.what,
      found: cause.message,
      hint: "check the address of the service, and what stands between it and this machine",
      cause,
    })
  }
}

function certificateIn(der: Uint8Array): Certificate[] {
  try {
    return [parseCertificate(der)]
  } catch (error) {
    if (error instanceof CodedError) return []
    throw error
  }
}

interface FittingLeaf {
  readonly product: SnpProduct
  /** It says that AMD's intermediate issued it. Any other will not verify, and AMD knows nothing about it. */
  readonly byAmd: boolean
}

/** The leaf that fits the report: hosts may hold certificates of several TCBs. */
function leafOf(pool: readonly Certificate[], report: SnpReport): FittingLeaf | null {
  for (const certificate of pool) {
    if (!/(^| )SEV-V[CL]EK$/.test(certificate.subject.commonName ?? "")) continue
    try {
      const leaf = parseSnpLeaf(certificate)
      const reported = parseTcb(report.reportedTcb, leaf.product)
      const sameTcb = tcbComponents(leaf.product).every((name) => leaf.tcb[name] === reported[name])
      const sameChip = leaf.hwId === null || leaf.hwId.every((byte, index) => report.chipId[index] === byte)
      if (leaf.signer !== report.signingKey || !sameTcb || !sameChip) continue
      const { product } = leaf
      const authority = authorityName(leaf.signer === "VLEK" ? "vlek" : "vcek", product)
      return { product, byAmd: certificate.issuer.commonName === authority }
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
    }
  }
  return null
}

function authorityName(key: KdsKey, product: SnpProduct): string {
  return key === "vlek" ? `SEV-VLEK-${product}` : `SEV-${product}`
}

function vcekKey(report: SnpReport, product: SnpProduct, problems: CodedError[]): string | null {
  try {
    return keyOf({ service: "amd", path: vcekPathOf(report, product) })
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    problems.push(error)
    return null
  }
}

function hasAuthority(pool: readonly Certificate[], key: KdsKey, product: SnpProduct): boolean {
  return pool.some(({ subject }) => subject.commonName === authorityName(key, product))
}

async function collect<T>(work: () => Promise<T>, problems: CodedError[]): Promise<T | null> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERRUPTED") throw error
    problems.push(error)
    return null
  }
}

function offline({ what, url }: Resource, cached: Cached | null): EndorsementError {
  return new EndorsementError("ERR_COLLATERAL_OFFLINE", {
    at: what,
    expected: "a cached document that is in date",
    found: cached === null ? "none" : `one that held until ${cached.validity.until.toISOString()}`,
    hint: `run without --offline, or fetch ${url} elsewhere and use collateral import`,
  })
}

function unknownProduct(): EndorsementError {
  return new EndorsementError("ERR_COLLATERAL_UNKNOWN", {
    at: "snp-report",
    expected: "a processor family",
    found: "a report of version 2, which names none, without its certificate",
    hint: "name it with --product Milan or --product Genoa",
  })
}

function noSuchDocument(key: string): EndorsementError {
  return new EndorsementError("ERR_COLLATERAL_CONTENT", {
    at: key,
    expected: "a document that AMD or Intel gives",
    found: "another name",
    hint: "use a newer cosmian_vm",
  })
}
