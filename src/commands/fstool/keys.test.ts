/** The life of a volume's keys, with the real cryptsetup and a software TPM. What needs the device mapper is shown in the guest. */
import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test"
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { luksHeader, PASSPHRASE, resign } from "../../../test/fakes/luks.ts"
import { codeOf } from "../../../test/fakes/simulated.ts"
import { parseLuksHeader } from "../../formats/luks/header.ts"
import type { TpmStorage } from "../../native/ports.ts"
import { type SoftwareTpm, startSoftwareTpm } from "../../native/swtpm.ts"
import { openTpmStorage } from "../../native/tpm.ts"
import { VolumeTools } from "../../native/volume-tools.ts"
import { headerDigest } from "../trusted-header.ts"
import { acceptHeader, backUpHeader, restoreHeader, wipeVolume } from "./header-care.ts"
import {
  addPassphrase,
  changePassphrase,
  enrolTpm,
  type KeyWork,
  removePassphrase,
  setRecoveryKey,
  unenrolTpm,
} from "./keys.ts"
import { passphraseCost } from "./machine.ts"
import { trustedHeaderOf, type Unlocking, withHeader, withKey } from "./open-volume.ts"
import { volumeStatus } from "./status.ts"
import { type Volume, volumeAt } from "./volume-config.ts"

/** Offset of the first character of the UUID in a binary header. Source: LUKS2 On-Disk Format Specification 1.1.1, section 2.1. */
const UUID = 0xa8
const dir = mkdtempSync(join(tmpdir(), "fstool-keys-"))
/** The least that a header may have. */
const CHEAP = { memory: 64 * 1024, passes: 4, lanes: 1 }
const bytes = (text: string) => new Uint8Array(Buffer.from(text))
// Each guess at a password is meant to take its time.
setDefaultTimeout(60_000)
let swtpm: SoftwareTpm
let other: SoftwareTpm
let tpm: TpmStorage
let work: KeyWork
let made = 0

beforeAll(async () => {
  swtpm = await startSoftwareTpm(join(dir, "tpm"))
  other = await startSoftwareTpm(join(dir, "other-tpm"))
  tpm = await openTpmStorage(swtpm.tcti)
})
afterAll(async () => {
  await tpm.close()
  await swtpm.stop()
  await other.stop()
  rmSync(dir, { recursive: true, force: true })
})

/** A volume whose header the TPM knows, with one password. */
beforeEach(async () => {
  const location = join(dir, `volume-${made++}`)
  mkdirSync(location)
  const volume: Volume = { ...volumeAt(location), integrity: "none" }
  writeFileSync(volume.header, luksHeader())
  writeFileSync(volume.container, "")
  work = {
    volume,
    machine: {
      tpm,
      tpmAbsence: null,
      volumesFile: join(location, "volumes.toml"),
      journal: join(location, "creating"),
      passphraseCost: CHEAP,
      talk: () => {},
    },
    tools: new VolumeTools(null),
  }
  await tpm.headers.write(
    { volume: volume.name, pcrs: [] },
    { current: headerDigest(luksHeader()), next: null },
  )
})

const by = (passphrase: string): Unlocking => ({
  passphrase: async () => bytes(passphrase),
  pin: null,
  first: "passphrase",
})
const BY_TPM: Unlocking = { passphrase: null, pin: null, first: "tpm" }

/** Opens a keyslot by these means, or gives the code of the error. */
async function opens(unlocking: Unlocking): Promise<string> {
  const { volume, machine, tools } = work
  const opened = trustedHeaderOf(volume, machine).then((trusted) =>
    withKey(volume, trusted, machine, unlocking, (key) =>
      withHeader(trusted, (header) => tools.cryptsetup.keyslotOf(header, key.secret)),
    ),
  )
  const code = await codeOf(opened)
  return code === "no error" ? "opens" : code
}

async function keyslots(): Promise<string[]> {
  const { luks } = await volumeStatus(work.volume, work.machine)
  return (luks?.keyslots ?? []).map(({ slot, opens_with }) => `${slot} ${opens_with}`)
}

