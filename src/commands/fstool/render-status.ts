import { CATALOGUE } from "../../errors.ts"
import { printable } from "../../formats/path-text.ts"
import { size } from "../progress.ts"
import type { Style } from "../terminal.ts"
import type { KeyslotStatus, VolumeStatus } from "./status.ts"

/** The volumes as people read them. */
export function renderStatus(volumes: readonly VolumeStatus[], style: Style): string {
  if (volumes.length === 0) return "no volumes on this machine\n"
  return volumes.map((volume) => renderVolume(volume, style)).join("\n")
}

function renderVolume(volume: VolumeStatus, style: Style): string {
  const lines = [`${style.bold(volume.name)}  ${stateOf(volume, style)}`]
  const part = (name: string, value: string) => lines.push(`  ${name.padEnd(12)} ${printable(value)}`)
  const bytes = volume.container_bytes === null ? "missing" : size(volume.container_bytes)
  part("container", `${volume.container} (${bytes})`)
  part("header", volume.header)
  part("mount point", `${volume.mount_point}${volume.at_boot ? ", at boot" : ""}`)
  if (volume.file_system !== null) {
    const { kind, bytes: all, free_bytes } = volume.file_system
    part("file system", `${kind}, ${size(free_bytes)} of ${size(all)} free`)
  }
  if (volume.luks !== null) {
    const { luks } = volume
    part("encryption", `${luks.cipher}, sectors of ${luks.sector_bytes} bytes`)
    part("integrity", luks.integrity ?? "none: tampering with the data is not noticed")
    part("TPM knows it", { yes: "yes", no: "no", "no-tpm": "there is no TPM" }[luks.remembered_by_tpm])
    for (const keyslot of luks.keyslots) part(`keyslot ${keyslot.slot}`, keyslotText(keyslot))
  }
  if (volume.problem !== null) {
    const { code, message, hint } = volume.problem
    lines.push(`  ${style.red(code)}: ${printable(message)}`)
    if (hint !== undefined) part("what to do", hint)
  }
  return `${lines.join("\n")}\n`
}

function stateOf({ open, mounted, problem }: VolumeStatus, style: Style): string {
  if (problem !== null) return style.red(CATALOGUE[problem.code].title)
  if (mounted) return style.green("mounted")
  return open ? style.yellow("open, not mounted") : "closed"
}

function keyslotText({ opens_with, kdf, pcrs, pin, token_format }: KeyslotStatus): string {
  if (opens_with !== "tpm") return `${opens_with === "password" ? "password" : "recovery key"} (${kdf})`
  const condition =
    pcrs === undefined || pcrs.length === 0
      ? "at any boot of this VM"
      : `while PCRs ${pcrs.join(", ")} are the same`
  return `TPM, ${condition}${pin === true ? ", with a PIN" : ""}; ${token_format}`
}
