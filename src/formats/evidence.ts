import { createHash } from "node:crypto"
import { ParseError } from "../errors.ts"
import { MAX_EVENT_LOG_BYTES } from "./event-log/event-log.ts"
import { fromBase64, toBase64 } from "./hex.ts"
import { JsonCursor, type JsonOptions, type JsonRecord } from "./strict-json.ts"

/** Version 1 of the evidence: everything for one verification, bound together. JSON of `GET /v1/evidence`. */
export interface Evidence {
  /** Absent where the VM has no TEE. */
  readonly tee: TeeEvidence | null
  readonly tpm: TpmEvidence | null
  readonly ima: ImaEvidence | null
  /** The firmware's event log, read after the quote; absent: the machine has none. Nothing is proven by it alone. */
  readonly eventLog?: Uint8Array
  /** The event log of a trust domain (data of the ACPI table CCEL); absent: the machine has none. */
  readonly ccEventLog?: Uint8Array
  /** `/proc/cmdline`, which the event logs may hold the digest of; absent: not known, or longer than {@link MAX_COMMAND_LINE_BYTES}. */
  readonly kernelCommandLine?: Uint8Array
}

/** What vouches for the VM. The kind says how it is checked; which checks there are is not for the VM to say. */
export type TeeEvidence =
  | {
      readonly kind: "sev-snp"
      /** ATTESTATION_REPORT, 1184 bytes. */
      readonly report: Uint8Array
      /** DER certificates that the agent knows. Hints, never anchors. */
      readonly certificates: readonly Uint8Array[]
    }
  | {
      readonly kind: "tdx"
      /** TDX quote. Zeros may follow it. */
      readonly quote: Uint8Array
    }
  | {
      readonly kind: "azure-snp"
      /** HCL report with a SEV-SNP report in it. */
      readonly hcl: Uint8Array
      /** As above. */
      readonly certificates: readonly Uint8Array[]
    }
  | {
      readonly kind: "azure-tdx"
      /** HCL report with a TDREPORT in it. */
      readonly hcl: Uint8Array
      /** TDX quote over that TDREPORT. */
      readonly quote: Uint8Array
    }
export type TeeEvidenceKind = TeeEvidence["kind"]

export interface TpmEvidence {
  /** TPMS_ATTEST of a quote over SHA-256 PCRs 0–15. */
  readonly quote: Uint8Array
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array
  /** TPMT_PUBLIC of the AK. */
  readonly akPublic: Uint8Array
  /** Values of PCRs 0–15, 32 bytes each. */
  readonly pcrs: readonly Uint8Array[]
  /** DER certificates of AK and EK where the platform has them. */
  readonly akCertificate: Uint8Array | null
  readonly ekCertificate: Uint8Array | null
  /** DER certificates of authorities that the TPM holds beside them. Hints, never anchors; absent: none. */
  readonly certificates?: readonly Uint8Array[]
  /**
   * Attestation document of AWS's NitroTPM, made after the quote, with the quote's qualifyingData as its nonce; absent: another TPM.
   */
  readonly nitroDocument?: Uint8Array
}

export interface ImaEvidence {
  /** Index of the first entry in `list`; 0 unless asked otherwise. */
  readonly from: number
  /** binary_runtime_measurements, read after the quote. */
  readonly list: Uint8Array
}

/** PCRs that an evidence quote covers: 0–15, SHA-256 bank. */
export const EVIDENCE_PCRS: readonly number[] = Array.from({ length: 16 }, (_, index) => index)

/**
 * The 64 bytes of report data that bind a TEE report to nonce, TLS key and AK.
 * @param nonce 32 bytes; 64 where a sealing key is vouched for. @param tlsSpki DER SubjectPublicKeyInfo of the agent's TLS key.
 * @param akName TPM Name of the AK (2 bytes of algorithm, then digest); null where there is no TPM.
 */
