import { VerifyError } from "../errors.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import type { SvnLevel, SvnStatus, TcbVerdict } from "../formats/intel/document.ts"
import type { PckPlatform } from "../formats/intel/pck-extension.ts"
import type { ModuleIdentity, TcbInfo, TcbLevel, TcbStatus } from "../formats/intel/tcb-info.ts"
import type { SgxReport } from "../formats/sgx/report.ts"
import type { TdBody } from "../formats/tdx/body.ts"
import type { IntelDocuments } from "./intel-documents.ts"
import { masked } from "./intel-quote.ts"

/** What Intel says about the TCB of a platform, its quoting enclave and its TDX module. */
export interface TcbEvaluation {
  /** The three statuses as one. */
  readonly status: TcbStatus
  /** Date of the platform's level. */
  readonly date: Date
  /** Of all three, each once, in order. */
  readonly advisories: readonly string[]
  /** The lower one of TCB info's and QE identity's. */
  readonly evaluationDataNumber: number
  /** 6 bytes. */
  readonly fmspc: Uint8Array
  readonly platform: TcbVerdict<TcbStatus>
  readonly qe: TcbVerdict<SvnStatus>
  /** Null for SGX, and for a TDX module that has no levels of its own. */
  readonly module: (TcbVerdict<SvnStatus> & { readonly id: string }) | null
  /** Until when both documents hold. */
  readonly nextUpdate: Date
}

/**
 * The TCB of the platform that made an SGX quote.
 * @throws VerifyError ERR_TCB_NO_LEVEL
 */
export function evaluateSgxTcb(
  documents: IntelDocuments,
  platform: PckPlatform,
  qeReport: SgxReport,
): TcbEvaluation {
  return merge(documents, findLevel(documents.tcbInfo, platform, null), qeLevel(documents, qeReport), null)
}

/**
 * The TCB of the platform that made a TDX quote. SGX components and PCE come from the PCK certificate, TDX components from
 * the TD's report. The first two TDX components are version and SVN of the TDX module: from version 1 on it has levels of
 * its own, and these two are not compared with the platform's.
 * Source: Intel PCS API, version 4, "Get TDX TCB Info", "Determining the status of a TCB level".
 * @throws VerifyError ERR_TDX_MODULE, ERR_TCB_NO_LEVEL
 */
export function evaluateTdxTcb(
  documents: IntelDocuments,
  platform: PckPlatform,
  qeReport: SgxReport,
  body: TdBody,
): TcbEvaluation {
  const [svn = 0, version = 0] = body.teeTcbSvn
  const module = version === 0 ? null : moduleOfVersion(documents.tcbInfo, version)
  verifyModule(body, module ?? documents.tcbInfo.tdxModule, version)
  const moduleVerdict =
    module === null ? null : { id: module.id, ...levelOfSvn(module.levels, svn, `TDX module ${module.id}`) }
  const own = { components: [...body.teeTcbSvn], from: version === 0 ? 0 : 2 }
  return merge(
    documents,
    findLevel(documents.tcbInfo, platform, own),
    qeLevel(documents, qeReport),
    moduleVerdict,
  )
}

function moduleOfVersion({ tdxModules }: TcbInfo, version: number) {
  const id = `TDX_${version.toString(16).toUpperCase().padStart(2, "0")}`
  const module = tdxModules.get(id)
  if (module === undefined)
    throw new VerifyError("ERR_TDX_MODULE", {
      at: "td-body.teeTcbSvn",
      expected: `a module that TCB info names: ${[...tdxModules.keys()].join(", ") || "version 0 only"}`,
      found: id,
    })
  return { id, ...module }
}

function verifyModule(body: TdBody, identity: ModuleIdentity | null, version: number): void {
  if (identity === null)
    throw new VerifyError("ERR_TDX_MODULE", { at: "TCB info", expected: `module version ${version}` })
  if (!bytesEqual(identity.mrSigner, body.mrSignerSeam))
    throw new VerifyError("ERR_TDX_MODULE", {
      at: "td-body.mrSignerSeam",
      expected: toHex(identity.mrSigner),
      found: toHex(body.mrSignerSeam),
    })
  const attributes = masked(body.seamAttributes, identity.attributesMask)
  if (!bytesEqual(identity.attributes, attributes))
    throw new VerifyError("ERR_TDX_MODULE", {
      at: "td-body.seamAttributes",
      expected: toHex(identity.attributes),
      found: toHex(attributes),
    })
}

