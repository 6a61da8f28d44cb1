/** One virtual machine: QEMU without hardware acceleration, a software TPM, root by ssh over loopback. */
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type CommandOptions, type CommandResult, mustRun, run, tail, waitFor } from "./command.ts"
import { GUEST_NAME, type GuestImage } from "./image.ts"
import { authorityCertificates, startVirtualTpm, type VirtualTpm } from "./vtpm.ts"

export interface GuestOptions {
  readonly image: GuestImage
  /** Directory of this run: disk overlay, TPM state, logs. Made where absent. */
  readonly directory: string
  /** Directory whose files are on a second disk of the guest, `PAYLOAD_DEVICE`; null: no such disk. */
  readonly payload: string | null
  /** TCP ports of the guest that the host reaches over loopback; 22 is always among them. */
  readonly ports: readonly number[]
  /** UEFI instead of SeaBIOS; absent: SeaBIOS. */
  readonly firmware?: UefiFirmware
  /**
   * `instructions`: the guest has one processor, and its clock counts the instructions that this executes, one nanosecond each, whatever
   * else the machine does. Slow. Absent: the machine's clock.
   */
  readonly clock?: "instructions"
}

/** UEFI firmware of a guest, and what it starts: a disk with systemd-boot and the kernel, instead of QEMU's own way to start one. */
export interface UefiFirmware {
  /** Code, in flash memory that is not written to. */
  readonly code: string
  /** Variables; each run has a copy of its own. */
  readonly variables: string
  /**
   * Directory that the guest has as its EFI system partition, with `EFI/BOOT/BOOTX64.EFI` and `KERNEL_FILE`. The loader's entry, with
   * the command line, is written into it.
   */
  readonly systemPartition: string
}

/** What is different at the next boot. */
export interface BootChanges {
  /** Added to the kernel's command line, for this boot. */
  readonly kernelArguments?: readonly string[]
  /** The disk finds itself in a machine with another TPM, from now on. */
  readonly otherTpm?: boolean
  /** Other variables of the firmware, from now on. */
  readonly firmwareVariables?: string
  /** Another EFI system partition, from now on. */
  readonly systemPartition?: string
}

const MEMORY_MB = 1536
const BOOT_TIMEOUT_MS = 240_000
/** A boot by instructions is by one thread, of whatever the machine has left. */
const SLOW_BOOT_TIMEOUT_MS = 900_000
const SHUTDOWN_TIMEOUT_MS = 40_000
/** The disk with the payload, as the guest names it. */
export const PAYLOAD_DEVICE = "/dev/nvme1n1"
/** The kernel on an EFI system partition. */
export const KERNEL_FILE = "vmlinuz"

// Files of a run.
const ROOT_DISK = "disk.qcow2"
const PAYLOAD_DISK = "payload.raw"
const FIRMWARE_VARIABLES = "firmware-variables.fd"
const CONSOLE_LOG = "console.log"
const QEMU_LOG = "qemu.log"

// The built-in policy measures the first programs; systemd then loads /etc/ima/ima-policy in its place.
export const KERNEL_ARGUMENTS: readonly string[] = [
  "root=/dev/nvme0n1",
  "rw",
  "console=ttyS0",
  "quiet",
  "systemd.show_status=0",
  "net.ifnames=0",
  "ima_policy=tcb",
  "ima_hash=sha256",
  "ima_template=ima-ng",
  "tsc=reliable",
  "no_timer_check",
  "mitigations=off",
]

/** The processes of one boot. */
interface Machine {
  readonly qemu: Bun.Subprocess
  readonly tpm: VirtualTpm
}

/** A started guest. Every path out of a test ends in `stop()`. */
export class Guest {
  #options: GuestOptions
  /** Short directory for Unix sockets. */
  readonly #sockets: string
  readonly #forwards: ReadonlyMap<number, number>
  #machine: Machine

