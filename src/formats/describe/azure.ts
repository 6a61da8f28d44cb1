import { createHash } from "node:crypto"
import { parseHclReport } from "../azure/hcl.ts"
import type { RsaJwk } from "../azure/runtime-claims.ts"
import { parseTdReport } from "../azure/td-report.ts"
import { toHex } from "../hex.ts"
import { parseSnpReport } from "../snp/report.ts"
import { describeTdAttributes, describeXfam } from "./intel.ts"
import { hexOrNull, plainFields, type ShownRecord, shownJson } from "./shown.ts"
import { describeSnpReport } from "./snp.ts"

/** An HCL report, its hardware report and claims included. @throws ParseError as parseHclReport */
export function describeHcl(bytes: Uint8Array): ShownRecord {
  const { kind, version, hash, reportData, runtimeData, hardwareReport, claims } = parseHclReport(bytes)
  return {
    header_version: version,
    report_type: kind === "snp" ? "2 (SEV-SNP)" : "4 (TDX)",
    hash_type: hash,
    runtime_data_size: runtimeData.length,
    runtime_data_digest: createHash(hash).update(runtimeData).digest("hex"),
    report_data: toHex(reportData),
    runtime_claims: {
      hcl_ak_pub: describeJwk(claims.akPublicKey),
      hcl_ek_pub: claims.ekPublicKey && describeJwk(claims.ekPublicKey),
      user_data: hexOrNull(claims.userData),
      vm_configuration: shownJson(claims.vmConfiguration.members),
    },
    hardware_report: kind === "snp" ? describeSnp(hardwareReport) : describeTdReport(hardwareReport),
  }
}

function describeJwk({ kid, keyOps, modulus, exponent }: RsaJwk): ShownRecord {
  return {
    kid,
    key_ops: keyOps,
    bits: 8 * modulus.length,
    modulus: toHex(modulus),
    exponent: toHex(exponent),
  }
}

function describeSnp(bytes: Uint8Array): ShownRecord {
  const report = parseSnpReport(bytes)
  return describeSnpReport(report, report.product)
}

function describeTdReport(bytes: Uint8Array): ShownRecord {
  const report = parseTdReport(bytes)
  return {
    ...plainFields(report),
    td_attributes: describeTdAttributes(report.tdAttributes),
    xfam: describeXfam(report.xfam),
  }
}
