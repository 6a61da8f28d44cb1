/** Turns a bare guest into the VM under test: `/dev/sev-guest`, the .deb, its configuration, an application. */
import { createHash } from "node:crypto"
import { copyFileSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { buildPackages } from "../../scripts/package.ts"
import { openSimulatedTee } from "../../src/native/simulated-tee.ts"
import { mustRun, waitFor } from "./command.ts"
import { type Guest, PAYLOAD_DEVICE } from "./guest.ts"
import { redisUnit } from "./redis-unit.ts"

const HERE = import.meta.dir
const ROOT = join(HERE, "..", "..")

export const AGENT_PORT = 5555
export const APPLICATION_PORT = 8443
const PAYLOAD = "/mnt"
const STATE = "/var/lib/cosmian_vm"
/** Directory of the application's configuration, relative to the agent's state. */
const APPLICATION_STORAGE = "data/e2e"

export interface Payload {
  /** Directory to give to the guest as its second disk. */
  readonly directory: string
  /** Root certificate of the simulated TEE, for `--trust-root`. */
  readonly trustRoot: string
}

/** Builds the executable, its .deb and the CUSE program, and puts them into a directory with a new simulated TEE. */
export async function preparePayload(directory: string): Promise<Payload> {
  const bun = process.execPath
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
  const { deb, rpm } = await buildPackages({ target: "linux-x64", output: directory, fast: true })
  renameSync(deb, join(directory, "cosmian_vm.deb"))
  rmSync(rpm)
  for (const unit of ["cuse-sev-guest.service", "e2e-app.service"]) {
    copyFileSync(join(HERE, unit), join(directory, unit))
  }
  writeFileSync(join(directory, "e2e-redis.service"), redisUnit())
  await mustRun(
    [
      ...[bun, "build", "--compile", "--minify", "--target=bun"],
      ...[join(HERE, "cuse-sev-guest.ts"), "--outfile", join(directory, "cuse-sev-guest")],
    ],
    { cwd: ROOT, timeoutMs: 120_000 },
  )
  const tee = join(directory, "simulated-tee")
  await openSimulatedTee(tee)
  return { directory, trustRoot: join(tee, "trust-root.pem") }
}

/**
 * Installs everything in a started guest, as an administrator would.
 * @param token accepted for `/app/*`.
 * @param encrypted as in the agent's configuration; `off` saves the time that its encrypted volume takes to be made.
 */
export async function provision(guest: Guest, token: string, encrypted: "required" | "off"): Promise<void> {
  await guest.mustShell(
    [
      "set -e",
      `mount -o ro ${PAYLOAD_DEVICE} ${PAYLOAD}`,
      `install -m 0755 ${PAYLOAD}/cuse-sev-guest /usr/local/sbin/`,
      `cp -r ${PAYLOAD}/simulated-tee /usr/local/lib/`,
      "chmod -R go= /usr/local/lib/simulated-tee",
      `install -m 0644 ${PAYLOAD}/*.service /etc/systemd/system/`,
      "systemctl daemon-reload",
      "systemctl enable --now cuse-sev-guest.service",
      `DEBIAN_FRONTEND=noninteractive dpkg --install ${PAYLOAD}/cosmian_vm.deb`,
      // It would be part of the snapshot.
      `umount ${PAYLOAD}`,
    ].join("\n"),
    { timeoutMs: 300_000 },
  )
  await guest.writeFile("/etc/cosmian_vm/agent.toml", agentConfiguration(token, encrypted))
  // Makes the agent's encrypted volume before, where it is to have one.
  await guest.mustShell("systemctl enable --now cosmian_vm_agent.service", { timeoutMs: 300_000 })
}

function agentConfiguration(token: string, encrypted: "required" | "off"): string {
  return `[agent]
host = "0.0.0.0"
port = ${AGENT_PORT}
tpm_device = "/dev/tpmrm0"

[storage]
encrypted = "${encrypted}"
# Every sector of it is written once.
size = "24MB"

[app]
service_type = "systemd"
service_name = "e2e-app"
app_storage = "${APPLICATION_STORAGE}"

[auth]
tokens = ["${createHash("sha256").update(token).digest("hex")}"]
`
}

/** The application's configuration, naming the TLS key with which it answers: the agent's, or another one. */
export function applicationConfiguration(key: "agent" | "other"): string {
  const directory = key === "agent" ? `${STATE}/data` : "/etc/e2e-app"
  return `CERTIFICATE=${directory}/cert.pem\nKEY=${directory}/key.pem\n`
}

/** Makes the key that the application must not answer with. */
export async function makeOtherKey(guest: Guest): Promise<void> {
  await guest.mustShell(
    "mkdir -p /etc/e2e-app && cd /etc/e2e-app && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 " +
      "-nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=other",
  )
}

/** Waits until the agent answers over the forwarded port, and returns what it says about itself. */
export async function agentInfo(guest: Guest): Promise<unknown> {
  const url = `https://127.0.0.1:${guest.port(AGENT_PORT)}/v1/info`
  return waitFor("the agent answers", 120_000, async () => {
    const response = await fetch(url, {
      tls: { rejectUnauthorized: false },
      signal: AbortSignal.timeout(10_000),
    }).catch(() => null)
    return response?.ok ? await response.json() : null
  })
}
