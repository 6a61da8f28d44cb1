import { describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import {
  cryptsetup,
  luksHeader,
  PASSPHRASE,
  set,
  withIntegrity,
  withMetadata,
} from "../../test/fakes/luks.ts"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import type { HeaderReference, HeaderReferences } from "../native/ports.ts"
import { DEFAULT_LUKS_POLICY } from "../policy/luks-header.ts"
import { headerDigest, openTrustedHeader, type TrustOptions, trustHeader } from "./trusted-header.ts"

/** cryptsetup needs device-mapper to make a volume with integrity: here it is without. */
const WITHOUT: TrustOptions = {
  policy: { ...DEFAULT_LUKS_POLICY, integrity: "optional" },
  reference: null,
  absent: "refuse",
}
const NAME = { volume: "data", pcrs: [] }

/** A TPM's memory that holds this. */
function remembering(reference: HeaderReference | null): HeaderReferences {
  return {
    read: async () => reference,
    write: async () => {},
    remove: async () => {},
    removeUnwritten: async () => {},
  }
}

async function opens(header: string, data: string, fds: number[] = []): Promise<boolean> {
  writeFileSync(data, new Uint8Array(1 << 20))
  const args = ["open", "--test-passphrase", "--type", "luks2", "--header", header, "--key-file", "-", data]
  return cryptsetup(args, PASSPHRASE, fds).exitCode === 0
}

describe("a header that was read once", () => {
  test("opens the volume from memory, and cannot be changed there", () =>
    withDirectory(async (dir) => {
      const path = join(dir, "header")
      writeFileSync(path, luksHeader())
      const trusted = await openTrustedHeader(path, WITHOUT)
      const file = await trusted.file()
      expect(await opens("/proc/self/fd/3", join(dir, "data"), [file.fd])).toBeTrue()
      expect(() => writeFileSync(`/proc/self/fd/${file.fd}`, "x")).toThrow("EPERM")
      file.close()
    }))

  test("L1: exchanged on the disk after the check, it is still the checked one that is opened", () =>
    withDirectory(async (dir) => {
      const [path, data] = [join(dir, "header"), join(dir, "data")]
      const swapped = withMetadata(luksHeader(), set("segments.0.encryption", "cipher_null-ecb"))
      writeFileSync(path, luksHeader())
      const trusted = await openTrustedHeader(path, WITHOUT)
      writeFileSync(path, swapped)
      // cryptsetup itself sees nothing wrong with the other one.
      expect(await opens(path, data)).toBeTrue()
      expect(await codeOf(openTrustedHeader(path, WITHOUT))).toBe("ERR_LUKS_CIPHER")
      const file = await trusted.file()
      const dump = cryptsetup(["luksDump", "--dump-json-metadata", "/proc/self/fd/3"], "", [file.fd])
      expect(JSON.parse(`${dump.stdout}`).segments["0"].encryption).toBe("aes-xts-plain64")
      file.close()
    }))

  test("is refused where it is no file, too large, or not there", () =>
    withDirectory(async (dir) => {
      expect(await codeOf(openTrustedHeader(join(dir, "none"), WITHOUT))).toBe("ERR_IO")
      expect(await codeOf(openTrustedHeader(dir, WITHOUT))).toBe("ERR_IO")
      expect(Bun.spawnSync(["mkfifo", join(dir, "pipe")]).exitCode).toBe(0)
      expect(await codeOf(openTrustedHeader(join(dir, "pipe"), WITHOUT))).toBe("ERR_IO")
      writeFileSync(join(dir, "large"), new Uint8Array(137 << 20))
      expect(await codeOf(openTrustedHeader(join(dir, "large"), WITHOUT))).toBe("ERR_TOO_LARGE")
    }))
})

describe("the TPM's memory of the header", () => {
  const honest = withIntegrity(luksHeader())
  const other = withMetadata(honest, set("config.flags", ["allow-discards"]))
  const options = (
    reference: HeaderReference | null,
    absent: TrustOptions["absent"] = "refuse",
  ): TrustOptions => ({
    reference: { store: remembering(reference), name: NAME },
    absent,
  })
  const outcome = async (image: Uint8Array, given: TrustOptions) =>
    (await trustHeader(image, "header", given)).reference

  test("is compared with the whole header", async () => {
    const current = { current: headerDigest(honest), next: null }
    expect(await outcome(honest, options(current))).toBe("current")
    expect(await codeOf(outcome(other, options(current)))).toBe("ERR_HEADER_CHANGED")
  })

  test("knows the header before and after a change that was interrupted", async () => {
    const changing = { current: headerDigest(honest), next: headerDigest(other) }
    expect(await outcome(honest, options(changing))).toBe("before")
    expect(await outcome(other, options(changing))).toBe("after")
    const third = withMetadata(honest, set("config.flags", ["same-cpu-crypt"]))
    expect(await codeOf(outcome(third, options(changing)))).toBe("ERR_HEADER_CHANGED")
  })

  test("L1: an old header put back is refused, though all its parameters are right", async () => {
    expect(await codeOf(outcome(honest, options({ current: headerDigest(other), next: null })))).toBe(
      "ERR_HEADER_CHANGED",
    )
  })

  test("has to be there, unless its absence is accepted", async () => {
    expect(await codeOf(outcome(honest, options(null)))).toBe("ERR_HEADER_REFERENCE_ABSENT")
    expect(await outcome(honest, options(null, "accept"))).toBe("absent")
    expect(await outcome(honest, { reference: null, absent: "refuse" })).toBe("unchecked")
  })

  test("makes no weak header acceptable", async () => {
    const weak = withMetadata(honest, set("keyslots.0.kdf.memory", 32))
    expect(await codeOf(outcome(weak, options({ current: headerDigest(weak), next: null })))).toBe(
      "ERR_LUKS_KDF",
    )
  })
})
