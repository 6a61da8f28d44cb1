import { expect, test } from "bun:test"
import { once } from "node:events"
import { connect } from "node:net"
import { TlsAlpnListener } from "./tls-alpn-solver.ts"

test("a stranger who connects and says nothing does not keep the listener from ending", async () => {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } })
  const { port } = probe
  probe.stop(true)
  const listener = new TlsAlpnListener("127.0.0.1", port)
  await listener.present([{ name: "a.example.com", token: "t".repeat(22), content: "t.k" }])
  const stranger = connect(port, "127.0.0.1")
  stranger.on("error", () => undefined)
  await once(stranger, "connect")
  // Half a handshake: the beginning of a record, and no more.
  stranger.write(Buffer.from([0x16, 0x03, 0x01]))
  await Bun.sleep(100)
  try {
    const ended = listener.remove().then(() => "ended")
    expect(await Promise.race([ended, Bun.sleep(3000).then(() => "still waiting")])).toBe("ended")
  } finally {
    stranger.destroy()
  }
})