export function evidenceReportData(
  nonce: Uint8Array,
  tlsSpki: Uint8Array,
  akName: Uint8Array | null,
): Uint8Array {
  return sha(
    "sha512",
    "cosmian-vm/evidence/v1\0",
    nonce,
    sha("sha256", tlsSpki),
    sha("sha256", akName ?? new Uint8Array(0)),
  )
}

/**
 * The 32 bytes of qualifyingData that bind a TPM quote to nonce, TLS key and TEE part.
 * @param committed what {@link committedBytes} gives for the TEE part; null: no TEE.
 */
export function evidenceQualifyingData(
  nonce: Uint8Array,
  tlsSpki: Uint8Array,
  committed: Uint8Array | null,
): Uint8Array {
  return sha(
    "sha256",
    "cosmian-vm/quote/v1\0",
    nonce,
    sha("sha256", tlsSpki),
    sha("sha256", committed ?? new Uint8Array(0)),
  )
}

/**
 * The bytes of the TEE part that the TPM quote commits to: SEV-SNP report, TDX quote, or HCL report, as they stand in the
 * evidence. The TD quote beside an HCL report is not among them: it is tied to the TDREPORT inside that report.
 */
export function committedBytes(tee: TeeEvidence): Uint8Array {
  switch (tee.kind) {
    case "sev-snp":
      return tee.report
    case "tdx":
      return tee.quote
    case "azure-snp":
    case "azure-tdx":
      return tee.hcl
  }
}

function sha(algorithm: "sha256" | "sha512", ...parts: (Uint8Array | string)[]): Uint8Array {
  const hash = createHash(algorithm)
  for (const part of parts) hash.update(part)
  return new Uint8Array(hash.digest())
}

/** Cap of an encoded evidence: a list of a million entries and everything else with it. */
export const MAX_EVIDENCE_BYTES = 400 * 1024 * 1024
/** Members and elements of evidence, and of a file around it: real ones have some hundred. */
export const MAX_EVIDENCE_VALUES = 10_000
/** Cap of a kernel command line; the kernel of a PC takes 2048. */
export const MAX_COMMAND_LINE_BYTES = 4096
const MAX_CERTIFICATES = 16
/** Of a NitroTPM document: the TPM's buffer for it has half of that. */
const MAX_NITRO_BYTES = 16 * 1024
const MAX_CERTIFICATE_BYTES = 16 * 1024
/** Of the members of a TEE part. */
const MAX_TEE_BYTES = { report: 16 * 1024, quote: 128 * 1024, hcl: 16 * 1024 } as const
const MAX_LIST_FROM = 2 ** 32 - 1

/** The JSON text of evidence; byte strings are base64 without padding. */
export function encodeEvidence(evidence: Evidence): string {
  const { tee, tpm, ima, eventLog, ccEventLog, kernelCommandLine } = evidence
  return JSON.stringify({
    version: 1,
    tee: tee && encodeTee(tee),
    tpm: tpm && {
      quote: toBase64(tpm.quote),
      signature: toBase64(tpm.signature),
      ak_public: toBase64(tpm.akPublic),
      pcrs: tpm.pcrs.map(toBase64),
      ak_certificate: tpm.akCertificate && toBase64(tpm.akCertificate),
      ek_certificate: tpm.ekCertificate && toBase64(tpm.ekCertificate),
      ...(tpm.certificates === undefined ? {} : { certificates: tpm.certificates.map(toBase64) }),
      ...(tpm.nitroDocument === undefined ? {} : { nitro_document: toBase64(tpm.nitroDocument) }),
    },
    ...(eventLog === undefined ? {} : { event_log: toBase64(eventLog) }),
    ...(ccEventLog === undefined ? {} : { cc_event_log: toBase64(ccEventLog) }),
    ...(kernelCommandLine === undefined ? {} : { kernel_command_line: toBase64(kernelCommandLine) }),
    // Last, as it may be long.
    ima: ima && { from: ima.from, list: toBase64(ima.list) },
  })
}

