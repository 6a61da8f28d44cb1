import { fromHex } from "../formats/hex.ts"
import { parseTomlTable, type TomlTable } from "../formats/toml-table.ts"
import {
  ACCEPTABLE_STATUSES,
  type AcceptedStatus,
  ANY_TDX,
  type AttestationPolicy,
  PCR_BANKS,
  type PcrBank,
  type TdxExpectations,
  type TpmExpectations,
} from "./attestation-policy.ts"
import { parseBootTable } from "./toml-boot.ts"
import { parseImaTable } from "./toml-ima.ts"
import { parseSnpTable } from "./toml-snp.ts"
import { bits, hexList } from "./toml-values.ts"

/**
 * Reads our own policy. Every key that is not known is an error, because a misspelt restriction must not be ignored.
 * The format is described in docs/policy.md.
 * @param file name for messages, and as the policy's source.
 * @throws UsageError ERR_POLICY with line and key; ERR_TOO_LARGE
 */
export function parseTomlPolicy(text: string, file: string): AttestationPolicy {
  const root = parseTomlTable(text, file, "ERR_POLICY")
  root.integer("version", 1, 1)
  const [snp, tdx, tpm, boot, ima, trust] = ["snp", "tdx", "tpm", "boot", "ima", "trust"].map((name) =>
    root.table(name),
  )
  const policy: AttestationPolicy = {
    source: file,
    snp: snp == null ? null : parseSnpTable(snp),
    tdx: tdx == null ? null : parseTdxTable(tdx),
    tpm: tpm == null ? null : parseTpmTable(tpm),
    boot: boot == null ? null : parseBootTable(boot),
    ima: ima == null ? null : parseImaTable(ima),
    trust: {
      requireRevocation: trust?.boolean("require_revocation") ?? false,
      offline: trust?.boolean("offline") ?? false,
    },
    notes: [],
  }
  trust?.finish()
  root.finish()
  if ([policy.snp, policy.tdx, policy.tpm, policy.boot, policy.ima].every((part) => part === null))
    throw root.fault("snp", "one of the tables [snp], [tdx], [tpm], [boot], [ima]", "none")
  return policy
}

function parseTdxTable(table: TomlTable): TdxExpectations {
  const expectations: TdxExpectations = {
    mrTds: hexList(table, "mr_td", 48),
    mrSeams: hexList(table, "mr_seam", 48),
    mrConfigIds: hexList(table, "mr_config_id", 48),
    mrOwners: hexList(table, "mr_owner", 48),
    mrOwnerConfigs: hexList(table, "mr_owner_config", 48),
    rtmrs: [
      hexList(table, "rtmr0", 48),
      hexList(table, "rtmr1", 48),
      hexList(table, "rtmr2", 48),
      hexList(table, "rtmr3", 48),
    ],
    reportData: hexList(table, "report_data", 64),
    qeVendorIds: hexList(table, "qe_vendor_id", 16),
    tdAttributes: bits(table, "td_attributes"),
    xfam: bits(table, "xfam"),
    debug: table.choice("debug", ["refused", "allowed", "required"]) ?? ANY_TDX.debug,
    minimumTeeTcbSvn: oneHex(table, "minimum_tee_tcb_svn", 16),
    minimumQeSvn: table.integer("minimum_qe_svn", 0, 0xffff) ?? 0,
    minimumPceSvn: table.integer("minimum_pce_svn", 0, 0xffff) ?? 0,
    minimumEvaluationNumber: table.integer("minimum_tcb_evaluation_number", 0, 2 ** 31) ?? 0,
    accept: table.tables("accept").map(parseAcceptance),
  }
  table.finish()
  return expectations
}

function parseAcceptance(table: TomlTable): AcceptedStatus {
  const status = table.choice("status", ACCEPTABLE_STATUSES)
  if (status === null) throw table.fault("status", `one of ${ACCEPTABLE_STATUSES.join(", ")}`, "none")
  const until = table.lastMoment("until")
  if (until === null) throw table.fault("until", "the last day on which the status is accepted", "none")
  const any = table.raw("advisories") === "any"
  const advisories = any ? null : isEmptyArray(table.raw("advisories")) ? [] : table.strings("advisories")
  if (!any && advisories === null)
    throw table.fault(
      "advisories",
      'the advisories that were weighed, such as ["INTEL-SA-00960"], or "any"',
      "none",
    )
  const wrong = advisories?.find((advisory) => !/^[A-Z0-9]+(?:-[A-Z0-9]+)+$/.test(advisory))
  if (wrong !== undefined)
    throw table.fault("advisories", "identifiers such as INTEL-SA-00960", JSON.stringify(wrong))
  table.finish()
  return { status, until, advisories }
}

function isEmptyArray(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0
}

function parseTpmTable(table: TomlTable): TpmExpectations {
  const akNames =
    table.strings("ak_name")?.map((text) => {
      const name = fromHex(text)
      if (name !== null && name.length >= 22 && name.length <= 66) return name
      throw table.fault("ak_name", "TPM Names in hex", JSON.stringify(text))
    }) ?? null
  const banks = table.table("pcrs")
  const pcrs: { -readonly [B in PcrBank]?: ReadonlyMap<number, readonly Uint8Array[]> } = {}
  for (const bank of ["sha1", "sha256", "sha384", "sha512"] as const) {
    const values = banks?.table(bank) ?? null
    if (values === null) continue
    pcrs[bank] = new Map(values.keys().map((pcr) => parsePcr(values, pcr, PCR_BANKS[bank])))
  }
  banks?.finish()
  table.finish()
  return { akNames, pcrs }
}

function parsePcr(values: TomlTable, pcr: string, size: number): [number, readonly Uint8Array[]] {
  if (!/^(?:[0-9]|1[0-9]|2[0-3])$/.test(pcr)) throw values.fault(pcr, "the number of a PCR, 0 to 23", pcr)
  return [Number(pcr), hexList(values, pcr, size) ?? []]
}

function oneHex(table: TomlTable, key: string, size: number): Uint8Array | null {
  const [first, ...more] = hexList(table, key, size) ?? []
  if (more.length > 0) throw table.fault(key, "one value", `${more.length + 1} values`)
  return first ?? null
}
