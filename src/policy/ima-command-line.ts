import { printable } from "../formats/path-text.ts"
import { areProven, commandLinesOf } from "./boot-command-line.ts"
import type { BootLog } from "./boot-log.ts"
import { nameOf, wordsOf } from "./command-line-rules.ts"
import { type ImaArguments, type KnownImaPolicy, knownImaPolicy } from "./ima-coverage.ts"

/**
 * What the kernel measures with `ima_policy=tcb` until it is given another policy. The other words of `ima_policy=` measure no file:
 * appraise_tcb and secure_boot only appraise, and critical_data is about data. Rules that an architecture adds come after these.
 * Source: Linux 6.12, security/integrity/ima/ima_policy.c, dont_measure_rules and default_measurement_rules; magic.h.
 */
const TCB = `
dont_measure fsmagic=0x9fa0
dont_measure fsmagic=0x62656572
dont_measure fsmagic=0x64626720
dont_measure fsmagic=0x01021994
dont_measure fsmagic=0x1cd1
dont_measure fsmagic=0x42494e4d
dont_measure fsmagic=0x73636673
dont_measure fsmagic=0xf97cff8c
dont_measure fsmagic=0x43415d53
dont_measure fsmagic=0x27e0eb
dont_measure fsmagic=0x63677270
dont_measure fsmagic=0x6e736673
dont_measure fsmagic=0xde5e81e4
measure func=MMAP_CHECK mask=MAY_EXEC
measure func=BPRM_CHECK mask=MAY_EXEC
measure func=FILE_CHECK mask=^MAY_READ euid=0
measure func=FILE_CHECK mask=^MAY_READ uid=0
measure func=MODULE_CHECK
measure func=FIRMWARE_CHECK
measure func=POLICY_CHECK
`
const CRITICAL_DATA = "measure func=CRITICAL_DATA\n"

/** Arguments that tell what IMA does. */
const NAMES: readonly string[] = [
  "ima_policy",
  "ima_tcb",
  "ima_hash",
  "ima_template",
  "ima_template_fmt",
  "ima_appraise",
]
/** For people; a command line may be longer. */
const MAX_SHOWN = 500

/**
 * IMA's arguments on the kernel's command line; null where no text of it is proven. What counts is what every text has that may be
 * the command line.
 * @param initrds as in the policy's `[boot.command_line]`.
 */
export function imaArgumentsOf(log: BootLog, initrds: readonly Uint8Array[] = []): ImaArguments | null {
  const lines =
    log.state === "read" ? commandLinesOf(log.events, { text: log.claimedCommandLine, initrds }) : null
  if (!areProven(lines)) return null
  const lists = lines.texts.map((text) => wordsOf(text).kernel)
  const shown = new Set(lists.flat().filter((word) => NAMES.includes(nameOf(word))))
  const policies = lists.map(builtInPolicy)
  const weakest = policies.includes("tcb") ? BUILT_IN.tcb : BUILT_IN["tcb|critical_data"]
  return {
    text: printable([...shown].join(" ").slice(0, MAX_SHOWN)),
    builtIn: policies.includes(null) ? null : weakest,
  }
}

const BUILT_IN = {
  tcb: builtIn("ima_policy=tcb", TCB),
  "tcb|critical_data": builtIn("ima_policy=tcb|critical_data", `${TCB}${CRITICAL_DATA}`),
} as const

function builtIn(name: string, rules: string): KnownImaPolicy {
  return knownImaPolicy(`the kernel's own (${name})`, new TextEncoder().encode(rules))
}

/**
 * The kernel's own rules that are in force as long as the list shows no load of others. Null: a load would not have been measured,
 * or more arguments than these came from elsewhere. Source: Linux 6.12, ima_policy.c (policy_setup); init/main.c for bootconfig.
 */
function builtInPolicy(words: readonly string[]): keyof typeof BUILT_IN | null {
  // Older rules, which do not measure loads. The kernel takes whatever begins so.
  if (words.some((word) => nameOf(word).startsWith("ima_tcb") || nameOf(word) === "bootconfig")) return null
  const chosen = words
    .filter((word) => nameOf(word) === "ima_policy" && word.includes("="))
    .flatMap((word) => word.slice(word.indexOf("=") + 1).split(/[ |\n]/))
  if (!chosen.includes("tcb")) return null
  return chosen.includes("critical_data") ? "tcb|critical_data" : "tcb"
}
