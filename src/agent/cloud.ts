import { readFileSync } from "node:fs"
import { join } from "node:path"

/** Asset tag that Azure gives all its virtual machines. */
const AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"

/**
 * Which cloud this machine runs in, by what its firmware says about the maker; null where that is none of the three.
 * A hint for people, no proof: the host chooses these texts.
 * @param directory the kernel's DMI attributes.
 */
export function detectCloud(directory: string): "AWS" | "Azure" | "GCP" | null {
  const vendor = dmi(directory, "sys_vendor")
  if (vendor === "Amazon EC2" || dmi(directory, "bios_vendor") === "Amazon EC2") return "AWS"
  if (vendor === "Google" || dmi(directory, "product_name") === "Google Compute Engine") return "GCP"
  if (vendor === "Microsoft Corporation" && dmi(directory, "chassis_asset_tag") === AZURE_ASSET_TAG)
    return "Azure"
  return null
}

function dmi(directory: string, attribute: string): string {
  try {
    return readFileSync(join(directory, attribute), "latin1").trim()
  } catch {
    // Not every machine has DMI, nor every attribute: then nothing is known.
    return ""
  }
}
