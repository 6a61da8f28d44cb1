import { createHash, generateKeyPairSync } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ascii, concat, u16, u32 } from "../formats/event-log/bytes.ts"
import { EFI_VENDOR } from "../formats/event-log/efi.ts"
import { type EncodedEvent, encodeEventLog } from "../formats/event-log/encode.ts"
import { EVENT_TYPE } from "../formats/event-log/event-log.ts"
import { CERT_X509 } from "../formats/event-log/signatures.ts"
import { efiGuid } from "../formats/snp/launch/guid.ts"
import { authorityExtensions, encodeCertificate, SIMULATED } from "./simulated-certificates.ts"

/** One thing that the simulated firmware or boot loader measures. */
export interface SimulatedMeasurement {
  readonly pcr: number
  readonly type: number
  /** What is hashed. */
  readonly measured: Uint8Array
  /** What the log says about it. */
  readonly data: Uint8Array
}

/** Banks that the log has digests for; the software TPM has more. */
const LOG_BANKS = ["sha1", "sha256", "sha384"] as const
const DEFAULT_COMMAND_LINE = "root=/dev/vda1 ro quiet ima_policy=tcb ima_hash=sha256 ima_template=ima-ng\n"
const KERNEL = "/boot/vmlinuz-simulated"
const INITRD = "/boot/initrd.img-simulated"
const OWNER = "77fa9abd-0359-4d32-bd60-28f4e78f784b"
const DISK = "51d0da7a-0000-4000-8000-000000000001"
const PARTITION = "51d0da7a-0000-4000-8000-000000000002"
const ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"

/** The log as the kernel would show it. @param root of the simulated machine. */
export function simulatedLogPath(root: string): string {
  return join(root, "firmware", "event-log")
}

/** What the kernel shows that it was started with, as a file. @param root of the simulated machine. */
export function simulatedCommandLinePath(root: string): string {
  return join(root, "firmware", "proc-cmdline")
}

/**
 * What a machine with UEFI firmware, boot loader and Linux measures while it boots, in order. Some of it are files in `root` that
 * one may tamper with before a start: `cmdline` (the kernel command line), `initrd` (content of the initial RAM disk), `secure-boot`
 * (`on` or `off`) and `boot-loader` (`grub`, or `none`: the firmware starts the kernel itself).
 */
export function simulatedBoot(root: string): SimulatedMeasurement[] {
  const commandLine = setting(root, "cmdline", DEFAULT_COMMAND_LINE).trim()
  const initrd = ascii(setting(root, "initrd", "content of the initial RAM disk\n"))
  const loaded =
    setting(root, "boot-loader", "grub\n").trim() === "none"
      ? byStub(commandLine, initrd)
      : byGrub(commandLine, initrd)
  const secureBoot = setting(root, "secure-boot", "on\n").trim() !== "off"
  const signer = signerOf(root)
  const entry = concat(efiGuid(OWNER), signer)
  const list = concat(efiGuid(CERT_X509), u32(28 + entry.length), u32(0), u32(entry.length), entry)
  const global = EFI_VENDOR.global
  const images = EFI_VENDOR.imageSecurity
  const config = (vendor: string, name: string, value: Uint8Array) =>
    same(7, EVENT_TYPE.EV_EFI_VARIABLE_DRIVER_CONFIG, variable(vendor, name, value))
  const authority = same(7, EVENT_TYPE.EV_EFI_VARIABLE_AUTHORITY, variable(images, "db", entry))
  return [
    same(0, EVENT_TYPE.EV_S_CRTM_VERSION, utf16(`${SIMULATED} firmware 1`)),
    other(0, EVENT_TYPE.EV_EFI_PLATFORM_FIRMWARE_BLOB, concat(u64(0x820000), u64(0xe0000)), "firmware code"),
    config(global, "SecureBoot", Uint8Array.of(secureBoot ? 1 : 0)),
    config(global, "PK", list),
    config(global, "KEK", list),
    config(images, "db", list),
    config(images, "dbx", new Uint8Array(0)),
    separator(7),
    bootVariable("BootOrder", Uint8Array.of(0, 0)),
    bootVariable("Boot0000", loadOption()),
    same(4, EVENT_TYPE.EV_EFI_ACTION, ascii("Calling EFI Application from Boot Option")),
    ...[0, 1, 2, 3, 4, 5, 6].map(separator),
    ...(secureBoot ? [authority] : []),
    same(5, EVENT_TYPE.EV_EFI_GPT_EVENT, partitionTable()),
    ...loaded,
    same(5, EVENT_TYPE.EV_EFI_ACTION, ascii("Exit Boot Services Invocation")),
    same(5, EVENT_TYPE.EV_EFI_ACTION, ascii("Exit Boot Services Returned with Success")),
  ]
}

function byGrub(commandLine: string, initrd: Uint8Array): SimulatedMeasurement[] {
  return [
    other(4, EVENT_TYPE.EV_EFI_BOOT_SERVICES_APPLICATION, imageLoad(loaderPath()), "boot loader"),
    file("(hd0,gpt1)/boot/grub/grub.cfg", ascii("configuration")),
    grub("grub_cmd", `linux ${KERNEL} ${commandLine}`),
    file(KERNEL, ascii("kernel")),
    grub("kernel_cmdline", `${KERNEL} ${commandLine}`),
    grub("grub_cmd", `initrd ${INITRD}`),
    file(INITRD, initrd),
  ]
}

