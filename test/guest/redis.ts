/** A real application, Redis, that gets its password by bootstrap and answers over the attested TLS key. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { startPebble } from "../fakes/pebble.ts"
import { run, waitFor } from "./command.ts"
import type { Guest } from "./guest.ts"
import { AGENT_PORT } from "./provision.ts"
import { cli, expectEqual, expectExit, memberOf, type Scene, snapshotFile, trust, verified } from "./scene.ts"

export const BOOTSTRAP_PORT = 5557
export const REDIS_PORT = 6379
/** Where an authority comes to. */
export const HTTP_PORT = 80
const NAME = "redis.example.com"
const SECRET = Buffer.from(crypto.getRandomValues(new Uint8Array(18))).toString("hex")
/** Written to the guest's disk on purpose, to show that the search would find something. */
const CONTROL = Buffer.from(crypto.getRandomValues(new Uint8Array(18))).toString("hex")
const CONF = "/etc/cosmian_vm/agent.toml"
const SAVED = "/root/agent.toml"
const CONFIGURATION = `bind 0.0.0.0
protected-mode no
port 0
tls-port ${REDIS_PORT}
tls-auth-clients no
save ""
requirepass ${SECRET}
`

/** The agent is told that its application is Redis, which waits for its configuration. */
export async function redisWaits(scene: Scene): Promise<void> {
  const { guest } = scene
  const key = join(scene.directory, "owner.pem")
  const made = await run([
    join(import.meta.dir, "../../dist/cosmian_vm"),
    "owner",
    "key",
    "-o",
    key,
    "--json",
  ])
  expectExit(made, EXIT.ok)
  const ownerKey = memberOf(JSON.parse(made.stdout), "owner_key")
  // The tables for agent and storage stay; those for application and credentials are others.
  await guest.mustShell(`cp ${CONF} ${SAVED} && { sed '/^\\[app\\]/,$d' ${SAVED}; cat; } > ${CONF}`, {
    stdin: `[app]
service_type = "systemd"
service_name = "e2e-redis"
app_storage = "data/redis"

[bootstrap]
port = ${BOOTSTRAP_PORT}
values = ["redis.conf"]

[auth]
owner_keys = ["${ownerKey}"]
`,
  })
  await guest.mustShell("systemctl restart cosmian_vm_agent")
  await answers(guest, AGENT_PORT, "/v1/info")
  await answers(guest, BOOTSTRAP_PORT, "/v1/auth/nonce")
  expectEqual("redis", (await guest.shell("systemctl is-active e2e-redis")).stdout.trim(), "inactive")
}

/** Through verification, and no other way; with a certificate that the guest gets from an ACME server. */
export async function redisGetsItsPassword(scene: Scene): Promise<void> {
  const { guest } = scene
  const authority = await startPebble({ httpPort: guest.port(HTTP_PORT) })
  try {
    await guest.offer(authority.port)
    await bringPassword(scene, [
      ...["--acme-domain", NAME, "--acme-directory", authority.directory, "--acme-ca-file", authority.caFile],
    ])
  } finally {
    await authority.stop()
  }
  await guest.mustShell(
    "systemctl is-active cosmian_vm_certtool.timer && systemctl start cosmian_vm_certtool.service && journalctl -u cosmian_vm_certtool | grep 'not due before'",
  )
}

async function bringPassword(scene: Scene, order: readonly string[]): Promise<void> {
  const { guest } = scene
  const file = join(scene.directory, "redis.conf")
  writeFileSync(file, CONFIGURATION, { mode: 0o600 })
  const bring = (...who: string[]) =>
    cli(
      scene,
      [...["bootstrap", ...trust(scene), "-s", snapshotFile(scene), "--file", `redis.conf=${file}`], ...who],
      BOOTSTRAP_PORT,
    )
  expectExit(await bring(), EXIT.operational)
  expectExit(await bring("--owner-key", join(scene.directory, "owner.pem"), ...order), EXIT.ok)
  const port = `https://127.0.0.1:${guest.port(BOOTSTRAP_PORT)}/v1/auth/nonce`
  const open = await fetch(port, { tls: { rejectUnauthorized: false } }).then(
    () => true,
    () => false,
  )
  expectEqual("the bootstrap port", open, false)
}

/** With the password it works, over TLS that ends at the attested key. */
export async function redisIsAttested(scene: Scene): Promise<void> {
  const ask = (password: string) =>
    scene.guest.mustShell(
      `REDISCLI_AUTH='${password}' redis-cli --tls --insecure -p ${REDIS_PORT} set attested yes 2>&1 || true`,
    )
  expectEqual("with the password", (await ask(SECRET)).trim(), "OK")
  if (!(await ask("wrong")).includes("NOAUTH")) throw new Error("redis answers without its password")
  const served = await scene.guest.mustShell(
    `openssl s_client -connect 127.0.0.1:${REDIS_PORT} < /dev/null | openssl x509 -noout -ext subjectAltName -issuer`,
  )
  if (!served.includes(`DNS:${NAME}`) || !served.includes("Pebble")) throw new Error(`redis shows: ${served}`)
  await verified(scene, EXIT.ok, ["--application", `127.0.0.1:${scene.guest.port(REDIS_PORT)}`])
}

/** Neither disk nor journal hold it, while a secret that was written to the disk is found by the same search. */
export async function secretIsNotOnTheDisk({ guest }: Scene): Promise<void> {
  await guest.writeFile("/var/lib/control", `${CONTROL}\n`)
  await guest.mustShell("sync")
  const found = (text: string) => run(["grep", "--text", "--count", "--fixed-strings", text, guest.disk])
  const control = await waitFor("the control text reaches the disk", 30_000, async () => {
    const { code } = await found(CONTROL)
    return code === 0 ? true : null
  })
  expectEqual("the control text on the disk", control, true)
  expectEqual("the secret on the disk", (await found(SECRET)).code, 1)
  expectEqual(
    "the secret in the journal",
    (await guest.shell(`journalctl | grep -c '${SECRET}'`)).stdout.trim(),
    "0",
  )
}

/** The agent as the other steps know it. */
export async function redisLeaves({ guest }: Scene): Promise<void> {
  await guest.mustShell(
    `systemctl stop e2e-redis && mv ${SAVED} ${CONF} && systemctl restart cosmian_vm_agent`,
  )
  await answers(guest, AGENT_PORT, "/v1/info")
}

async function answers(guest: Guest, port: number, path: string): Promise<void> {
  const url = `https://127.0.0.1:${guest.port(port)}${path}`
  await waitFor(`port ${port} answers`, 120_000, async () => {
    const response = await fetch(url, {
      tls: { rejectUnauthorized: false },
      signal: AbortSignal.timeout(10_000),
    }).catch(() => null)
    return response === null ? null : true
  })
}
