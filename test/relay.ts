/** A man in the middle: ends TLS with a certificate of its own and passes every byte on to the real agent. */
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { connect, createServer } from "node:tls"

export interface Relay {
  readonly port: number
  close(): void
}

/** Starts a relay on a free loopback port in front of `127.0.0.1:targetPort`. Key and certificate are PEM. */
export async function startRelay(targetPort: number, key: string, cert: string): Promise<Relay> {
  const server = createServer({ key, cert }, (inside) => {
    const outside = connect({ host: "127.0.0.1", port: targetPort, rejectUnauthorized: false })
    inside.pipe(outside)
    outside.pipe(inside)
    for (const [one, other] of [
      [inside, outside],
      [outside, inside],
    ] as const) {
      one.on("error", () => other.destroy())
      one.on("close", () => other.destroy())
    }
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  return { port, close: () => server.close() }
}
