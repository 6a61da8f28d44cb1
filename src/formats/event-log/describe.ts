import { CodedError } from "../../errors.ts"
import type { ShownRecord } from "../describe/shown.ts"
import { toHex } from "../hex.ts"
import { devicePathText } from "./device-path.ts"
import {
  EFI_VENDOR,
  type EfiVariable,
  guidText,
  looksLikeUtf16,
  parseEfiVariable,
  takeUtf16,
  utf8Text,
  utf16Text,
} from "./efi.ts"
import { EVENT_TYPE, type LogEvent } from "./event-log.ts"
import { LogReader } from "./log-reader.ts"
import { grubText } from "./measured-data.ts"
import { authorityCertificate, parseSignatureDatabase, type SignerCertificate } from "./signatures.ts"

/** What an event is about, for people. Everything in it comes from the log and may be hostile text. */
export interface EventDescription {
  /** `kernel command line`, `boot loader`. */
  readonly what: string
  /** Its value or name; empty where there is none. */
  readonly value: string
  /** More of what the data say, for programs. */
  readonly details: ShownRecord
}

const NOTHING: ShownRecord = {}

/** One line for an event: `kernel command line: root=/dev/vda1 ro`. */
export function descriptionText({ what, value }: EventDescription): string {
  return value === "" ? what : `${what}: ${value}`
}

/** Describes an event by its type. Data that do not have the form of the type are shown as such; nothing is thrown. */
export function describeEvent(event: LogEvent): EventDescription {
  try {
    return describeKnown(event)
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    return { what: "data of another form", value: rawText(event.data), details: NOTHING }
  }
}

function describeKnown(event: LogEvent): EventDescription {
  const { type, data } = event
  switch (type) {
    case EVENT_TYPE.EV_NO_ACTION:
      return noAction(data)
    case EVENT_TYPE.EV_SEPARATOR:
      return plain("separator", separatorText(data))
    case EVENT_TYPE.EV_S_CRTM_VERSION:
      return plain("firmware version", looksLikeUtf16(data) ? utf16Text(data) : rawText(data))
    case EVENT_TYPE.EV_ACTION:
    case EVENT_TYPE.EV_EFI_ACTION:
    case EVENT_TYPE.EV_OMIT_BOOT_DEVICE_EVENTS:
      return plain("action", utf8Text(data))
    case EVENT_TYPE.EV_EFI_VARIABLE_DRIVER_CONFIG:
    case EVENT_TYPE.EV_EFI_VARIABLE_BOOT:
    case EVENT_TYPE.EV_EFI_VARIABLE_BOOT2:
      return variable(parseEfiVariable(data))
    case EVENT_TYPE.EV_EFI_VARIABLE_AUTHORITY:
      return authority(parseEfiVariable(data))
    case EVENT_TYPE.EV_EFI_BOOT_SERVICES_APPLICATION:
      return image("boot loader or kernel", data)
    case EVENT_TYPE.EV_EFI_BOOT_SERVICES_DRIVER:
    case EVENT_TYPE.EV_EFI_RUNTIME_SERVICES_DRIVER:
      return image("driver", data)
    case EVENT_TYPE.EV_EFI_GPT_EVENT:
    case EVENT_TYPE.EV_EFI_GPT_EVENT2:
      return partitionTable(data)
    case EVENT_TYPE.EV_EFI_PLATFORM_FIRMWARE_BLOB:
      return blob("firmware volume", data)
    case EVENT_TYPE.EV_EFI_PLATFORM_FIRMWARE_BLOB2:
      return namedBlob("firmware volume", data)
    case EVENT_TYPE.EV_POST_CODE:
      return isText(data) ? plain("firmware", utf8Text(data)) : blob("firmware", data)
    case EVENT_TYPE.EV_S_CRTM_CONTENTS:
      return plain("start of the firmware", rawText(data))
    case EVENT_TYPE.EV_EFI_HANDOFF_TABLES2:
      return namedBlob("firmware tables", data)
    case EVENT_TYPE.EV_EFI_HANDOFF_TABLES:
      return plain("firmware tables", "")
    case EVENT_TYPE.EV_PLATFORM_CONFIG_FLAGS:
      return plain("platform configuration", isText(data) ? utf8Text(data) : "")
    case EVENT_TYPE.EV_TABLE_OF_DEVICES:
      return plain("table of devices", isText(data) ? utf8Text(data) : "")
    case EVENT_TYPE.EV_CPU_MICROCODE:
      return plain("processor microcode", isText(data) ? utf8Text(data) : "")
    case EVENT_TYPE.EV_NONHOST_CODE:
    case EVENT_TYPE.EV_NONHOST_CONFIG:
    case EVENT_TYPE.EV_NONHOST_INFO:
      return plain("another processor of the platform", isText(data) ? utf8Text(data) : "")
    case EVENT_TYPE.EV_EVENT_TAG:
      return tagged(data)
    case EVENT_TYPE.EV_IPL:
      return byLoader(event)
    case EVENT_TYPE.EV_IPL_PARTITION_DATA:
      return plain("partition data", rawText(data))
    default:
      return plain("event", rawText(data))
  }
}

