import { CodedError } from "../errors.ts"
import { EFI_VENDOR } from "../formats/event-log/efi.ts"
import {
  authorityCertificate,
  parseSignatureDatabase,
  type SignatureDatabase,
  type SignerCertificate,
} from "../formats/event-log/signatures.ts"
import { bytesEqual, toHex } from "../formats/hex.ts"
import type { BootEvents } from "../verify/event-log.ts"
import type { Verified } from "../verify/verified.ts"
import type { OneOf } from "./attestation-policy.ts"
import { areProven, type CommandLines, commandLinesOf } from "./boot-command-line.ts"
import type { BootExpectations, CommandLineExpectations } from "./boot-expectations.ts"
import { type MeasuredVariable, measuredVariables, RULE_REGISTERS, secureBootState } from "./boot-facts.ts"
import type { BootLog } from "./boot-log.ts"
import { commandLineFaults } from "./command-line-rules.ts"
import { mismatch } from "./policy-findings.ts"
import type { Finding } from "./verdict.ts"

/**
 * What a policy does not accept of the events of a boot. A requirement that no log can show is not met.
 * @param logs each of them has to meet all requirements; where there is none, nothing is met.
 */
export function bootEventFindings(boot: BootExpectations | null, logs: readonly BootLog[]): Finding[] {
  if (boot === null) return []
  if (logs.length === 0) return [absentLog("nothing that vouches for one")]
  return logs.flatMap((log) => {
    if (log.state === "absent") return [absentLog(log.reason)]
    if (log.state === "wrong") return [absentLog("one that was altered, or is damaged")]
    return [
      ...(boot.secureBoot || boot.authorities !== null ? secureBootFindings(log.events) : []),
      ...authorityFindings(log.events, boot.authorities),
      ...databaseFindings(log.events, boot.db),
      ...commandLineFindings(log, boot.commandLine),
    ]
  })
}

function absentLog(found: string): Finding {
  return mismatch(
    "ERR_EVENT_LOG_ABSENT",
    "event log",
    "the log of what firmware and boot loader measured",
    found,
    {
      meaning: "the policy asks for events of the boot, and nothing shows which there were",
      remedy: "boot the VM by firmware that keeps an event log, or leave [boot] out of the policy",
    },
  )
}

const ASK_OWNER = "if this was meant, change the policy; otherwise do not trust this VM"

function secureBootFindings(events: Verified<BootEvents>): Finding[] {
  const state = secureBootState(events)
  if (state === "on") return []
  const register = registerText(events)
  const found =
    state === "off" ? "off, or open to a debugger" : `the event log does not show it (${register})`
  return [
    mismatch("ERR_BOOT_SECURE_BOOT", "Secure Boot", "on", found, {
      meaning:
        state === "off"
          ? "the firmware started programs without checking who signed them"
          : "nothing proves that the firmware checked who signed what it started",
      remedy: "turn Secure Boot on in the VM's firmware",
    }),
  ]
}

/**
 * What shim and firmware measure beside who signed what was started: which versions are revoked, lists of signers, switches, boot
 * options. By what was measured: the type of the event was not.
 */
function isSetting({ vendor, name, value }: MeasuredVariable): boolean {
  if (name === "SbatLevel") return Buffer.from(value.subarray(0, 5)).toString("latin1") === "sbat,"
  if (vendor === EFI_VENDOR.global && /^Boot(?:Order|[0-9A-F]{4})$/.test(name)) return true
  return value.length <= 1 || readDatabase(value) !== null
}

function authorityFindings(events: Verified<BootEvents>, allowed: OneOf): Finding[] {
  if (allowed === null) return []
  const found = measuredVariables(events)
  const authorities = found?.variables.filter((variable) => !isSetting(variable)) ?? []
  if (found === null || found.unproven > 0 || authorities.length === 0)
    return [
      mismatch(
        "ERR_BOOT_AUTHORITY",
        "who signed what was started",
        "events that name each signer",
        found === null
          ? `the event log does not give ${registerText(events)}`
          : found.unproven > 0
            ? `${found.unproven} whose data were not measured`
            : "none",
        { meaning: "nothing proves who signed what was started", remedy: ASK_OWNER },
      ),
    ]
  return authorities.flatMap((variable) => {
    const certificate = authorityCertificate(variable.value)
    return notAllowed(certificate, allowed)
      ? [
          mismatch(
            "ERR_BOOT_AUTHORITY",
            `event ${variable.position}`,
            fingerprintsText(allowed),
            certificate === null
              ? `an entry of ${variable.name} that is no certificate`
              : signerText(certificate),
            { meaning: "something was started that another signer vouches for", remedy: ASK_OWNER },
          ),
        ]
      : []
  })
}

