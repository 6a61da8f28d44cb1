import { existsSync } from "node:fs"
import { entriesOf, openConfigfsTsm, openTdxGuest, TSM_PATH } from "./configfs-tsm.ts"
import type { AnyReport, ReportDevice, TdxReport } from "./ports.ts"
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

/**
 * The machine's TEE where its kernel has a device for it: configfs-tsm (its provider says whether SEV-SNP or TDX), else
 * /dev/sev-guest. Null on a machine without; behind Azure's paravisor there is none either.
 * @throws NativeError ERR_SNP_DEVICE
 */
export async function openTeeDevice(
  options: { readonly sevGuestPath?: string; readonly tsmPath?: string } = {},
): Promise<ReportDevice<AnyReport> | null> {
  return (await openTdxDevice(options)) ?? openReportDevice(options)
}

/** The machine's device for TDX quotes, or null on a machine that is no trust domain. @throws NativeError ERR_SNP_DEVICE */
export function openTdxDevice(
  options: { readonly tsmPath?: string } = {},
): Promise<ReportDevice<TdxReport> | null> {
  return openTdxGuest(entriesOf(options.tsmPath ?? TSM_PATH))
}