describe("passwords", () => {
  test("a changed one opens, the former does not, and the TPM knows the new header", async () => {
    await changePassphrase(work, bytes(PASSPHRASE), bytes("neu: größer"))
    expect(await opens(by("neu: größer"))).toBe("opens")
    expect(await opens(by(PASSPHRASE))).toBe("ERR_PASSPHRASE_WRONG")
    expect((await trustedHeaderOf(work.volume, work.machine)).reference).toBe("current")
    expect(await keyslots()).toEqual(["1 password"])
  })

  test("a former one's keyslot is not left on the disk, where the file with it was", async () => {
    const former = openSync(work.volume.header, "r")
    await changePassphrase(work, bytes(PASSPHRASE), bytes("new"))
    expect(readFileSync(former).every((byte) => byte === 0)).toBe(true)
    closeSync(former)
  })

  test("a second name that somebody gave the header's file keeps what it was", async () => {
    const kept = join(work.volume.location, "kept")
    linkSync(work.volume.header, kept)
    await changePassphrase(work, bytes(PASSPHRASE), bytes("new"))
    expect(readFileSync(kept).equals(luksHeader())).toBe(true)
  })

  test("a destroyed volume's keys are not left on the disk", async () => {
    const former = openSync(work.volume.header, "r")
    await wipeVolume(work)
    expect(readFileSync(former).every((byte) => byte === 0)).toBe(true)
    closeSync(former)
    expect(existsSync(work.volume.header)).toBe(false)
  })

  test("another one is added, and the first can go then; the last one stays", async () => {
    expect(await codeOf(removePassphrase(work, bytes(PASSPHRASE)))).toBe("ERR_LAST_KEY")
    await addPassphrase(work, by(PASSPHRASE), bytes("second"))
    await removePassphrase(work, bytes(PASSPHRASE))
    expect(await opens(by("second"))).toBe("opens")
    expect(await codeOf(removePassphrase(work, bytes("second")))).toBe("ERR_LAST_KEY")
  })

  test("a wrong one changes nothing", async () => {
    const before = readFileSync(work.volume.header)
    expect(await codeOf(changePassphrase(work, bytes("wrong"), bytes("new")))).toBe("ERR_PASSPHRASE_WRONG")
    expect(await codeOf(addPassphrase(work, by("wrong"), bytes("new")))).toBe("ERR_PASSPHRASE_WRONG")
    expect(readFileSync(work.volume.header).equals(before)).toBe(true)
  })

  test("a guess costs at least what the policy asks of a header, on any machine", () => {
    expect(passphraseCost(128 * 1024 ** 2, 1)).toEqual({ memory: 64 * 1024, passes: 4, lanes: 1 })
    expect(passphraseCost(512 * 1024 ** 3, 96)).toEqual({ memory: 1024 * 1024, passes: 4, lanes: 4 })
  })
})

describe("the TPM", () => {
  test("opens a volume that it was enrolled to, and no more when it was removed", async () => {
    expect(await opens(BY_TPM)).toBe("ERR_VOLUME_NO_KEY")
    await enrolTpm(work, by(PASSPHRASE), { pcrs: [7], pin: null })
    expect(await opens(BY_TPM)).toBe("opens")
    expect(await keyslots()).toEqual(["0 password", "1 tpm"])
    await unenrolTpm(work, BY_TPM)
    expect(await opens(BY_TPM)).toBe("ERR_VOLUME_NO_KEY")
    expect(await keyslots()).toEqual(["0 password"])
  })

  test("allows another password, and a new enrolment of itself in place of the former", async () => {
    await enrolTpm(work, by(PASSPHRASE), { pcrs: [], pin: null })
    await addPassphrase(work, BY_TPM, bytes("forgotten no more"))
    expect(await opens(by("forgotten no more"))).toBe("opens")
    await enrolTpm(work, BY_TPM, { pcrs: [], pin: bytes("4711") })
    expect(await keyslots()).toEqual(["0 password", "2 password", "3 tpm"])
  })

  test("keeps its secret as the systemd of Debian 12 reads it, where that is asked for", async () => {
    const formats = async () =>
      ((await volumeStatus(work.volume, work.machine)).luks?.keyslots ?? []).map((each) => each.token_format)
    await enrolTpm(work, by(PASSPHRASE), { pcrs: [], pin: null, storageKey: "systemd-252" })
    expect(await opens(BY_TPM)).toBe("opens")
    expect(await formats()).toEqual([undefined, "systemd-252"])
    await enrolTpm(work, BY_TPM, { pcrs: [], pin: null })
    expect(await opens(BY_TPM)).toBe("opens")
    expect(await formats()).toEqual([undefined, "systemd-254"])
  })

  test("wants the PIN that it was enrolled with", async () => {
    await enrolTpm(work, by(PASSPHRASE), { pcrs: [], pin: bytes("4711") })
    expect(await opens(BY_TPM)).toBe("ERR_VOLUME_NO_KEY")
    expect(await opens({ ...BY_TPM, pin: async () => bytes("4712") })).toBe("ERR_SEALED_PIN")
    expect(await opens({ ...BY_TPM, pin: async () => bytes("4711") })).toBe("opens")
  })

  test("of another machine does not open it; the password does", async () => {
    await enrolTpm(work, by(PASSPHRASE), { pcrs: [], pin: null })
    const elsewhere = await openTpmStorage(other.tcti)
    try {
      work = { ...work, machine: { ...work.machine, tpm: elsewhere } }
      expect(await opens(BY_TPM)).toBe("ERR_SEALED_ELSEWHERE")
      expect(await opens(by(PASSPHRASE))).toBe("opens")
      // The TPM first, and the password when that fails: as at a terminal.
      expect(await opens({ ...by(PASSPHRASE), first: "tpm" })).toBe("opens")
    } finally {
      await elsewhere.close()
    }
  })
})

