import { expect, test } from "bun:test"
import { answer, type IoctlReply, viewOf } from "./guest/cuse.ts"
import { answerSevGuest, IOCTL, type SnpHardware } from "./guest/sev-guest-driver.ts"

const ENVELOPE_AT = 0x1000
const REQUEST_AT = 0x2000
const RESPONSE_AT = 0x3000
const CERTIFICATES_AT = 0x8000
const TABLE = new Uint8Array(6000).fill(7)

const hardware: SnpHardware = {
  report: async (reportData) => {
    const report = new Uint8Array(1184)
    report[0] = 3
    report.set(reportData, 0x50)
    return report
  },
  certificateTable: async () => TABLE,
  rootSecret: new Uint8Array(32).fill(9),
}

/** The kernel's half: copies from and to the caller's memory, as often as the server asks. */
async function ioctl(memory: Uint8Array, command: number): Promise<number> {
  let input = new Uint8Array(0)
  let write: { address: number; size: number }[] = []
  for (let stage = 0; stage < 4; stage++) {
    const outputSize = write.reduce((sum, region) => sum + region.size, 0)
    const reply: IoctlReply = await answerSevGuest(
      { command, argument: BigInt(ENVELOPE_AT), input, outputSize },
      hardware,
    )
    if (reply.kind === "done") {
      let at = 0
      for (const { address, size } of write) {
        memory.set(reply.output.subarray(at, at + size), address)
        at += size
      }
      return reply.result
    }
    input = new Uint8Array(Buffer.concat(reply.read.map(({ address, size }) => slice(memory, address, size))))
    write = reply.write.map(({ address, size }) => ({ address: Number(address), size }))
  }
  throw new Error("the server never came to an end")
}

function slice(memory: Uint8Array, address: bigint, size: number): Uint8Array {
  return memory.slice(Number(address), Number(address) + size)
}

function callerMemory(
  options: { version?: number; certificatesLength?: number; vmpl?: number } = {},
): Uint8Array {
  const memory = new Uint8Array(0x10000)
  const view = viewOf(memory)
  view.setUint8(ENVELOPE_AT, options.version ?? 1)
  view.setBigUint64(ENVELOPE_AT + 8, BigInt(REQUEST_AT), true)
  view.setBigUint64(ENVELOPE_AT + 16, BigInt(RESPONSE_AT), true)
  memory.fill(0xaa, REQUEST_AT, REQUEST_AT + 64)
  view.setUint32(REQUEST_AT + 64, options.vmpl ?? 0, true)
  view.setBigUint64(REQUEST_AT + 96, BigInt(CERTIFICATES_AT), true)
  view.setUint32(REQUEST_AT + 104, options.certificatesLength ?? 0, true)
  return memory
}

test("SNP_GET_REPORT returns the report of the request's data", async () => {
  const memory = callerMemory()
  expect(await ioctl(memory, IOCTL.getReport)).toBe(0)
  const view = viewOf(memory)
  expect([view.getUint32(RESPONSE_AT, true), view.getUint32(RESPONSE_AT + 4, true)]).toEqual([0, 1184])
  const reportData = memory.subarray(RESPONSE_AT + 32 + 0x50, RESPONSE_AT + 32 + 0x90)
  expect(reportData).toEqual(new Uint8Array(64).fill(0xaa))
})

test("SNP_GET_REPORT for another VMPL gets the firmware's status, and no report", async () => {
  const memory = callerMemory({ vmpl: 1 })
  expect(await ioctl(memory, IOCTL.getReport)).toBe(0)
  expect(viewOf(memory).getUint32(RESPONSE_AT, true)).toBe(0x16)
  expect(viewOf(memory).getUint32(RESPONSE_AT + 4, true)).toBe(0)
})

test("SNP_GET_EXT_REPORT without room says how much the certificates need", async () => {
  const memory = callerMemory({ certificatesLength: 4096 })
  expect(await ioctl(memory, IOCTL.getExtendedReport)).toBe(-5)
  expect(viewOf(memory).getBigUint64(ENVELOPE_AT + 24, true)).toBe(1n << 32n)
  expect(viewOf(memory).getUint32(REQUEST_AT + 104, true)).toBe(8192)
})

test("SNP_GET_EXT_REPORT with room returns report and certificates", async () => {
  const memory = callerMemory({ certificatesLength: 8192 })
  expect(await ioctl(memory, IOCTL.getExtendedReport)).toBe(0)
  expect(viewOf(memory).getUint32(RESPONSE_AT + 4, true)).toBe(1184)
  expect(memory.subarray(CERTIFICATES_AT, CERTIFICATES_AT + TABLE.length)).toEqual(TABLE)
})

test("SNP_GET_DERIVED_KEY depends on the selected fields", async () => {
  const keys = await Promise.all(
    [0n, 8n, 8n].map(async (select) => {
      const memory = callerMemory()
      viewOf(memory).setBigUint64(REQUEST_AT + 8, select, true)
      expect(await ioctl(memory, IOCTL.getDerivedKey)).toBe(0)
      return Buffer.from(memory.subarray(RESPONSE_AT + 32, RESPONSE_AT + 64)).toString("hex")
    }),
  )
  expect(keys[1]).toBe(keys[2] ?? "")
  expect(keys[0]).not.toBe(keys[1] ?? "")
})

test("what the driver refuses fails with its errno", async () => {
  expect(await ioctl(callerMemory({ version: 0 }), IOCTL.getReport)).toBe(-22)
  expect(await ioctl(callerMemory({ certificatesLength: 100 }), IOCTL.getExtendedReport)).toBe(-22)
  expect(await ioctl(callerMemory(), 0xc0205309)).toBe(-25)
})

test("CUSE_INIT names the device and asks for unrestricted ioctls", async () => {
  const request = new Uint8Array(40 + 16)
  const view = viewOf(request)
  view.setUint32(0, request.length, true)
  view.setUint32(4, 4096, true)
  view.setBigUint64(8, 77n, true)
  view.setUint32(40, 7, true)
  view.setUint32(44, 37, true)
  const reply = await answer("sev-guest", request, (call) => answerSevGuest(call, hardware))
  expect(reply).not.toBeNull()
  const out = viewOf(reply ?? new Uint8Array(0))
  expect([out.getUint32(0, true), out.getInt32(4, true), out.getBigUint64(8, true)]).toEqual([
    reply?.length ?? 0,
    0,
    77n,
  ])
  expect([out.getUint32(16, true), out.getUint32(20, true), out.getUint32(28, true)]).toEqual([7, 37, 1])
  expect(Buffer.from(reply ?? []).toString("latin1", 16 + 72)).toBe("DEVNAME=sev-guest\0")
})
