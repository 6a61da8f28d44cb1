import { ParseError } from "../../errors.ts"
import {
  chainOfText,
  crlOfText,
  type IntelCollateral,
  parsePcsDocument,
  type SignedDocument,
  signatureOfText,
} from "./collateral.ts"

/** Names of the single files, without ending. They are the members of a bundle. */
export const COLLATERAL_FILES = [
  "tcb_info",
  "tcb_info_signature",
  "tcb_info_issuer_chain",
  "qe_identity",
  "qe_identity_signature",
  "qe_identity_issuer_chain",
  "pck_crl",
  "pck_crl_issuer_chain",
  "root_ca_crl",
] as const
type Name = (typeof COLLATERAL_FILES)[number]

const ENDING = /\.(json|txt|hex|pem|der|crl|sig)$/
const DER_SEQUENCE = 0x30

/**
 * Collateral from the files of a directory: `tcb_info.json`, `pck_crl.der` and so on; hyphens count as underscores.
 * A document is either the signed object alone, with its signature in a file of its own, or the whole answer of Intel's
 * service, which holds both. Revocation lists are DER, hex or PEM. Files of other names are passed over.
 * @param files content by file name; no sub-directories.
 * @throws ParseError ERR_MALFORMED (also: the same thing in two files), ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_TOO_LARGE,
 *   ERR_DUPLICATE_KEY
 */
export function collateralOfFiles(files: ReadonlyMap<string, Uint8Array>): IntelCollateral {
  const members = byMember(files)
  const { document: tcbInfo, signature: tcbInfoSignature } = signedDocument(members, "tcb_info")
  const { document: qeIdentity, signature: qeIdentitySignature } = signedDocument(members, "qe_identity")
  return {
    tcbInfo,
    tcbInfoSignature,
    tcbInfoIssuerChain: chain(members, "tcb_info_issuer_chain"),
    qeIdentity,
    qeIdentitySignature,
    qeIdentityIssuerChain: chain(members, "qe_identity_issuer_chain"),
    pckCrl: crl(members, "pck_crl"),
    pckCrlIssuerChain: members.has("pck_crl_issuer_chain") ? chain(members, "pck_crl_issuer_chain") : [],
    rootCaCrl: crl(members, "root_ca_crl"),
  }
}

/** Which member a file is, or null. */
export function collateralMember(fileName: string): Name | null {
  const bare = fileName.toLowerCase().replace(ENDING, "").replaceAll("-", "_")
  return COLLATERAL_FILES.find((name) => name === bare) ?? null
}

interface Member {
  readonly file: string
  readonly bytes: Uint8Array
}

function byMember(files: ReadonlyMap<string, Uint8Array>): ReadonlyMap<Name, Member> {
  const members = new Map<Name, Member>()
  for (const [file, bytes] of files) {
    const name = collateralMember(file)
    if (name === null) continue
    const other = members.get(name)
    if (other !== undefined) throw malformed(file, `one file for ${name}`, `${other.file} as well`)
    members.set(name, { file, bytes })
  }
  return members
}

function signedDocument(
  members: ReadonlyMap<Name, Member>,
  name: "tcb_info" | "qe_identity",
): SignedDocument {
  const { file, bytes } = required(members, name)
  const object = name === "tcb_info" ? "tcbInfo" : "enclaveIdentity"
  const signatureName = `${name}_signature` as const
  const signature = members.get(signatureName)
  if (signature === undefined) return parsePcsDocument(bytes, object)
  // The answer's own signature and another one beside it: one of them would go unread.
  if (new RegExp(`^\\s*\\{\\s*"(${object}|signature)"`).test(textOf(bytes.subarray(0, 256))))
    throw malformed(file, `the ${object} object alone, as ${signature.file} is there`, "a whole answer")
  return { document: trimmed(bytes), signature: signatureOfText(textOf(signature.bytes), signature.file) }
}

/** Editors and shells end a file with a newline, which is not under the signature. */
function trimmed(bytes: Uint8Array): Uint8Array {
  const size = bytes.findLastIndex((byte) => byte !== 0x0a && byte !== 0x0d) + 1
  return bytes.subarray(0, size)
}

function chain(members: ReadonlyMap<Name, Member>, name: Name): Uint8Array[] {
  const { file, bytes } = required(members, name)
  return chainOfText(decodedChain(textOf(bytes)), file)
}

/** Intel's service gives chains in a header, percent-encoded. */
function decodedChain(text: string): string {
  return text.startsWith("-----BEGIN%20")
    ? text.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    : text
}

function crl(members: ReadonlyMap<Name, Member>, name: Name): Uint8Array | null {
  const member = members.get(name)
  if (member === undefined) return null
  // No hex text begins with the byte 0x30 ("0") followed by a DER length of several bytes.
  const der = member.bytes[0] === DER_SEQUENCE && (member.bytes[1] ?? 0) >= 0x80
  return der ? member.bytes : crlOfText(textOf(member.bytes), member.file)
}

function required(members: ReadonlyMap<Name, Member>, name: Name): Member {
  const member = members.get(name)
  if (member === undefined) throw malformed("collateral directory", `a file ${name}`, "none")
  return member
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1")
}

function malformed(at: string, expected: string, found: string): ParseError<"ERR_MALFORMED"> {
  return new ParseError("ERR_MALFORMED", { at, expected, found })
}
