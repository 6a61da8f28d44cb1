import { createHmac } from "node:crypto"
import { parseSnpReport } from "../formats/snp/report.ts"
import type { DerivedKeyField, DerivedKeyRequest } from "./ports.ts"
import { type SimulatedChip, signSimulatedReport } from "./simulated-report.ts"

/**
 * The key that a simulated chip derives, 32 bytes: it depends on the chip's secret and on what the request selects, as that of a
 * real one does.
 */
export function deriveSimulatedKey(chip: SimulatedChip, request: DerivedKeyRequest): Uint8Array {
  const report = parseSnpReport(signSimulatedReport(chip, { reportData: new Uint8Array(64) }))
  const values: Readonly<Record<DerivedKeyField, Uint8Array>> = {
    policy: u64(report.policy),
    "image-id": report.imageId,
    "family-id": report.familyId,
    measurement: report.measurement,
    "guest-svn": u64(BigInt(request.guestSvn)),
    tcb: u64(request.tcbVersion),
  }
  const secret = chip.key.export({ type: "pkcs8", format: "der" })
  const mac = createHmac("sha256", secret).update(`simulated ${request.rootKey}\0`)
  for (const [field, value] of Object.entries(values))
    if (request.fields.some((selected) => selected === field)) mac.update(`${field}\0`).update(value)
  return new Uint8Array(mac.digest())
}

function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value, true)
  return bytes
}
