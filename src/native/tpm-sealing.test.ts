import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { pbkdf2Sync } from "node:crypto"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { cryptsetup, luksHeader, PASSPHRASE } from "../../test/fakes/luks.ts"
import { codeOf } from "../../test/fakes/simulated.ts"
import { CodedError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { parseLuksHeader } from "../formats/luks/header.ts"
import {
  encodeSystemdTpm2Token,
  parseSystemdTpm2Token,
  type SealedSecret,
  sealedPassphrase,
} from "../formats/luks/systemd-tpm2-token.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { sized } from "../formats/tpm/wire.ts"
import type { HeaderReference, TpmStorage } from "./ports.ts"
import { type SoftwareTpm, startSoftwareTpm } from "./swtpm.ts"
import { openTpmStorage, withTpm } from "./tpm.ts"
import * as commands from "./tpm-commands.ts"
import { readReference, writeReference } from "./tpm-header-reference.ts"
import { seal, unseal, withStorageKey } from "./tpm-sealing.ts"
import { loadTss2, type TransportOpener } from "./tss2.ts"

const SECRET = Uint8Array.from({ length: 32 }, (_, n) => n + 1)
const PIN = () => new Uint8Array(Buffer.from("4711"))
/** Under the key that systemd 252 knows. */
const PLAIN = { secret: SECRET, pcrs: [], pin: null, storageKey: "systemd-252" } as const
const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-seal-"))
const started: SoftwareTpm[] = []
let tpm: TpmStorage
let tcti: string
let open: TransportOpener

beforeAll(async () => {
  open = await loadTss2()
  ;({ tpm, tcti } = await anotherTpm())
})
afterAll(async () => {
  await tpm.close()
  for (const each of started) await each.stop()
  rmSync(dir, { recursive: true })
})

/** A TPM of its own, with its own seeds. */
async function anotherTpm(): Promise<{ tpm: TpmStorage; tcti: string }> {
  const swtpm = await startSoftwareTpm(join(dir, `tpm-${started.length}`))
  started.push(swtpm)
  return { tpm: await openTpmStorage(swtpm.tcti), tcti: swtpm.tcti }
}

/** Runs on a connection in this thread, where what is sent and received can be seen and changed. */
function beside<T>(
  run: (transceive: commands.Transceive) => T,
  wire = (_: Uint8Array, back: Uint8Array) => back,
): T {
  const transport = open(tcti)
  try {
    return run((command) => wire(command, transport.transceive(command)))
  } finally {
    transport.close()
  }
}

function extend(pcr: number): Promise<unknown> {
  return withTpm(tcti, (worker) => worker.call("extend", { pcr, data: Buffer.from("an update") }))
}

describe("a sealed secret", () => {
  test("is the same again, whatever its size", async () => {
    for (const size of [1, 32, 128]) {
      const secret = new Uint8Array(size).fill(size)
      const sealed = await tpm.seal({ ...PLAIN, secret })
      expect(toHex(await tpm.unseal(sealed, null))).toBe(toHex(secret))
    }
    for (const size of [0, 129])
      expect(await codeOf(tpm.seal({ ...PLAIN, secret: new Uint8Array(size) }))).toBe("ERR_TOO_LARGE")
  })

  test("is given back after a reboot", async () => {
    const other = await anotherTpm()
    const sealed = await other.tpm.seal({ ...PLAIN, pcrs: [0, 7] })
    await other.tpm.close()
    await started.at(-1)?.stop()
    const again = await startSoftwareTpm(join(dir, `tpm-${started.length - 1}`))
    started.push(again)
    const tpmAgain = await openTpmStorage(again.tcti)
    expect(toHex(await tpmAgain.unseal(sealed, null))).toBe(toHex(SECRET))
    await tpmAgain.close()
  })

  test("L2: is not given back by another TPM", async () => {
    const other = await anotherTpm()
    const [here, there] = [await tpm.seal(PLAIN), await other.tpm.seal(PLAIN)]
    expect(await codeOf(other.tpm.unseal(here, null))).toBe("ERR_SEALED_ELSEWHERE")
    expect(await codeOf(tpm.unseal(there, null))).toBe("ERR_SEALED_ELSEWHERE")
    expect(await codeOf(tpm.unseal(here, null))).toBe("no error")
    await other.tpm.close()
  })

  test("L2: is not given back once a PCR of its policy has changed; others do not matter", async () => {
    const bound = await tpm.seal({ ...PLAIN, pcrs: [9, 11] })
    await extend(12)
    expect(toHex(await tpm.unseal(bound, null))).toBe(toHex(SECRET))
    const unbound = await tpm.seal(PLAIN)
    await extend(11)
    expect(await codeOf(tpm.unseal(bound, null))).toBe("ERR_SEALED_PCRS")
    expect(toHex(await tpm.unseal(unbound, null))).toBe(toHex(SECRET))
  })

  test("is not freed of its PCRs by a token that names others, or none", async () => {
    const bound = await tpm.seal({ ...PLAIN, pcrs: [15] })
    await extend(15)
    for (const pcrs of [[], [14], [15]]) {
      expect(await codeOf(tpm.unseal({ ...bound, pcrs }, null))).toBe("ERR_SEALED_PCRS")
      expect(await codeOf(tpm.unseal({ ...bound, pcrs, policyHash: new Uint8Array(32) }, null))).toBe(
        "ERR_SEALED_PCRS",
      )
    }
  })

  test("needs its PIN", async () => {
    const other = await anotherTpm()
    const sealed = await other.tpm.seal({ ...PLAIN, pcrs: [7], pin: PIN() })
    expect(toHex(await other.tpm.unseal(sealed, PIN()))).toBe(toHex(SECRET))
    expect(await codeOf(other.tpm.unseal(sealed, null))).toBe("ERR_SEALED_PIN")
    expect(await codeOf(other.tpm.unseal({ ...sealed, pin: false }, null))).toBe("ERR_SEALED_PCRS")
    const wrong = () => codeOf(other.tpm.unseal(sealed, Buffer.from("0000")))
    expect(await wrong()).toBe("ERR_SEALED_PIN")
    const codes = []
    for (let tries = 0; tries < 40 && codes.at(-1) !== "ERR_TPM_LOCKOUT"; tries++) codes.push(await wrong())
    expect(codes.at(-1)).toBe("ERR_TPM_LOCKOUT")
    expect(await codeOf(other.tpm.unseal(sealed, PIN()))).toBe("ERR_TPM_LOCKOUT")
    await other.tpm.close()
  })

  test("without a PIN takes none", async () => {
    expect(await codeOf(tpm.unseal(await tpm.seal(PLAIN), PIN()))).toBe("ERR_SEALED_PIN")
  })

  test("with a salted PIN is given back as systemd 254 and later hash it", async () => {
    const salt = new Uint8Array(32).fill(3)
    const hashed = pbkdf2Sync(PIN(), salt, 10_000, 32, "sha256").toString("base64")
    const sealed = await tpm.seal({ ...PLAIN, pin: new Uint8Array(Buffer.from(hashed)) })
    expect(toHex(await tpm.unseal({ ...sealed, salt }, PIN()))).toBe(toHex(SECRET))
  })

  test("leaves nothing in the TPM, done or failed", async () => {
    const sealed = await tpm.seal({ ...PLAIN, pcrs: [1], pin: PIN() })
    await tpm.unseal(sealed, PIN())
    await codeOf(tpm.unseal({ ...sealed, pcrs: [2] }, PIN()))
    const left = beside((transceive) =>
      [0x80000000, 0x02000000, 0x03000000].flatMap((first) =>
        commands.handlesInUse(transceive, first).filter((handle) => handle >>> 24 === first >>> 24),
      ),
    )
    expect(left).toEqual([])
  })

  test("is sealed although killed processes left sessions and keys behind", async () => {
    const { newSessionSecret } = await import("./tpm-session.ts")
    beside((transceive) =>
      withStorageKey(transceive, ({ handle, publicArea }) => {
        for (let left = 0; left < 3; left++) {
          const { nonceCaller, encryptedSalt } = newSessionSecret(publicArea)
          commands.send(transceive, "startAuthSession", {
            handles: [handle, 0x40000007],
            parameters(to) {
              sized(64).write(nonceCaller, to)
              sized(512).write(encryptedSalt, to)
              to.put(Uint8Array.of(0, 0, 6, 0, 128, 0, 0x43, 0, 0x0b))
            },
          })
        }
      }),
    )
    expect(toHex(await tpm.unseal(await tpm.seal(PLAIN), null))).toBe(toHex(SECRET))
  })
})

describe("between us and the TPM", () => {
  test("nobody who listens sees the secret", () => {
    const heard: Uint8Array[] = []
    const listen = (command: Uint8Array, back: Uint8Array) => {
      heard.push(command.slice(), back.slice())
      return back
    }
    const sealed = beside((transceive) => seal(transceive, { ...PLAIN, pin: PIN() }), listen)
    const secret = beside((transceive) => unseal(transceive, { sealed, pin: PIN() }), listen)
    expect(toHex(secret)).toBe(toHex(SECRET))
    const all = heard.map(toHex).join("\n")
    expect(all).not.toContain(toHex(SECRET.subarray(0, 8)))
    // The same ears hear what is not secret.
    expect(all).toContain(toHex(sealed.blob.subarray(2, 80)))
  })

  test("nobody changes an answer that holds a secret without being noticed", () => {
    const sealed = beside((transceive) => seal(transceive, PLAIN))
    const changing = (at: number) =>
      beside(
        (transceive) => unseal(transceive, { sealed, pin: null }),
        (command, back) => {
          if (Buffer.from(command).readUInt32BE(6) !== 0x15e) return back
          const changed = back.slice()
          changed[at] = (changed[at] ?? 0) ^ 1
          return changed
        },
      )
    // Secret, nonce, attributes and HMAC of the answer to TPM2_Unseal: 10 bytes of head, 4 of size, then these.
    for (const at of [16, 30, 47, 50, 60, 82, 85, 110])
      expect(() => changing(at)).toThrowCode("ERR_TPM_SESSION")
    expect(toHex(changing(100_000))).toBe(toHex(SECRET))
  })
})

test("whatever a TPM answers, only coded errors come of it", () => {
  const record = (run: (transceive: commands.Transceive) => unknown): Uint8Array[] => {
    const answers: Uint8Array[] = []
    beside(run, (_, back) => {
      answers.push(back.slice())
      return back
    })
    return answers
  }
  const sealed = beside((transceive) => seal(transceive, { ...PLAIN, pcrs: [0], pin: PIN() }))
  const name = { volume: "fuzzed", pcrs: [0] }
  const reference = { current: SECRET, next: null }
  const runs: ((transceive: commands.Transceive) => unknown)[] = [
    (transceive) => seal(transceive, { ...PLAIN, pcrs: [0], pin: PIN() }),
    (transceive) => unseal(transceive, { sealed, pin: PIN() }),
    (transceive) => writeReference(transceive, { name, reference }),
    (transceive) => readReference(transceive, name),
  ]
  const recorded = runs.map(record)
  fc.assert(
    fc.property(
      fc.nat(runs.length - 1),
      fc.nat(12),
      fc.nat(300),
      fc.uint8Array({ maxLength: 40 }),
      fc.boolean(),
      (which, answer, at, bytes, insert) => {
        const answers = recorded[which]?.map((each) => each.slice()) ?? []
        const target = answers[answer % answers.length] ?? new Uint8Array(0)
        const offset = at % (target.length + 1)
        const rest = target.subarray(insert ? offset : Math.min(target.length, offset + bytes.length))
        const changed = Uint8Array.from([...target.subarray(0, offset), ...bytes, ...rest])
        // The size in its head is right, so that more than the head is read.
        if (changed.length >= 10) new DataView(changed.buffer).setUint32(2, changed.length)
        answers[answer % answers.length] = changed
        try {
          runs[which]?.(() => answers.shift() ?? new Uint8Array(0))
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      },
    ),
    { numRuns: 3000 },
  )
}, 60_000)

describe("a blob that was changed", () => {
  test("is refused", async () => {
    const sealed = await tpm.seal(PLAIN)
    const codes = new Set<string>()
    for (let at = 0; at < sealed.blob.length; at += 3) {
      const blob = sealed.blob.slice()
      blob[at] = (blob[at] ?? 0) ^ 1
      codes.add(await codeOf(tpm.unseal({ ...sealed, blob }, null)))
    }
    expect([...codes].filter((code) => !code.startsWith("ERR_"))).toEqual([])
    expect([...codes]).toContain("ERR_SEALED_ELSEWHERE")
  })

  test("that may be unsealed by its password is refused", async () => {
    const sealed = await tpm.seal(PLAIN)
    const blob = sealed.blob.slice()
    const attributes = Buffer.from(blob).indexOf(Buffer.from("0008000b", "hex")) + 4
    blob[attributes + 3] = (blob[attributes + 3] ?? 0) | 0x40 // userWithAuth
    expect(await codeOf(tpm.unseal({ ...sealed, blob }, null))).toBe("ERR_UNSUPPORTED")
  })
})

describe("under the persistent storage root key", () => {
  const HANDLE = 0x81000001
  const LASTING = { secret: SECRET, pcrs: [], pin: null }

  test("a secret is sealed, and unsealed under that very key and no other", async () => {
    const sealed = await tpm.seal(LASTING)
    const again = await tpm.seal(LASTING)
    expect(sealed.srk).toEqual(again.srk)
    for (const each of [sealed, again]) expect(toHex(await tpm.unseal(each, null))).toBe(toHex(SECRET))
    const changed = (at: number, value: number): SealedSecret => {
      const srk = sealed.srk?.slice() ?? new Uint8Array(0)
      srk[at] = value
      return { ...sealed, srk }
    }
    expect(await codeOf(tpm.unseal(changed(20, 0), null))).toBe("ERR_SEALED_ELSEWHERE")
    expect(await codeOf(tpm.unseal(changed(3, 9), null))).toBe("ERR_SEALED_ELSEWHERE")
    expect(await codeOf(tpm.unseal(changed(0, 0x80), null))).toBe("ERR_UNSUPPORTED")
    expect(await codeOf(tpm.unseal({ ...sealed, srk: null }, null))).toBe("ERR_SEALED_ELSEWHERE")
    expect(await codeOf(tpm.unseal({ ...(await tpm.seal(PLAIN)), srk: sealed.srk }, null))).toBe(
      "ERR_SEALED_ELSEWHERE",
    )
  })

  test("its name is written as systemd 255 writes it", async () => {
    const { srk } = await tpm.seal(LASTING)
    // Handle, size and algorithm of the Name; then, after the digest: kind, size, type, attributes and parameters.
    expect(toHex(srk?.subarray(0, 8) ?? new Uint8Array(0))).toBe("810000010022000b")
    expect(toHex(srk?.subarray(40, 70) ?? new Uint8Array(0))).toBe(
      "00000001005a0023000b000304720000000600800043001000030010" + "0020",
    )
    expect(srk?.length).toBe(136)
  })

  test("another's key in its place is left alone", async () => {
    const other = await anotherTpm()
    await withTpm(other.tcti, (worker) => worker.call("ensureKeys", null))
    const transport = open(other.tcti)
    const transceive = (command: Uint8Array) => transport.transceive(command)
    const ak = commands.readPublic(transceive, 0x81000051)
    if (ak?.type !== "ecc") throw new Error("no attestation key")
    const none = new Uint8Array(0)
    const made = commands.createPrimary(transceive, commands.RH.owner, { ...ak, x: none, y: none })
    commands.persist(transceive, made.handle, HANDLE)
    commands.flush(transceive, made.handle)
    transport.close()
    expect(await codeOf(other.tpm.seal(LASTING))).toBe("ERR_TPM_HANDLE_TAKEN")
    expect(await codeOf(other.tpm.seal(PLAIN))).toBe("no error")
    await other.tpm.close()
  })

  test("power cuts lock nobody out, as they do under the key of systemd 252", async () => {
    const outcome = async (storageKey: "srk" | "systemd-252") => {
      const place = join(dir, `cuts-${storageKey}`)
      const codes = new Set<string>()
      let sealed: SealedSecret | null = null
      for (let boot = 0; boot < 6; boot++) {
        const swtpm = await startSoftwareTpm(place)
        const storage = await openTpmStorage(swtpm.tcti)
        sealed ??= await storage.seal({ ...PLAIN, storageKey })
        codes.add(await codeOf(storage.unseal(sealed, null)))
        await storage.close()
        process.kill(swtpm.pid, "SIGKILL")
        // Until it is gone altogether: it holds a lock on its state to the last.
        while (existsSync(`/proc/${swtpm.pid}`)) await Bun.sleep(10)
      }
      return [...codes]
    }
    expect(await outcome("srk")).toEqual(["no error"])
    expect(await outcome("systemd-252")).toEqual(["no error", "ERR_TPM_LOCKOUT"])
  }, 30_000)

  test("an RSA key is refused by name", async () => {
    expect(await codeOf(tpm.unseal({ ...(await tpm.seal(PLAIN)), primaryAlg: "rsa" }, null))).toBe(
      "ERR_UNSUPPORTED",
    )
  })
})

describe("with systemd", () => {
  /** Enrols as an administrator would. */
  function enrolled(
    address: string,
    pcrs: string,
    pin: string | null,
  ): { path: string; sealed: SealedSecret } {
    const path = join(dir, `header-${pcrs}-${pin}`)
    writeFileSync(path, luksHeader())
    const withPin = pin === null ? [] : ["--tpm2-with-pin=yes"]
    const run = Bun.spawnSync(
      ["systemd-cryptenroll", `--tpm2-device=${address}`, `--tpm2-pcrs=${pcrs}`, ...withPin, path],
      {
        env: { PASSWORD: PASSPHRASE, NEWPIN: pin ?? "", PATH: "/usr/bin:/bin" },
        stderr: "pipe",
      },
    )
    if (run.exitCode !== 0) throw new Error(`${run.stderr}`)
    const [token] = parseLuksHeader(new Uint8Array(Bun.mmap(path).slice())).metadata.tokens
    return { path, sealed: parseSystemdTpm2Token(token?.members ?? {}) }
  }

  for (const [name, pcrs, pin] of [
    ["a PCR", "7", null],
    ["a PIN", "", "4711"],
    ["both", "0+7", "0815"],
  ] as const)
    test(`what systemd-cryptenroll sealed with ${name} opens the volume`, async () => {
      // It leaves sessions behind, which only a resource manager would clear: so each on a TPM of its own.
      const other = await anotherTpm()
      const { path, sealed } = enrolled(other.tcti, pcrs, pin)
      const secret = await other.tpm.unseal(sealed, pin === null ? null : Buffer.from(pin))
      const args = ["open", "--test-passphrase", "--key-slot", "1", "--key-file", "-", path]
      expect(cryptsetup(args, sealedPassphrase(secret)).exitCode).toBe(0)
      expect(cryptsetup(args, sealedPassphrase(SECRET)).exitCode).not.toBe(0)
      await other.tpm.close()
    })

  test("our token is one that its plugin accepts", async () => {
    const path = join(dir, "header-ours")
    writeFileSync(path, luksHeader())
    const token = encodeSystemdTpm2Token(await tpm.seal({ ...PLAIN, pcrs: [7] }), 0)
    expect(cryptsetup(["token", "import", path], token).exitCode).toBe(0)
    expect(`${cryptsetup(["luksDump", path]).stdout}`).toMatch(/systemd-tpm2\n\s+tpm2-hash-pcrs:\s+7\n/)
    const wrong = Buffer.from(JSON.stringify({ type: "systemd-tpm2", keyslots: ["0"] }))
    expect(cryptsetup(["token", "import", path], wrong).exitCode).not.toBe(0)
  })
})

describe("the TPM's memory of a header", () => {
  const one: HeaderReference = { current: new Uint8Array(32).fill(1), next: null }
  const two: HeaderReference = { current: new Uint8Array(32).fill(1), next: new Uint8Array(32).fill(2) }

  for (const pcrs of [[], [7]])
    test(`keeps, changes and forgets it (${pcrs.length === 0 ? "no PCRs" : `PCR ${pcrs}`})`, async () => {
      const name = { volume: `kept-${pcrs}`, pcrs }
      expect(await tpm.headers.read(name)).toBeNull()
      for (const reference of [one, two, one]) {
        await tpm.headers.write(name, reference)
        expect(await tpm.headers.read(name)).toEqual(reference)
      }
      expect(await tpm.headers.read({ volume: "another", pcrs })).toBeNull()
      await tpm.headers.remove(name.volume)
      await tpm.headers.remove(name.volume)
      expect(await tpm.headers.read(name)).toBeNull()
    })

  test("is not believed once a PCR of its policy has changed, and can be written anew", async () => {
    const name = { volume: "updated", pcrs: [13] }
    await tpm.headers.write(name, one)
    await extend(13)
    expect(await codeOf(tpm.headers.read(name))).toBe("ERR_HEADER_REFERENCE")
    await tpm.headers.write(name, two)
    expect(await tpm.headers.read(name)).toEqual(two)
  })

  test("L1: is not believed where another system that this machine booted wrote it", async () => {
    const name = { volume: "attacked", pcrs: [14] }
    await tpm.headers.write(name, one)
    const index = indexOf(name.volume)
    const ours = beside((transceive) => commands.readNvPublic(transceive, index))
    if (ours === null) throw new Error("no index")
    const replaced = (definition: Partial<commands.NvPublic>) => {
      const written = 2 ** 29
      const attributes = (definition.attributes ?? ours.attributes) & ~written
      beside((transceive) => {
        commands.undefineNv(transceive, index)
        commands.defineNv(transceive, { ...ours, ...definition, attributes })
      })
    }
    const content = beside((transceive) => commands.readNv(transceive, index, index, ours.dataSize, 0))
    // Without our policy, so that it can be written by anybody.
    replaced({ attributes: 0x02060004, authPolicy: new Uint8Array(0) })
    beside((transceive) => commands.writeNv(transceive, index, index, content, 0))
    expect(await codeOf(tpm.headers.read(name))).toBe("ERR_HEADER_REFERENCE")
    expect(await tpm.headers.read({ ...name, pcrs: [] })).toEqual(one)
    // With our policy: then it can be defined, but not written, neither by its password nor by the owner's.
    replaced({})
    for (const authority of [index, commands.RH.owner])
      expect(() =>
        beside((transceive) => commands.writeNv(transceive, authority, index, content, 0)),
      ).toThrowCode("ERR_TPM_COMMAND")
    expect(await tpm.headers.read(name)).toBeNull()
    // With our policy and a password as well.
    replaced({ attributes: 0x0206000c })
    beside((transceive) => commands.writeNv(transceive, index, index, content, 0))
    expect(await codeOf(tpm.headers.read(name))).toBe("ERR_HEADER_REFERENCE")
  })

  test("is not taken from another volume's index, nor overwrites another's", async () => {
    const name = { volume: "taken", pcrs: [] }
    await tpm.headers.write({ volume: "source", pcrs: [] }, one)
    const [from, to] = [indexOf("source"), indexOf(name.volume)]
    beside((transceive) => {
      const found = commands.readNvPublic(transceive, from)
      if (found === null) throw new Error("no index")
      commands.defineNv(transceive, { ...found, nvIndex: to, attributes: found.attributes & ~(2 ** 29) })
      commands.writeNv(transceive, to, to, commands.readNv(transceive, from, from, found.dataSize, 0), 0)
    })
    expect(await codeOf(tpm.headers.read(name))).toBe("ERR_HEADER_REFERENCE")
    expect(await codeOf(tpm.headers.remove(name.volume))).toBe("ERR_TPM_HANDLE_TAKEN")
    beside((transceive) => {
      commands.undefineNv(transceive, to)
      const attributes = 0x02060006
      const nvPublic = {
        nvIndex: to,
        nameAlg: ALG.sha256,
        attributes,
        authPolicy: new Uint8Array(0),
        dataSize: 8,
      }
      commands.defineNv(transceive, nvPublic)
    })
    expect(await codeOf(tpm.headers.read(name))).toBe("ERR_HEADER_REFERENCE")
    expect(await codeOf(tpm.headers.write(name, one))).toBe("ERR_TPM_HANDLE_TAKEN")
  })

  test("that was begun and not written is taken back; one that holds something stays", async () => {
    const name = { volume: "begun", pcrs: [] }
    await tpm.headers.write(name, one)
    await tpm.headers.removeUnwritten(name.volume)
    expect(await tpm.headers.read(name)).toEqual(one)
    const index = indexOf(name.volume)
    const defined = () => beside((transceive) => commands.readNvPublic(transceive, index))
    beside((transceive) => {
      const found = commands.readNvPublic(transceive, index)
      if (found === null) throw new Error("no index")
      commands.undefineNv(transceive, index)
      commands.defineNv(transceive, { ...found, attributes: found.attributes & ~(2 ** 29) })
    })
    expect(defined()).not.toBeNull()
    await tpm.headers.removeUnwritten(name.volume)
    expect(defined()).toBeNull()
    await tpm.headers.removeUnwritten(name.volume)
  })

  test("takes only SHA-256 digests", async () => {
    const short = { current: new Uint8Array(31), next: null }
    expect(await codeOf(tpm.headers.write({ volume: "short", pcrs: [] }, short))).toBe("ERR_TOO_LARGE")
  })

  function indexOf(volume: string): number {
    const hash = Bun.SHA256.hash(`cosmian-vm/header-reference/v1\0${volume}`)
    return 0x01800000 + (Buffer.from(hash.buffer).readUInt32BE(0) & 0x3fffff)
  }
})
