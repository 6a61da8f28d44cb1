/**
 * The guest's disk image: Debian 12 with Debian's own cloud kernel, systemd, OpenSSH and the TPM libraries.
 * Made once, kept in `.cache/guest/` under a hash of everything it is made from.
 */
import { createHash } from "node:crypto"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { dirname, join } from "node:path"
import { mustRun } from "./command.ts"

export interface GuestImage {
  /** Root file system: raw, ext4, without a partition table. Never written to: each run has its overlay. */
  readonly disk: string
  /** The kernel, which QEMU loads itself: no boot loader, no initrd. */
  readonly kernel: string
  /** Private key of the guest's root account, and the known_hosts file with the guest's host key. */
  readonly sshKey: string
  readonly knownHosts: string
}

/** Name under which the guest's host key is known, whatever port is forwarded. */
export const GUEST_NAME = "cosmian-vm-guest"
/** Address inside QEMU's user network. */
export const GUEST_ADDRESS = "10.0.2.15"

const PACKAGES = [
  "cryptsetup-bin",
  "dbus",
  "dmsetup",
  "e2fsprogs",
  "kmod",
  // systemd-cryptenroll, the peer that has to read our tokens, loads these three.
  "libtss2-esys-3.0.2-0",
  "libtss2-mu0",
  "libtss2-rc0",
  "libtss2-tctildr0",
  "libtss2-tcti-device0",
  "linux-image-cloud-amd64",
  "openssh-server",
  "openssl",
  "procps",
  // The application that gets its secrets by bootstrap.
  "redis-server",
  "systemd",
  "systemd-sysv",
  "udev",
  "xfsprogs",
]

// Nothing in a test reads them, and each file costs time when the guest hashes its own disk.
const LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]

// Units that would start work of their own at times that nobody chose.
const MASKED = [
  "apt-daily.timer",
  "apt-daily-upgrade.timer",
  "dpkg-db-backup.timer",
  "e2scrub_all.timer",
  "e2scrub_reap.service",
  "fstrim.timer",
  "getty@tty1.service",
  // The test has a unit of its own for it.
  "redis-server.service",
  "serial-getty@ttyS0.service",
  "systemd-networkd-wait-online.service",
]

const FILES: Readonly<Record<string, string>> = {
  "etc/hostname": `${GUEST_NAME}\n`,
  "etc/hosts": `127.0.0.1 localhost\n127.0.1.1 ${GUEST_NAME}\n`,
  "etc/machine-id": `${createHash("md5").update(GUEST_NAME).digest("hex")}\n`,
  "etc/fstab": "/dev/nvme0n1 / ext4 rw,noatime 0 0\n",
  "etc/modules-load.d/guest.conf": "cuse\n",
  "etc/systemd/network/10-guest.network": `[Match]
Type=ether

[Network]
Address=${GUEST_ADDRESS}/24
LinkLocalAddressing=no
IPv6AcceptRA=no
`,
  // A run that fails is read afterwards, even when the guest does not answer any more.
  "etc/systemd/journald.conf.d/guest.conf": "[Journal]\nStorage=persistent\nSyncIntervalSec=2s\n",
  "etc/ssh/sshd_config.d/guest.conf": "PasswordAuthentication no\nUseDNS no\nUsePAM no\nPrintMotd no\n",
}

const DISK_SIZE = "3G"

/** The image for this IMA policy: out of the cache, or made now (half a minute). Needs root. */
export async function ensureImage(
  cacheDirectory: string,
  imaPolicy: string,
  log: (line: string) => void,
): Promise<GuestImage> {
  const recipe = createHash("sha256")
    .update(JSON.stringify({ PACKAGES, LEFT_OUT, MASKED, FILES, DISK_SIZE, imaPolicy }))
    .update(readFileSync(import.meta.path))
    .digest("hex")
    .slice(0, 16)
  const directory = join(cacheDirectory, `image-${recipe}`)
  if (!existsSync(directory)) {
    log(`making the guest's image ${directory}`)
    await makeImage(directory, imaPolicy)
    removeOthers(cacheDirectory, `image-${recipe}`)
  }
  return {
    disk: join(directory, "disk.raw"),
    kernel: join(directory, "vmlinuz"),
    sshKey: join(directory, "ssh-key"),
    knownHosts: join(directory, "known-hosts"),
  }
}