function plain(what: string, value: string, details = NOTHING): EventDescription {
  return { what, value, details }
}

/** Source: PFP 1.06, section 10.4.5 "EV_NO_ACTION Event Types". */
function noAction(data: Uint8Array): EventDescription {
  const signature = utf8Text(data.subarray(0, 16))
  if (signature === "StartupLocality") return plain("startup locality", `${data[16] ?? 0}`)
  if (/^Spec ID Event0[023]$/.test(signature)) return plain("form of the log", signature)
  if (signature.startsWith("SP800-155 Event")) return plain("reference manifest of the firmware", signature)
  return plain("note", rawText(data))
}

function separatorText(data: Uint8Array): string {
  const value = data.length === 4 ? toHex(data) : ""
  if (value === "00000000" || value === "ffffffff") return ""
  return `error ${rawText(data)}`
}

const ON_OFF: ReadonlySet<string> = new Set(["SecureBoot", "SetupMode", "AuditMode", "DeployedMode"])
const DATABASES: Readonly<Record<string, string>> = {
  PK: "platform key (PK)",
  KEK: "key exchange keys (KEK)",
  db: "allowed signers (db)",
  dbx: "forbidden signers and programs (dbx)",
  dbr: "recovery signers (dbr)",
  dbt: "time stamp signers (dbt)",
}

function variable({ vendor, name, value }: EfiVariable): EventDescription {
  const global = vendor === EFI_VENDOR.global
  const details = { vendor, name, value: toHex(value.subarray(0, 64)), size: value.length }
  if (global && ON_OFF.has(name))
    return plain(
      name === "SecureBoot" ? "Secure Boot" : name,
      value.length !== 1 ? "not set" : value[0] === 1 ? "on" : "off",
      details,
    )
  const database = DATABASES[name]
  if (database !== undefined && (global || vendor === EFI_VENDOR.imageSecurity))
    return signers(database, value, details)
  if (global && name === "BootOrder") return plain("boot order", bootOrder(value), details)
  if (global && /^Boot[0-9A-F]{4}$/.test(name)) return bootOption(name, value, details)
  if (vendor === EFI_VENDOR.shim && name === "SbatLevel") return plain("SbatLevel", sbatText(value), details)
  return plain(`variable ${name}`, value.length <= 16 ? toHex(value) : `${value.length} bytes`, details)
}

function signers(what: string, value: Uint8Array, details: ShownRecord): EventDescription {
  const { certificates, hashes, others } = parseSignatureDatabase(value)
  const parts = [
    ...certificates.map(signerText),
    ...(hashes > 0 ? [`${hashes} digests of programs`] : []),
    ...(others > 0 ? [`${others} entries of other kinds`] : []),
  ]
  const shown = { ...details, certificates: certificates.map(shownSigner), hashes, others }
  return plain(what, parts.join(", ") || "empty", shown)
}

