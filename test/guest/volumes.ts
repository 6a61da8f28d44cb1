/**
 * Encrypted volumes on a real kernel: dm-crypt, dm-integrity, systemd and a TPM. Parts of the guest run, in its order: what is
 * made before the reboot is looked at after it.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { throughputOf } from "../../bench/volume-throughput.ts"
import { EXIT } from "../../src/errors.ts"
import { type CommandResult, tail } from "./command.ts"
import type { Guest } from "./guest.ts"

/** Left out of snapshots, as the agent's own files are. */
const VAULT = "/var/lib/vault"
const NAME = "vault"
const FILE = `${VAULT}/data/letter`
/** A letter outside of ASCII, a space, and what a shell would make something of. */
const PASSWORD = "Grüße $HOME 'x'"
const OTHER_PASSWORD = "another one"
const AUDIT = "/run/audit"
const THROUGHPUT = join(import.meta.dir, "..", "..", "bench", "volume-throughput.sh")
/** What fstool may start. */
const PROGRAMS = [
  ...["cryptsetup", "dmsetup", "losetup", "blkid", "blkdiscard", "fallocate"],
  ...["mkfs.ext4", "mkfs.xfs", "resize2fs", "mount", "umount"],
]

/** The agent made its own volume when it was first started. */
export async function agentHasVolume(guest: Guest): Promise<void> {
  const source = await guest.mustShell("findmnt --noheadings --output SOURCE /var/lib/cosmian_vm/data")
  expectEqual("mounted at data", source.trim(), "/dev/mapper/cosmian_vm_container")
  const modes = await guest.mustShell(
    "stat --format '%a %U' /var/lib/cosmian_vm/data/luks_password /var/lib/cosmian_vm/data/key.pem",
  )
  expectEqual("modes of password and key", modes, "600 root\n600 root\n")
  const tmp = await guest.mustShell("findmnt --noheadings --output FSTYPE,SIZE /var/lib/cosmian_vm/tmp")
  expectEqual("mounted at tmp", tmp.trim().split(/\s+/), ["tmpfs", "500M"])
  const { luks } = await statusOf(guest, "cosmian_vm_container")
  expectEqual("integrity", luks?.integrity, "hmac(sha256)")
  expectEqual("known by the TPM", luks?.remembered_by_tpm, "yes")
}

/** Makes the volume with every program watched: each notes its arguments and environment before it starts. */
export async function passwordIsNotSeen(guest: Guest): Promise<void> {
  const real = `$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v "$program")`
  await guest.mustShell(`set -e
for program in ${PROGRAMS.join(" ")}; do
  cat > /usr/local/sbin/$program <<END
#!/bin/sh
{ echo "run $program"; cat /proc/\\$\\$/cmdline /proc/\\$\\$/environ; echo; } >> ${AUDIT}
exec ${real} "\\$@"
END
  chmod 755 /usr/local/sbin/$program
done`)
  const made = await fstool(guest, `create --size 24MiB --location ${VAULT} --password-file -`, PASSWORD)
  expectExit(made, EXIT.ok)
  await guest.mustShell(`cd /usr/local/sbin && rm ${PROGRAMS.join(" ")}; echo kept > ${FILE}; sync`)
  const audit = await guest.mustShell(`cat ${AUDIT}; rm ${AUDIT}`)
  // The watch itself worked: cryptsetup has run, with its arguments.
  for (const seen of ["run cryptsetup", "luksFormat", "--key-file", "LC_ALL"])
    expectIn("what programs saw", audit, seen)
  const journal = await guest.mustShell("journalctl --no-pager --boot")
  for (const [where, text] of [
    ["arguments and environments", audit],
    ["output", made.stdout + made.stderr],
    ["journal", journal],
  ] as const)
    if (text.includes(PASSWORD) || text.includes("Grüße")) throw new Error(`the password is in ${where}`)
}

