import { CodedError, EndorsementError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { parseCollateralBundle } from "../formats/intel/collateral.ts"
import { parseTcbInfo } from "../formats/intel/tcb-info.ts"
import { encodePem } from "../formats/pem.ts"
import { parseSnpLeaf } from "../formats/snp/leaf-certificate.ts"
import { SNP_PRODUCTS } from "../formats/snp/tcb.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { parseCrl } from "../formats/x509/crl.ts"
import { certChainPath, certificatesOfChain, crlPath, type KdsKey, vcekPath } from "./amd-kds.ts"
import { type CacheEntry, parseExport } from "./cache-entry.ts"
import {
  type IntelTee,
  type PckAuthority,
  pckCrlPath,
  qeIdentityPath,
  ROOT_CA_CRL_PATH,
  tcbInfoPath,
} from "./intel-pcs.ts"
import { keyOf, type VendorDocument } from "./resource.ts"

/** What is needed to tell which documents a file holds. Whether they are genuine is for `CollateralSource.put`. */
type Reader = (bytes: Uint8Array, at: Date) => CacheEntry[]

/**
 * Documents in a file that came another way than over the network: what `collateral export` writes, a bundle of Intel's
 * documents, AMD's cert_chain in PEM, a VCEK or a revocation list of AMD's in DER.
 * @param at when the file was read: it becomes the time of fetching where the file names none.
 * @throws EndorsementError ERR_COLLATERAL_UNKNOWN for anything else; ParseError where a JSON file is malformed
 */
export function documentsIn(bytes: Uint8Array, at: Date): CacheEntry[] {
  return readerFor(bytes)(bytes, at)
}

function readerFor(bytes: Uint8Array): Reader {
  const start = Buffer.from(bytes.subarray(0, 512)).toString("latin1").trimStart()
  if (start.startsWith("{"))
    return start.includes('"entries"') || start.includes('"kind"') ? parseExport : bundleEntries
  if (start.includes("-----BEGIN CERTIFICATE-----")) return chainEntries
  if (bytes[0] === 0x30) return derEntries
  return () => {
    throw unknown("another kind of file")
  }
}

function entry(service: "amd" | "intel", path: string, document: VendorDocument, at: Date): CacheEntry {
  return {
    key: keyOf({ service, path }),
    url: "import",
    fetchedAt: at,
    etag: null,
    lastModified: null,
    ...document,
  }
}

function bundleEntries(bytes: Uint8Array, at: Date): CacheEntry[] {
  const collateral = parseCollateralBundle(bytes)
  const { id, fmspc } = parseTcbInfo(collateral.tcbInfo)
  const tee: IntelTee = id === "TDX" ? "tdx" : "sgx"
  const { pckCrl, rootCaCrl } = collateral
  const chain = (ders: readonly Uint8Array[]) => ders.map((der) => encodePem("CERTIFICATE", der)).join("")
  const signed = (member: string, document: Uint8Array, signature: Uint8Array) =>
    // The signature covers the document's exact bytes, so it is framed and not encoded anew.
    Uint8Array.from(
      Buffer.concat([
        Buffer.from(`{"${member}":`),
        document,
        Buffer.from(`,"signature":"${toHex(signature)}"}`),
      ]),
    )
  const tcbInfo = {
    body: signed("tcbInfo", collateral.tcbInfo, collateral.tcbInfoSignature),
    issuerChain: chain(collateral.tcbInfoIssuerChain),
  }
  const qeIdentity = {
    body: signed("enclaveIdentity", collateral.qeIdentity, collateral.qeIdentitySignature),
    issuerChain: chain(collateral.qeIdentityIssuerChain),
  }
  const entries = [
    entry("intel", tcbInfoPath(tee, fmspc), tcbInfo, at),
    entry("intel", qeIdentityPath(tee), qeIdentity, at),
  ]
  if (pckCrl !== null) {
    const document = { body: pckCrl, issuerChain: chain(collateral.pckCrlIssuerChain) }
    entries.push(entry("intel", pckCrlPath(authorityOf(pckCrl)), document, at))
  }
  if (rootCaCrl !== null)
    entries.push(entry("intel", ROOT_CA_CRL_PATH, { body: rootCaCrl, issuerChain: null }, at))
  return entries
}

function authorityOf(crl: Uint8Array): PckAuthority {
  return parseCrl(crl).issuer.commonName === "Intel SGX PCK Processor CA" ? "processor" : "platform"
}

function chainEntries(bytes: Uint8Array, at: Date): CacheEntry[] {
  const document = { body: bytes, issuerChain: null }
  const [first] = certificatesOfChain(document)
  const name = first === undefined ? null : parseCertificate(first).subject.commonName
  for (const product of SNP_PRODUCTS)
    for (const key of ["vcek", "vlek"] as const)
      if (name === (key === "vlek" ? `SEV-VLEK-${product}` : `SEV-${product}`))
        return [entry("amd", certChainPath(key, product), document, at)]
  throw unknown(`a chain that begins with ${JSON.stringify(name)}`)
}

function derEntries(bytes: Uint8Array, at: Date): CacheEntry[] {
  const document = { body: bytes, issuerChain: null }
  const certificate = attempt(() => parseCertificate(bytes))
  if (certificate !== null) {
    const { product, hwId, tcb } = parseSnpLeaf(certificate)
    if (hwId === null) throw unknown("a VLEK, which the host gives with each report")
    return [entry("amd", vcekPath(product, hwId, tcb), document, at)]
  }
  const issuer = attempt(() => parseCrl(bytes))?.issuer.commonName
  const product = SNP_PRODUCTS.find((each) => issuer === `ARK-${each}`)
  if (product === undefined) throw unknown("another kind of DER file")
  // One list under both addresses.
  const keys: readonly KdsKey[] = ["vcek", "vlek"]
  return keys.map((key) => entry("amd", crlPath(key, product), document, at))
}

function attempt<T>(parse: () => T): T | null {
  try {
    return parse()
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

function unknown(found: string): EndorsementError {
  return new EndorsementError("ERR_COLLATERAL_UNKNOWN", {
    at: "import",
    expected:
      "an export, a bundle of Intel's documents, a cert_chain in PEM, a VCEK or AMD revocation list in DER",
    found,
  })
}