function signerText({ name, fingerprint }: SignerCertificate): string {
  return name ?? `certificate ${toHex(fingerprint.subarray(0, 8))}`
}

function shownSigner({ name, fingerprint }: SignerCertificate): ShownRecord {
  return { name, sha256: toHex(fingerprint) }
}

function authority({ vendor, name, value }: EfiVariable): EventDescription {
  const details = { vendor, name, size: value.length }
  const certificate = authorityCertificate(value)
  if (certificate !== null)
    return plain(`signer that let something start (${name})`, signerText(certificate), {
      ...details,
      certificate: shownSigner(certificate),
    })
  if (name === "SbatLevel") return plain("SbatLevel", sbatText(value), details)
  return plain(`reason that let something start (${name})`, value.length <= 16 ? toHex(value) : "", details)
}

function sbatText(value: Uint8Array): string {
  return utf8Text(value).replaceAll("\n", " ").trim()
}

function bootOrder(value: Uint8Array): string {
  const numbers: string[] = []
  for (let at = 0; at + 2 <= Math.min(value.length, 512); at += 2)
    numbers.push(((value[at + 1] ?? 0) * 256 + (value[at] ?? 0)).toString(16).padStart(4, "0").toUpperCase())
  return numbers.join(", ")
}

/** Source: UEFI 2.10, section 3.1.3 "Load Options", structure EFI_LOAD_OPTION. */
function bootOption(name: string, value: Uint8Array, details: ShownRecord): EventDescription {
  const reader = new LogReader(value, "boot option")
  reader.u32("attributes")
  const pathSize = reader.u16("size of the path")
  const label = takeUtf16(reader, "description")
  const path = devicePathText(reader.take(pathSize, "path"))
  return plain(`boot option ${name.slice(4)}`, `${label}, ${path}`, { ...details, label, path })
}

/** Source: PFP 1.06, section 10.2.3 "UEFI_IMAGE_LOAD_EVENT Structure". */
function image(what: string, data: Uint8Array): EventDescription {
  const reader = new LogReader(data, "image")
  reader.take(8, "address")
  const size = reader.u64("size")
  reader.take(8, "link address")
  const path = devicePathText(reader.take(reader.u64("size of the path"), "path"))
  return plain(what, path, { path, size })
}

/** Source: PFP 1.06, section 10.2.6; UEFI 2.10, section 5.3 "GUID Partition Table (GPT) Disk Layout". */
function partitionTable(data: Uint8Array): EventDescription {
  const reader = new LogReader(data, "partition table")
  const header = reader.take(92, "header")
  const entrySize = header[84] ?? 0
  const count = reader.u64("number of partitions")
  const partitions: ShownRecord[] = []
  for (let index = 0; index < count && entrySize >= 128; index++) {
    const entry = reader.take(entrySize, "partition")
    partitions.push({
      type: guidText(entry.subarray(0, 16)),
      id: guidText(entry.subarray(16, 32)),
      name: utf16Text(entry.subarray(56, 128)),
    })
  }
  const disk = guidText(header.subarray(56, 72))
  return plain("partition table", `disk ${disk}, ${count} partitions`, { disk, partitions })
}

/** Source: PFP 1.06, section 10.2.5 "UEFI_PLATFORM_FIRMWARE_BLOB Structure". */
function blob(what: string, data: Uint8Array): EventDescription {
  const reader = new LogReader(data, "firmware blob")
  const base = reader.u64("address")
  const size = reader.u64("size")
  return plain(what, `${size} bytes at 0x${base.toString(16)}`, { base, size })
}

function namedBlob(what: string, data: Uint8Array): EventDescription {
  const size = data[0] ?? 0
  return plain(what, utf8Text(data.subarray(1, 1 + size)))
}

