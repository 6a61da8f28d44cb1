import { VerifyError } from "../errors.ts"
import { type PckPlatform, parsePckExtension } from "../formats/intel/pck-extension.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import { parseCrl } from "../formats/x509/crl.ts"
import { sameName } from "../formats/x509/name.ts"
import { type AnchorKey, isSignedBy, placeOf, verifyChain } from "./certificate-chain.ts"
import { isRevoked, verifyCrl } from "./crl.ts"
import { isP256 } from "./p256.ts"
import { remembered } from "./remembered.ts"

/** Intel has few authorities and signers, and their lists are the same for all platforms. */
const readAuthority = remembered(parseCertificate)
const readCrl = remembered(parseCrl)

/** A pinned root of Intel's chains: a key, and the common name under which it signs. */
export interface IntelAnchor extends AnchorKey {
  /** Not Intel's: everything that rests on it proves nothing about hardware. */
  readonly simulated: boolean
}

/** Common names of Intel's certificates; a simulated chain has a word before each. */
export const INTEL_NAME = {
  root: "Intel SGX Root CA",
  pck: "Intel SGX PCK Certificate",
  platformCa: "Intel SGX PCK Platform CA",
  processorCa: "Intel SGX PCK Processor CA",
  tcbSigning: "Intel SGX TCB Signing",
} as const

/** A platform whose key chains to a pinned root. */
export interface PckChain {
  readonly leaf: Certificate
  readonly authority: Certificate
  readonly anchor: IntelAnchor
  readonly platform: PckPlatform
}

/**
 * Verifies the chain of the key that certifies the quoting enclave. The certificates come from the quote and only help to
 * find the chain; trust comes from `anchors` alone, so a root certificate among them is not even read.
 * @throws ParseError where a certificate is malformed
 * @throws VerifyError ERR_PCK_MISSING, ERR_CERT_*
 */
export function verifyPckChain(
  certificates: readonly Uint8Array[],
  anchors: readonly IntelAnchor[],
  at: Date,
): PckChain {
  const [first, ...others] = certificates
  // The platform's own certificate stands first, and is another one each time.
  const pool = new Pool(first === undefined ? [] : [() => parseCertificate(first), ...others.map(later)])
  const leaf = pool.find(({ subject }) => endsWith(subject.commonName, INTEL_NAME.pck))
  if (leaf === null) throw missing(INTEL_NAME.pck, pool)
  const authority = pool.find(({ subject }) => sameName(subject.der, leaf.issuer.der))
  if (authority === null) throw missing(`${leaf.issuer.commonName}, the issuer of the PCK certificate`, pool)
  const anchor = anchorOf(authority, anchors)
  verifyPath([leaf, authority], anchor, at)
  const prefix = prefixOf(anchor)
  verifyName(leaf, [`${prefix}${INTEL_NAME.pck}`])
  verifyName(authority, [`${prefix}${INTEL_NAME.platformCa}`, `${prefix}${INTEL_NAME.processorCa}`])
  return { leaf, authority, anchor, platform: parsePckExtension(leaf) }
}

/**
 * Verifies the certificate of the key that signs Intel's documents: issued by the very root that the platform's chain
 * ends at, and for this purpose by its name. A PCK certificate chains to the same root and must not pass for it.
 * @throws ParseError where a certificate is malformed
 * @throws VerifyError ERR_COLLATERAL_MISSING, ERR_CERT_*
 */
export function verifyTcbSigner(
  certificates: readonly Uint8Array[],
  anchor: IntelAnchor,
  at: Date,
  what: string,
): Certificate {
  const name = `${prefixOf(anchor)}${INTEL_NAME.tcbSigning}`
  const signer = new Pool(certificates.map(later)).find(({ subject }) => subject.commonName === name)
  if (signer === null)
    throw new VerifyError("ERR_COLLATERAL_MISSING", {
      at: `issuer chain of ${what}`,
      expected: `the certificate ${JSON.stringify(name)}`,
      found: "none",
    })
  verifyPath([signer], anchor, at)
  return signer
}

/**
 * That neither the platform's certificate nor its authority nor those who signed documents are revoked.
 * @param signers certificates that the root issued beside the authority.
 * @param lists DER, as Intel gives them; null: not to be had.
 * @throws VerifyError ERR_REVOCATION_NOT_CHECKED, ERR_CERT_REVOKED, ERR_CRL_*
 */
export function verifyNotRevoked(
  chain: PckChain,
  signers: readonly Certificate[],
  lists: { readonly pckCrl: Uint8Array | null; readonly rootCaCrl: Uint8Array | null },
  at: Date,
): void {
  const { leaf, authority, anchor } = chain
  const root = { spki: anchor.spki, name: authority.issuer.der }
  const rootCrl = verifyCrl(readCrl(present(lists.rootCaCrl, "root_ca_crl")), root, at)
  for (const certificate of [authority, ...signers])
    if (isRevoked(rootCrl, certificate.serial)) throw revoked(certificate, anchor.name)
  const ca = { spki: authority.spki, name: authority.subject.der }
  const pckCrl = verifyCrl(readCrl(present(lists.pckCrl, "pck_crl")), ca, at)
  if (isRevoked(pckCrl, leaf.serial)) throw revoked(leaf, authority.subject.commonName)
}

