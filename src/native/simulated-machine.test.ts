import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash, randomBytes } from "node:crypto"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { EVIDENCE_PCRS } from "../formats/evidence.ts"
import { toHex } from "../formats/hex.ts"
import { measurementEntry, parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import { selectPcrs } from "../formats/tpm/pcr-selection.ts"
import { verifyMeasurementList } from "../verify/ima.ts"
import { verifyQuote } from "../verify/tpm.ts"
import type { Tpm } from "./ports.ts"
import {
  extendSimulatedPcr,
  measureFile,
  openSimulatedMachine,
  type SimulatedMachine,
} from "./simulated-machine.ts"
import { openTpm } from "./tpm.ts"
import { readPcrs } from "./tpm-commands.ts"
import { loadTss2 } from "./tss2.ts"

function sha(algorithm: string, ...parts: Uint8Array[]): Buffer {
  return createHash(algorithm).update(Buffer.concat(parts)).digest()
}

async function attest(tpm: Tpm) {
  const { akPublic } = await tpm.ensureKeys()
  const qualifyingData = new Uint8Array(randomBytes(32))
  const quote = await tpm.quote({ pcrs: EVIDENCE_PCRS, qualifyingData })
  return verifyQuote(
    { quote: quote.attest, signature: quote.signature, akPublic, pcrs: quote.pcrValues },
    { qualifyingData, pcrSelection: EVIDENCE_PCRS },
  )
}

/** PCR 10 as a list's template data make it, in a bank. */
function replay(list: Uint8Array, algorithm: "sha1" | "sha256"): string {
  const parsed = parseMeasurementList(list)
  let pcr: Uint8Array = new Uint8Array(algorithm === "sha1" ? 20 : 32)
  for (let index = 0; index < parsed.count; index++)
    pcr = sha(algorithm, pcr, sha(algorithm, list.subarray(parsed.dataAt[index], parsed.dataEnd[index])))
  return toHex(pcr)
}

/** Read past the port, which knows the SHA-256 bank only. */
async function sha1Pcr10(tcti: string): Promise<string> {
  const transport = (await loadTss2())(tcti)
  try {
    const { values } = readPcrs((bytes) => transport.transceive(bytes), [selectPcrs(ALG.sha1, [10])])
    return toHex(values[0] ?? new Uint8Array(0))
  } finally {
    transport.close()
  }
}

async function paths(machine: SimulatedMachine): Promise<string[]> {
  const list = parseMeasurementList(await machine.ima.readBinary())
  return Array.from({ length: list.count }, (_, index) => measurementEntry(list, index).path)
}

describe("a simulated machine", () => {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-test-"))
  let machine: SimulatedMachine
  let tpm: Tpm
  beforeAll(async () => {
    machine = await openSimulatedMachine(dir)
    tpm = await openTpm(machine.tcti)
  })
  afterAll(async () => {
    await tpm.close()
    await machine.close()
    rmSync(dir, { recursive: true })
  })

  test("makes quotes that verify, over firmware that measured", async () => {
    const { pcrs, resetCount, safe } = await attest(tpm)
    expect(pcrs.slice(0, 11).every((value) => value.some((byte) => byte !== 0))).toBeTrue()
    expect(pcrs.slice(11).every((value) => value.every((byte) => byte === 0))).toBeTrue()
    expect(resetCount).toBeGreaterThan(0)
    expect(safe).toBeTrue()
  })

  test("has a list that begins with the boot aggregate of PCRs 0-9 and this executable", async () => {
    const { pcrs } = await attest(tpm)
    const list = parseMeasurementList(await machine.ima.readBinary())
    const [first, second] = [measurementEntry(list, 0), measurementEntry(list, 1)]
    expect(first).toMatchObject({ pcr: 10, template: "ima-ng", algorithm: "sha256", path: "boot_aggregate" })
    expect(toHex(first.digest)).toBe(sha("sha256", ...pcrs.slice(0, 10)).toString("hex"))
    expect(toHex(second.digest)).toBe(sha("sha256", readFileSync(process.execPath)).toString("hex"))
  })

  test("extends PCR 10 by what the list says, in each bank", async () => {
    await measureFile(dir, "/bin/true")
    const { pcrs } = await attest(tpm)
    const list = await machine.ima.readBinary()
    expect(replay(list, "sha256")).toBe(toHex(pcrs[10] ?? new Uint8Array(0)))
    expect(replay(list, "sha1")).toBe(await sha1Pcr10(machine.tcti))
    expect(verifyMeasurementList(parseMeasurementList(list), pcrs[10] ?? new Uint8Array(0))).toBeTruthy()
    // The lists of a kernel hold the SHA-1 template digest, which is what its SHA-1 bank is extended with.
    const parsed = parseMeasurementList(list)
    for (let index = 0; index < parsed.count; index++)
      expect(toHex(measurementEntry(parsed, index).templateDigest)).toBe(
        sha("sha1", list.subarray(parsed.dataAt[index], parsed.dataEnd[index])).toString("hex"),
      )
  })

  test("measures a file once, and again when its content changed", async () => {
    const file = join(dir, "a tool")
    const named = file.replace(" ", "_")
    const count = async () => (await paths(machine)).filter((path) => path.endsWith(named)).length
    writeFileSync(file, "#!/bin/sh\n")
    chmodSync(file, 0o755)
    await measureFile(dir, file)
    await measureFile(dir, file)
    expect(await count()).toBe(1)
    writeFileSync(file, "#!/bin/sh\nexit 1\n")
    await measureFile(dir, file)
    expect(await count()).toBe(2)
  })

  test("has the ASCII list that goes with the binary one", async () => {
    const list = parseMeasurementList(await machine.ima.readBinary())
    const lines = (await machine.ima.readAscii()).trimEnd().split("\n")
    const expected = Array.from({ length: list.count }, (_, index) => {
      const entry = measurementEntry(list, index)
      return `10 ${toHex(entry.templateDigest)} ima-ng sha256:${toHex(entry.digest)} ${entry.path}`
    })
    expect(lines).toEqual(expected)
  })

  test("keeps list and PCR together when several processes execute files at once", async () => {
    const script = `import { measureFile } from ${JSON.stringify(join(import.meta.dir, "simulated-machine.ts"))}
      for (const path of process.argv.slice(1)) await measureFile(${JSON.stringify(dir)}, path)`
    const files = ["/bin/cat", "/bin/cp", "/bin/mv", "/bin/rm"]
    const children = [files, [...files].reverse()].map((order) =>
      Bun.spawn([process.execPath, "-e", script, ...order], { stdout: "ignore", stderr: "inherit" }),
    )
    expect(await Promise.all(children.map((child) => child.exited))).toEqual([0, 0])
    const { pcrs } = await attest(tpm)
    expect(replay(await machine.ima.readBinary(), "sha256")).toBe(toHex(pcrs[10] ?? new Uint8Array(0)))
    expect((await paths(machine)).length).toBe(new Set(await paths(machine)).size + 1)
  }, 30_000)

  test("shows what is measured into other PCRs", async () => {
    const values = async () => (await attest(tpm)).pcrs.map(toHex)
    const before = await values()
    await extendSimulatedPcr(dir, 9, new TextEncoder().encode("another kernel"))
    const after = await values()
    expect(EVIDENCE_PCRS.filter((pcr) => before[pcr] !== after[pcr])).toEqual([9])
  })

  test("belongs to one process", async () => {
    expect(await codeOf(openSimulatedMachine(dir))).toBe("ERR_SIMULATOR_BUSY")
  })

  test("says so when a file cannot be measured", async () => {
    expect(await codeOf(measureFile(dir, join(dir, "absent")))).toBe("ERR_IO")
  })

  test("keeps its files to itself", () => {
    for (const name of ["machine.json", "cmdline", "ima/binary_runtime_measurements", "tpm/tpm2-00.permall"])
      expect(statSync(join(dir, name)).mode & 0o077).toBe(0)
  })
})

describe("power", () => {
  test("off and on is a reboot of the same TPM: same key, one boot more, a fresh list", () =>
    withDirectory(async (dir) => {
      const visit = async () => {
        const machine = await openSimulatedMachine(dir)
        const tpm = await openTpm(machine.tcti)
        const attestation = await attest(tpm)
        const before = await paths(machine)
        await measureFile(dir, "/bin/true")
        await tpm.close()
        await machine.close()
        return { attestation, before }
      }
      const [first, second] = [await visit(), await visit()]
      expect(second.attestation.resetCount).toBe(first.attestation.resetCount + 1)
      expect(second.attestation.safe).toBeTrue()
      expect(toHex(second.attestation.akName)).toBe(toHex(first.attestation.akName))
      expect(second.attestation.pcrs).toEqual(first.attestation.pcrs)
      expect(second.before).toEqual(first.before)
    }))

  test("a changed kernel command line shows in PCR 8 after a reboot (B2)", () =>
    withDirectory(async (dir) => {
      const visit = async () => {
        const machine = await openSimulatedMachine(dir)
        const tpm = await openTpm(machine.tcti)
        const { pcrs } = await attest(tpm)
        await tpm.close()
        await machine.close()
        return pcrs.map(toHex)
      }
      const before = await visit()
      writeFileSync(join(dir, "cmdline"), "root=/dev/vda1 ima=off\n")
      const after = await visit()
      const differ = EVIDENCE_PCRS.filter((pcr) => before[pcr] !== after[pcr])
      // PCR 10 begins with the boot aggregate, which covers PCR 8.
      expect(differ).toEqual([8, 10])
    }))

  test("nothing is measured while it is off", () =>
    withDirectory(async (dir) => {
      expect(await codeOf(measureFile(dir, "/bin/true"))).toBe("ERR_SIMULATOR_OFF")
      expect(await codeOf(measureFile(join(dir, "absent"), "/bin/true"))).toBe("ERR_SIMULATOR_OFF")
    }))

  test(
    "its TPM ends when its process is killed, and the next start works",
    () =>
      withDirectory(async (dir) => {
        const script = `import { openSimulatedMachine } from ${JSON.stringify(join(import.meta.dir, "simulated-machine.ts"))}
        await openSimulatedMachine(${JSON.stringify(dir)})
        console.log("on")
        setInterval(() => null, 1000)`
        const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" })
        const { value } = await child.stdout.getReader().read()
        expect(Buffer.from(value ?? []).toString()).toStartWith("on")
        const { pid } = JSON.parse(readFileSync(join(dir, "machine.json"), "utf8"))
        expect(existsSync(`/proc/${pid}`)).toBeTrue()

        child.kill("SIGKILL")
        await child.exited
        const end = Date.now() + 5_000
        while (isRunning(pid) && Date.now() < end) await Bun.sleep(20)
        expect(isRunning(pid)).toBeFalse()

        const machine = await openSimulatedMachine(dir)
        await machine.close()
      }),
    30_000,
  )

  test(
    "what stands in its way is named",
    () =>
      withDirectory(async (dir) => {
        mkdirSync(join(dir, "tpm"))
        writeFileSync(join(dir, "tpm", "tpm2-00.permall"), "not a TPM's state")
        expect(await codeOf(openSimulatedMachine(dir))).toBe("ERR_SIMULATOR_START")
        expect(existsSync(join(dir, "machine.json"))).toBeFalse()

        writeFileSync(join(dir, "machine.json"), "{")
        expect(await codeOf(openSimulatedMachine(dir))).toBe("ERR_MALFORMED")
        expect(await codeOf(openSimulatedMachine(join(dir, "machine.json")))).toBe("ERR_IO")
      }),
    30_000,
  )
})

/** Zombies, which nobody has waited for yet, do not run. */
function isRunning(pid: number): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false
  return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"))
}