  private constructor(
    options: GuestOptions,
    sockets: string,
    forwards: ReadonlyMap<number, number>,
    machine: Machine,
  ) {
    this.#options = options
    this.#sockets = sockets
    this.#forwards = forwards
    this.#machine = machine
  }

  /** Boots the image on a fresh overlay and waits for a root shell. */
  static async start(options: GuestOptions): Promise<Guest> {
    const { directory, image, payload } = options
    mkdirSync(directory, { recursive: true })
    const forwards = new Map<number, number>()
    for (const port of new Set([22, ...options.ports])) forwards.set(port, await freePort())
    await mustRun([
      ...["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk],
      join(directory, ROOT_DISK),
    ])
    if (payload !== null) await makePayloadDisk(payload, join(directory, PAYLOAD_DISK))
    if (options.firmware !== undefined)
      copyFileSync(options.firmware.variables, join(directory, FIRMWARE_VARIABLES))
    const sockets = mkdtempSync(join(tmpdir(), "guest-"))
    const guest = new Guest(options, sockets, forwards, await powerOn(options, sockets, forwards))
    try {
      await guest.#waitForShell()
      return guest
    } catch (error) {
      await guest.stop()
      throw error
    }
  }

  /** File of what the guest wrote to its disk: an overlay whose clusters are as they are. */
  get disk(): string {
    return join(this.#options.directory, ROOT_DISK)
  }

  /** The loopback port of the host behind which a guest's port lies. */
  port(guestPort: number): number {
    const port = this.#forwards.get(guestPort)
    if (port === undefined) throw new Error(`guest port ${guestPort} is not forwarded`)
    return port
  }

  /** Lets the guest reach a server on the host's loopback, on the same port of its own, until the next boot. */
  async offer(port: number): Promise<void> {
    await mustRun([...this.#ssh(), "-O", "forward", "-R", `127.0.0.1:${port}:127.0.0.1:${port}`])
  }

  /** Runs a shell command as root in the guest, whatever its exit code. 255 is ssh's own failure. */
  async shell(command: string, options: CommandOptions = {}): Promise<CommandResult> {
    return run([...this.#ssh(), command], { timeoutMs: 120_000, ...options })
  }

  /** Runs a shell command in the guest that has to succeed, and returns its standard output. */
  async mustShell(command: string, options: CommandOptions = {}): Promise<string> {
    const result = await this.shell(command, options)
    if (result.code !== 0) {
      throw new Error(
        `in the guest: ${command}: exit code ${result.code}\n${tail(result.stderr)}${result.stdout}`,
      )
    }
    return result.stdout
  }

  /** Writes a small file in the guest. Its directory must exist. */
  async writeFile(path: string, content: string, mode = "0644"): Promise<void> {
    await this.mustShell(`umask 077 && cat > '${path}' && chmod ${mode} '${path}'`, { stdin: content })
  }

  /**
   * The guest reboots itself, and is then started anew: QEMU cannot carry a confidential VM over a reset either, and
   * this way the translated code of the old boot does not slow the new one. Waits for the shell of the next boot.
   */
  async reboot(changes: BootChanges = {}): Promise<void> {
    // ssh loses its connection while it waits for the answer: its exit code says nothing.
    await this.shell("systemctl reboot", { timeoutMs: 30_000 })
    await Promise.race([this.#machine.qemu.exited, Bun.sleep(SHUTDOWN_TIMEOUT_MS)])
    if (this.#machine.qemu.exitCode === null) throw new Error("the guest did not go down for its reboot")
    await this.#powerOff()
    const { directory } = this.#options
    if (changes.otherTpm === true) rmSync(join(directory, "tpm"), { recursive: true })
    if (changes.firmwareVariables !== undefined)
      copyFileSync(changes.firmwareVariables, join(directory, FIRMWARE_VARIABLES))
    const { firmware } = this.#options
    if (changes.systemPartition !== undefined && firmware !== undefined)
      this.#options = {
        ...this.#options,
        firmware: { ...firmware, systemPartition: changes.systemPartition },
      }
    this.#machine = await powerOn(this.#options, this.#sockets, this.#forwards, changes.kernelArguments)
    await this.#waitForShell()
  }

  /** Directory with the certificates of its TPM's authority, for `--tpm-ca`. */
  tpmAuthorities(): string {
    return authorityCertificates(join(this.#options.directory, "tpm"))
  }

  /** Keeps what tells why a run failed: the journal of every boot, the console, the logs of QEMU and TPM. */
  async saveLogs(directory: string): Promise<void> {
    mkdirSync(directory, { recursive: true })
    const journal = await this.shell("journalctl --no-pager --boot=all --output=short-precise", {
      timeoutMs: 60_000,
    })
    const answer = journal.code === 0 ? journal.stdout : `(the guest did not answer: ${journal.stderr})\n`
    writeFileSync(join(directory, "journal.txt"), answer)
    const measurements = await this.shell("cat /sys/kernel/security/ima/ascii_runtime_measurements")
    if (measurements.code === 0) writeFileSync(join(directory, "ima.txt"), measurements.stdout)
    for (const name of [CONSOLE_LOG, QEMU_LOG, "tpm/swtpm.log"]) {
      const path = join(this.#options.directory, name)
      if (existsSync(path)) copyFileSync(path, join(directory, name.replace("/", "-")))
    }
  }

  /** Powers the guest off, and ends QEMU and TPM by their process ids whatever the guest does. */
  async stop(): Promise<void> {
    if (this.#machine.qemu.exitCode === null) {
      await this.shell("systemctl poweroff", { timeoutMs: 15_000 })
      await Promise.race([this.#machine.qemu.exited, Bun.sleep(SHUTDOWN_TIMEOUT_MS)])
    }
    await this.#powerOff()
    rmSync(this.#sockets, { recursive: true, force: true })
  }

  async #powerOff(): Promise<void> {
    await run([...this.#ssh(), "-O", "exit"], { timeoutMs: 10_000 })
    const { qemu, tpm } = this.#machine
    if (qemu.exitCode === null) qemu.kill("SIGKILL")
    await qemu.exited
    await tpm.stop()
  }

  async #waitForShell(): Promise<void> {
    const timeout = this.#options.clock === undefined ? BOOT_TIMEOUT_MS : SLOW_BOOT_TIMEOUT_MS
    await waitFor("a root shell in the guest", timeout, async () => {
      if (this.#machine.qemu.exitCode !== null) {
        throw new Error(`QEMU ended: ${readFileSync(join(this.#options.directory, QEMU_LOG), "utf8")}`)
      }
      return (await this.shell("true", { timeoutMs: 30_000 })).code === 0 ? true : null
    })
  }

  #ssh(): string[] {
    const { sshKey, knownHosts } = this.#options.image
    const settings = [
      "BatchMode=yes",
      "ConnectTimeout=10",
      "ServerAliveInterval=5",
      "IdentitiesOnly=yes",
      "StrictHostKeyChecking=yes",
      `HostKeyAlias=${GUEST_NAME}`,
      `UserKnownHostsFile=${knownHosts}`,
      "ControlMaster=auto",
      "ControlPersist=yes",
      `ControlPath=${join(this.#sockets, "ssh")}`,
      "LogLevel=ERROR",
    ].flatMap((setting) => ["-o", setting])
    return ["ssh", "-F", "none", "-i", sshKey, "-p", `${this.port(22)}`, ...settings, "root@127.0.0.1"]
  }
}

async function powerOn(
  options: GuestOptions,
  sockets: string,
  forwards: ReadonlyMap<number, number>,
  added: readonly string[] = [],
): Promise<Machine> {
  const tpm = await startVirtualTpm(join(options.directory, "tpm"), sockets)
  const log = openSync(join(options.directory, QEMU_LOG), "a")
  const qemu = Bun.spawn(qemuCommand(options, tpm, forwards, added), {
    stdin: "ignore",
    stdout: log,
    stderr: log,
  })
  closeSync(log)
  return { qemu, tpm }
}

function qemuCommand(
  { directory, image, payload, firmware, clock }: GuestOptions,
  tpm: VirtualTpm,
  forwards: ReadonlyMap<number, number>,
  added: readonly string[],
): string[] {
  const network = [...forwards].map(([guest, host]) => `hostfwd=tcp:127.0.0.1:${host}-:${guest}`)
  const disk = (name: string, drive: string) => [
    ...["-drive", `if=none,id=${name},${drive}`],
    ...["-device", `nvme,serial=${name},drive=${name}`],
  ]
  const commandLine = [...KERNEL_ARGUMENTS, ...added].join(" ")
  return [
    // QEMU must not outlive the test, however that ends.
    ...["setpriv", "--pdeathsig=KILL", "qemu-system-x86_64"],
    ...["-machine", `q35,vmport=off,smbus=off${firmware === undefined ? "" : ",smm=on"}`],
    ...["-accel", `tcg,thread=${clock === undefined ? "multi" : "single"}`, "-cpu", "max"],
    ...(clock === undefined ? [] : ["-icount", "shift=0"]),
    ...[
      "-smp",
      clock === undefined ? "2" : "1",
      "-m",
      `${MEMORY_MB}`,
      "-nodefaults",
      "-no-user-config",
      "-display",
      "none",
      "-no-reboot",
    ],
    ...["-chardev", `file,id=console,append=on,path=${join(directory, CONSOLE_LOG)}`],
    ...["-serial", "chardev:console"],
    ...disk("root", `format=qcow2,file=${join(directory, ROOT_DISK)}`),
    ...(payload === null
      ? []
      : disk("payload", `format=raw,readonly=on,file=${join(directory, PAYLOAD_DISK)}`)),
    ...(firmware === undefined
      ? ["-kernel", image.kernel, "-append", commandLine]
      : firmwareOptions(firmware, join(directory, FIRMWARE_VARIABLES), commandLine)),
    ...["-netdev", ["user", "id=net", "restrict=on", ...network].join(",")],
    ...["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"],
    ...["-chardev", `socket,id=tpm,path=${tpm.controlSocket}`],
    ...["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"],
  ]
}

/**
 * Only system management mode writes to the variables, so that the guest's root does not turn Secure Boot off. The kernel comes from a
 * disk: QEMU edits one that it hands over itself, so that its signature is no longer right.
 */
function firmwareOptions(
  { code, systemPartition }: UefiFirmware,
  variables: string,
  commandLine: string,
): string[] {
  mkdirSync(join(systemPartition, "loader", "entries"), { recursive: true })
  writeFileSync(
    join(systemPartition, "loader", "entries", "guest.conf"),
    `title guest\nlinux /${KERNEL_FILE}\noptions ${commandLine}\n`,
  )
  return [
    ...["-global", "driver=cfi.pflash01,property=secure,value=on"],
    ...["-drive", `if=pflash,format=raw,unit=0,readonly=on,file=${code}`],
    ...["-drive", `if=pflash,format=raw,unit=1,file=${variables}`],
    ...["-drive", `if=none,id=esp,format=raw,readonly=on,file=fat:${systemPartition}`],
    ...["-device", "nvme,serial=esp,drive=esp,bootindex=0"],
  ]
}

async function makePayloadDisk(payload: string, path: string): Promise<void> {
  const kilobytes = Number.parseInt(await mustRun(["du", "-sk", "--apparent-size", payload]), 10)
  const megabytes = Math.ceil((kilobytes / 1024) * 1.1) + 16
  await mustRun(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", payload, path, `${megabytes}M`])
}

/** A loopback port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject)
    server.listen(0, "127.0.0.1", resolve)
  })
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === "string") throw new Error("no port for a TCP listener")
  return address.port
}