/** Members in a fixed order, each as base64. */
function encodeTee(tee: TeeEvidence): Readonly<Record<string, string | readonly string[]>> {
  return {
    kind: tee.kind,
    ...("report" in tee ? { report: toBase64(tee.report) } : {}),
    ...("hcl" in tee ? { hcl: toBase64(tee.hcl) } : {}),
    ...("quote" in tee ? { quote: toBase64(tee.quote) } : {}),
    ...("certificates" in tee ? { certificates: tee.certificates.map(toBase64) } : {}),
  }
}

/**
 * Reads the JSON of evidence. Only its form is checked here. Bytes that are given are used up: the measurement list in the result
 * stands where its text was.
 * @throws ParseError ERR_UNSUPPORTED (version, kind of TEE), ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TOO_LARGE,
 * ERR_TRUNCATED, ERR_TRAILING_BYTES.
 */
export function parseEvidence(
  text: string | Uint8Array,
  maxBytes = MAX_EVIDENCE_BYTES,
  options: Pick<JsonOptions, "collect"> = {},
): Evidence {
  // A JSON text has fewer characters than bytes, so this bound is checked before the copy is made.
  if (text.length > maxBytes)
    throw new ParseError("ERR_TOO_LARGE", {
      at: "evidence",
      expected: `at most ${maxBytes} bytes`,
      found: `${text.length}`,
    })
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text
  const cursor = new JsonCursor("evidence", bytes, maxBytes, { ...options, maxValues: MAX_EVIDENCE_VALUES })
  const taken = takeEvidence(cursor, "")
  cursor.end()
  return readEvidence(taken)
}

/** The object that evidence is, read, with the measurement list apart from it. */
export interface EvidenceText {
  readonly record: JsonRecord
  /** Null where there is none. */
  readonly list: Uint8Array | null
}

/** Takes that object from the cursor. The list's text is used up. @throws ParseError as {@link parseEvidence}. */
export function takeEvidence(cursor: JsonCursor, path: string): EvidenceText {
  let list: Uint8Array | null = null
  const takeList = (name: string) => {
    if (name !== "list") return undefined
    list = cursor.base64InPlace(MAX_EVIDENCE_BYTES)
    return true
  }
  const record = cursor.record(path, (name) =>
    name === "ima" && cursor.peek() === 0x7b
      ? cursor.record(path === "" ? name : `${path}.${name}`, takeList)
      : undefined,
  )
  return { record, list }
}

/**
 * Evidence from an object that was read already, as it stands inside another file.
 * @throws ParseError as {@link parseEvidence}.
 */
export function readEvidence({ record: root, list }: EvidenceText): Evidence {
  const version = root.count("version", Number.MAX_SAFE_INTEGER)
  if (version !== 1)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: root.place("version"),
      expected: "1",
      found: `${version}`,
      hint: "use a client of the agent's version",
    })
  const tee = root.recordOrNull("tee")
  const tpm = root.recordOrNull("tpm")
  const ima = root.recordOrNull("ima")
  const eventLog = optionalBytes(root, "event_log", MAX_EVENT_LOG_BYTES)
  const ccEventLog = optionalBytes(root, "cc_event_log", MAX_EVENT_LOG_BYTES)
  const kernelCommandLine = optionalBytes(root, "kernel_command_line", MAX_COMMAND_LINE_BYTES)
  root.finish()
  return {
    tee: tee && parseTee(tee),
    tpm: tpm && parseTpm(tpm),
    ima: ima && parseIma(ima, list),
    ...(eventLog === null ? {} : { eventLog }),
    ...(ccEventLog === null ? {} : { ccEventLog }),
    ...(kernelCommandLine === null ? {} : { kernelCommandLine }),
  }
}

/** Agents of machines without it, and older ones, leave it out. */
function optionalBytes(root: JsonRecord, name: string, maxBytes: number): Uint8Array | null {
  const text = root.stringOrNull(name)
  return text === null ? null : bytesOf(root, name, text, maxBytes)
}

