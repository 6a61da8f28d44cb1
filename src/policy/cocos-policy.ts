import { type JsonValue, parseJsonRecord } from "../formats/strict-json.ts"
import {
  ANY_TDX,
  type AttestationPolicy,
  type ExpectedProduct,
  type OneOf,
  PCR_BANKS,
  type PcrBank,
  type TdxExpectations,
  type TpmExpectations,
  type TrustExpectations,
} from "./attestation-policy.ts"
import { parseCocosSnp, parseProductLine } from "./cocos-snp.ts"
import { littleEndian, only } from "./policy-values.ts"
import { ProtoMessage } from "./proto-json.ts"

/** Cap of a policy in JSON, in bytes. */
export const MAX_POLICY_BYTES = 4 * 1024 * 1024

/** Settings for another kind of token, which Cocos keeps in the same file. */
const EAT_FIELDS = [
  "require_eat_format",
  "allowed_formats",
  "max_token_age_seconds",
  "require_claims",
  "verify_signature",
]
const EAT_NOTE = "eat_validation is about EAT tokens, and the evidence judged here is none: it has no effect"

/**
 * Reads Cocos' attestation policy: the check configuration of go-sev-guest or go-tdx-guest as JSON, with `pcr_values` beside it.
 * Every field works or is refused by name.
 * Source: ultravioletrs/cocos, "Attestation policy"; google/go-sev-guest, proto/check.proto; google/go-tdx-guest,
 * proto/checkconfig.proto.
 * @param file name for messages.
 * @throws UsageError ERR_POLICY; ParseError ERR_MALFORMED, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_TRUNCATED,
 *   ERR_TRAILING_BYTES
 */
export function parseCocosPolicy(bytes: Uint8Array, file = "policy"): AttestationPolicy {
  const record = parseJsonRecord(file, bytes, MAX_POLICY_BYTES, { bigIntegers: true })
  const root = new ProtoMessage(record, "", file)
  const notes: string[] = []
  const policy = policyMessage(root)
  const trusted = root.message("root_of_trust")
  const isTdx = policy?.has("header_policy") === true || policy?.has("td_quote_body_policy") === true
  const products = trusted === null ? null : productLines(trusted)
  if (isTdx && products !== null)
    throw root.fault("root_of_trust", "no AMD product beside a policy for TDX", "one")
  const result = {
    source: file,
    snp: policy === null || isTdx ? null : parseCocosSnp(policy, products, notes),
    tdx: policy !== null && isTdx ? parseTdx(policy, notes) : null,
    tpm: parsePcrValues(root.message("pcr_values")),
    boot: null,
    ima: null,
    trust: parseTrust(trusted),
    notes,
  }
  if (root.has("eat_validation")) skipEat(root.message("eat_validation"), notes)
  skipEat(root, notes)
  policy?.finish()
  trusted?.finish()
  root.finish()
  if (policy === null && result.tpm === null) throw root.fault("policy", "a policy, or pcr_values", "neither")
  return result
}

/** Older files of Cocos call it `snp_policy`. */
function policyMessage(root: ProtoMessage): ProtoMessage | null {
  const [current, older] = [root.message("policy"), root.message("snp_policy")]
  if (current !== null && older !== null) throw root.fault("snp_policy", "policy or snp_policy", "both")
  return current ?? older
}

/** `product` is the older name of `product_line`, and files have both. */
function productLines(trusted: ProtoMessage): readonly ExpectedProduct[] | null {
  const named = ["product_line", "product"].flatMap((field) => {
    const text = trusted.string(field)
    return text === null || text === "" ? [] : [parseProductLine(trusted, field, text)]
  })
  const [first, second] = named
  if (first === undefined) return null
  if (second !== undefined && second.product !== first.product)
    throw trusted.fault("product", `the same as product_line, ${first.product}`, second.product)
  return [second?.stepping == null ? first : second]
}

function parseTrust(trusted: ProtoMessage | null): TrustExpectations {
  if (trusted === null) return { requireRevocation: false, offline: false }
  for (const field of ["cabundle_paths", "cabundles"])
    if (trusted.strings(field).length > 0)
      throw trusted.fault(
        field,
        "none: the vendors' root keys are built in",
        "certificates",
        "name another root with --trust-root, and give intermediate certificates with --chain",
      )
  const requireRevocation = trusted.boolean("check_crl") ?? false
  const fetching = trusted.boolean("get_collateral")
  return { requireRevocation, offline: (trusted.boolean("disallow_network") ?? false) || fetching === false }
}

function parsePcrValues(values: ProtoMessage | null): TpmExpectations | null {
  if (values === null) return null
  const pcrs: { -readonly [B in PcrBank]?: ReadonlyMap<number, readonly Uint8Array[]> } = {}
  for (const bank of ["sha1", "sha256", "sha384", "sha512"] as const) {
    const map = values.message(bank)
    if (map === null) continue
    const entries = map.entries().map(([pcr, value]) => parsePcr(map, pcr, value, PCR_BANKS[bank]))
    if (entries.length > 0) pcrs[bank] = new Map(entries)
  }
  values.finish()
  return Object.keys(pcrs).length === 0 ? null : { akNames: null, pcrs }
}

