import { expect, test } from "bun:test"
import { createServer, type Server, type Socket } from "node:net"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { DeviceWorker } from "./device-worker.ts"
import { openSimulatedMachine } from "./simulated-machine.ts"
import type { TpmOperations } from "./tpm-operations.ts"

/** Somebody who accepts connections at two ports, one after the other, and never answers. */
async function silentTpm(): Promise<{ tcti: string; close(): void }> {
  const sockets: Socket[] = []
  const listen = (port: number) =>
    new Promise<Server | null>((resolve) => {
      const server = createServer((socket) => sockets.push(socket.on("error", () => socket.destroy())))
      server.once("error", () => resolve(null))
      server.listen(port, "127.0.0.1", () => resolve(server))
    })
  for (let port = 33_000; port < 33_200; port += 2) {
    const servers = [await listen(port), await listen(port + 1)]
    const close = () => {
      for (const server of servers) server?.close()
      for (const socket of sockets) socket.destroy()
    }
    if (servers.every((server) => server !== null))
      return { tcti: `swtpm:host=127.0.0.1,port=${port}`, close }
    close()
  }
  throw new Error("no free pair of ports")
}

test("a device that hangs fails after the deadline, and the main thread never waits for it", async () => {
  const silent = await silentTpm()
  const worker = new DeviceWorker<TpmOperations>("tpm", silent.tcti, 300)
  let ticks = 0
  const ticking = setInterval(() => ticks++, 10)
  try {
    expect(await codeOf(worker.call("random", 8))).toBe("ERR_DEVICE_TIMEOUT")
    expect(ticks).toBeGreaterThan(10)
    // The next call has a thread of its own.
    expect(await codeOf(worker.call("random", 8))).toBe("ERR_DEVICE_TIMEOUT")
  } finally {
    clearInterval(ticking)
    silent.close()
    await worker.close()
  }
})

test("a flood of requests is refused beyond a limit, and those before it are served", () =>
  withDirectory(async (dir) => {
    const machine = await openSimulatedMachine(dir)
    const worker = new DeviceWorker<TpmOperations>("tpm", machine.tcti)
    const codes = await Promise.all(Array.from({ length: 300 }, () => codeOf(worker.call("random", 8))))
    expect(codes.filter((code) => code === "no error").length).toBe(256)
    expect(codes.filter((code) => code === "ERR_DEVICE_BUSY").length).toBe(44)
    expect((await worker.call("random", 8)).length).toBe(8)
    await worker.close()
    await machine.close()
  }))

test("a thread that cannot start is an error, not a wait", async () => {
  const worker = new DeviceWorker("no such role", null)
  expect(await codeOf(worker.call("anything", undefined as never))).toBe("ERR_INTERNAL")
  await worker.close()
})