/** Of the Linux EFI stub. Source: Linux 6.12, drivers/firmware/efi/libstub/efistub.h and efi-stub-helper.c. */
const LINUX_TAGS: ReadonlyMap<number, string> = new Map([
  [0x8f3b22ec, "initial RAM disk"],
  [0x8f3b22ed, "kernel command line"],
])
/** Of systemd. Source: systemd 256, src/fundamental/tpm2-pcr.h. */
const SYSTEMD_TAGS: ReadonlyMap<number, string> = new Map([
  [0xf5bc582a, "systemd-boot's configuration"],
  [0x6c46f751, "device tree addon of the unified kernel image"],
  [0x49dffe0f, "initial RAM disk addon of the unified kernel image"],
  [0xdac08e1a, "microcode addon of the unified kernel image"],
  [0x13aed6db, "profile of the unified kernel image"],
])

/** Source: PFP 1.06, section 10.2.9 "TCG_PCClientTaggedEvent Structure". */
function tagged(data: Uint8Array): EventDescription {
  const reader = new LogReader(data, "tagged event")
  const tag = reader.u32("tag")
  const content = reader.take(reader.u32("size"), "content")
  const id = `0x${tag.toString(16).padStart(8, "0")}`
  const text = looksLikeUtf16(content) ? utf16Text(content) : rawText(content)
  const linux = LINUX_TAGS.get(tag)
  // Content and text are not in the log: only a name, which is always the same.
  if (linux !== undefined) return plain(`${linux}, as the kernel's EFI stub got it`, "", { tag: id })
  return plain(SYSTEMD_TAGS.get(tag) ?? `tagged event ${id}`, text, { tag: id })
}

/** Sections of unified kernel images. Source: UAPI Group, "Unified Kernel Image (UKI)", section "UKI Components". */
const UKI_SECTIONS: Readonly<Record<string, string>> = {
  ".linux": "kernel",
  ".osrel": "name of the operating system",
  ".cmdline": "kernel command line",
  ".initrd": "initial RAM disk",
  ".ucode": "processor microcode",
  ".splash": "boot image",
  ".dtb": "device tree",
  ".uname": "kernel version",
  ".sbat": "SBAT",
  ".pcrpkey": "key for PCR signatures",
  ".profile": "profile",
}
const SHIM_LISTS: ReadonlySet<string> = new Set([
  "MokList",
  "MokListX",
  "MokListTrusted",
  "MokListRT",
  "MokSBState",
  "MokDBState",
])

/** What boot loaders measure, each in its own way: GRUB, shim, systemd-boot and systemd-stub. */
function byLoader(event: LogEvent): EventDescription {
  const { data } = event
  const grub = grubText(event)
  if (grub !== null) return plain(grub.label, utf8Text(grub.text))
  const text = looksLikeUtf16(data) ? utf16Text(data) : rawText(data)
  const section = UKI_SECTIONS[text]
  if (section !== undefined) return plain(`${section} of the unified kernel image`, text)
  if (SHIM_LISTS.has(text)) return plain("shim's settings", text)
  if (looksLikeUtf16(data)) return plain("command line or settings of the boot loader", text)
  return plain(fileKind(text), text)
}

/** What a file is by its name, which is only a claim: its content is what was measured. */
function fileKind(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1)
  if (/^(vmlinu|bzImage|linux)|Kernel$/.test(name)) return "kernel"
  if (/^(initr|initramfs)|Initrd$/.test(name)) return "initial RAM disk"
  if (name === "grub.cfg") return "GRUB's configuration"
  if (name === "grubenv") return "GRUB's environment"
  if (name.endsWith(".mod")) return "GRUB module"
  if (/\/loader\/entries\//.test(path)) return "boot entry"
  return path.startsWith("/") || path.startsWith("(") ? "file read by the boot loader" : "boot loader"
}

/** Longest piece of data that is shown as it is. */
const SHOWN_BYTES = 64

function isText(data: Uint8Array): boolean {
  const text = data.at(-1) === 0 ? data.subarray(0, -1) : data
  return text.length > 0 && text.every((byte) => byte >= 0x20 && byte !== 0x7f)
}

function rawText(data: Uint8Array): string {
  if (isText(data)) return utf8Text(data)
  return data.length > SHOWN_BYTES ? `${toHex(data.subarray(0, SHOWN_BYTES))}…` : toHex(data)
}