/**
 * Stands for a boot loader that measures the kernel's command line, as systemd-stub does into PCR 12: this guest is booted
 * without one. What boot_aggregate covers, PCR 0 to 9, may not change once the kernel runs.
 */
export async function measureCommandLine(guest: Guest): Promise<void> {
  // TPM2_PCR_Extend of PCR 12 by SHA-256, with an empty password. Source: TPM 2.0 Part 3, rev. 1.59, section 22.2.
  const header =
    "80 02 00 00 00 41 00 00 01 82 00 00 00 0c 00 00 00 09 40 00 00 09 00 00 00 00 00 00 00 00 01 00 0b"
  await guest.writeFile(
    "/usr/local/sbin/measure-command-line",
    `#!/bin/sh
hex="${header} $(sha256sum < /proc/cmdline | cut -c 1-64 | sed 's/../& /g')"
printf "$(printf ' %s' $hex | sed 's/ /\\\\x/g')" > /run/extend
exec 3<> /dev/tpmrm0
cat /run/extend >&3
head --bytes=10 <&3 > /run/extended
`,
    "0755",
  )
  await guest.writeFile(
    "/etc/systemd/system/measure-command-line.service",
    `[Unit]
Before=mount_luks.service
[Service]
Type=oneshot
ExecStart=/bin/bash /usr/local/sbin/measure-command-line
[Install]
WantedBy=multi-user.target
`,
  )
  await guest.mustShell("systemctl enable --now measure-command-line.service")
}

/** After a reboot: nobody typed anything. */
export async function dataAreThere(guest: Guest): Promise<void> {
  await booted(guest)
  expectEqual(FILE, await guest.mustShell(`cat ${FILE}`), "kept\n")
  expectEqual("mount_luks", (await guest.mustShell("systemctl is-active mount_luks")).trim(), "active")
}

/** Grows while it is mounted. */
export async function growsOnline(guest: Guest): Promise<void> {
  const free = async () => (await statusOf(guest, NAME)).file_system?.bytes ?? 0
  const before = await free()
  expectExit(await fstool(guest, `resize ${NAME} --size 40MiB`), EXIT.ok)
  if ((await free()) < before + 10 * 1024 * 1024)
    throw new Error(`the file system has not grown: ${await free()} bytes`)
  expectEqual(FILE, await guest.mustShell(`cat ${FILE}`), "kept\n")
  expectExit(await fstool(guest, `resize ${NAME} --size 30MiB`), EXIT.usage)
}

/** The old password opens no more; the header of before, put back, is refused. */
export async function passwordChanges(guest: Guest): Promise<void> {
  await guest.mustShell(`cp ${VAULT}/header /root/old-header`)
  await guest.writeFile("/run/new", OTHER_PASSWORD)
  expectExit(
    await fstool(guest, `password change ${NAME} --password-file - --new-password-file /run/new`, PASSWORD),
    EXIT.ok,
  )
  expectExit(await fstool(guest, `close ${NAME}`), EXIT.ok)
  expectCode(
    await fstool(guest, `mount ${NAME} --json --password-file -`, PASSWORD),
    "ERR_PASSPHRASE_WRONG",
    EXIT.volume,
  )
  expectExit(await fstool(guest, `mount ${NAME} --password-file -`, OTHER_PASSWORD), EXIT.ok)
  expectExit(await fstool(guest, `close ${NAME}`), EXIT.ok)
}

