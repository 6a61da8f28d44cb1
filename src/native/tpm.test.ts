import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { codeOf } from "../../test/fakes/simulated.ts"
import { toHex } from "../formats/hex.ts"
import { ALG, CURVE } from "../formats/tpm/algorithms.ts"
import { hasAttribute, parsePublic } from "../formats/tpm/public.ts"
import { sized, WireWriter } from "../formats/tpm/wire.ts"
import { verifyQuote } from "../verify/tpm.ts"
import type { Tpm } from "./ports.ts"
import { openSimulatedMachine, type SimulatedMachine } from "./simulated-machine.ts"
import { openTpm } from "./tpm.ts"
import * as commands from "./tpm-commands.ts"
import { tpmOperations } from "./tpm-operations.ts"
import { loadTss2, type TpmTransport } from "./tss2.ts"

const EK_HANDLE = 0x81000050
const AK_HANDLE = 0x81000051
const PCRS = Array.from({ length: 24 }, (_, pcr) => pcr)

describe("a software TPM", () => {
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-test-"))
  let machine: SimulatedMachine
  let tpm: Tpm
  let open: () => TpmTransport
  beforeAll(async () => {
    machine = await openSimulatedMachine(dir)
    tpm = await openTpm(machine.tcti)
    const opener = await loadTss2()
    open = () => opener(machine.tcti)
  })
  afterAll(async () => {
    await tpm.close()
    await machine.close()
    rmSync(dir, { recursive: true })
  })

  /** Runs on a connection of its own in this thread, as other software on the machine would. */
  function beside<T>(run: (transceive: commands.Transceive) => T): T {
    const transport = open()
    try {
      return run((command) => transport.transceive(command))
    } finally {
      transport.close()
    }
  }

  test("gives as many random bytes as asked for", async () => {
    for (const count of [1, 32, 33, 1024]) expect((await tpm.random(count)).length).toBe(count)
    expect(toHex(await tpm.random(32))).not.toBe(toHex(await tpm.random(32)))
    expect(await codeOf(tpm.random(0))).toBe("ERR_TOO_LARGE")
    expect(await codeOf(tpm.random(1025))).toBe("ERR_TOO_LARGE")
  })

  test("refuses a quote while there is no key", async () => {
    expect(await codeOf(tpm.quote({ pcrs: [0], qualifyingData: new Uint8Array(0) }))).toBe("ERR_TPM_COMMAND")
  })

  test("does not overwrite another's key at our handles", async () => {
    const template = parsePublic(
      Buffer.from(
        // ECDSA P-256 key that signs anything: TPMT_PUBLIC without policy, name SHA-256.
        "0023000b00040472000000100018000b0003001000000000",
        "hex",
      ),
    )
    beside((transceive) => {
      const { handle } = commands.createPrimary(transceive, commands.RH.owner, template)
      commands.persist(transceive, handle, AK_HANDLE)
      commands.flush(transceive, handle)
    })
    expect(await codeOf(tpm.ensureKeys())).toBe("ERR_TPM_HANDLE_TAKEN")
    expect(await codeOf(tpm.ensureKeys())).toBe("ERR_TPM_HANDLE_TAKEN")
    beside((transceive) => commands.persist(transceive, AK_HANDLE, AK_HANDLE))
  })

  test("makes room where killed processes left keys loaded", async () => {
    beside((transceive) => commands.persist(transceive, EK_HANDLE, EK_HANDLE))
    const [ek] = [parsePublic((await tpm.ensureKeys()).ekPublic)]
    beside((transceive) => {
      commands.persist(transceive, AK_HANDLE, AK_HANDLE)
      for (let left = 0; left < 3; left++) commands.createPrimary(transceive, commands.RH.owner, ek)
    })
    expect((await tpm.ensureKeys()).akPublic.length).toBeGreaterThan(0)
  })

  test("makes EK and AK by their templates, once", async () => {
    const keys = await tpm.ensureKeys()
    const again = await tpm.ensureKeys()
    expect(toHex(again.akPublic)).toBe(toHex(keys.akPublic))
    expect(toHex(again.ekPublic)).toBe(toHex(keys.ekPublic))
    const [ek, ak] = [parsePublic(keys.ekPublic), parsePublic(keys.akPublic)]
    expect(ek).toMatchObject({ type: "ecc", curveId: CURVE.p256, objectAttributes: 0x300b2, scheme: null })
    expect(ak).toMatchObject({
      type: "ecc",
      curveId: CURVE.p256,
      scheme: { scheme: ALG.ecdsa, hash: ALG.sha256 },
    })
    expect(hasAttribute(ak, "restricted")).toBeTrue()
  })

  test("makes the very same AK again after somebody evicted it", async () => {
    const { akPublic } = await tpm.ensureKeys()
    beside((transceive) => commands.persist(transceive, AK_HANDLE, AK_HANDLE))
    expect(toHex((await tpm.ensureKeys()).akPublic)).toBe(toHex(akPublic))
  })

  test("quotes exactly the PCRs asked for", async () => {
    const { akPublic } = await tpm.ensureKeys()
    const qualifyingData = new Uint8Array(64).fill(7)
    for (const pcrs of [[10], [0, 23], PCRS]) {
      const quote = await tpm.quote({ pcrs, qualifyingData })
      const attestation = verifyQuote(
        { quote: quote.attest, signature: quote.signature, akPublic, pcrs: quote.pcrValues },
        { qualifyingData, pcrSelection: pcrs },
      )
      expect(attestation.pcrs.length).toBe(pcrs.length)
    }
  })

  test("gives values in ascending order, whatever the order asked for", async () => {
    await tpm.ensureKeys()
    const [up, down] = await Promise.all(
      [
        [0, 4, 10],
        [10, 4, 0],
      ].map((pcrs) => tpm.quote({ pcrs, qualifyingData: new Uint8Array(0) })),
    )
    expect(up?.pcrValues.map(toHex)).toEqual(down?.pcrValues.map(toHex) ?? [])
  })

  test("refuses qualifying data that is too long, and PCRs that it does not have", async () => {
    expect(await codeOf(tpm.quote({ pcrs: [0], qualifyingData: new Uint8Array(65) }))).toBe("ERR_TOO_LARGE")
    expect(await codeOf(tpm.quote({ pcrs: [24], qualifyingData: new Uint8Array(0) }))).toBe("ERR_MALFORMED")
  })

  test("quotes again when a PCR moved between quote and read", () => {
    const quote = (moves: number) => {
      let left = moves
      return tpmOperations(() => {
        const transport = open()
        return {
          close: () => transport.close(),
          transceive(command) {
            const response = transport.transceive(command)
            const isQuote = Buffer.from(command).readUInt32BE(6) === 0x158
            if (isQuote && left-- > 0)
              commands.extendPcr((bytes) => transport.transceive(bytes), 16, [
                { algorithm: ALG.sha256, digest: new Uint8Array(32) },
              ])
            return response
          },
        }
      }).quote({ pcrs: [0, 16], qualifyingData: new Uint8Array(0) })
    }
    expect(quote(3).pcrValues.length).toBe(2)
    expect(() => quote(1000)).toThrowCode("ERR_TPM_PCR_MOVING")
  })

  test("reads NV indexes, those not defined or never written as null", async () => {
    const index = 0x1800042
    const content = new Uint8Array(createHash("sha512").update("content").digest())
    const big = new Uint8Array(1300).map((_, at) => content[at % 64] ?? 0)
    expect(await tpm.readNv(index)).toBeNull()
    beside((transceive) => transceive(nvDefine(index, big.length)))
    expect(await tpm.readNv(index)).toBeNull()
    for (let offset = 0; offset < big.length; offset += 500)
      beside((transceive) => transceive(nvWrite(index, big.subarray(offset, offset + 500), offset)))
    expect(await tpm.readNv(index)).toEqual(big)
  })

  test("serves several connections in turn", async () => {
    const others = await Promise.all([openTpm(machine.tcti), openTpm(machine.tcti)])
    await Promise.all(others.map((other) => other.random(16)))
    await Promise.all(others.map((other) => other.close()))
    expect((await tpm.random(16)).length).toBe(16)
  })

  test("is refused where it is no TPM 2.0 or answers nonsense", () => {
    const answering = (response: Uint8Array) =>
      tpmOperations(() => ({ transceive: () => response, close: () => undefined }))
    const head = (size: number, ...rest: number[]) =>
      Uint8Array.of(0x80, 1, 0, 0, 0, size, 0, 0, 0, 0, ...rest)
    for (const response of [
      new Uint8Array(0),
      new Uint8Array(9),
      head(11),
      head(10).fill(0xff, 0, 2),
      head(15, 0, 0, 0, 0, 9),
    ])
      expect(() => answering(response).probe(null)).toThrowCode("ERR_TPM_RESPONSE")
    expect(() => answering(head(10)).random(4)).toThrowCode("ERR_TRUNCATED")
    expect(() => answering(head(12, 0, 0)).random(4)).toThrowCode("ERR_TPM_RESPONSE")
    const family12 = head(23, 0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 1, 0)
    const bytes = new Uint8Array([...family12, 0x31, 0x2e, 0x32, 0])
    bytes[5] = bytes.length
    expect(() => answering(bytes).probe(null)).toThrowCode("ERR_TPM_DEVICE")
  })
})

