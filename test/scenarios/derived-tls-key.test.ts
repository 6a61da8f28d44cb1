/** An agent whose TLS key is derived from measurement and CPU secret: the same software on the same chip has the same key. */
import { expect, test } from "bun:test"
import { createHash, X509Certificate } from "node:crypto"
import { cpSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { connect } from "node:tls"
import { EXIT } from "../../src/errors.ts"
import { run, type SimulatedVm, simulatedVm } from "../executable.ts"

const CONFIG = `[agent]
tls = "ratls"
tls_key = "derived"
[snapshot]
root = "/etc/ssl"
[app]
service_type = "standalone"
service_name = "true"
app_storage = "data/app"
[bootstrap]
port = 0
[auth]
open_writes = true
`

/** Digest of the key that a TLS server shows. */
function keyAt(port: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => {
    resolve(digestOf(new X509Certificate(socket.getPeerCertificate().raw)))
    socket.destroy()
  })
  socket.on("error", reject)
  return promise
}

function digestOf({ publicKey }: X509Certificate): string {
  return createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("hex")
}

const bootstrapPortOf = (vm: SimulatedVm) =>
  Number(
    vm
      .log()
      .match(/"bootstrap_port":(\d+)/g)
      ?.at(-1)
      ?.slice(17),
  )

test("the key is that of chip and measurement, on both ports, and comes again when its file is gone", async () => {
  const [first, second] = [await simulatedVm(CONFIG), await simulatedVm(CONFIG)]
  const restarted = async (vm: SimulatedVm, change: () => void) => {
    await vm.stop()
    change()
    await vm.start()
    return keyAt(vm.port)
  }
  try {
    const key = await keyAt(first.port)
    expect(await keyAt(bootstrapPortOf(first))).toBe(key)
    expect(statSync(join(first.dir, "vm/data/key.pem")).mode & 0o777).toBe(0o600)
    // Another chip.
    expect(await keyAt(second.port)).not.toBe(key)
    const data = join(first.dir, "vm/data")
    expect(await restarted(first, () => rmSync(data, { recursive: true }))).toBe(key)

    const chip = (vm: SimulatedVm) => join(vm.dir, "vm/tee")
    const sameChip = () => {
      rmSync(chip(second), { recursive: true })
      cpSync(chip(first), chip(second), { recursive: true })
    }
    expect(await restarted(second, sameChip)).toBe(key)
    const launched = (content: string) => () => writeFileSync(join(second.dir, "vm/launch"), content)
    expect(await restarted(second, launched("another kernel"))).not.toBe(key)
    expect(await restarted(second, launched(""))).toBe(key)
    const pem = readFileSync(join(second.dir, "vm/data/cert.pem"))
    expect(digestOf(new X509Certificate(pem))).toBe(key)
    const fetched = ["certtool", "ratls", "verify", "--url", second.url, "--trust-root", first.trustRoot]
    expect((await run(fetched)).code).toBe(EXIT.ok)
  } finally {
    await Promise.all([first.remove(), second.remove()])
  }
}, 120_000)