/** Headers that somebody with access to the disk puts there. The true one opens before and after. */
export async function headersAreRefused(guest: Guest): Promise<void> {
  await guest.mustShell(`set -e
cp ${VAULT}/header /root/true-header
truncate --size 16M /root/null-header
cryptsetup luksFormat --batch-mode --type luks2 --cipher cipher_null-ecb --key-size 256 --pbkdf pbkdf2 \
  --pbkdf-force-iterations 1000 --header /root/null-header --key-file /run/new ${VAULT}/container
cp /root/true-header /root/changed-header
printf x | dd of=/root/changed-header bs=1 seek=40000 conv=notrunc status=none`)
  for (const [header, code] of [
    ["old", "ERR_HEADER_CHANGED"],
    ["null", "ERR_LUKS_CIPHER"],
    ["changed", "ERR_HEADER_CHANGED"],
  ] as const) {
    await guest.mustShell(`cp /root/${header}-header ${VAULT}/header`)
    expectCode(await fstool(guest, `mount ${NAME} --json`), code, EXIT.volume)
    expectEqual(
      `mapping after the ${header} header`,
      await guest.mustShell("ls /dev/mapper | grep -c vault || true"),
      "0\n",
    )
  }
  await guest.mustShell(`cp /root/true-header ${VAULT}/header`)
  expectExit(await fstool(guest, `mount ${NAME}`), EXIT.ok)
  expectEqual(FILE, await guest.mustShell(`cat ${FILE}`), "kept\n")
}

/** A flipped bit of one sector is a read error of that file; its neighbour can be read. */
export async function tamperingIsNoticed(guest: Guest): Promise<void> {
  await guest.mustShell(`set -e
head --bytes=4096 /dev/urandom > ${VAULT}/data/victim
head --bytes=4096 /dev/urandom > ${VAULT}/data/neighbour
sync
sha256sum ${VAULT}/data/neighbour > /run/neighbour
filefrag -e ${VAULT}/data/victim > /run/extents`)
  const block = /^\s*0:\s+0\.\.\s+0:\s+([0-9]+)\.\./m.exec(await guest.mustShell("cat /run/extents"))?.[1]
  if (block === undefined) throw new Error("filefrag does not say where the file is")
  // The ciphertext of that block, and where in the container it lies.
  const cipher = await guest.mustShell(
    `dd if=/dev/mapper/${NAME}_dif bs=4096 skip=${block} count=1 iflag=direct status=none | od -An -v -tx1 -N512 | tr -d ' \\n'`,
  )
  // grep looks for lines, so no part of it may hold the end of one.
  const part = cipher
    .replaceAll(/../g, "$& ")
    .split("0a ")
    .find((bytes) => bytes.length >= 16 * 3)
  if (part === undefined) throw new Error("the ciphertext is one of very short lines")
  const pattern = part
    .slice(0, 16 * 3)
    .trim()
    .split(" ")
    .map((byte) => `\\x${byte}`)
    .join("")
  expectExit(await fstool(guest, `close ${NAME}`), EXIT.ok)
  const found = await guest.mustShell(
    `LC_ALL=C grep --byte-offset --only-matching --text --perl-regexp '${pattern}' ${VAULT}/container | cut -d : -f 1`,
  )
  const offset = Number(found.trim())
  if (!Number.isInteger(offset) || found.trim() === "")
    throw new Error(`the ciphertext is at ${JSON.stringify(found)}`)
  await guest.mustShell(`set -e
byte=$(dd if=${VAULT}/container bs=1 skip=${offset} count=1 status=none | od -An -tu1)
printf "\\\\x$(printf %02x $((byte ^ 1)))" | dd of=${VAULT}/container bs=1 seek=${offset} conv=notrunc status=none`)
  expectExit(await fstool(guest, `mount ${NAME}`), EXIT.ok)
  const read = await guest.shell(`cat ${VAULT}/data/victim`)
  if (read.code === 0) throw new Error("the tampered file was read without an error")
  expectIn("cat", read.stderr, "Input/output error")
  await guest.mustShell("sha256sum --check --quiet /run/neighbour")
  await guest.mustShell(`rm ${VAULT}/data/victim`)
}

