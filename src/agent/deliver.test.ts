import { expect, test } from "bun:test"
import { deliver } from "./deliver.ts"
import { MemoryShare } from "./memory-share.ts"

const SIZE = 200_000
const never = new AbortController().signal
const limits = { bytes: 3 * SIZE, perClient: 4 }
const content = (size = SIZE) => new Uint8Array(size).map((_, index) => index)

function start(memory: MemoryShare, client = "a", size = SIZE, signal = never): ReadableStream<Uint8Array> {
  const body = deliver(memory, client, content(size), signal)
  if (body instanceof Uint8Array) throw new Error("given at once")
  return body
}

test("what is delivered is what was given", async () => {
  expect(await new Response(start(new MemoryShare(limits))).bytes()).toEqual(content())
})

test("chunks are encoded in their order, and the first and last know that they are", async () => {
  const places: string[] = []
  const body = deliver(new MemoryShare(limits), "a", content(), never, (_, { first, last }) => {
    places.push(`${first} ${last}`)
    return new Uint8Array(1)
  })
  await new Response(body).bytes()
  expect(places).toEqual(["true false", "false false", "false false", "false true"])
})

for (const size of [0, 1, 65_536])
  test(`${size} bytes are given at once`, () => {
    expect(deliver(new MemoryShare({ bytes: 0, perClient: 0 }), "a", content(size), never)).toEqual(
      content(size),
    )
  })

test("A3: a client that asks and does not read is refused beyond the bytes, others get one each", () => {
  const memory = new MemoryShare(limits)
  for (let count = 0; count < 3; count++) start(memory)
  expect(() => start(memory)).toThrowCode("ERR_BUSY")
  start(memory, "b")
  expect(() => start(memory, "b")).toThrowCode("ERR_BUSY")
})

test("A3: a client's answers are counted, too", () => {
  const memory = new MemoryShare(limits)
  for (let count = 0; count < 4; count++) start(memory, "a", 70_000)
  expect(() => start(memory, "a", 70_000)).toThrowCode("ERR_BUSY")
  start(memory, "b")
})

test("what was read, left by its reader or by its client makes room", async () => {
  const memory = new MemoryShare(limits)
  const gone = new AbortController()
  const [first, second] = [start(memory), start(memory)]
  start(memory, "a", SIZE, gone.signal)
  await new Response(first).bytes()
  await second.cancel()
  gone.abort()
  for (let count = 0; count < 3; count++) start(memory)
  expect(() => start(memory)).toThrowCode("ERR_BUSY")
})