async function makeImage(directory: string, imaPolicy: string): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new Error(
      "making the guest's image needs root, for the owners of its files: run as root or with sudo",
    )
  }
  const building = `${directory}.${process.pid}.building`
  const root = join(building, "root")
  mkdirSync(building, { recursive: true })
  try {
    await bootstrap(root)
    await makeKeys(building, root)
    configure(root, imaPolicy)
    copyFileSync(kernelOf(root), join(building, "vmlinuz"))
    await mustRun(
      [
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-d",
        root,
        "-E",
        "lazy_itable_init=0",
        join(building, "disk.raw"),
        DISK_SIZE,
      ],
      { timeoutMs: 180_000 },
    )
    rmSync(root, { recursive: true })
    renameSync(building, directory)
  } finally {
    rmSync(building, { recursive: true, force: true })
  }
}

async function bootstrap(root: string): Promise<void> {
  await mustRun(
    [
      "mmdebstrap",
      "--mode=root",
      "--variant=minbase",
      `--include=${PACKAGES.join(",")}`,
      "--aptopt=APT::Install-Recommends false",
      ...LEFT_OUT.map((pattern) => `--dpkgopt=path-exclude=${pattern}`),
      "bookworm",
      root,
    ],
    // The kernel has nvme and ext4 built in: an initrd would only hide the first programs from IMA.
    { timeoutMs: 600_000, env: { INITRD: "No" } },
  )
}

async function makeKeys(building: string, root: string): Promise<void> {
  const key = join(building, "ssh-key")
  await mustRun(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", key])
  put(root, "root/.ssh/authorized_keys", readFileSync(`${key}.pub`, "utf8"), 0o600)
  const hostKey = readFileSync(join(root, "etc/ssh/ssh_host_ed25519_key.pub"), "utf8")
  writeFileSync(join(building, "known-hosts"), `${GUEST_NAME} ${hostKey}`)
}

function configure(root: string, imaPolicy: string): void {
  for (const [path, content] of Object.entries(FILES)) put(root, path, content)
  put(root, "etc/ima/ima-policy", imaPolicy)
  for (const unit of MASKED) link(root, "/dev/null", `etc/systemd/system/${unit}`)
  link(
    root,
    "/lib/systemd/system/systemd-networkd.service",
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
  )
  mkdirSync(join(root, "var/log/journal"), { recursive: true })
  // Younger than /usr, these stamps tell systemd that the caches made from it are up to date.
  for (const stamp of ["etc/.updated", "var/.updated"]) put(root, stamp, "")
}

function put(root: string, path: string, content: string, mode = 0o644): void {
  const full = join(root, path)
  mkdirSync(dirname(full), { recursive: true, mode: mode === 0o600 ? 0o700 : 0o755 })
  writeFileSync(full, content)
  chmodSync(full, mode)
}

function link(root: string, target: string, path: string): void {
  const full = join(root, path)
  mkdirSync(dirname(full), { recursive: true })
  rmSync(full, { force: true })
  symlinkSync(target, full)
}

function kernelOf(root: string): string {
  const boot = join(root, "boot")
  const name = readdirSync(boot).find((entry) => entry.startsWith("vmlinuz-"))
  if (name === undefined) throw new Error(`no kernel in ${boot}`)
  return join(boot, name)
}

function removeOthers(cacheDirectory: string, keep: string): void {
  for (const entry of readdirSync(cacheDirectory)) {
    if (entry.startsWith("image-") && entry !== keep) rmSync(join(cacheDirectory, entry), { recursive: true })
  }
}
