import { ParseError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { isArray, type JsonRecord, type JsonValue } from "../formats/strict-json.ts"

/** What the predecessor's file says about the TEE; exactly one kind. */
export type TeePolicy =
  | { readonly Sev: SevPolicy }
  | { readonly Tdx: TdxPolicy }
  | { readonly Sgx: Readonly<Record<string, unknown>> }

/** Fields of the SNP report that stay equal. Digests and identifiers in hex; null: not fixed. */
export interface SevPolicy {
  /** 48 bytes. */
  readonly measurement: string | null
  /** 64 bytes; belongs to one nonce, so it is null in new snapshots and ignored in old ones. */
  readonly report_data: string | null
  /** 16 bytes. */
  readonly family_id: string | null
  /** 16 bytes. */
  readonly image_id: string | null
  readonly guest_svn: number | null
  /** 48 bytes. */
  readonly id_key_digest: string | null
  /** 48 bytes. */
  readonly author_key_digest: string | null
  /** Guest policy as an integer. */
  readonly policy: number | null
  /** 32 bytes; changes with each start of the VM. */
  readonly report_id: string | null
  /** 32 bytes. */
  readonly report_id_ma: string | null
}

/**
 * Fields of a TDX quote that stay equal, and those that may only rise. Byte strings in hex, in the order of the quote; null:
 * not fixed.
 */
export interface TdxPolicy {
  readonly header: TdxHeaderPolicy
  readonly body: TdxBodyPolicy
}

interface TdxHeaderPolicy {
  readonly minimum_qe_svn: number | null
  readonly minimum_pce_svn: number | null
  /** 16 bytes. */
  readonly qe_vendor_id: string | null
}

interface TdxBodyPolicy {
  /** 16 components, compared one by one. */
  readonly minimum_tee_tcb_svn: string | null
  /** 48 bytes. */
  readonly mr_seam: string | null
  /** 8 bytes. */
  readonly td_attributes: string | null
  /** 8 bytes. */
  readonly xfam: string | null
  /** 48 bytes, like those that follow. */
  readonly mr_td: string | null
  readonly mr_config_id: string | null
  readonly mr_owner: string | null
  readonly mr_owner_config: string | null
  /** 64 bytes; belongs to one nonce, so it is null in new snapshots and ignored in old ones. */
  readonly report_data: string | null
}

/** What the predecessor's file has no place for. TCBs by component name of the product's layout. */
export interface TeeReference {
  readonly product: string
  readonly vmpl: number
  /** 32 bytes, hex. */
  readonly host_data: string
  readonly platform_info?: number
  readonly reported_tcb: Readonly<Record<string, number>>
  readonly committed_tcb: Readonly<Record<string, number>>
  readonly launch_tcb: Readonly<Record<string, number>>
  /** The evidence came by way of Azure's paravisor; absent: from the VM itself. */
  readonly paravisor?: Paravisor
}

/** The same for a trust domain. RTMR3 is for its software to write to while it runs, and has no reference value. */
export interface TdxReference {
  /** 48 bytes, hex, like the others. */
  readonly rtmr0: string
  readonly rtmr1: string
  readonly rtmr2: string
  /** Measurement of the service TDs that are bound, which may be given its secrets; absent: taken from a quote without it. */
  readonly mr_service_td?: string
  readonly paravisor?: Paravisor
}

/** Who stands between hardware and VM, speaks for the VM, and keeps its TPM. */
export type Paravisor = "azure"

const U16 = 2 ** 16 - 1
const U32 = 2 ** 32 - 1

/** The reference values of a SEV-SNP VM; null where there are none, or those of another TEE. */
export function snpReferenceIn(reference: TeeReference | TdxReference | null): TeeReference | null {
  return reference !== null && "product" in reference ? reference : null
}

/** The reference values of a trust domain; null where there are none, or those of another TEE. */
export function tdxReferenceIn(reference: TeeReference | TdxReference | null): TdxReference | null {
  return reference !== null && "rtmr0" in reference ? reference : null
}

/** Reads `tee_policy`. @throws ParseError ERR_MALFORMED */
export function parseTeePolicy(record: JsonRecord): TeePolicy {
  const names = record.names()
  const policy = names.length === 1 ? names[0] : undefined
  switch (policy) {
    case "Sev":
      return { Sev: parseSevPolicy(record.record("Sev")) }
    case "Tdx":
      return { Tdx: parseTdxPolicy(record.record("Tdx")) }
    case "Sgx":
      return { Sgx: record.record("Sgx").toPlain() }
    default:
      throw new ParseError("ERR_MALFORMED", {
        at: "snapshot: tee_policy",
        expected: "one of Sev, Tdx, Sgx",
        found: names.join(", ").slice(0, 80),
      })
  }
}

function parseSevPolicy(record: JsonRecord): SevPolicy {
  const policy: SevPolicy = {
    measurement: hexOrNull(record, "measurement", 48),
    report_data: hexOrNull(record, "report_data", 64),
    family_id: hexOrNull(record, "family_id", 16),
    image_id: hexOrNull(record, "image_id", 16),
    guest_svn: record.countOrNull("guest_svn", U32),
    id_key_digest: hexOrNull(record, "id_key_digest", 48),
    author_key_digest: hexOrNull(record, "author_key_digest", 48),
    policy: record.countOrNull("policy", Number.MAX_SAFE_INTEGER),
    report_id: hexOrNull(record, "report_id", 32),
    report_id_ma: hexOrNull(record, "report_id_ma", 32),
  }
  record.finish()
  return policy
}

/** Each part and each member may be absent, as in files of the predecessor. */
function parseTdxPolicy(record: JsonRecord): TdxPolicy {
  const header = record.recordOrNull("header")
  const body = record.recordOrNull("body")
  const bytes = (from: JsonRecord | null, name: string, size: number) =>
    from === null ? null : bytesOrNull(from, name, size)
  const policy: TdxPolicy = {
    header: {
      minimum_qe_svn: header?.countOrNull("minimum_qe_svn", U16) ?? null,
      minimum_pce_svn: header?.countOrNull("minimum_pce_svn", U16) ?? null,
      qe_vendor_id: bytes(header, "qe_vendor_id", 16),
    },
    body: {
      minimum_tee_tcb_svn: bytes(body, "minimum_tee_tcb_svn", 16),
      mr_seam: bytes(body, "mr_seam", 48),
      td_attributes: bytes(body, "td_attributes", 8),
      xfam: bytes(body, "xfam", 8),
      mr_td: bytes(body, "mr_td", 48),
      mr_config_id: bytes(body, "mr_config_id", 48),
      mr_owner: bytes(body, "mr_owner", 48),
      mr_owner_config: bytes(body, "mr_owner_config", 48),
      report_data: bytes(body, "report_data", 64),
    },
  }
  header?.finish()
  body?.finish()
  record.finish()
  return policy
}

/** Reads `tee_reference`. @throws ParseError ERR_MALFORMED */
export function parseTeeReference(record: JsonRecord): TeeReference | TdxReference {
  return record.names().includes("rtmr0") ? parseTdxReference(record) : parseSnpReference(record)
}

function parseTdxReference(record: JsonRecord): TdxReference {
  const service = hexOrNull(record, "mr_service_td", 48)
  const reference: TdxReference = {
    rtmr0: hex(record, "rtmr0", 48),
    rtmr1: hex(record, "rtmr1", 48),
    rtmr2: hex(record, "rtmr2", 48),
    ...(service === null ? {} : { mr_service_td: service }),
    ...parseParavisor(record),
  }
  record.finish()
  return reference
}

function parseParavisor(record: JsonRecord): { readonly paravisor?: Paravisor } {
  const name = record.stringOrNull("paravisor")
  if (name === null) return {}
  if (name === "azure") return { paravisor: name }
  throw record.wrong("paravisor", "azure, or no such member", name)
}

function parseSnpReference(record: JsonRecord): TeeReference {
  const info = record.countOrNull("platform_info", Number.MAX_SAFE_INTEGER)
  const reference: TeeReference = {
    product: record.string("product"),
    vmpl: record.count("vmpl", 3),
    host_data: hex(record, "host_data", 32),
    ...(info === null ? {} : { platform_info: info }),
    reported_tcb: parseTcb(record.record("reported_tcb")),
    committed_tcb: parseTcb(record.record("committed_tcb")),
    launch_tcb: parseTcb(record.record("launch_tcb")),
    ...parseParavisor(record),
  }
  record.finish()
  return reference
}

function parseTcb(record: JsonRecord): Record<string, number> {
  return Object.fromEntries(record.names().map((name) => [name, record.count(name, 255)]))
}

/** Hex, or an array of byte values, which the predecessor may have written; hex comes out. */
function bytesOrNull(record: JsonRecord, name: string, size: number): string | null {
  const value = record.take(name)
  if (value === null) return null
  if (typeof value === "string" && value.length === size * 2 && /^[0-9a-f]*$/.test(value)) return value
  const bytes = isArray(value) ? value.filter(isByte) : []
  if (isArray(value) && value.length === size && bytes.length === size) return toHex(Uint8Array.from(bytes))
  throw record.wrong(name, `${size} bytes in lower-case hex, or null`, value)
}

function isByte(value: JsonValue): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0xff
}

/** Null where the member is absent. @throws ParseError ERR_MALFORMED */
export function hexOrNull(record: JsonRecord, name: string, size: number): string | null {
  const text = record.stringOrNull(name)
  if (text === null || (text.length === size * 2 && /^[0-9a-f]*$/.test(text))) return text
  throw record.wrong(name, `${size} bytes in lower-case hex, or null`, text)
}

/** @throws ParseError ERR_MALFORMED */
export function hex(record: JsonRecord, name: string, size: number): string {
  const text = hexOrNull(record, name, size)
  if (text === null) throw record.wrong(name, `${size} bytes in hex`, null satisfies JsonValue)
  return text
}
