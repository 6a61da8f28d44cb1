/** What sealing to a PCR means for somebody who wants the volume to open again tomorrow. */
interface PcrMeaning {
  /** What is measured into it. */
  readonly holds: string
  /** What changes it: `update` with ordinary updates of the VM, `rare` with firmware or keys, `never` while the VM runs as it is. */
  readonly changes: "update" | "rare" | "always" | "anybody"
  /** In words, after "changes". */
  readonly when: string
}

/**
 * Source: TCG PC Client Platform Firmware Profile, version 1.05, section "PCR Usage"; UAPI Group, Linux TPM PCR Registry, for PCRs
 * 8 to 16 as boot loaders, kernel and systemd use them.
 */
const MEANINGS: Readonly<Record<number, PcrMeaning>> = {
  0: { holds: "firmware code", changes: "rare", when: "when the cloud operator updates the firmware" },
  1: {
    holds: "firmware settings, machine shape",
    changes: "rare",
    when: "when the VM gets other virtual hardware",
  },
  2: { holds: "code on extension cards", changes: "rare", when: "when the VM gets other virtual hardware" },
  3: {
    holds: "settings of extension cards",
    changes: "rare",
    when: "when the VM gets other virtual hardware",
  },
  4: {
    holds: "boot loader, or kernel image",
    changes: "update",
    when: "with each update of boot loader or kernel",
  },
  5: {
    holds: "boot loader settings, partition table",
    changes: "update",
    when: "when partitions or boot entries change",
  },
  6: { holds: "nothing on most machines", changes: "rare", when: "hardly ever" },
  7: {
    holds: "Secure Boot keys and state",
    changes: "rare",
    when: "when Secure Boot keys or revocations are updated",
  },
  8: {
    holds: "GRUB's commands and kernel command line",
    changes: "update",
    when: "when the command line or GRUB's configuration changes",
  },
  9: {
    holds: "files that the boot loader read: kernel, initrd",
    changes: "update",
    when: "with each update of kernel or initrd",
  },
  10: { holds: "IMA's list of what ran", changes: "always", when: "with every program that runs" },
  11: {
    holds: "unified kernel image, boot phases",
    changes: "update",
    when: "with each update of the kernel image, and during boot",
  },
  12: {
    holds: "kernel command line given to a unified image",
    changes: "update",
    when: "when the command line changes",
  },
  13: { holds: "system extensions", changes: "update", when: "when system extensions change" },
  14: { holds: "shim's certificates (MOK)", changes: "rare", when: "when machine owner keys change" },
  15: {
    holds: "machine identity, volume keys",
    changes: "update",
    when: "when systemd opens other volumes at boot",
  },
  16: { holds: "debugging", changes: "anybody", when: "whenever somebody resets it" },
  23: { holds: "applications", changes: "anybody", when: "whenever somebody resets it" },
}

/** One sentence of advice before an enrolment. `refuse`: an enrolment that could not open at the next boot, or proves nothing. */
export interface PcrAdvice {
  readonly pcr: number
  readonly weight: "note" | "warning" | "refuse"
  readonly text: string
}

/**
 * What somebody should know before a secret is sealed to these PCRs.
 * @param values of the SHA-256 bank, 32 bytes each, in the order of `pcrs`.
 */
export function advisePcrs(pcrs: readonly number[], values: readonly Uint8Array[]): PcrAdvice[] {
  return pcrs.map((pcr, index) => {
    const meaning = MEANINGS[pcr]
    const value = values[index]
    if (meaning?.changes === "always")
      return {
        pcr,
        weight: "refuse",
        text: `PCR ${pcr} (${meaning.holds}) changes ${meaning.when}: the volume would not open a second time`,
      }
    if (meaning === undefined || meaning.changes === "anybody" || pcr > 15)
      return {
        pcr,
        weight: "refuse",
        text: `PCR ${pcr} can be reset by whoever runs in the VM: sealing to it proves nothing`,
      }
    if (value !== undefined && isBlank(value))
      return {
        pcr,
        weight: "warning",
        text: `PCR ${pcr} (${meaning.holds}) holds nothing on this machine: sealing to it proves nothing here`,
      }
    return {
      pcr,
      weight: meaning.changes === "update" ? "warning" : "note",
      text: `PCR ${pcr} (${meaning.holds}) changes ${meaning.when}: then the volume opens with its password only, until fstool enroll is run again`,
    }
  })
}

/** For `--help`: one line for each PCR that can be chosen. */
export function pcrHelp(): string[] {
  return Object.entries(MEANINGS)
    .filter(([, { changes }]) => changes === "update" || changes === "rare")
    .map(([pcr, { holds, when }]) => `${pcr}: ${holds}; changes ${when}`)
}

/** Never extended since the TPM started. */
function isBlank(value: Uint8Array): boolean {
  return value.every((byte) => byte === 0) || value.every((byte) => byte === 0xff)
}
