import { createHash, type KeyObject, sign } from "node:crypto"
import { encodeSnpReport, parseSnpReport, type SnpReportFields } from "../formats/snp/report.ts"
import { encodeTcb, type SnpProduct, type Tcb } from "../formats/snp/tcb.ts"

/** The chip and launch that a simulated report speaks of. */
export interface SimulatedChip {
  readonly product: SnpProduct
  /** The VCEK's private key, P-384. */
  readonly key: KeyObject
  /** As in the VCEK certificate: 64 bytes, or 8 for Turin. */
  readonly hwId: Uint8Array
  readonly tcb: Tcb
  /** SHA-384 of what was launched. */
  readonly measurement: Uint8Array
  /** 32 bytes, new with each start of the VM. */
  readonly reportId: Uint8Array
}

const CPU = {
  Milan: { family: 0x19, model: 0x01, stepping: 0x01 },
  Genoa: { family: 0x19, model: 0x11, stepping: 0x01 },
  Turin: { family: 0x1a, model: 0x02, stepping: 0x01 },
} as const satisfies Record<SnpProduct, SnpReportFields["cpuid"]>

/**
 * Makes and signs a version 3 report, as the firmware of a real chip would.
 * @param request.reportData 64 bytes. @param request.overrides fields that differ from those of an ordinary VM.
 * @throws ParseError ERR_MALFORMED where a field does not fit
 */
export function signSimulatedReport(
  chip: SimulatedChip,
  request: {
    readonly reportData: Uint8Array
    readonly vmpl?: number
    readonly overrides?: Partial<SnpReportFields>
  },
): Uint8Array {
  const unsigned = encodeSnpReport({
    ...ordinaryFields(chip),
    reportData: request.reportData,
    vmpl: request.vmpl ?? 0,
    ...request.overrides,
  })
  return signReport(unsigned, chip.key)
}

/** Puts a new signature by `key` on the report's bytes. */
export function signReport(report: Uint8Array, key: KeyObject): Uint8Array {
  const { signedBytes, ...fields } = parseSnpReport(report)
  const signature = sign("sha384", signedBytes, { key, dsaEncoding: "ieee-p1363" })
  return encodeSnpReport({
    ...fields,
    signatureR: scalar(signature.subarray(0, 48)),
    signatureS: scalar(signature.subarray(48)),
  })
}

/**
 * The measurement of a simulated launch: stable for one chip and what is launched on it, different for another.
 * @param launched anything that stands for firmware and kernel; empty unless somebody changed them.
 */
export function simulatedMeasurement(hwId: Uint8Array, launched: Uint8Array = new Uint8Array(0)): Uint8Array {
  const hash = createHash("sha384").update("simulated launch\0").update(hwId).update(launched)
  return Uint8Array.from(hash.digest())
}

function ordinaryFields(chip: SimulatedChip): Omit<SnpReportFields, "reportData"> {
  const tcb = encodeTcb(chip.tcb, chip.product)
  const chipId = new Uint8Array(64)
  chipId.set(chip.hwId)
  return {
    version: 3,
    guestSvn: 0,
    policy: 0x30000n, // SMT allowed, and the bit that is always one
    familyId: new Uint8Array(16),
    imageId: new Uint8Array(16),
    vmpl: 0,
    signatureAlgo: 1,
    currentTcb: tcb,
    platformInfo: 0x25n, // SMT and ECC on, alias check done
    flags: 0,
    measurement: chip.measurement,
    hostData: new Uint8Array(32),
    idKeyDigest: new Uint8Array(48),
    authorKeyDigest: new Uint8Array(48),
    reportId: chip.reportId,
    reportIdMa: new Uint8Array(32).fill(0xff),
    reportedTcb: tcb,
    cpuid: CPU[chip.product],
    chipId,
    committedTcb: tcb,
    currentBuild: 29,
    currentMinor: 55,
    currentMajor: 1,
    committedBuild: 29,
    committedMinor: 55,
    committedMajor: 1,
    launchTcb: tcb,
    launchMitVector: null,
    currentMitVector: null,
    signatureR: new Uint8Array(72),
    signatureS: new Uint8Array(72),
  }
}

/** 48 bytes big-endian to the report's 72 little-endian. */
function scalar(bigEndian: Uint8Array): Uint8Array {
  const field = new Uint8Array(72)
  field.set(bigEndian.toReversed())
  return field
}
