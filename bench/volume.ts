/**
 * Throughput of an encrypted volume beside plain cryptsetup with the same options, in pairs of transfers: in a guest whose clock counts the
 * instructions that it executes, so that a busy machine makes no difference; or with `COSMIAN_VM_BENCH=here`, as root, by this
 * machine's own device mapper and clock.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EXECUTABLE } from "../test/executable.ts"
import { Guest, PAYLOAD_DEVICE } from "../test/guest/guest.ts"
import { ensureImage } from "../test/guest/image.ts"
import type { BenchResult } from "./result.ts"
import { throughputOf, volumeResults } from "./volume-throughput.ts"

const PAIRS = 15
const PAIRS_HERE = 60
const SCRIPT = "volume-throughput.sh"
const ROOT = join(import.meta.dir, "..")
const IMAGES = join(ROOT, ".cache", "guest")
const IMA_POLICY = join(ROOT, "deb/root/usr/share/cosmian_vm/ima-policy")

export async function run(): Promise<BenchResult[]> {
  const directory = mkdtempSync(join(tmpdir(), "cosmian-vm-bench-"))
  try {
    if (process.env["COSMIAN_VM_BENCH"] === "here")
      return volumeResults(throughputOf(measureHere(directory)), "")
    return volumeResults(throughputOf(await measureInGuest(directory)), " (by instructions)")
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function measureHere(directory: string): string {
  if (process.getuid?.() !== 0 || !existsSync("/dev/mapper/control"))
    throw new Error("here it needs root and the kernel's device mapper")
  const command = [
    "sh",
    join(import.meta.dir, SCRIPT),
    EXECUTABLE,
    join(directory, "volumes"),
    `${PAIRS_HERE}`,
  ]
  const child = Bun.spawnSync(command, { stdout: "pipe", stderr: "inherit" })
  if (child.exitCode !== 0) throw new Error(`exit code ${child.exitCode}`)
  return child.stdout.toString()
}

async function measureInGuest(directory: string): Promise<string> {
  const payload = join(directory, "payload")
  mkdirSync(payload)
  mkdirSync(IMAGES, { recursive: true })
  copyFileSync(EXECUTABLE, join(payload, "cosmian_vm"))
  copyFileSync(join(import.meta.dir, SCRIPT), join(payload, SCRIPT))
  const image = await ensureImage(IMAGES, readFileSync(IMA_POLICY, "utf8"), (line) => console.error(line))
  const guest = await Guest.start({
    image,
    directory: join(directory, "machine"),
    payload,
    ports: [],
    clock: "instructions",
  })
  try {
    await guest.mustShell(
      `mount -o ro ${PAYLOAD_DEVICE} /mnt && modprobe --all --quiet dm_mod dm_crypt dm_integrity || true`,
    )
    return await guest.mustShell(`sh /mnt/${SCRIPT} /mnt/cosmian_vm /root/volumes ${PAIRS}`, {
      timeoutMs: 1_800_000,
    })
  } finally {
    await guest.stop()
  }
}
