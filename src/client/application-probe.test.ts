import { expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { serverKey, tlsServer } from "../../test/fakes/tls-server.ts"
import { probeApplication } from "./application-probe.ts"

test("the probe tells the key at which the application's TLS ends", async () => {
  const key = await serverKey()
  const server = await tlsServer(key, () => undefined)
  const probe = await probeApplication(`127.0.0.1:${server.port}`, 2000)
  const spki = new X509Certificate(key.cert).publicKey.export({ type: "spki", format: "der" })
  expect(probe).toEqual({ target: `127.0.0.1:${server.port}`, spki: new Uint8Array(spki), failure: null })
  await server.close()
})

test("an application that cannot be reached has no key, and a reason", async () => {
  const server = await tlsServer(await serverKey(), () => undefined)
  await server.close()
  const probe = await probeApplication(`127.0.0.1:${server.port}`, 2000)
  expect(probe.spki).toBeNull()
  expect(probe.failure).toContain("ECONNREFUSED")
})
