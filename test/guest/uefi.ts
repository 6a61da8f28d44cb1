/**
 * Starts by UEFI firmware, without and with Secure Boot, by a boot loader and by a unified kernel image: their event logs beside the
 * TPM's quotes, and rules on them.
 */
import { X509Certificate } from "node:crypto"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { parseSavedEvidence } from "../../src/formats/saved-evidence.ts"
import { mustRun, run } from "./command.ts"
import { KERNEL_ARGUMENTS, KERNEL_FILE, type UefiFirmware } from "./guest.ts"
import type { GuestImage } from "./image.ts"
import { agentInfo } from "./provision.ts"
import { expectEqual, expectExit, type Scene, type Step, takeSnapshot, verified } from "./scene.ts"

const EXECUTABLE = join(import.meta.dir, "..", "..", "dist", "cosmian_vm")
/** Debian's firmware in which only system management mode writes to the variables. */
const CODE = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
/** No keys: Secure Boot is off. */
const VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd"
/** Debian's test key as platform key, key exchange key and only signer: Secure Boot is on. */
const SECURE_VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
const KEY = "/usr/share/ovmf/PkKek-1-snakeoil.key"
const KEY_PASSWORD = "snakeoil"
const CERTIFICATE = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
const LOADER = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
/** Turns a kernel and its command line into one program. */
const STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
const EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
/** What the second start has on its command line beside the rest. */
const ADDED_WORD = "printk.time=1"

const COMMAND_LINE_RULES = `[boot.command_line]
required = ["root=/dev/nvme0n1", "ima_policy=tcb"]
forbidden = ["init=*", "printk.time=*"]
`

/**
 * Signs the loader and the image's kernel, and puts them into a directory that the firmware starts from; beside it another one, with
 * a unified kernel image alone.
 */
export async function prepareFirmware(image: GuestImage, directory: string): Promise<UefiFirmware> {
  const systemPartition = join(directory, "system-partition")
  mkdirSync(join(systemPartition, "EFI", "BOOT"), { recursive: true })
  const key = join(directory, "signer.key")
  await mustRun(["openssl", "pkey", "-in", KEY, "-passin", `pass:${KEY_PASSWORD}`, "-out", key])
  const sign = (program: string, to: string) =>
    mustRun(["sbsign", "--key", key, "--cert", CERTIFICATE, "--output", to, program])
  await sign(LOADER, join(systemPartition, "EFI", "BOOT", "BOOTX64.EFI"))
  await sign(image.kernel, join(systemPartition, KERNEL_FILE))
  const unified = unifiedPartition(directory)
  mkdirSync(join(unified, "EFI", "BOOT"), { recursive: true })
  await sign(await unify(image.kernel, directory), join(unified, "EFI", "BOOT", "BOOTX64.EFI"))
  return { code: CODE, variables: VARIABLES, systemPartition }
}

function unifiedPartition(directory: string): string {
  return join(directory, "unified-partition")
}

/** A unified kernel image, not signed yet: sections behind those of the stub, where systemd's own tools put them. */
async function unify(kernel: string, directory: string): Promise<string> {
  const [commandLine, image] = [join(directory, "cmdline"), join(directory, "unified.efi")]
  writeFileSync(commandLine, KERNEL_ARGUMENTS.join(" "))
  const section = (name: string, file: string, address: string) => [
    ...["--add-section", `${name}=${file}`, "--change-section-vma", `${name}=${address}`],
  ]
  const sections = [...section(".cmdline", commandLine, "0x30000"), ...section(".linux", kernel, "0x2000000")]
  await mustRun(["objcopy", ...sections, STUB, image])
  return image
}

export const UEFI_STEPS: readonly Step[] = [
  ["UEFI: the firmware's log gives the values of the TPM", logGivesPcrs],
  ["UEFI: snapshot, verify, rules on the command line", commandLinePasses],
  [
    "UEFI: without Secure Boot its rules fail",
    (s) => judged(s, secureBootRules(), ["ERR_BOOT_SECURE_BOOT", "ERR_BOOT_AUTHORITY"]),
  ],
  ["UEFI: Secure Boot and another command line are named as events", changesAreNamed],
  ["UEFI: Secure Boot is proven, with its signer", secureBootIsProven],
  ["UEFI: a unified kernel image: the command line inside it is proven", unifiedImageIsJudged],
]