function parsePcr(map: ProtoMessage, pcr: string, value: JsonValue, size: number): [number, Uint8Array[]] {
  if (!/^(?:[0-9]|1[0-9]|2[0-3])$/.test(pcr)) throw map.fault(pcr, "the number of a PCR, 0 to 23", pcr)
  const bytes = map.decode(pcr, value, size)
  if (bytes === null || bytes.length !== size) throw map.fault(pcr, `${size} bytes in hex`, "none")
  return [Number(pcr), [bytes]]
}

function parseTdx(policy: ProtoMessage, notes: string[]): TdxExpectations {
  const header = policy.message("header_policy")
  const body = policy.message("td_quote_body_policy")
  const expectations: TdxExpectations = {
    ...ANY_TDX,
    ...(header === null ? {} : parseHeader(header)),
    ...(body === null ? {} : parseBody(body, notes)),
  }
  header?.finish()
  body?.finish()
  return expectations
}

function parseHeader(header: ProtoMessage): Partial<TdxExpectations> {
  return {
    // The first name has a letter too few in older versions.
    minimumQeSvn: header.integer("minimum_qe_svn", 0xffff) ?? header.integer("minmum_qe_svn", 0xffff) ?? 0,
    minimumPceSvn: header.integer("minimum_pce_svn", 0xffff) ?? 0,
    qeVendorIds: only(header.bytes("qe_vendor_id", 16)),
  }
}

function parseBody(body: ProtoMessage, notes: string[]): Partial<TdxExpectations> {
  skipPlaceholders(body, notes)
  if (body.has("eat_validation")) skipEat(body.message("eat_validation"), notes)
  return {
    minimumTeeTcbSvn: body.bytes("minimum_tee_tcb_svn", 16),
    mrSeams: only(body.bytes("mr_seam", 48)),
    tdAttributes: integerOf(body.bytes("td_attributes", 8)),
    xfam: integerOf(body.bytes("xfam", 8)),
    mrTds: parseMrTds(body),
    mrConfigIds: only(body.bytes("mr_config_id", 48)),
    mrOwners: only(body.bytes("mr_owner", 48)),
    mrOwnerConfigs: only(body.bytes("mr_owner_config", 48)),
    rtmrs: parseRtmrs(body),
    reportData: only(body.bytes("report_data", 64)),
    debug: parseDebug(body),
  }
}

/** `mr_td` and `any_mr_td` both have to hold. */
function parseMrTds(body: ProtoMessage): OneOf {
  const one = body.bytes("mr_td", 48)
  const any = (body.repeatedBytes("any_mr_td", 48) ?? []).flatMap((value) => (value === null ? [] : [value]))
  if (one === null) return any.length === 0 ? null : any
  if (any.length > 0 && !any.some((value) => Buffer.compare(value, one) === 0))
    throw body.fault("any_mr_td", "mr_td among its values", "others only: no TD can have both")
  return [one]
}

function parseRtmrs(body: ProtoMessage): TdxExpectations["rtmrs"] {
  const values = body.repeatedBytes("rtmrs", 48)
  if (values === null) return ANY_TDX.rtmrs
  const [first, second, third, fourth, ...more] = values
  if (
    first === undefined ||
    second === undefined ||
    third === undefined ||
    fourth === undefined ||
    more.length > 0
  )
    throw body.fault("rtmrs", "4 values", `${values.length}`)
  return [only(first), only(second), only(third), only(fourth)]
}

function parseDebug(body: ProtoMessage): TdxExpectations["debug"] {
  const expected = body.boolean("tdattributes_debug")
  const allowed = body.boolean("allow_debug") ?? false
  if (expected !== null) return expected ? "required" : "refused"
  return allowed ? "allowed" : "refused"
}

/** Cocos' own samples hold a second `policy` of zeros, which nothing reads. */
function skipPlaceholders(body: ProtoMessage, notes: string[]): void {
  const inner = body.message("policy")
  if (inner === null) return
  for (const field of ["mr_seam", "tdx_module", "mr_td"])
    if (inner.bytes(field)?.some((byte) => byte !== 0) === true)
      throw inner.fault(field, "zeros, or nothing", "a value", "write it into td_quote_body_policy itself")
  inner.finish()
  notes.push("td_quote_body_policy.policy holds zeros only: it has no effect")
}

function skipEat(message: ProtoMessage | null, notes: string[]): void {
  if (message === null) return
  const present = EAT_FIELDS.filter((field) => message.has(field))
  if (present.length > 0 && !notes.includes(EAT_NOTE)) notes.push(EAT_NOTE)
}

function integerOf(bytes: Uint8Array | null): bigint | null {
  return bytes === null ? null : littleEndian(bytes)
}
