/** A document as a vendor's service gives it. */
export interface VendorDocument {
  readonly body: Uint8Array
  /** PEM certificates of those who signed it, from the response's header; null where the service sends none. */
  readonly issuerChain: string | null
}

/** From when until when a document says of itself that it holds. */
export interface Validity {
  readonly from: Date
  readonly until: Date
}

/** One document that a vendor's service gives, and how to tell that an answer is it. */
export interface Resource {
  readonly service: "amd" | "intel"
  /** Path and query below the service's base URL. With `service` it names the document, wherever it was fetched from. */
  readonly path: string
  readonly url: string
  /** For people: `VCEK of Milan chip 0a1b…`. */
  readonly what: string
  readonly accept: string
  readonly maxBytes: number
  /** Response headers that may hold the issuer chain; empty where the document has none. */
  readonly chainHeaders: readonly string[]
  /** The body as it is kept. Mirrors send binary documents as hex. @throws CodedError */
  decode(body: Uint8Array): Uint8Array
  /**
   * Checks that a document is this one, as far as can be told without the evidence. It does not replace verification.
   * @throws CodedError
   */
  inspect(document: VendorDocument): Validity
}

/** Base URLs, without a slash at the end. */
export interface Services {
  /** AMD Key Distribution Service. */
  readonly kdsUrl: string
  /** Intel Provisioning Certification Service, or a caching service (PCCS) or mirror with the same paths. */
  readonly pcsUrl: string
}

export const DEFAULT_SERVICES: Services = {
  kdsUrl: "https://kdsintf.amd.com",
  pcsUrl: "https://api.trustedservices.intel.com",
}

/** Name of a document in cache and exports: `amd:/vcek/v1/Milan/crl`. */
export function keyOf({ service, path }: Pick<Resource, "service" | "path">): string {
  return `${service}:${path}`
}