function later(der: Uint8Array): () => Certificate {
  return () => readAuthority(der)
}

/** Certificates of the other side, each read when it is looked at. */
class Pool {
  readonly #unread: (() => Certificate)[]
  readonly #read: Certificate[] = []

  constructor(unread: readonly (() => Certificate)[]) {
    this.#unread = [...unread]
  }

  /** The first one that fits, or null. */
  find(fits: (certificate: Certificate) => boolean): Certificate | null {
    const known = this.#read.find(fits)
    if (known !== undefined) return known
    for (let read = this.#unread.shift(); read !== undefined; read = this.#unread.shift()) {
      const certificate = read()
      this.#read.push(certificate)
      if (fits(certificate)) return certificate
    }
    return null
  }

  /** Names of those that were read, for messages. */
  get names(): string {
    return this.#read.map(({ subject }) => JSON.stringify(subject.commonName)).join(", ") || "no certificate"
  }
}

/** The pinned root by name; where several have the name, the one whose key signed the authority. */
function anchorOf(authority: Certificate, anchors: readonly IntelAnchor[]): IntelAnchor {
  const named = anchors.filter(({ name }) => name === authority.issuer.commonName)
  const anchor = named.length === 1 ? named[0] : named.find(({ spki }) => isSignedBy(authority, spki))
  if (anchor === undefined) throw untrusted(authority, anchors)
  return anchor
}

/** Everything that Intel signs here is ECDSA on P-256 with SHA-256; anything else is somebody else's. */
function verifyPath(path: readonly Certificate[], anchor: IntelAnchor, at: Date): void {
  for (const certificate of path) {
    const { scheme, hash } = certificate.signatureAlgorithm
    if (scheme !== "ecdsa" || hash !== "sha256" || !isP256(certificate.spki))
      throw new VerifyError("ERR_CERT_ALGORITHM", {
        at: placeOf(certificate),
        expected: "a P-256 key, and a signature by ECDSA with SHA-256",
        found: `${scheme}, ${hash}, ${certificate.spki.length} bytes of key`,
      })
  }
  try {
    verifyChain(path, anchor, at)
  } catch (error) {
    const top = path.at(-1)
    // The root's name with another root's key: Intel's pre-production environment, or a forgery.
    const foreign = error instanceof VerifyError && error.code === "ERR_CERT_SIGNATURE"
    if (foreign && top !== undefined && error.at === placeOf(top)) throw untrusted(top, [anchor], error)
    throw error
  }
}

function verifyName(certificate: Certificate, expected: readonly string[]): void {
  if (!expected.some((name) => name === certificate.subject.commonName))
    throw new VerifyError("ERR_CERT_NAME", {
      at: placeOf(certificate),
      expected: `subject ${expected.map((name) => JSON.stringify(name)).join(" or ")}`,
      found: JSON.stringify(certificate.subject.commonName),
    })
}

function prefixOf({ name }: IntelAnchor): string {
  return name.slice(0, -INTEL_NAME.root.length)
}

function endsWith(name: string | null, suffix: string): boolean {
  return name === suffix || name?.endsWith(` ${suffix}`) === true
}

function present(list: Uint8Array | null, name: string): Uint8Array {
  if (list !== null) return list
  throw new VerifyError("ERR_REVOCATION_NOT_CHECKED", {
    at: "collateral",
    expected: name,
    found: "none",
    hint: "fetch the collateral from Intel, or leave this check out by --skip revocation",
  })
}

function revoked(certificate: Certificate, by: string | null): VerifyError<"ERR_CERT_REVOKED"> {
  return new VerifyError("ERR_CERT_REVOKED", {
    at: placeOf(certificate),
    expected: `a certificate that ${JSON.stringify(by)} did not revoke`,
    found: `serial ${Buffer.from(certificate.serial).toString("hex")} in its list`,
    hint: "the platform's key is no longer trusted by Intel: move the VM to another host",
  })
}

function missing(what: string, pool: Pool): VerifyError<"ERR_PCK_MISSING"> {
  return new VerifyError("ERR_PCK_MISSING", {
    at: "certificates of the quote",
    expected: what,
    found: pool.names,
    hint: "the host has to make quotes with the certificate chain in them (certification data type 5)",
  })
}

function untrusted(
  top: Certificate,
  anchors: readonly IntelAnchor[],
  cause?: unknown,
): VerifyError<"ERR_CERT_UNTRUSTED"> {
  return new VerifyError("ERR_CERT_UNTRUSTED", {
    at: placeOf(top),
    expected: `a signature by ${anchors.map(({ name }) => JSON.stringify(name)).join(" or ") || "a pinned root"}`,
    found: `issuer ${JSON.stringify(top.issuer.commonName)} with another key`,
    hint: "this is not production hardware of Intel's; for a simulated TEE, name its root with --trust-root",
    ...(cause === undefined ? {} : { cause }),
  })
}
