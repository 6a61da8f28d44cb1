/** What the steps of the guest run share: the guest, the executable against its agent, and what they expect. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { type CommandResult, run, tail } from "./command.ts"
import type { Guest } from "./guest.ts"
import { AGENT_PORT, type Payload } from "./provision.ts"

const ROOT = join(import.meta.dir, "..", "..")
/** Accepted by the agent for writes. */
export const TOKEN = Buffer.from(crypto.getRandomValues(new Uint8Array(24))).toString("base64url")

export interface Scene {
  readonly guest: Guest
  readonly payload: Payload
  /** Directory for snapshot, whitelist and the CLI's outputs. */
  readonly directory: string
}

export type Step = readonly [name: string, act: (scene: Scene) => Promise<unknown>]

/** Takes the snapshot that is verified against from now on. */
export async function takeSnapshot(scene: Scene): Promise<void> {
  const options = [
    "snapshot",
    "-o",
    snapshotFile(scene),
    ...trust(scene),
    "--any-vm",
    "--token-file",
    tokenFile(scene),
  ]
  expectExit(await cli(scene, options), EXIT.ok)
}

/** Verifies against the snapshot, and returns the verdict. */
export async function verified(scene: Scene, exit: number, options: readonly string[] = []): Promise<Claims> {
  const result = await cli(scene, [
    ...["verify", "--json", "-s", snapshotFile(scene)],
    ...trust(scene),
    ...options,
  ])
  expectExit(result, exit)
  const verdict: unknown = JSON.parse(result.stdout)
  expectEqual("simulated", memberOf(verdict, "simulated"), true)
  return claimsOf(verdict)
}

/** Runs the built executable against the guest's agent, or what else listens at a port of the guest. */
export async function cli(
  scene: Scene,
  options: readonly string[],
  port = AGENT_PORT,
): Promise<CommandResult> {
  const url = `https://127.0.0.1:${scene.guest.port(port)}`
  const connection = ["--url", url, "--allow-insecure-tls", "--timeout", "120"]
  const argv = [join(ROOT, "dist", "cosmian_vm"), ...connection, ...options]
  const result = await run(argv, { timeoutMs: 400_000 })
  const shown = `$ ${argv.join(" ")}\n${result.stdout}${result.stderr}(exit code ${result.code})\n\n`
  writeFileSync(join(scene.directory, "cli.txt"), shown, { flag: "a" })
  return result
}

export function snapshotFile(scene: Scene): string {
  return join(scene.directory, "cosmian_vm.snapshot")
}

export function trust(scene: Scene): string[] {
  return ["--trust-root", scene.payload.trustRoot]
}

export function tokenFile(scene: Scene): string {
  const path = join(scene.directory, "token")
  writeFileSync(path, `${TOKEN}\n`, { mode: 0o600 })
  return path
}

export type Claims = readonly {
  readonly check: string
  readonly status: string
  readonly findings: readonly { readonly code: string; readonly subject: string }[]
}[]

/** The claims of a verdict in JSON. The test reads its own program's output: a wrong shape ends the step. */
export function claimsOf(verdict: unknown): Claims {
  const claims = memberOf(verdict, "claims")
  if (!Array.isArray(claims)) throw new Error("the verdict has no claims")
  return claims.map((claim: unknown) => {
    const findings = memberOf(claim, "findings")
    return {
      check: `${memberOf(claim, "check")}`,
      status: `${memberOf(claim, "status")}`,
      findings: (Array.isArray(findings) ? findings : []).map((finding: unknown) => ({
        code: `${memberOf(finding, "code")}`,
        subject: `${memberOf(finding, "subject")}`,
      })),
    }
  })
}

export function memberOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined
}

export function failedChecks(claims: Claims): string[] {
  return claims.filter((claim) => claim.status === "failed").map((claim) => claim.check)
}

export function expectExit(result: CommandResult, expected: number): void {
  if (result.code === expected) return
  throw new Error(
    `exit code ${result.code}, expected ${expected}\n${tail(result.stdout, 60)}${tail(result.stderr, 40)}`,
  )
}

export function expectEqual(what: string, found: unknown, expected: unknown): void {
  if (Bun.deepEquals(found, expected)) return
  throw new Error(`${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`)
}
