import type { SnpReport } from "../formats/snp/report.ts"
import { parseTcb, type SnpProduct } from "../formats/snp/tcb.ts"
import { TD_ATTRIBUTE } from "../formats/tdx/body.ts"
import type { TdxQuote } from "../formats/tdx/quote.ts"
import {
  ANY_SNP,
  ANY_TDX,
  type AttestationPolicy,
  type LaunchSigner,
  type SnpExpectations,
} from "./attestation-policy.ts"
import { compareVersions, maximalGuestPolicy } from "./guest-policy.ts"

const NOTHING_ELSE = {
  tpm: null,
  boot: null,
  ima: null,
  trust: { requireRevocation: false, offline: false },
  notes: [],
} as const

/**
 * A policy that a report fits, and others of the same launch on a platform that is no older. The report is not verified here:
 * whoever makes the policy has to know where it comes from. Which chip it was, its REPORT_ID and REPORT_DATA are left out.
 * @throws ParseError ERR_RESERVED_NOT_ZERO where the TCB is not of the product's layout
 */
export function policyOfUnverifiedReport(
  report: SnpReport,
  product: SnpProduct,
  source: string,
): AttestationPolicy {
  const floor = (raw: Uint8Array) => ({ [product]: parseTcb(raw, product) })
  const committed = isCommitted(report)
  const snp: SnpExpectations = {
    ...ANY_SNP,
    products: [{ product, stepping: null }],
    measurements: [report.measurement],
    hostData: [report.hostData],
    familyIds: [report.familyId],
    imageIds: [report.imageId],
    vmpls: [report.vmpl],
    minimumGuestSvn: report.guestSvn,
    signer: signerOf(report),
    guestPolicy: maximalGuestPolicy(report.policy),
    firmware: {
      minimumVersion: { major: report.committedMajor, minor: report.committedMinor },
      minimumBuild: report.committedBuild,
      provisional: committed ? "refused" : "allowed",
    },
    minimumTcb: {
      reported: floor(report.reportedTcb),
      // Where only committed firmware passes, this one cannot be lower than the others.
      committed: committed ? null : floor(report.committedTcb),
      launch: floor(report.launchTcb),
    },
  }
  return { source, snp, tdx: null, ...NOTHING_ELSE }
}

/** Who signed the launch has to have signed the next one, too. Where nobody did, the measurement is enough. */
function signerOf({ idKeyDigest, authorKeyDigest, authorKeyEnabled }: SnpReport): LaunchSigner {
  const signed = idKeyDigest.some((byte) => byte !== 0)
  return {
    requireIdBlock: signed,
    requireAuthorKey: signed && authorKeyEnabled,
    trustedIdKeys: signed && !authorKeyEnabled ? [idKeyDigest] : [],
    trustedAuthorKeys: signed && authorKeyEnabled ? [authorKeyDigest] : [],
  }
}

/** Whether the host may not go back to older firmware than it runs. */
function isCommitted(report: SnpReport): boolean {
  const current = { major: report.currentMajor, minor: report.currentMinor }
  const committed = { major: report.committedMajor, minor: report.committedMinor }
  return (
    compareVersions(current, committed) === 0 &&
    report.currentBuild === report.committedBuild &&
    Buffer.compare(report.currentTcb, report.committedTcb) === 0
  )
}

/** As {@link policyOfUnverifiedReport}, of a TDX quote. RTMR 3, which applications extend, and the
 * TDX module's measurement, which changes with its updates, are left out; the module's version is in the least TEE_TCB_SVN. */
export function policyOfUnverifiedQuote({ header, body }: TdxQuote, source: string): AttestationPolicy {
  const [rtmr0, rtmr1, rtmr2] = body.rtmrs
  const one = (value: Uint8Array | undefined) => (value === undefined ? null : [value])
  return {
    source,
    snp: null,
    tdx: {
      ...ANY_TDX,
      mrTds: [body.mrTd],
      mrConfigIds: [body.mrConfigId],
      mrOwners: [body.mrOwner],
      mrOwnerConfigs: [body.mrOwnerConfig],
      rtmrs: [one(rtmr0), one(rtmr1), one(rtmr2), null],
      qeVendorIds: [header.qeVendorId],
      tdAttributes: body.tdAttributes,
      xfam: body.xfam,
      debug: (body.tdAttributes & (1n << TD_ATTRIBUTE.debug)) === 0n ? "refused" : "allowed",
      minimumTeeTcbSvn: body.teeTcbSvn,
    },
    ...NOTHING_ELSE,
  }
}
