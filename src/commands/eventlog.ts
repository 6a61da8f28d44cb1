import { defineCommand } from "citty"
import { BANKS } from "../verify/event-log.ts"
import { meta } from "./command.ts"

const json = { type: "boolean", description: "print one JSON object on standard output" } as const

const logFile = {
  type: "positional",
  required: true,
  valueHint: "FILE",
  description: "the event log; - is standard input",
} as const

const FORMS =
  "FILE is a TPM's log (/sys/kernel/security/tpm0/binary_bios_measurements, crypto-agile or of the older form) or that of a trust domain (/sys/firmware/acpi/tables/data/CCEL), plain or compressed with gzip or zstd."

const showCommand = defineCommand({
  meta: meta({
    name: "show",
    description: "print the events of an event log",
    details: [
      FORMS,
      "Nothing is verified: what is shown is what the file says. For each event it is told whether its digest covers its data (data), a text or value in them (text), or something that is not in the log (-), as the content of a file. WRONG: the digest has to be that of the data, and is not; the exit code then is 15.",
    ],
    examples: [
      {
        line: "cosmian_vm eventlog show /sys/kernel/security/tpm0/binary_bios_measurements",
        does: "on the VM: what was booted",
      },
      { line: "cosmian_vm eventlog show --json ccel.bin.gz", does: "for a program" },
    ],
  }),
  args: { file: logFile, json },
  async run({ args }) {
    const { showEventLog } = await import("./eventlog-show.ts")
    return showEventLog(args.file, args.json === true)
  },
})

const replayCommand = defineCommand({
  meta: meta({
    name: "replay",
    description: "compute the PCRs or RTMRs that an event log gives",
    details: [
      FORMS,
      "With --pcrs, each register that the log measures into is compared with the value there. Exit code 15: one of them differs, none can be compared, an event names a register that does not exist, or its digest has to be that of its data and is not. An operating system may measure more after the log has ended, into PCR 8 and above.",
    ],
    examples: [
      { line: "cosmian_vm eventlog replay log.bin --bank sha256", does: "PCRs of one bank" },
      {
        line: "tpm2_pcrread > pcrs.txt; cosmian_vm eventlog replay /sys/kernel/security/tpm0/binary_bios_measurements --pcrs pcrs.txt",
        does: "on the VM: whether log and TPM agree",
      },
      { line: "cosmian_vm eventlog replay ccel.bin --json", does: "RTMR0 to RTMR3, for a program" },
    ],
  }),
  args: {
    file: logFile,
    bank: {
      type: "enum",
      options: [...BANKS],
      description: "the bank to compute; all that the log has digests for unless said",
    },
    pcrs: {
      type: "string",
      valueHint: "FILE",
      description:
        "values to compare with: JSON by bank and number or by number alone, or what tpm2_pcrread prints",
    },
    json,
  },
  async run({ args }) {
    const { replayEventLogFile } = await import("./eventlog-replay.ts")
    return replayEventLogFile({
      file: args.file,
      bank: args.bank ?? null,
      pcrs: args.pcrs ?? null,
      json: args.json === true,
    })
  },
})

/** Event logs by themselves: shown and replayed. */
export const eventLogCommand = defineCommand({
  meta: meta({
    name: "eventlog",
    description: "look into the log of what firmware and boot loader measured",
    details: [
      "For a whole VM there is verify. These commands are for one event log in a file: to see what is in it, and why verify says what it says.",
    ],
    examples: [
      { line: "cosmian_vm eventlog show log.bin", does: "each event" },
      {
        line: "cosmian_vm eventlog replay log.bin --pcrs pcrs.json",
        does: "whether it gives the TPM's PCRs",
      },
    ],
  }),
  subCommands: { show: showCommand, replay: replayCommand },
})