describe("what is missing is named", () => {
  test.each([
    ["a device that is not there", "device:/dev/nonexistent", "ERR_TPM_DEVICE"],
    ["an emulator that does not listen", "swtpm:host=127.0.0.1,port=1", "ERR_TPM_DEVICE"],
    ["a bare path", "/dev/tpmrm0", "ERR_TPM_TCTI"],
    ["a library by path", "/tmp/x.so:y", "ERR_TPM_TCTI"],
    ["a program to run", "cmd:sh -c id", "ERR_TPM_TCTI"],
    ["nothing", "", "ERR_TPM_TCTI"],
  ])("%s", async (_, tcti, code) => {
    expect(await codeOf(openTpm(tcti))).toBe(code)
  })

  test("the library, with its package", async () => {
    const error = await loadTss2("libtss2-nonexistent.so.0").catch((caught: unknown) => caught)
    expect(error).toMatchObject({
      code: "ERR_TPM_LIBRARY",
      hint: expect.stringContaining("libtss2-tctildr0"),
    })
  })

  test("the package of the transport", async () => {
    const error = await openTpm("device:/dev/nonexistent").catch((caught: unknown) => caught)
    expect(error).toMatchObject({ hint: expect.stringContaining("libtss2-tcti-device0") })
  })
})

/** A command with one password session. */
function command(code: number, handles: number[], parameters: (to: WireWriter) => void): Uint8Array {
  const body = new WireWriter()
  for (const handle of handles) body.uint(4, handle)
  body.put(Uint8Array.of(0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0))
  parameters(body)
  const rest = body.bytes()
  const head = new WireWriter()
  head.uint(2, 0x8002)
  head.uint(4, 10 + rest.length)
  head.uint(4, code)
  head.put(rest)
  return head.bytes()
}

function nvDefine(index: number, size: number): Uint8Array {
  return command(0x12a, [commands.RH.owner], (to) => {
    to.uint(2, 0)
    to.uint(2, 14)
    to.uint(4, index)
    to.uint(2, ALG.sha256)
    to.uint(4, 0x00060006) // owner and index itself read and write
    to.uint(2, 0)
    to.uint(2, size)
  })
}

function nvWrite(index: number, data: Uint8Array, offset: number): Uint8Array {
  return command(0x137, [commands.RH.owner, index], (to) => {
    sized(1024).write(data, to)
    to.uint(2, offset)
  })
}
