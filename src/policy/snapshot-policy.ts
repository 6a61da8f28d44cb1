import { UsageError } from "../errors.ts"
import { fromHex } from "../formats/hex.ts"
import { SNP_PLATFORM_INFO } from "../formats/snp/report.ts"
import { SNP_PRODUCTS, type SnpProduct, tcbComponents } from "../formats/snp/tcb.ts"
import {
  ANY_SNP,
  ANY_TDX,
  type AttestationPolicy,
  type ExpectedProduct,
  type OneOf,
  PLACEHOLDER,
  type PlatformBounds,
  type ProductFloors,
  type SnpExpectations,
  type TcbFloor,
  type TdxExpectations,
  type TpmExpectations,
} from "./attestation-policy.ts"
import { exactGuestPolicy, maskOf } from "./guest-policy.ts"
import { littleEndian } from "./policy-values.ts"
import type { SevPolicy, Snapshot, TdxPolicy, TdxReference, TeeReference, TpmReference } from "./snapshot.ts"
import { snpReferenceIn, tdxReferenceIn } from "./snapshot-tee.ts"

const RETAKE = "take a new snapshot of the VM"

/**
 * What a snapshot expects of TEE and TPM. What it leaves out is not compared, save the measurement: a snapshot without one fits
 * no report. REPORT_DATA and REPORT_ID belong to one request and one run, and are never compared.
 * @param source name for messages.
 * @throws UsageError ERR_POLICY where `tee_policy` cannot be understood, or is for SGX
 */
export function policyOfSnapshot(snapshot: Snapshot, source = "the snapshot"): AttestationPolicy {
  const { tee_policy, tee_reference, tpm_reference } = snapshot
  if (tee_policy !== null && "Sgx" in tee_policy)
    throw new UsageError("ERR_POLICY", {
      at: `${source}: tee_policy`,
      expected: "Sev or Tdx",
      found: "Sgx",
      hint: "an SGX enclave is no VM",
    })
  return {
    source,
    snp:
      tee_policy !== null && "Sev" in tee_policy
        ? snpOf(tee_policy.Sev, snpReferenceIn(tee_reference), source)
        : null,
    tdx:
      tee_policy !== null && "Tdx" in tee_policy
        ? tdxOf(tee_policy.Tdx, tdxReferenceIn(tee_reference))
        : null,
    tpm: tpm_reference === null ? null : tpmOf(tpm_reference),
    boot: null,
    ima: null,
    trust: { requireRevocation: false, offline: false },
    notes: [],
  }
}

function snpOf(sev: SevPolicy, ours: TeeReference | null, source: string): SnpExpectations {
  const product = ours === null ? null : productOf(ours, source)
  const floors = (levels: Readonly<Record<string, number>> | undefined): ProductFloors =>
    product === null || levels === undefined
      ? null
      : { [product.product]: floorOf(levels, product.product, source) }
  return {
    ...ANY_SNP,
    products: product === null ? null : [product],
    measurements: hexOrNull(sev.measurement) ?? [PLACEHOLDER],
    hostData: ours === null ? null : hexOrNull(ours.host_data),
    familyIds: hexOrNull(sev.family_id),
    imageIds: hexOrNull(sev.image_id),
    idKeyDigests: hexOrNull(sev.id_key_digest),
    authorKeyDigests: hexOrNull(sev.author_key_digest),
    vmpls: ours === null ? null : [ours.vmpl],
    minimumGuestSvn: sev.guest_svn ?? 0,
    guestPolicy: sev.policy === null ? ANY_SNP.guestPolicy : exactGuestPolicy(BigInt(sev.policy)),
    platform: ours?.platform_info === undefined ? ANY_SNP.platform : platformOf(BigInt(ours.platform_info)),
    minimumTcb: {
      reported: floors(ours?.reported_tcb),
      committed: floors(ours?.committed_tcb),
      launch: floors(ours?.launch_tcb),
    },
  }
}

function productOf({ product }: TeeReference, source: string): ExpectedProduct {
  const known = SNP_PRODUCTS.find((candidate) => candidate === product)
  if (known !== undefined) return { product: known, stepping: null }
  throw malformed(`${source}: tee_reference.product`, SNP_PRODUCTS.join(", "), product)
}

function floorOf(levels: Readonly<Record<string, number>>, product: SnpProduct, source: string): TcbFloor {
  const known: readonly string[] = tcbComponents(product)
  const unknown = Object.keys(levels).find((component) => !known.includes(component))
  if (unknown !== undefined)
    throw malformed(`${source}: tee_reference`, `components ${known.join(", ")}`, unknown)
  return { ...levels }
}

/** Protections that the host had must still be there; SMT may go, and must not come. */
function platformOf(info: bigint): PlatformBounds {
  const { smtEnabled, ...protections } = SNP_PLATFORM_INFO
  const smt = maskOf([smtEnabled])
  return {
    allowed: (ANY_SNP.platform.allowed & ~smt) | (info & smt),
    required: info & maskOf(Object.values(protections)),
  }
}

function tpmOf({ ak_name, pcrs }: TpmReference): TpmExpectations {
  const values = Object.entries(pcrs).map(
    ([pcr, value]) => [Number(pcr), [fromHex(value) ?? new Uint8Array(0)]] as const,
  )
  return { akNames: hexOrNull(ak_name), pcrs: { sha256: new Map(values) } }
}

/** RTMR3 is written to while the TD runs, and never compared. */
function tdxOf({ header, body }: TdxPolicy, ours: TdxReference | null): TdxExpectations {
  return {
    ...ANY_TDX,
    minimumQeSvn: header.minimum_qe_svn ?? 0,
    minimumPceSvn: header.minimum_pce_svn ?? 0,
    qeVendorIds: hexOrNull(header.qe_vendor_id),
    minimumTeeTcbSvn: bytesOrNull(body.minimum_tee_tcb_svn),
    mrSeams: hexOrNull(body.mr_seam),
    tdAttributes: integerOf(bytesOrNull(body.td_attributes)),
    xfam: integerOf(bytesOrNull(body.xfam)),
    mrTds: hexOrNull(body.mr_td) ?? [PLACEHOLDER],
    mrConfigIds: hexOrNull(body.mr_config_id),
    mrOwners: hexOrNull(body.mr_owner),
    mrOwnerConfigs: hexOrNull(body.mr_owner_config),
    rtmrs:
      ours === null
        ? ANY_TDX.rtmrs
        : [hexOrNull(ours.rtmr0), hexOrNull(ours.rtmr1), hexOrNull(ours.rtmr2), null],
  }
}

function bytesOrNull(text: string | null): Uint8Array | null {
  return text === null ? null : fromHex(text)
}

function hexOrNull(text: string | null): OneOf {
  if (text === null) return null
  return [fromHex(text) ?? PLACEHOLDER]
}

function malformed(at: string, expected: string, found: string): UsageError {
  return new UsageError("ERR_POLICY", { at, expected, found: found.slice(0, 80), hint: RETAKE })
}

function integerOf(bytes: Uint8Array | null): bigint | null {
  return bytes === null ? null : littleEndian(bytes)
}
