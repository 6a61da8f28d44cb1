import { existsSync } from "node:fs"
import { entriesOf, openConfigfsTsm, TSM_PATH } from "./configfs-tsm.ts"
import type { ReportDevice } from "./ports.ts"
import { openSevGuest, SEV_GUEST_PATH } from "./sev-guest.ts"

/**
 * The machine's device for attestation reports: configfs-tsm where the kernel has it, else /dev/sev-guest; null on a
 * machine without SEV-SNP. A device that is there but may not be used is an error, not an absence.
 * @throws NativeError ERR_SNP_DEVICE
 */
export async function openReportDevice(
  options: { readonly sevGuestPath?: string; readonly tsmPath?: string } = {},
): Promise<ReportDevice | null> {
  const tsm = await openConfigfsTsm(entriesOf(options.tsmPath ?? TSM_PATH))
  if (tsm !== null) return tsm
  const sevGuest = options.sevGuestPath ?? SEV_GUEST_PATH
  return existsSync(sevGuest) ? openSevGuest(sevGuest) : null
}
