import { ParseError } from "../../errors.ts"
import type { JsonRecord } from "../strict-json.ts"
import {
  type DocumentDates,
  hexBytes,
  oneOf,
  parseDates,
  parseDocument,
  parseSvnLevels,
  parseVerdict,
  records,
  type SvnLevel,
  type TcbVerdict,
} from "./document.ts"

/** What Intel says about a platform, from best to worst. Source: Intel PCS API, version 4, "TCB Status". */
export const TCB_STATUSES = [
  "UpToDate",
  "SWHardeningNeeded",
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "OutOfDate",
  "OutOfDateConfigurationNeeded",
  "Revoked",
] as const
export type TcbStatus = (typeof TCB_STATUSES)[number]

/** The levels of one kind of platform: the signed `tcbInfo` object of Intel's, version 3. Nothing in it is verified. */
export interface TcbInfo extends DocumentDates {
  readonly id: "SGX" | "TDX"
  /** 6 bytes. */
  readonly fmspc: Uint8Array
  /** 2 bytes. */
  readonly pceId: Uint8Array
  /** In the order of the document: the newest first. */
  readonly levels: readonly TcbLevel[]
  /** The TDX module of version 0; null for SGX. */
  readonly tdxModule: ModuleIdentity | null
  /** TDX modules of later versions, with levels of their own, by name: `TDX_01`. */
  readonly tdxModules: ReadonlyMap<string, ModuleIdentity & { readonly levels: readonly SvnLevel[] }>
}

export interface TcbLevel extends TcbVerdict<TcbStatus> {
  /** SVNs of the 16 components that a PCK certificate has. */
  readonly sgxComponents: readonly number[]
  readonly pceSvn: number
  /** SVNs of the 16 components of TEE_TCB_SVN; null for SGX. */
  readonly tdxComponents: readonly number[] | null
}

/** Who made a TDX module, and what it may be like. */
export interface ModuleIdentity {
  /** 48 bytes. */
  readonly mrSigner: Uint8Array
  /** 8 bytes: what `attributesMask` leaves of SEAMATTRIBUTES. */
  readonly attributes: Uint8Array
  /** 8 bytes. */
  readonly attributesMask: Uint8Array
}

/** The only way of comparing TCBs that is defined: component by component. */
const TCB_TYPE = 0
const COMPONENTS = 16

/**
 * Reads the exact bytes of a `tcbInfo` object. Source: Intel PCS API, version 4, "Get TCB Info", model V3.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES, ERR_DUPLICATE_KEY, ERR_TOO_LARGE, ERR_UNSUPPORTED
 */
export function parseTcbInfo(bytes: Uint8Array): TcbInfo {
  const record = parseDocument("TCB info", bytes, 3)
  const id = oneOf(record, "id", ["SGX", "TDX"])
  const tcbType = record.count("tcbType", 1000)
  if (tcbType !== TCB_TYPE)
    throw new ParseError("ERR_UNSUPPORTED", {
      at: record.place("tcbType"),
      expected: `${TCB_TYPE}`,
      found: `${tcbType}`,
    })
  return {
    id,
    ...parseDates(record),
    fmspc: hexBytes(record, "fmspc", 6),
    pceId: hexBytes(record, "pceId", 2),
    levels: records(record, "tcbLevels").map((level) => parseLevel(level, id)),
    tdxModule: id === "TDX" ? parseModule(record.record("tdxModule")) : null,
    tdxModules: id === "TDX" ? parseModules(record) : new Map(),
  }
}

function parseLevel(level: JsonRecord, id: TcbInfo["id"]): TcbLevel {
  const tcb = level.record("tcb")
  return {
    sgxComponents: parseComponents(tcb, "sgxtcbcomponents"),
    pceSvn: tcb.count("pcesvn", 0xffff),
    tdxComponents: id === "TDX" ? parseComponents(tcb, "tdxtcbcomponents") : null,
    ...parseVerdict(level, TCB_STATUSES),
  }
}

/** A missing component would compare as if nothing were asked of it: all have to be there. */
function parseComponents(tcb: JsonRecord, name: string): number[] {
  const components = records(tcb, name, COMPONENTS)
  if (components.length !== COMPONENTS)
    throw new ParseError("ERR_MALFORMED", {
      at: tcb.place(name),
      expected: `${COMPONENTS} components`,
      found: `${components.length}`,
    })
  return components.map((component) => component.count("svn", 0xff))
}

function parseModule(record: JsonRecord): ModuleIdentity {
  return {
    mrSigner: hexBytes(record, "mrsigner", 48),
    attributes: hexBytes(record, "attributes", 8),
    attributesMask: hexBytes(record, "attributesMask", 8),
  }
}

/** Absent in documents from before there was a second version of the module. */
function parseModules(record: JsonRecord): TcbInfo["tdxModules"] {
  const modules = new Map<string, ModuleIdentity & { readonly levels: readonly SvnLevel[] }>()
  if (record.take("tdxModuleIdentities") === null) return modules
  for (const identity of records(record, "tdxModuleIdentities")) {
    const id = identity.string("id").toUpperCase()
    if (modules.has(id))
      throw new ParseError("ERR_MALFORMED", { at: identity.place("id"), expected: "once", found: "twice" })
    modules.set(id, { ...parseModule(identity), levels: parseSvnLevels(identity) })
  }
  return modules
}