function databaseFindings(events: Verified<BootEvents>, allowed: OneOf): Finding[] {
  if (allowed === null) return []
  const databases =
    measuredVariables(events)?.variables.filter(
      ({ vendor, name, byFirmware, value }) =>
        byFirmware && vendor === EFI_VENDOR.imageSecurity && name === "db" && readDatabase(value) !== null,
    ) ?? []
  if (databases.length === 0)
    return [
      mismatch("ERR_BOOT_DB", "db", "the firmware's list of signers", "not in the event log", {
        meaning: "nothing proves which signers the firmware accepts",
        remedy: ASK_OWNER,
      }),
    ]
  return databases.flatMap(({ value }) =>
    othersIn(value, allowed).map((other) =>
      mismatch("ERR_BOOT_DB", "db", fingerprintsText(allowed), other, {
        meaning: "the firmware accepts programs that others vouch for",
        remedy: ASK_OWNER,
      }),
    ),
  )
}

/** Entries of a signature database that are not in a list. */
function othersIn(value: Uint8Array, allowed: readonly Uint8Array[]): string[] {
  const database = readDatabase(value)
  if (database === null) return ["a list that cannot be read"]
  const { certificates, hashes, others } = database
  return [
    ...certificates.filter((certificate) => notAllowed(certificate, allowed)).map(signerText),
    ...(hashes > 0 ? [`${hashes} digests of programs`] : []),
    ...(others > 0 ? [`${others} entries of other kinds`] : []),
  ]
}

function readDatabase(value: Uint8Array): SignatureDatabase | null {
  try {
    return parseSignatureDatabase(value)
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

function notAllowed(certificate: SignerCertificate | null, allowed: readonly Uint8Array[]): boolean {
  return certificate === null || !allowed.some((known) => bytesEqual(known, certificate.fingerprint))
}

function signerText({ name, fingerprint }: SignerCertificate): string {
  return name === null ? toHex(fingerprint) : `${name}, ${toHex(fingerprint)}`
}

function fingerprintsText(allowed: readonly Uint8Array[]): string {
  return allowed.length === 1 ? allowed.map(toHex).join() : `one of ${allowed.map(toHex).join(", ")}`
}

function commandLineFindings(
  { events, claimedCommandLine: text }: Extract<BootLog, { state: "read" }>,
  expected: CommandLineExpectations,
): Finding[] {
  if (expected.required.length === 0 && expected.forbidden.length === 0) return []
  const lines = commandLinesOf(events, { text, initrds: expected.initrds })
  if (!areProven(lines)) return [unknownLine(events, lines)]
  return lines.texts.flatMap((text) =>
    commandLineFaults(text, expected).map(({ pattern, rule, word }) =>
      mismatch(
        "ERR_BOOT_COMMAND_LINE",
        "kernel command line",
        rule === "required" ? pattern : `nothing like ${pattern}`,
        word ?? text,
        {
          meaning:
            rule === "forbidden"
              ? "the kernel was started with an argument that the policy forbids"
              : word === null
                ? "the kernel was started without an argument that the policy asks for"
                : "another argument of the same name may override the one that the policy asks for",
          remedy: "correct the boot loader's configuration in the VM and reboot it, or change the policy",
        },
      ),
    ),
  )
}

function unknownLine(events: Verified<BootEvents>, lines: CommandLines | null): Finding {
  const registers = RULE_REGISTERS[events.kind].commandLine.join(" and ")
  const name = events.kind === "tcg" ? "PCR" : "RTMR"
  return mismatch(
    "ERR_BOOT_COMMAND_LINE_UNKNOWN",
    "kernel command line",
    "a text that boot loader or kernel measured",
    lines === null
      ? `the event log does not give ${name} ${registers}`
      : lines.unproven > 0
        ? `${lines.unproven} events of ${name} ${registers} whose text was not measured`
        : lines.inImage
          ? "a unified kernel image, whose own command line is not proven"
          : "none in the event log",
    {
      meaning: "nothing proves which arguments the kernel was started with",
      remedy:
        "use a boot loader that measures the command line (GRUB, systemd-boot), or a kernel that does (see docs/boot.md), or leave the rule out",
    },
  )
}

function registerText({ kind }: Verified<BootEvents>): string {
  return kind === "tcg" ? `PCR ${RULE_REGISTERS.tcg.secureBoot}` : `RTMR${RULE_REGISTERS.cc.secureBoot}`
}