/** A block device instead of a file, XFS instead of ext4, no integrity protection; bound to a PIN. */
export async function deviceGrows(guest: Guest): Promise<void> {
  const disk = "/var/lib/disk"
  const device = (
    await guest.mustShell(`truncate --size 320M ${disk} && losetup --find --show ${disk}`)
  ).trim()
  await guest.writeFile("/run/pin", "4711")
  const at = "--location /var/lib/device --filesystem xfs --integrity none"
  const create = () =>
    fstool(guest, `create --json --container ${device} ${at} --pin-file /run/pin --password-file -`, PASSWORD)
  expectExit(await create(), EXIT.ok)
  expectExit(await fstool(guest, "close device"), EXIT.ok)
  expectCode(await fstool(guest, "mount device --json"), "ERR_VOLUME_NO_KEY", EXIT.volume)
  expectCode(await fstool(guest, "mount device --json --pin-file /run/new"), "ERR_SEALED_PIN", EXIT.volume)
  expectExit(await fstool(guest, "mount device --pin-file /run/pin"), EXIT.ok)
  await guest.mustShell(
    `echo kept > /var/lib/device/data/file && truncate --size 400M ${disk} && losetup --set-capacity ${device}`,
  )
  const before = (await statusOf(guest, "device")).file_system?.bytes ?? 0
  expectExit(await fstool(guest, "resize device --pin-file /run/pin"), EXIT.ok)
  const after = (await statusOf(guest, "device")).file_system?.bytes ?? 0
  if (after < before + 60e6) throw new Error(`grown from ${before} to ${after} bytes`)
  expectEqual("file", await guest.mustShell("cat /var/lib/device/data/file"), "kept\n")
  expectExit(await fstool(guest, "wipe device --yes"), EXIT.ok)
  await guest.mustShell(`losetup --detach ${device} && rm -r ${disk} /var/lib/device`)
}

/**
 * Killed at each of its steps, fstool leaves nothing that the next one does not take away, though it has to do with something
 * else; the last one finishes.
 */
export async function killedAtEachStep(guest: Guest): Promise<void> {
  const at = "/var/lib/killed"
  await guest.writeFile(
    "/root/kill-at",
    `# TPM2_GetCapability: how many NV indexes there are. Source: TPM 2.0 Part 3, rev. 1.59, section 30.2.
indexes() {
  exec 3<> /dev/tpmrm0
  printf '\\x80\\x01\\0\\0\\0\\x16\\0\\0\\x01\\x7a\\0\\0\\0\\x01\\x01\\0\\0\\0\\0\\0\\0\\x80' >&3
  dd bs=4096 count=1 <&3 2> /dev/null | od -An -tu1 -j18 -N1 | tr -d ' '
  exec 3>&-
}
before=$(indexes)
create="cosmian_vm fstool create --size 16MiB --location ${at} --password-file /run/new --if-missing"
step=0
while :; do
  step=$((step + 1))
  : > /run/steps
  $create 2> /run/steps > /dev/null &
  pid=$!
  until grep -q "^step $step of" /run/steps; do kill -0 $pid 2> /dev/null || break 2; sleep 0.01; done
  kill -9 $pid; wait $pid
  total=$(sed -n "s/^step $step of \\([0-9]*\\),.*/\\1/p" /run/steps)
  # A program that the killed one had started may still be at work.
  for try in $(seq 20); do
    cosmian_vm fstool status > /run/out 2>&1
    [ -n "$(ls /var/lib/cosmian_vm/creating)" ] || break
  done
  left="$(ls -A ${at} /var/lib/cosmian_vm/creating 2> /dev/null | grep -v -e : -e '^$' | tr '\\n' ' ')$(ls /dev/mapper | grep -v -e control -e vault -e cosmian_vm_container | tr '\\n' ' ')$(losetup --noheadings --output BACK-FILE | grep killed)$(grep -c killed /etc/cosmian_vm/volumes.toml) $(($(indexes) - before))"
  echo "$step/$total $left"
  grep -q killed /etc/cosmian_vm/volumes.toml && cosmian_vm fstool mount ${at} > /run/out 2>&1 && break
done
wait
`,
  )
  const lines = (await guest.mustShell("bash /root/kill-at", { timeoutMs: 900_000 })).trim().split("\n")
  for (const line of lines.slice(0, -1)) {
    const [step, ...left] = line.split(" ")
    expectEqual(`after a kill at step ${step}`, left.filter((each) => each !== "").join(" "), "0 0")
  }
  if (lines.length < 8) throw new Error(`only ${lines.length} steps were seen: ${lines.join("; ")}`)
  expectEqual("the volume in the end", (await statusOf(guest, "killed")).mounted, true)
  expectExit(await fstool(guest, "wipe killed --yes"), EXIT.ok)
  expectEqual(
    "after wipe",
    await guest.mustShell(`ls -A ${at}; ls /dev/mapper | grep -c killed || true`),
    "data\n0\n",
  )
}

