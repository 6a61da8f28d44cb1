import { type DerivedKey, type DerivedKeyInput, expandKey } from "../formats/derived-key.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import type {
  AnyReport,
  DerivedKeyField,
  DerivedKeyRequest,
  KeyDerivation,
  ReportDevice,
} from "../native/ports.ts"

/** What a derived key depends on unless somebody asks for something else: another measurement, another key. */
export const DEFAULT_BINDING: readonly DerivedKeyField[] = ["measurement"]

export interface TeeKeyRequest extends Omit<DerivedKeyInput, "secret"> {
  readonly rootKey: DerivedKeyRequest["rootKey"]
  readonly fields: readonly DerivedKeyField[]
}

/** A key that this VM gets again as long as what it depends on stays, and the values that were mixed in. */
export interface TeeKey {
  readonly key: DerivedKey
  readonly provider: string
  readonly request: DerivedKeyRequest
}

/**
 * Derives a key from the TEE's secret. Guest SVN and TCB, where asked for, are those of the VM's own report; the TCB is the
 * committed one, which firmware updates raise: then the key is another.
 * @throws NativeError of the device; ParseError for its report
 */
export async function deriveTeeKey(
  tee: ReportDevice<AnyReport> & KeyDerivation,
  { rootKey, fields, ...input }: TeeKeyRequest,
): Promise<TeeKey> {
  const request = { rootKey, fields, ...(await valuesFor(tee, fields)) }
  const secret = await tee.deriveKey(request)
  try {
    return { key: expandKey({ ...input, secret }), provider: tee.provider, request }
  } finally {
    secret.fill(0)
  }
}

async function valuesFor(
  tee: ReportDevice<AnyReport>,
  fields: readonly DerivedKeyField[],
): Promise<Pick<DerivedKeyRequest, "guestSvn" | "tcbVersion">> {
  if (!fields.includes("guest-svn") && !fields.includes("tcb")) return { guestSvn: 0, tcbVersion: 0n }
  const report = await tee.getReport(new Uint8Array(64))
  if (report.kind !== "sev-snp") return { guestSvn: 0, tcbVersion: 0n }
  const { guestSvn, committedTcb } = parseSnpReport(report.report)
  const view = new DataView(committedTcb.buffer, committedTcb.byteOffset, committedTcb.byteLength)
  return { guestSvn, tcbVersion: view.getBigUint64(0, true) }
}