function qeLevel({ qeIdentity }: IntelDocuments, { isvSvn }: SgxReport): TcbVerdict<SvnStatus> {
  return levelOfSvn(qeIdentity.levels, isvSvn, "quoting enclave")
}

/** The first level, from the newest on, whose SVN is reached. */
function levelOfSvn(levels: readonly SvnLevel[], isvSvn: number, at: string): TcbVerdict<SvnStatus> {
  const level = levels.find((candidate) => candidate.isvSvn <= isvSvn)
  if (level === undefined)
    throw new VerifyError("ERR_TCB_NO_LEVEL", {
      at,
      expected: `an SVN of ${levels.at(-1)?.isvSvn ?? "some level"} or higher`,
      found: `${isvSvn}`,
    })
  const { status, date, advisories } = level
  return { status, date, advisories }
}

interface OwnComponents {
  readonly components: readonly number[]
  /** The first one that is compared. */
  readonly from: number
}

/** The first level, from the newest on, of which the platform reaches every component. */
function findLevel({ levels }: TcbInfo, platform: PckPlatform, tdx: OwnComponents | null): TcbLevel {
  const level = levels.find(
    (candidate) =>
      reaches(platform.components, candidate.sgxComponents, 0) &&
      platform.pceSvn >= candidate.pceSvn &&
      (tdx === null ||
        (candidate.tdxComponents !== null && reaches(tdx.components, candidate.tdxComponents, tdx.from))),
  )
  if (level !== undefined) return level
  const own = tdx === null ? "" : `; TDX components ${tdx.components.join(" ")}`
  throw new VerifyError("ERR_TCB_NO_LEVEL", {
    at: "TCB info",
    expected: lowest(levels),
    found: `SGX components ${platform.components.join(" ")}; PCE ${platform.pceSvn}${own}`,
    hint: "the platform's firmware or microcode is older than anything Intel judges: the host has to update it",
  })
}

function lowest(levels: readonly TcbLevel[]): string {
  const level = levels.at(-1)
  if (level === undefined) return "at least one level"
  const own = level.tdxComponents === null ? "" : `; TDX components ${level.tdxComponents.join(" ")}`
  return `at least SGX components ${level.sgxComponents.join(" ")}; PCE ${level.pceSvn}${own}`
}

function reaches(found: readonly number[], asked: readonly number[], from: number): boolean {
  return asked.every((svn, index) => index < from || (found[index] ?? -1) >= svn)
}

function merge(
  { tcbInfo, qeIdentity }: IntelDocuments,
  level: TcbLevel,
  qe: TcbVerdict<SvnStatus>,
  module: TcbEvaluation["module"],
): TcbEvaluation {
  const ofModule = module === null ? level.status : converge(level.status, module.status)
  const advisories = [...level.advisories, ...qe.advisories, ...(module?.advisories ?? [])]
  return {
    status: converge(ofModule, qe.status),
    date: level.date,
    advisories: [...new Set(advisories)].sort(),
    evaluationDataNumber: Math.min(tcbInfo.tcbEvaluationDataNumber, qeIdentity.tcbEvaluationDataNumber),
    fmspc: tcbInfo.fmspc,
    platform: { status: level.status, date: level.date, advisories: level.advisories },
    qe,
    module,
    nextUpdate: new Date(Math.min(tcbInfo.nextUpdate.getTime(), qeIdentity.nextUpdate.getTime())),
  }
}

/** What remains to be said of a platform when a part of it is not up to date. */
const WITH_OUT_OF_DATE_PART = {
  UpToDate: "OutOfDate",
  SWHardeningNeeded: "OutOfDate",
  ConfigurationNeeded: "OutOfDateConfigurationNeeded",
  ConfigurationAndSWHardeningNeeded: "OutOfDateConfigurationNeeded",
  OutOfDate: "OutOfDate",
  OutOfDateConfigurationNeeded: "OutOfDateConfigurationNeeded",
  Revoked: "Revoked",
} as const satisfies Record<TcbStatus, TcbStatus>

/**
 * The status of a platform together with that of its quoting enclave or TDX module: never better than either.
 * Source: Intel SGX DCAP Quote Verification, rev. 1.23, "TCB status convergence".
 */
export function converge(platform: TcbStatus, part: SvnStatus): TcbStatus {
  if (part === "Revoked") return "Revoked"
  return part === "UpToDate" ? platform : WITH_OUT_OF_DATE_PART[platform]
}