/** What cannot be made leaves nothing. */
export async function failuresLeaveNothing(guest: Guest): Promise<void> {
  await guest.mustShell("mkdir -p /var/lib/full && mount -t tmpfs -o size=40M tmpfs /var/lib/full")
  const create = (options: string) => fstool(guest, `create --json --password-file - ${options}`, PASSWORD)
  expectCode(await create("--location /var/lib/full --size 60MiB"), "ERR_NO_SPACE", EXIT.operational)
  expectEqual("what is left", await guest.mustShell("ls -A /var/lib/full; umount /var/lib/full"), "")
  expectCode(await create(`--location ${VAULT} --size 60MiB`), "ERR_VOLUME_EXISTS", EXIT.operational)
  await guest.mustShell("mkdir -p /var/lib/taken/data && touch /var/lib/taken/data/file")
  expectCode(await create("--location /var/lib/taken --size 16MiB"), "ERR_MOUNT_POINT", EXIT.operational)
  expectEqual("what is left", await guest.mustShell("ls -A /var/lib/taken"), "data\n")
  expectCode(await fstool(guest, "status nobody --json"), "ERR_VOLUME_UNKNOWN", EXIT.usage)
  expectCode(await create("--location /var/lib/x --size 16MiB --pcrs 10"), "ERR_BAD_VALUE", EXIT.usage)
  const busy = await guest.shell(`cd ${VAULT}/data && cosmian_vm fstool close ${NAME} --json`)
  expectCode(busy, "ERR_VOLUME_BUSY", EXIT.operational)
  await guest.mustShell("rm -r /var/lib/taken")
  await plainFilesAreNotHidden(guest)
  await firstStartSaysWhatIsMissing(guest)
  // A mapping that another program opened: with which header, nobody has checked.
  expectExit(await fstool(guest, `close ${NAME}`), EXIT.ok)
  // An attempt of ours that failed does not make it ours.
  expectCode(
    await fstool(guest, `open ${NAME} --password-file - --json`, "not this one"),
    "ERR_PASSPHRASE_WRONG",
    EXIT.volume,
  )
  const other = `cryptsetup open --disable-external-tokens --header ${VAULT}/header --key-file /run/new ${VAULT}/container ${NAME}`
  await guest.mustShell(other)
  expectCode(await fstool(guest, `mount ${NAME} --json`), "ERR_VOLUME_BUSY", EXIT.operational)
  await guest.mustShell(`cryptsetup close ${NAME}`)
  expectExit(await fstool(guest, `mount ${NAME}`), EXIT.ok)
  // Nor was it ours because the one before it was.
  await guest.mustShell(`umount ${VAULT}/data && cryptsetup close ${NAME} && ${other}`)
  expectCode(await fstool(guest, `mount ${NAME} --json`), "ERR_VOLUME_BUSY", EXIT.operational)
  await guest.mustShell(`cryptsetup close ${NAME}`)
  expectExit(await fstool(guest, `mount ${NAME}`), EXIT.ok)
  const nobody = await guest.shell("setpriv --reuid=65534 --clear-groups cosmian_vm fstool status --json")
  expectCode(nobody, "ERR_STORAGE_UNAVAILABLE", EXIT.operational)
}

