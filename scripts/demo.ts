/** `npm run demo`: the main job from end to end on this machine, with a simulated TEE and a software TPM. */
import { appendFileSync, chmodSync, copyFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { createSelfSigned } from "../src/agent/identity.ts"
import { EXECUTABLE, type SimulatedVm, simulatedVm } from "../test/executable.ts"
import { startRelay } from "../test/relay.ts"

const colour = process.stdout.isTTY && process.env["NO_COLOR"] === undefined
const paint = (code: number, text: string) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text)
const say = (text: string) => console.log(text)
const title = (text: string) =>
  say(`\n${paint(1, `── ${text} ${"─".repeat(Math.max(0, 76 - text.length))}`)}`)

/** Shows a command, runs it with this terminal, and insists on its exit code. */
async function show(args: string[], expected: number): Promise<void> {
  say(paint(36, `$ cosmian_vm ${args.join(" ")}`))
  const child = Bun.spawn([EXECUTABLE, ...args], { stdio: ["ignore", "inherit", "inherit"] })
  const code = await child.exited
  say(paint(code === expected ? 32 : 31, `exit code ${code}`))
  if (code !== expected) throw new Error(`expected exit code ${expected}`)
}

async function demo(vm: SimulatedVm): Promise<void> {
  const snapshot = join(vm.dir, "vm.snapshot")
  const connection = (url: string) => ["--url", url, "--allow-insecure-tls", "--trust-root", vm.trustRoot]

  title("1. A virtual machine, and its snapshot")
  say("An agent runs in a (simulated) confidential VM. A few programs have been started in it:")
  for (const program of ["/usr/bin/ls", "/usr/bin/cat"]) {
    say(`  ${program}`)
    await vm.exec(program)
  }
  say("From a laptop, the administrator takes a snapshot of the machine while it is good:\n")
  const maker = join(dirname(vm.trustRoot), "tpm-ca")
  await show(["snapshot", ...connection(vm.url), "--tpm-ca", maker, "-o", snapshot], 0)

  title("2. Is it still that machine?")
  await show(["verify", ...connection(vm.url), "-s", snapshot], 0)

  title("3. Attack: somebody listens in between")
  say("A relay ends the TLS connection, reads along, and passes everything on to the genuine VM.\n")
  const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })
  const relay = await startRelay(vm.port, keyPem, certificatePem)
  await show(["verify", ...connection(`https://127.0.0.1:${relay.port}`), "-s", snapshot], 13)
  relay.close()

  title("4. Attack: a program runs that was not there")
  const backdoor = join(vm.dir, "backdoor")
  copyFileSync("/usr/bin/true", backdoor)
  appendFileSync(backdoor, "not in the snapshot")
  chmodSync(backdoor, 0o755)
  say(`Somebody starts ${backdoor} in the VM.\n`)
  await vm.exec(backdoor)
  await show(["verify", ...connection(vm.url), "-s", snapshot], 16)

  title("5. The machine was restarted")
  say("A restart may be harmless, or hide what happened before it. The TPM counts them.\n")
  await vm.stop()
  await vm.start()
  await show(["verify", ...connection(vm.url), "-s", snapshot], 17)
}

const started = performance.now()
const vm = await simulatedVm(`[agent]\n\n[snapshot]\nroot = "/usr/bin"\n`)
try {
  await demo(vm)
  title("Done")
  say(
    `One machine verified, three attacks caught, in ${((performance.now() - started) / 1000).toFixed(0)} s.`,
  )
  say(
    "Everything above was real except the TEE's signing key. Next: README.md, or npm run e2e for a real guest.",
  )
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  console.error(`--- log of the agent\n${vm.log()}`)
  process.exitCode = 1
} finally {
  await vm.remove()
}