/** The log as it was read by ssh, beside what the kernel says of the TPM's registers. */
async function logGivesPcrs({ guest, directory }: Scene): Promise<void> {
  const [log, pcrs] = [join(directory, "log.bin"), join(directory, "pcrs.txt")]
  writeFileSync(log, Buffer.from(await guest.mustShell(`base64 -w0 ${EVENT_LOG}`), "base64"))
  const values = await guest.mustShell(
    'for pcr in $(seq 0 7) 9 12; do echo "  $pcr : 0x$(cat /sys/class/tpm/tpm0/pcr-sha256/$pcr)"; done',
  )
  const replay = async (text: string) => {
    writeFileSync(pcrs, `sha256:\n${text}`)
    return (await run([EXECUTABLE, "eventlog", "replay", log, "--pcrs", pcrs])).code
  }
  expectEqual("eventlog replay", await replay(values), EXIT.ok)
  expectEqual("with the values of PCR 4 and 9 exchanged", await replay(exchanged(values)), EXIT.boot)
  const shown = await run([EXECUTABLE, "eventlog", "show", log])
  expectExit(shown, EXIT.ok)
  for (const text of ["Secure Boot: off", `//${KERNEL_FILE}`, "ima_policy=tcb"])
    if (!shown.stdout.includes(text)) throw new Error(`no ${text} in\n${shown.stdout}`)
}

function exchanged(values: string): string {
  return values.replace("  4 :", "  x :").replace("  9 :", "  4 :").replace("  x :", "  9 :")
}

async function commandLinePasses(scene: Scene): Promise<void> {
  await agentInfo(scene.guest)
  await takeSnapshot(scene)
  await verified(scene, EXIT.ok)
  await judged(scene, COMMAND_LINE_RULES, [])
}

/** Against the snapshot of the start before. */
async function changesAreNamed(scene: Scene): Promise<void> {
  await scene.guest.reboot({ kernelArguments: [ADDED_WORD], firmwareVariables: SECURE_VARIABLES })
  await agentInfo(scene.guest)
  const claims = await verified(scene, EXIT.boot, ["--accept-reboot"])
  const subjects = claims.flatMap(({ findings }) => findings.map(({ subject }) => subject))
  for (const pcr of [7, 12])
    if (!subjects.some((subject) => subject.startsWith(`PCR ${pcr}, event `)))
      throw new Error(`no event of PCR ${pcr} among ${subjects.join("; ")}`)
}

async function secureBootIsProven(scene: Scene): Promise<void> {
  await takeSnapshot(scene)
  await judged(scene, secureBootRules(), [])
  await judged(scene, `[boot]\nauthority = ["${"00".repeat(32)}"]\n`, ["ERR_BOOT_AUTHORITY"])
  await judged(scene, COMMAND_LINE_RULES, ["ERR_BOOT_COMMAND_LINE"])
}

/** Nothing but the kernel's own measurement tells that command line. */
async function unifiedImageIsJudged(scene: Scene): Promise<void> {
  await scene.guest.reboot({ systemPartition: unifiedPartition(scene.directory) })
  await agentInfo(scene.guest)
  await takeSnapshot(scene)
  await judged(scene, COMMAND_LINE_RULES, [])
  await judged(scene, '[boot.command_line]\nforbidden = ["no_timer_check"]\n', ["ERR_BOOT_COMMAND_LINE"])
  const saved = join(scene.directory, "unified.evidence")
  await verified(scene, EXIT.ok, ["--save-evidence", saved])
  const { kernelCommandLine = new Uint8Array(0) } = parseSavedEvidence(readFileSync(saved)).evidence
  const shown = new TextDecoder().decode(kernelCommandLine)
  expectEqual("command line", shown, `${KERNEL_ARGUMENTS.join(" ")}\n`)
}

function secureBootRules(): string {
  const signer = new X509Certificate(readFileSync(CERTIFICATE)).fingerprint256
  return `[boot]\nsecure_boot = true\nauthority = ["${signer}"]\ndb = ["${signer}"]\n`
}

/** Verifies by a policy with these rules. @param codes of the findings, all of them about the boot; none: it passes. */
async function judged(scene: Scene, rules: string, codes: readonly string[]): Promise<void> {
  const policy = join(scene.directory, "policy.toml")
  writeFileSync(policy, rules)
  const claims = await verified(scene, codes.length === 0 ? EXIT.ok : EXIT.boot, ["--policy", policy])
  const found = claims.filter(({ status }) => status === "failed").flatMap(({ findings }) => findings)
  expectEqual(
    "findings",
    found.map(({ code }) => code),
    codes,
  )
}