/** Files of before there was a volume; and a volume that is in use by the agent. */
async function plainFilesAreNotHidden(guest: Guest): Promise<void> {
  expectExit(await fstool(guest, `close ${NAME}`), EXIT.ok)
  await guest.mustShell(`echo clear > ${VAULT}/data/key.pem`)
  expectCode(await fstool(guest, `mount ${NAME} --json`), "ERR_MOUNT_POINT", EXIT.operational)
  expectEqual("left open", await guest.mustShell(`ls /dev/mapper | grep -c ${NAME} || true`), "0\n")
  await guest.mustShell(`rm ${VAULT}/data/key.pem`)
  expectExit(await fstool(guest, `mount ${NAME}`), EXIT.ok)
  expectCode(await fstool(guest, "unmount cosmian_vm_container --json"), "ERR_VOLUME_BUSY", EXIT.operational)
}

/** A program that hangs: the boot goes on without the volume, nothing of it stays, and the next try opens it. */
export async function hangingEnds(guest: Guest): Promise<void> {
  expectExit(await fstool(guest, `close ${NAME}`), EXIT.ok)
  const dropIn = "/run/systemd/system/mount_luks.service.d"
  const hanging = "/usr/local/sbin/cryptsetup"
  await guest.writeFile(hanging, "#!/bin/sh\nexec sleep 1234\n", "0755")
  await guest.mustShell(
    `mkdir -p ${dropIn} && printf '[Service]\nTimeoutStartSec=10\n' > ${dropIn}/short.conf && systemctl daemon-reload`,
  )
  const started = await guest.shell("systemctl restart mount_luks")
  if (started.code === 0) throw new Error("mount_luks succeeded with a cryptsetup that hangs")
  expectEqual(
    "mount_luks",
    (await guest.mustShell("systemctl show --property=Result --value mount_luks")).trim(),
    "timeout",
  )
  expectEqual("what still hangs", await guest.mustShell("pgrep --full 'sleep 123[4]' || true"), "")
  await guest.mustShell(
    `rm -r ${hanging} ${dropIn} && systemctl daemon-reload && systemctl restart mount_luks`,
  )
  expectEqual(FILE, await guest.mustShell(`cat ${FILE}`), "kept\n")
}

/** A machine without a TPM, as far as fstool can see, and without the agent's volume. */
async function firstStartSaysWhatIsMissing(guest: Guest): Promise<void> {
  const firstStart = async (encrypted: string, ...before: readonly string[]) => {
    await guest.writeFile("/run/agent.toml", `[storage]\nencrypted = "${encrypted}"\n`)
    const hidden = ["/var/lib/cosmian_vm", "/etc/cosmian_vm"].map((path) => `mount -t tmpfs tmpfs ${path}`)
    const start = "cosmian_vm fstool mount --first-start --tpm none --json"
    const commands = [...hidden, "cp /run/agent.toml /etc/cosmian_vm", ...before, start]
    return guest.shell(`unshare --mount sh -c '${commands.join(" && ")}'`)
  }
  expectCode(await firstStart("required"), "ERR_STORAGE_UNAVAILABLE", EXIT.operational)
  // One that lost its header is not a machine without one.
  const half = await firstStart("when-possible", "touch /var/lib/cosmian_vm/container")
  expectCode(half, "ERR_STORAGE_UNAVAILABLE", EXIT.operational)
  const allowed = await firstStart("when-possible")
  expectExit(allowed, EXIT.ok)
  expectIn("first start", allowed.stderr, "NOT encrypted")
}

/**
 * Beside a volume that plain cryptsetup made: the kernel works by the same tables. `npm run bench` judges the throughput, in a guest
 * whose clock does not depend on how busy the machine is.
 */