function parseTee(record: JsonRecord): TeeEvidence {
  const tee = parseTeeKind(record, record.string("kind"))
  record.finish()
  return tee
}

function parseTeeKind(record: JsonRecord, kind: string): TeeEvidence {
  const one = (name: keyof typeof MAX_TEE_BYTES) =>
    bytesOf(record, name, record.string(name), MAX_TEE_BYTES[name])
  const certificates = () => bytesList(record, "certificates", MAX_CERTIFICATES, MAX_CERTIFICATE_BYTES)
  switch (kind) {
    case "sev-snp":
      return { kind, report: one("report"), certificates: certificates() }
    case "tdx":
      return { kind, quote: one("quote") }
    case "azure-snp":
      return { kind, hcl: one("hcl"), certificates: certificates() }
    case "azure-tdx":
      return { kind, hcl: one("hcl"), quote: one("quote") }
    default:
      throw new ParseError("ERR_UNSUPPORTED", {
        at: record.place("kind"),
        expected: "sev-snp, tdx, azure-snp or azure-tdx",
        found: JSON.stringify(kind.slice(0, 40)),
        hint: "use a client of the agent's version",
      })
  }
}

function parseTpm(record: JsonRecord): TpmEvidence {
  const optional = (name: string) => {
    const text = record.stringOrNull(name)
    return text === null ? null : bytesOf(record, name, text, MAX_CERTIFICATE_BYTES)
  }
  const required = (name: string) => bytesOf(record, name, record.string(name), 4096)
  const pcrs = bytesList(record, "pcrs", EVIDENCE_PCRS.length, 32)
  if (pcrs.length !== EVIDENCE_PCRS.length || pcrs.some((pcr) => pcr.length !== 32))
    throw new ParseError("ERR_MALFORMED", {
      at: record.place("pcrs"),
      expected: `${EVIDENCE_PCRS.length} values of 32 bytes`,
      found: `${pcrs.length} values`,
    })
  const nitroDocument = optionalBytes(record, "nitro_document", MAX_NITRO_BYTES)
  const tpm: TpmEvidence = {
    quote: required("quote"),
    signature: required("signature"),
    akPublic: required("ak_public"),
    pcrs,
    akCertificate: optional("ak_certificate"),
    ekCertificate: optional("ek_certificate"),
    ...(record.names().includes("certificates")
      ? { certificates: bytesList(record, "certificates", MAX_CERTIFICATES, MAX_CERTIFICATE_BYTES) }
      : {}),
    ...(nitroDocument === null ? {} : { nitroDocument }),
  }
  record.finish()
  return tpm
}

function parseIma(record: JsonRecord, list: Uint8Array | null): ImaEvidence {
  const from = record.count("from", MAX_LIST_FROM)
  if (record.take("list") === null || list === null) throw record.wrong("list", "a string", null)
  record.finish()
  return { from, list }
}

function bytesList(record: JsonRecord, name: string, maxCount: number, maxBytes: number): Uint8Array[] {
  const values = record.array(name)
  if (values.length > maxCount)
    throw new ParseError("ERR_TOO_LARGE", {
      at: record.place(name),
      expected: `at most ${maxCount}`,
      found: `${values.length}`,
    })
  return values.map((value) => {
    if (typeof value !== "string") throw record.wrong(name, "strings", value)
    return bytesOf(record, name, value, maxBytes)
  })
}

function bytesOf(record: JsonRecord, name: string, text: string, maxBytes: number): Uint8Array {
  if (text.length > Math.ceil((maxBytes * 4) / 3))
    throw new ParseError("ERR_TOO_LARGE", {
      at: record.place(name),
      expected: `at most ${maxBytes} bytes`,
      found: `${text.length} characters of base64`,
    })
  const bytes = text.endsWith("=") ? null : fromBase64(text)
  if (bytes === null)
    throw new ParseError("ERR_MALFORMED", {
      at: record.place(name),
      expected: "base64 without padding",
    })
  return bytes
}
