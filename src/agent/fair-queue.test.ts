import { expect, test } from "bun:test"
import { clientOf, FairQueue } from "./fair-queue.ts"

const LIMITS = { concurrent: 1, waiting: 100, waitingPerClient: 10 }

/** A task that ends when it is told to. */
function gate() {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { open: resolve, task: () => promise }
}

test("whoever asks once is served before the second request of somebody who asks ten times", async () => {
  const queue = new FairQueue(LIMITS)
  const order: string[] = []
  const first = gate()
  const running = queue.run("flood", first.task)
  const flood = Array.from({ length: 10 }, (_, index) =>
    queue.run("flood", async () => order.push(`flood ${index}`)),
  )
  const honest = queue.run("honest", async () => order.push("honest"))
  first.open()
  await Promise.all([running, ...flood, honest])
  expect(order.indexOf("honest")).toBe(1)
})

test("a client with too many waiting requests is refused while others still wait", async () => {
  const queue = new FairQueue({ ...LIMITS, waitingPerClient: 2 })
  const first = gate()
  const running = queue.run("a", first.task)
  const waiting = [queue.run("a", async () => 1), queue.run("a", async () => 2)]
  await expect(queue.run("a", async () => 3)).rejects.toMatchObject({ code: "ERR_BUSY" })
  const other = queue.run("b", async () => 4)
  first.open()
  expect(await Promise.all([...waiting, other])).toEqual([1, 2, 4])
  await running
})

test("all waiting requests together have a limit", async () => {
  const queue = new FairQueue({ ...LIMITS, waiting: 1 })
  const first = gate()
  const running = queue.run("a", first.task)
  const waiting = queue.run("b", async () => 1)
  await expect(queue.run("c", async () => 2)).rejects.toMatchObject({ code: "ERR_BUSY" })
  first.open()
  await Promise.all([running, waiting])
})

test("a client that goes away gives up its place", async () => {
  const queue = new FairQueue(LIMITS)
  const first = gate()
  const running = queue.run("a", first.task)
  const controller = new AbortController()
  let ran = false
  const gone = queue.run("b", async () => (ran = true), controller.signal)
  controller.abort()
  await expect(gone).rejects.toMatchObject({ code: "ERR_CLIENT_GONE" })
  first.open()
  await running
  expect(await queue.run("c", async () => 1)).toBe(1)
  expect(ran).toBe(false)
})

test("a task that fails makes room for the next", async () => {
  const queue = new FairQueue(LIMITS)
  await expect(queue.run("a", () => Promise.reject(new Error("broken")))).rejects.toThrow("broken")
  expect(await queue.run("a", async () => 1)).toBe(1)
})

test("addresses of one IPv6 network are one client", () => {
  expect(clientOf("2001:db8:1:2:3:4:5:6")).toBe(clientOf("2001:0db8:1:2::1"))
  expect(clientOf("2001:db8:1:3::1")).not.toBe(clientOf("2001:db8:1:2::1"))
  expect(clientOf("::ffff:192.0.2.1")).toBe("192.0.2.1")
  expect(clientOf("::1")).toBe("0:0:0:0::/64")
})