export async function asFastAsPlain(guest: Guest): Promise<void> {
  await guest.writeFile("/root/throughput", readFileSync(THROUGHPUT, "utf8"))
  const output = await guest.mustShell(
    "mkdir /root/bench && sh /root/throughput /usr/sbin/cosmian_vm /root/bench 3",
    { timeoutMs: 600_000 },
  )
  const { difference } = throughputOf(output)
  if (difference !== null) throw new Error(`other settings than plain cryptsetup's: ${difference}`)
}

/** Debian 12's systemd opens it by /etc/crypttab, with nobody there to type; and so does fstool. */
export async function systemdOpensIt(guest: Guest): Promise<void> {
  expectExit(await fstool(guest, `enroll ${NAME} --token-format systemd-252`), EXIT.ok)
  expectExit(await fstool(guest, `close ${NAME}`), EXIT.ok)
  const unit = "systemd-cryptsetup@by_systemd"
  const line = `by_systemd ${VAULT}/container none tpm2-device=auto,header=${VAULT}/header,headless=true`
  await guest.mustShell(
    `echo '${line}' > /etc/crypttab && systemctl daemon-reload && systemctl start ${unit}`,
  )
  expectEqual(
    FILE,
    await guest.mustShell("mount -o ro /dev/mapper/by_systemd /mnt && cat /mnt/letter && umount /mnt"),
    "kept\n",
  )
  await guest.mustShell(`systemctl stop ${unit} && rm /etc/crypttab && systemctl daemon-reload`)
  expectExit(await fstool(guest, `mount ${NAME}`), EXIT.ok)
  expectEqual(FILE, await guest.mustShell(`cat ${FILE}`), "kept\n")
}

/** A volume as Cosmian VM 1.3 made them: by plain cryptsetup and systemd-cryptenroll, without integrity protection. */
export async function olderVolumeOpens(guest: Guest): Promise<void> {
  const at = "/var/lib/older"
  await guest.mustShell(`set -e
mkdir -p ${at}/data && cd ${at} && printf older > /run/older
truncate --size 24M container && truncate --size 16M header
cryptsetup luksFormat --batch-mode --type luks2 --header header --pbkdf-memory 131072 --pbkdf-force-iterations 4 \
  --key-file /run/older container
PASSWORD=older systemd-cryptenroll --tpm2-device=auto --tpm2-pcrs=7 header
cryptsetup open --disable-external-tokens --header header --key-file /run/older container older
mkfs.ext4 -q /dev/mapper/older && mount /dev/mapper/older data && echo kept > data/letter
umount data && cryptsetup close older
printf '\n[[volume]]\nlocation = "${at}"\nintegrity = "none"\n' >> /etc/cosmian_vm/volumes.toml`)
  // The TPM would open it, and knows nothing of its header yet.
  expectCode(await fstool(guest, "mount older --json"), "ERR_HEADER_REFERENCE_ABSENT", EXIT.volume)
  expectExit(await fstool(guest, "header accept older"), EXIT.ok)
  expectExit(await fstool(guest, "mount older"), EXIT.ok)
  expectEqual("letter", await guest.mustShell(`cat ${at}/data/letter`), "kept\n")
  expectEqual("known by the TPM", (await statusOf(guest, "older")).luks?.remembered_by_tpm, "yes")
  expectExit(await fstool(guest, "wipe older --yes"), EXIT.ok)
  await guest.mustShell(`rm -r ${at}`)
}

/** Only while the command line is what it was. */
export async function enrolToCommandLine(guest: Guest): Promise<void> {
  const enrolled = await fstool(guest, `enroll ${NAME} --pcrs 12`)
  expectExit(enrolled, EXIT.ok)
  expectIn("enroll", enrolled.stderr, "warning: PCR 12")
}

