import { closeSync, constants, openSync, readFileSync } from "node:fs"
import { NativeError } from "../errors.ts"
import { type Mount, mountAt, parseMountInfo } from "../formats/mount-info.ts"
import { blockName, blockSize, loopsOf, type Mapping, mappingsOver } from "./block-stack.ts"
import { Cryptsetup } from "./cryptsetup.ts"
import { mustRun, programFailed, runProgram } from "./run-program.ts"

/** Bytes that are zeroed between two looks at the clock and at Ctrl-C. */
const ZERO_STEP = 128 * 1024 * 1024

/** How far a long piece of work is. */
export type OnBytes = (done: number, total: number) => void

/**
 * What a volume needs of the system besides cryptsetup: file allocation, device mapper, file systems, mounts. `lock`: a
 * descriptor that children keep open while they run.
 */
export class VolumeTools {
  readonly cryptsetup: Cryptsetup
  readonly #lock: readonly number[]

  constructor(lock: number | null) {
    this.cryptsetup = new Cryptsetup(lock)
    this.#lock = lock === null ? [] : [lock]
  }

  /** Gives a file its size, with room on the disk for all of it. An existing file only grows. @throws NativeError ERR_NO_SPACE */
  async allocate(path: string, bytes: number): Promise<void> {
    closeSync(openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600))
    const args = ["--length", `${bytes}`, path]
    const result = await runProgram("fallocate", args, { descriptors: this.#lock })
    if (result.exitCode === 0) return
    const cause = programFailed("fallocate", args, result)
    if (!/No space left|File too large/.test(result.stderr)) throw cause
    throw new NativeError("ERR_NO_SPACE", {
      at: path,
      expected: `room for ${bytes} bytes`,
      found: "less",
      hint: "choose a smaller --size, or make room; df shows how much there is",
      cause,
    })
  }

  /** What a device holds, in one word (`ext4`, `crypto_LUKS`, `gpt`); null for nothing that blkid knows. */
  async signature(device: string): Promise<string | null> {
    const { exitCode, stdout } = await runProgram("blkid", ["--probe", "--output", "export", device])
    if (exitCode !== 0) return null
    const text = Buffer.from(stdout).toString()
    return /^(?:TYPE|PTTYPE)=(.*)$/m.exec(text)?.[1] ?? "something"
  }

  /** Overwrites a mapping with zeros from byte `from` on. @param aborted asked every 128 MiB. */
  async zero(mapping: Mapping, from: number, aborted: () => void, progress: OnBytes): Promise<void> {
    const total = blockSize(mapping.kernelName)
    for (let offset = from; offset < total; offset += ZERO_STEP) {
      aborted()
      progress(offset - from, total - from)
      const length = Math.min(ZERO_STEP, total - offset)
      await this.#run("blkdiscard", [
        ...["--force", "--zeroout", "--offset", `${offset}`, "--length", `${length}`],
        `/dev/mapper/${mapping.name}`,
      ])
    }
    progress(total - from, total - from)
  }

  /** Overwrites the beginning of a device, so that nothing takes it for what it was. */
  async clearStart(device: string): Promise<void> {
    await this.#run("blkdiscard", ["--force", "--zeroout", "--length", `${1024 * 1024}`, device])
  }

  async makeFileSystem(kind: "ext4" | "xfs", device: string): Promise<void> {
    await this.#run(`mkfs.${kind}`, kind === "ext4" ? ["-q", "-m", "1", device] : ["-q", device])
  }

  /** Lets a mounted file system take all of its device. */
  async growFileSystem(kind: "ext4" | "xfs", device: string, mountPoint: string): Promise<void> {
    await (kind === "ext4" ? this.#run("resize2fs", [device]) : this.#run("xfs_growfs", [mountPoint]))
  }

  /** Mounts by the given kind, never a guessed one: the bytes of a device may be somebody else's. */
  async mount(kind: "ext4" | "xfs", device: string, mountPoint: string): Promise<void> {
    await this.#run("mount", ["-t", kind, "-o", "nosuid,nodev", device, mountPoint])
  }

  /** @throws NativeError ERR_VOLUME_BUSY */
  async unmount(mountPoint: string): Promise<void> {
    const args = [mountPoint]
    const result = await runProgram("umount", args, { descriptors: this.#lock })
    if (result.exitCode === 0) return
    const cause = programFailed("umount", args, result)
    if (!result.stderr.includes("busy")) throw cause
    throw new NativeError("ERR_VOLUME_BUSY", {
      at: mountPoint,
      found: "programs that use files in it",
      hint: `stop them first; fuser -vm ${mountPoint} shows them`,
      cause,
    })
  }

  /** Removes every mapping over a container whose name is `mine`, or that a killed cryptsetup left. */
  async removeMappings(container: string, mine: string): Promise<void> {
    for (const { name } of mappingsOver(container))
      if (name === mine || name === `${mine}_dif` || name.startsWith("temporary-cryptsetup-"))
        await this.#run("dmsetup", ["remove", "--retry", name])
  }

  /** Makes loop device and, where there is one, dm-integrity mapping notice that the container has grown. Returns bytes below dm-crypt. */
  async growBelow(container: string, mapping: Mapping): Promise<number> {
    const loops = loopsOf(container)
    for (const loop of loops) await this.#run("losetup", ["--set-capacity", `/dev/${loop}`])
    const integrity = mappingsOver(container).find(({ name }) => name === `${mapping.name}_dif`)
    if (integrity !== undefined) return this.#growIntegrity(integrity)
    const below = loops[0] ?? blockName(container)
    if (below === null || below === undefined)
      throw new NativeError("ERR_IO", {
        at: container,
        expected: "a device under the mapping",
        found: "none",
      })
    return blockSize(below)
  }

  /**
   * dm-integrity works out how much it can hold when its table is loaded anew, and says so in its status: the same table
   * first, then one of that size. Source: linux/drivers/md/dm-integrity.c, dm_integrity_ctr and dm_integrity_status.
   */
  async #growIntegrity({ name }: Mapping): Promise<number> {
    const table = await this.#table(name)
    await this.#load(name, table)
    const status = Buffer.from(await this.#run("dmsetup", ["status", name]))
      .toString()
      .split(" ")
    const sectors = Number(status[4])
    if (!Number.isSafeInteger(sectors) || status[2] !== "integrity")
      throw new NativeError("ERR_PROGRAM_FAILED", {
        at: `dmsetup status ${name}`,
        expected: "the sectors that dm-integrity can hold",
        found: status.join(" "),
      })
    await this.#load(name, withSectors(table, sectors))
    return sectors * 512
  }

  /**
   * Gives a dm-crypt mapping another size. Its key is in a keyring that nobody reaches any more, so it is loaded anew with the
   * table, through a pipe.
   */
  async resizeCrypt({ name }: Mapping, bytes: number, volumeKey: Uint8Array): Promise<void> {
    const [start, length, target, cipher, key, ...rest] = (await this.#table(name)).trim().split(" ")
    if (
      start !== "0" ||
      length === undefined ||
      target !== "crypt" ||
      cipher === undefined ||
      key === undefined
    )
      throw new NativeError("ERR_PROGRAM_FAILED", {
        at: `dmsetup table ${name}`,
        expected: "one crypt target",
        found: target ?? "nothing",
      })
    const before = Buffer.from(`0 ${bytes / 512} crypt ${cipher} `)
    const after = Buffer.from(` ${rest.join(" ")}\n`)
    const table = new Uint8Array(before.length + 2 * volumeKey.length + after.length)
    table.set(before)
    putHex(table, before.length, volumeKey)
    table.set(after, before.length + 2 * volumeKey.length)
    try {
      await this.#load(name, table)
    } finally {
      table.fill(0)
    }
  }

  /** One line; the key of a dm-crypt table is shown as zeros or as the name of a key. */
  async #table(name: string): Promise<string> {
    return Buffer.from(await this.#run("dmsetup", ["table", name])).toString()
  }

  /** Exchanges a mapping's table in one step of the kernel: whoever uses it waits for an instant. */
  async #load(name: string, table: string | Uint8Array): Promise<void> {
    const stdin = typeof table === "string" ? new Uint8Array(Buffer.from(table)) : table
    await mustRun("dmsetup", ["reload", name], { stdin, descriptors: this.#lock })
    await this.#run("dmsetup", ["resume", name])
  }

  #run(program: string, args: readonly string[]): Promise<Uint8Array> {
    return mustRun(program, args, { descriptors: this.#lock })
  }
}

/** The mounts of this process's namespace. */
export function readMounts(): Mount[] {
  return parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"))
}

/** What is mounted at a path, or null. */
export function mountedAt(path: string): Mount | null {
  return mountAt(readMounts(), path)
}

function withSectors(table: string, sectors: number): string {
  return table.replace(/^0 [0-9]+/, `0 ${sectors}`)
}

function putHex(out: Uint8Array, at: number, bytes: Uint8Array): void {
  const digit = (value: number) => value + (value < 10 ? 0x30 : 0x57)
  for (const [index, byte] of bytes.entries()) {
    out[at + 2 * index] = digit(byte >> 4)
    out[at + 2 * index + 1] = digit(byte & 15)
  }
}
