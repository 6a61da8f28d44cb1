/** The guest's agent with a certificate that proves itself, and local programs that speak with its application. */
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { AGENT_PORT, APPLICATION_PORT, agentInfo } from "./provision.ts"
import { cli, expectEqual, expectExit, type Scene, snapshotFile, trust } from "./scene.ts"

const EXECUTABLE = join(import.meta.dir, "..", "..", "dist", "cosmian_vm")
const IMPLANT = "/usr/local/bin/implant"

/** A browser's request through `connect` reaches the application; an unknown program in the guest cuts it off. */
export async function connectUntilTheVerdictTurns(scene: Scene): Promise<void> {
  // It is not started with the guest, which was rebooted.
  await scene.guest.mustShell("systemctl restart e2e-app && sleep 2 && systemctl is-active e2e-app")
  const child = Bun.spawn(
    [
      ...[EXECUTABLE, "connect", "--url", `https://127.0.0.1:${scene.guest.port(AGENT_PORT)}`],
      ...["--allow-insecure-tls", "--timeout", "120", "-s", snapshotFile(scene), ...trust(scene)],
      ...["--listen", "127.0.0.1:0", "--interval", "2"],
      ...["--target", `127.0.0.1:${scene.guest.port(APPLICATION_PORT)}`],
    ],
    { stdin: "ignore", stdout: "ignore", stderr: "pipe" },
  )
  try {
    const port = await listeningPort(child)
    const answer = await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(60_000) })
    if (!(await answer.text()).includes("s_server")) throw new Error("the application's page did not come")
    await scene.guest.mustShell(`cp /usr/bin/true ${IMPLANT} && printf y >> ${IMPLANT} && ${IMPLANT}`)
    const ended = await Promise.race([child.exited, Bun.sleep(120_000)])
    expectEqual("exit code of connect", ended, EXIT.ima)
  } finally {
    child.kill("SIGTERM")
    await child.exited
  }
}

async function listeningPort(child: Bun.Subprocess<"ignore", "ignore", "pipe">): Promise<number> {
  let talk = ""
  for await (const chunk of child.stderr) {
    talk += new TextDecoder().decode(chunk)
    const port = /listening on 127\.0\.0\.1:(\d+)/.exec(talk)?.[1]
    if (port !== undefined) return Number(port)
  }
  throw new Error(`connect does not listen:\n${talk}`)
}

/** `tls = "ratls"`: the agent's certificate is verified before it is asked for anything. */
export async function certificateProvesItself(scene: Scene): Promise<void> {
  const get = () =>
    cli(scene, [
      ...["attestation", "get", "snp", "--ratls", "--offline", ...trust(scene)],
      ...["-o", join(scene.directory, "report.bin")],
    ])
  expectExit(await get(), EXIT.tee)
  await scene.guest.mustShell(
    `sed -i 's/^\\[agent\\]$/[agent]\\ntls = "ratls"/' /etc/cosmian_vm/agent.toml && systemctl restart cosmian_vm_agent`,
  )
  await agentInfo(scene.guest)
  expectExit(await get(), EXIT.ok)
}
