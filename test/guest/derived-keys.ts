/** Keys derived by `/dev/sev-guest` in the guest, and an RA-TLS certificate that is made there and verified outside. */
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { run } from "./command.ts"
import type { Guest } from "./guest.ts"

const TOOL = "/usr/sbin/cosmian_vm certtool"
const OUTPUT = "/root/derived"
const EXECUTABLE = join(import.meta.dir, "..", "..", "dist", "cosmian_vm")
/** Of the simulated TEE behind the device: what stands for firmware and kernel. */
const LAUNCH = "/usr/local/lib/simulated-tee/launch"

async function derive(guest: Guest, options = ""): Promise<string> {
  await guest.mustShell(`${TOOL} key -q -o ${OUTPUT} ${options}`, { timeoutMs: 120_000 })
  const [mode, key] = (
    await guest.mustShell(`stat -c %a ${OUTPUT}/x25519_sk.bin && sha256sum < ${OUTPUT}/x25519_sk.bin`)
  )
    .split("\n")
    .map((line) => line.trim())
  if (mode !== "600") throw new Error(`the key's file has mode ${mode}`)
  return key ?? ""
}

/** Another content, and the device answers for another launch. */
async function launch(guest: Guest, content: string): Promise<void> {
  await guest.mustShell(`printf '%s' '${content}' > ${LAUNCH} && systemctl restart cuse-sev-guest.service`)
  await guest.mustShell("for i in $(seq 50); do test -c /dev/sev-guest && exit 0; sleep 0.2; done; exit 1")
}

let first = ""

/** The same VM: the same key. Another salt, another key. */
export async function keysAreDerived(guest: Guest): Promise<void> {
  first = await derive(guest)
  if ((await derive(guest)) !== first) throw new Error("the second key is another one")
  if ((await derive(guest, "--salt 0102")) === first) throw new Error("another salt gives the same key")
}

/** After a reboot still the same; with another measurement another, and then the first one again. */
export async function keysFollowTheMeasurement(guest: Guest): Promise<void> {
  if ((await derive(guest)) !== first) throw new Error("after the reboot the key is another one")
  await launch(guest, "another kernel")
  try {
    if ((await derive(guest)) === first) throw new Error("another measurement gives the same key")
    const unbound = await derive(guest, "--bind policy")
    await launch(guest, "")
    if ((await derive(guest, "--bind policy")) !== unbound)
      throw new Error("a key that is not bound to the measurement follows it")
  } finally {
    await launch(guest, "")
  }
  if ((await derive(guest)) !== first) throw new Error("the first measurement does not give the first key")
}

/** A certificate with a derived key, made in the guest, judged by whoever has it. */
export async function ratlsCertificateVerifies(
  guest: Guest,
  trustRoot: string,
  directory: string,
): Promise<void> {
  await guest.mustShell(`${TOOL} ratls generate -q --tee-secret-key-no-salt -o ${OUTPUT}`, {
    timeoutMs: 120_000,
  })
  const file = join(directory, "cert.ratls.pem")
  await Bun.write(file, await guest.mustShell(`cat ${OUTPUT}/cert.ratls.pem`))
  const verify = (...options: string[]) =>
    run([EXECUTABLE, "certtool", "ratls", "verify", "-c", file, "--offline", ...options], {
      timeoutMs: 60_000,
    })
  const genuine = await verify("--trust-root", trustRoot)
  if (genuine.code !== EXIT.ok)
    throw new Error(`exit code ${genuine.code}\n${genuine.stdout}${genuine.stderr}`)
  const untrusted = await verify()
  if (untrusted.code !== EXIT.tee) throw new Error(`without the root: exit code ${untrusted.code}`)
}