describe("recovery keys", () => {
  test("one is made, and takes the place of the former", async () => {
    await setRecoveryKey(work, by(PASSPHRASE), bytes("first-key"))
    expect(await opens(by("first-key"))).toBe("opens")
    await setRecoveryKey(work, by(PASSPHRASE), bytes("second-key"))
    expect(await opens(by("first-key"))).toBe("ERR_PASSPHRASE_WRONG")
    expect(await opens(by("second-key"))).toBe("opens")
    expect((await keyslots()).filter((each) => each.endsWith("recovery-key"))).toHaveLength(1)
  })

  test("with one, the last password may go", async () => {
    await setRecoveryKey(work, by(PASSPHRASE), bytes("key"))
    await removePassphrase(work, bytes(PASSPHRASE))
    expect(await opens(by("key"))).toBe("opens")
  })
})

describe("the header", () => {
  test("put back after a change of the password is refused, until somebody accepts it", async () => {
    const old = readFileSync(work.volume.header)
    await changePassphrase(work, bytes(PASSPHRASE), bytes("new"))
    writeFileSync(work.volume.header, old)
    expect(await opens(by(PASSPHRASE))).toBe("ERR_HEADER_CHANGED")
    expect((await volumeStatus(work.volume, work.machine)).problem?.code).toBe("ERR_HEADER_CHANGED")
    // Not by somebody who cannot open it.
    expect(await codeOf(acceptHeader(work, by("new")))).toBe("ERR_PASSPHRASE_WRONG")
    await acceptHeader(work, by(PASSPHRASE))
    expect(await opens(by(PASSPHRASE))).toBe("opens")
  })

  test("L1: put back under another name of the volume: the TPM's own secret does not open it, a person may", async () => {
    await enrolTpm(work, by(PASSPHRASE), { pcrs: [], pin: null })
    const old = readFileSync(work.volume.header)
    await changePassphrase(work, bytes(PASSPHRASE), bytes("new"))
    writeFileSync(work.volume.header, old)
    // As whoever writes the disk can have it in volumes.toml: the TPM remembers nothing of a volume of this name.
    work = { ...work, volume: { ...work.volume, name: `${work.volume.name}-renamed` } }
    expect(await opens(BY_TPM)).toBe("ERR_HEADER_REFERENCE_ABSENT")
    expect(await opens(by(PASSPHRASE))).toBe("opens")
    await acceptHeader(work, BY_TPM)
    expect(await opens(BY_TPM)).toBe("opens")
  })

  test("is restored from its backup, which only its owner may read", async () => {
    const backup = join(work.volume.location, "backup")
    await backUpHeader(work, backup)
    expect(statSync(backup).mode & 0o777).toBe(0o600)
    expect(await codeOf(backUpHeader(work, backup))).toBe("ERR_BAD_VALUE")
    writeFileSync(work.volume.header, "damaged")
    expect(await opens(by(PASSPHRASE))).not.toBe("opens")
    expect(await codeOf(restoreHeader(work, by("wrong"), backup))).toBe("ERR_PASSPHRASE_WRONG")
    await restoreHeader(work, by(PASSPHRASE), backup)
    expect(await opens(by(PASSPHRASE))).toBe("opens")
  })

  test("of another volume is not restored", async () => {
    const backup = join(work.volume.location, "backup")
    writeFileSync(backup, ofAnotherVolume(luksHeader()))
    expect(await codeOf(restoreHeader(work, by(PASSPHRASE), backup))).toBe("ERR_BAD_VALUE")
    expect(await opens(by(PASSPHRASE))).toBe("opens")
  })

  test("a change that was cut short before the exchange leaves the former header, after it the new one", async () => {
    const old = new Uint8Array(readFileSync(work.volume.header))
    const name = { volume: work.volume.name, pcrs: [] }
    await addPassphrase(work, by(PASSPHRASE), bytes("second"))
    const next = new Uint8Array(readFileSync(work.volume.header))
    for (const [there, second, other] of [
      [old, "ERR_PASSPHRASE_WRONG", next],
      [next, "opens", old],
    ] as const) {
      await tpm.headers.write(name, { current: headerDigest(old), next: headerDigest(next) })
      writeFileSync(work.volume.header, there)
      // Looking decides nothing: a change may be under way.
      expect((await volumeStatus(work.volume, work.machine)).problem).toBeNull()
      expect((await tpm.headers.read(name))?.next).not.toBeNull()
      expect(await opens(by("second"))).toBe(second)
      // Opened once, it is decided, and the other header is one that somebody kept.
      writeFileSync(work.volume.header, other)
      expect(await opens(by(PASSPHRASE))).toBe("ERR_HEADER_CHANGED")
    }
  })

  test("without integrity protection is refused for a volume that was made with it", async () => {
    work = { ...work, volume: { ...work.volume, integrity: "required" } }
    expect(await opens(by(PASSPHRASE))).toBe("ERR_LUKS_INTEGRITY")
  })
})

/** A header with another UUID, in both copies. */
function ofAnotherVolume(image: Uint8Array): Uint8Array {
  const { headerSize } = parseLuksHeader(image)
  for (const offset of [0, headerSize]) {
    image[offset + UUID] = image[offset + UUID] === 0x61 ? 0x62 : 0x61
    resign(image, offset)
  }
  return image
}