/** After a boot with another command line. */
export async function otherCommandLine(guest: Guest): Promise<void> {
  await guest.reboot({ kernelArguments: ["printk.time=1"] })
  await booted(guest)
  expectEqual("mount_luks", (await guest.shell("systemctl is-failed mount_luks")).stdout.trim(), "failed")
  expectIn(
    "journal",
    await guest.mustShell("journalctl --no-pager --boot --unit mount_luks"),
    "ERR_SEALED_PCRS",
  )
  expectCode(await fstool(guest, `mount ${NAME} --json`), "ERR_SEALED_PCRS", EXIT.volume)
  expectExit(await fstool(guest, `mount ${NAME} --password-file -`, OTHER_PASSWORD), EXIT.ok)
  expectEqual(FILE, await guest.mustShell(`cat ${FILE}`), "kept\n")
  // The agent's own volume is bound to nothing but the TPM.
  expectEqual("agent", (await guest.mustShell("systemctl is-active cosmian_vm_agent")).trim(), "active")
}

/** The disk in a machine with another TPM. */
export async function otherTpm(guest: Guest): Promise<void> {
  await guest.reboot({ otherTpm: true })
  await booted(guest)
  expectCode(await fstool(guest, `mount ${NAME} --json`), "ERR_SEALED_ELSEWHERE", EXIT.volume)
  expectExit(await fstool(guest, `mount ${NAME} --password-file -`, OTHER_PASSWORD), EXIT.ok)
  expectEqual(FILE, await guest.mustShell(`cat ${FILE}`), "kept\n")
  // Without its volume the agent does not start, and makes no TLS key in the clear.
  const agent = await guest.shell("systemctl is-active cosmian_vm_agent")
  if (agent.stdout.trim() === "active") throw new Error("the agent runs without its encrypted volume")
  expectEqual("data without its volume", await guest.mustShell("ls -A /var/lib/cosmian_vm/data"), "")
  expectCode(await guest.shell("cosmian_vm agent 2>&1"), "ERR_STORAGE_PLAIN", EXIT.operational)
}

/** A shell is there before the boot has come to its end. What failed on the way is looked at by who asks. */
async function booted(guest: Guest): Promise<void> {
  await guest.shell("systemctl is-system-running --wait", { timeoutMs: 300_000 })
}

/** Runs fstool in the guest. `input`: its standard input. */
function fstool(guest: Guest, options: string, input?: string): Promise<CommandResult> {
  return guest.shell(`cosmian_vm fstool ${options}`, {
    timeoutMs: 300_000,
    ...(input === undefined ? {} : { stdin: input }),
  })
}

interface Status {
  readonly mounted: boolean
  readonly file_system: { readonly bytes: number } | null
  readonly luks: { readonly integrity: string | null; readonly remembered_by_tpm: string } | null
}

async function statusOf(guest: Guest, name: string): Promise<Status> {
  const result = await fstool(guest, `status ${name} --json`)
  expectExit(result, EXIT.ok)
  const [status] = (JSON.parse(result.stdout) as { volumes: Status[] }).volumes
  if (status === undefined) throw new Error(`no status of ${name}`)
  return status
}

function expectExit(result: CommandResult, expected: number): void {
  if (result.code === expected) return
  throw new Error(
    `exit code ${result.code}, expected ${expected}\n${tail(result.stdout, 30)}${tail(result.stderr, 30)}`,
  )
}

function expectCode(result: CommandResult, code: string, exit: number): void {
  expectExit(result, exit)
  expectIn("the error", result.stdout, code)
}

function expectIn(what: string, text: string, part: string): void {
  if (!text.includes(part)) throw new Error(`${what}: expected ${JSON.stringify(part)} in ${tail(text, 20)}`)
}

function expectEqual(what: string, found: unknown, expected: unknown): void {
  if (Bun.deepEquals(found, expected)) return
  throw new Error(`${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`)
}