/** The kernel as a program of the firmware. Source: Linux 6.12, drivers/firmware/efi/libstub/efi-stub-helper.c. */
function byStub(commandLine: string, initrd: Uint8Array): SimulatedMeasurement[] {
  const tagged = (tag: number, name: string, measured: Uint8Array): SimulatedMeasurement => ({
    pcr: 9,
    type: EVENT_TYPE.EV_EVENT_TAG,
    measured,
    data: concat(u32(tag), u32(name.length + 1), ascii(`${name}\0`)),
  })
  return [
    other(4, EVENT_TYPE.EV_EFI_BOOT_SERVICES_APPLICATION, imageLoad(loaderPath()), "kernel"),
    tagged(0x8f3b22ed, "LOADED_IMAGE::LoadOptions", utf16(commandLine)),
    tagged(0x8f3b22ec, "Linux initrd", initrd),
  ]
}

/** Writes the log of what was measured, and the command line as the kernel shows it. */
export function writeSimulatedLog(root: string, measurements: readonly SimulatedMeasurement[]): void {
  const events = measurements.map(
    ({ pcr, type, measured, data }): EncodedEvent => ({
      register: pcr,
      type,
      data,
      digests: new Map(
        LOG_BANKS.map((bank) => [bank, new Uint8Array(createHash(bank).update(measured).digest())]),
      ),
    }),
  )
  mkdirSync(join(root, "firmware"), { recursive: true, mode: 0o700 })
  writeFileSync(simulatedLogPath(root), encodeEventLog(LOG_BANKS, events), { mode: 0o600 })
  writeFileSync(simulatedCommandLinePath(root), `${readFileSync(join(root, "cmdline"), "utf8").trim()}\n`)
}

function setting(root: string, name: string, initial: string): string {
  const path = join(root, name)
  if (!existsSync(path)) writeFileSync(path, initial, { mode: 0o600 })
  return readFileSync(path, "utf8")
}

/** The certificate of whoever signs boot loaders here: made at the first start. Its key is thrown away. */
function signerOf(root: string): Uint8Array {
  const path = join(root, "firmware", "db.der")
  if (!existsSync(path)) {
    const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
    const name = `${SIMULATED} Secure Boot signer`
    const now = new Date()
    mkdirSync(join(root, "firmware"), { recursive: true, mode: 0o700 })
    const der = encodeCertificate({
      subject: name,
      issuer: name,
      publicKey,
      issuerKey: privateKey,
      notBefore: now,
      notAfter: new Date(now.getTime() + 20 * 365 * 24 * 3600 * 1000),
      extensions: authorityExtensions(null),
    })
    writeFileSync(path, der, { mode: 0o600 })
  }
  return new Uint8Array(readFileSync(path))
}

/** Where the data themselves are measured. */
function same(pcr: number, type: number, data: Uint8Array): SimulatedMeasurement {
  return { pcr, type, measured: data, data }
}

/** Where the data only describe what was measured. */
function other(pcr: number, type: number, data: Uint8Array, content: string): SimulatedMeasurement {
  return { pcr, type, measured: ascii(`${SIMULATED} ${content}`), data }
}

function separator(pcr: number): SimulatedMeasurement {
  return same(pcr, EVENT_TYPE.EV_SEPARATOR, new Uint8Array(4))
}

function grub(label: string, text: string): SimulatedMeasurement {
  return { pcr: 8, type: EVENT_TYPE.EV_IPL, measured: ascii(text), data: ascii(`${label}: ${text}\0`) }
}

function file(path: string, measured: Uint8Array): SimulatedMeasurement {
  return { pcr: 9, type: EVENT_TYPE.EV_IPL, measured, data: ascii(`${path}\0`) }
}

/** As EDK II does it: the value alone is measured. */
function bootVariable(name: string, value: Uint8Array): SimulatedMeasurement {
  const data = variable(EFI_VENDOR.global, name, value)
  return { pcr: 1, type: EVENT_TYPE.EV_EFI_VARIABLE_BOOT, measured: value, data }
}

function variable(vendor: string, name: string, value: Uint8Array): Uint8Array {
  return concat(efiGuid(vendor), u64(name.length), u64(value.length), utf16(name).subarray(0, -2), value)
}

function loadOption(): Uint8Array {
  const path = loaderPath()
  return concat(u32(1), u16(path.length), utf16(`${SIMULATED} Linux`), path)
}

/** HD(1,GPT,…)/EFI/simulated/grubx64.efi */
function loaderPath(): Uint8Array {
  const partition = concat(u32(1), u64(2048), u64(204800), efiGuid(PARTITION), Uint8Array.of(2, 2))
  return concat(
    pathNode(4, 1, partition),
    pathNode(4, 4, utf16("\\EFI\\simulated\\grubx64.efi")),
    pathNode(0x7f, 0xff, new Uint8Array(0)),
  )
}

function pathNode(type: number, subtype: number, body: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(type, subtype), u16(4 + body.length), body)
}

function imageLoad(path: Uint8Array): Uint8Array {
  return concat(u64(0x7e000000), u64(2_000_000), u64(0), u64(path.length), path)
}

function partitionTable(): Uint8Array {
  const header = new Uint8Array(92)
  header.set(ascii("EFI PART"))
  header.set(efiGuid(DISK), 56)
  header.set(u32(128), 84)
  const entry = new Uint8Array(128)
  entry.set(concat(efiGuid(ESP), efiGuid(PARTITION), u64(2048), u64(206847)))
  entry.set(utf16("EFI System Partition"), 56)
  return concat(header, u64(1), entry)
}

function utf16(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(`${text}\0`, "utf16le"))
}

function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true)
  return bytes
}
