/**
 * The whole way on a real kernel: a guest with TPM, IMA, systemd and `/dev/sev-guest` runs the packaged agent as a
 * service; from outside it is snapshotted, verified, tampered with, rebooted. Ends with `N passed, N failed, N skipped`.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { certificateProvesItself, connectUntilTheVerdictTurns } from "./attested-tls.ts"
import { keysAreDerived, keysFollowTheMeasurement, ratlsCertificateVerifies } from "./derived-keys.ts"
import { Guest, type UefiFirmware } from "./guest.ts"
import { ensureImage, type GuestImage } from "./image.ts"
import {
  AGENT_PORT,
  APPLICATION_PORT,
  agentInfo,
  applicationConfiguration,
  makeOtherKey,
  type Payload,
  preparePayload,
  provision,
} from "./provision.ts"
import {
  BOOTSTRAP_PORT,
  HTTP_PORT,
  REDIS_PORT,
  redisGetsItsPassword,
  redisIsAttested,
  redisLeaves,
  redisWaits,
  secretIsNotOnTheDisk,
} from "./redis.ts"
import {
  cli,
  expectEqual,
  expectExit,
  failedChecks,
  memberOf,
  type Scene,
  type Step,
  snapshotFile,
  TOKEN,
  takeSnapshot,
  tokenFile,
  trust,
  verified,
} from "./scene.ts"
import * as tpmKey from "./tpm-key.ts"
import { prepareFirmware, UEFI_STEPS } from "./uefi.ts"
import * as volumes from "./volumes.ts"

const ROOT = join(import.meta.dir, "..", "..")
const CACHE = join(ROOT, ".cache")
const KEPT = join(CACHE, "e2e")
const IMA_POLICY = join(ROOT, "deb", "root", "usr", "share", "cosmian_vm", "ima-policy")
const AGENT = "/usr/sbin/cosmian_vm"
const NEW_TOOL = "/usr/local/bin/brought-along"

const STEPS: readonly Step[] = [
  ["the packaged agent runs as a service and finds /dev/sev-guest, TPM and IMA", agentFindsDevices],
  [
    "the agent's files are in an encrypted volume, made at its first start",
    (s) => volumes.agentHasVolume(s.guest),
  ],
  ["L3: fstool create: the password is seen by nobody", (s) => volumes.passwordIsNotSeen(s.guest)],
  ["the boot measures the kernel's command line from now on", (s) => volumes.measureCommandLine(s.guest)],
  ["app init hands over the configuration and starts the application", (s) => initApplication(s, "agent")],
  ["app restart restarts it", restartApplication],
  ["app init without a token is refused", refusedWithoutToken],
  ["snapshot", snapshotIsComplete],
  ["verify, with the application", (s) => verified(s, EXIT.ok, applicationOption(s))],
  ["doctor in the guest finds nothing wrong", tpmKey.doctorIsContent],
  ["M1: the TPM's certificate proves its key, to --tpm-ca", tpmKey.certificateProvesKey],
  ["M1: the TPM's endorsement key proves it, to enroll --ek", tpmKey.endorsementKeyProvesKey],
  ["verify without the simulated root: TEE failure", withoutTrustRoot],
  ["the application answers with another key: application failure", applicationWithOtherKey],
  ["a new program ran: IMA failure that names its path", newProgramIsNamed],
  ["the new program is on the whitelist", (s) => verified(s, EXIT.ok, ["--whitelist", whitelist(s)])],
  ["certtool key: the same key again", ({ guest }) => keysAreDerived(guest)],
  ["the guest rebooted: reboot failure, and nothing else", rebootIsNamed],
  ["the volume is there after the reboot, without a password", (s) => volumes.dataAreThere(s.guest)],
  ["the reboot is accepted by name", (s) => verified(s, EXIT.ok, ["--accept-reboot"])],
  ["a new snapshot after the reboot", snapshotIsComplete],
  ["verify against the new snapshot", (s) => verified(s, EXIT.ok)],
  ["the program of before, now in the snapshot, runs again", knownProgramPasses],
  ["redis waits for its password", redisWaits],
  ["bootstrap brings it and a certificate, to the verified VM and by its owner only", redisGetsItsPassword],
  ["redis answers with its password, over the attested key, with that certificate", redisIsAttested],
  ["the password is nowhere on the disk", secretIsNotOnTheDisk],
  ["redis is stopped, the agent has its former application", redisLeaves],
  ["certtool key: another measurement, another key", ({ guest }) => keysFollowTheMeasurement(guest)],
  [
    "certtool ratls: a certificate made in the guest verifies outside",
    ({ guest, payload, directory }) => ratlsCertificateVerifies(guest, payload.trustRoot, directory),
  ],
  [
    "connect: a local program speaks with the application, until the verdict turns",
    connectUntilTheVerdictTurns,
  ],
  ['tls = "ratls": the agent\'s certificate proves itself', certificateProvesItself],
]

/** Encrypted volumes, which are swapped, tampered with, killed while they are made, and moved to another TPM. */
const VOLUME_STEPS: readonly Step[] = [
  ["fstool create, and a boot that measures the kernel's command line", volumesAreMade],
  ["fstool resize: grows while it is in use", (s) => volumes.growsOnline(s.guest)],
  ["fstool password change", (s) => volumes.passwordChanges(s.guest)],
  ["L1: a LUKS header that others wrote is refused", (s) => volumes.headersAreRefused(s.guest)],
  ["L4: a flipped bit on the disk is a read error", (s) => volumes.tamperingIsNoticed(s.guest)],
  ["L3: fstool create that fails leaves nothing", (s) => volumes.failuresLeaveNothing(s.guest)],
  ["a cryptsetup that hangs does not hold up the boot", (s) => volumes.hangingEnds(s.guest)],
  ["a block device with XFS, opened with a PIN, grows", (s) => volumes.deviceGrows(s.guest)],
  ["L3: fstool create killed at each step leaves nothing", (s) => volumes.killedAtEachStep(s.guest)],
  ["a volume is as fast as with plain cryptsetup", (s) => volumes.asFastAsPlain(s.guest)],
  ["Debian 12's systemd opens a volume that fstool enrolled for it", (s) => volumes.systemdOpensIt(s.guest)],
  ["a volume as 1.3 made them opens unchanged", (s) => volumes.olderVolumeOpens(s.guest)],
  ["fstool enroll --pcrs warns", (s) => volumes.enrolToCommandLine(s.guest)],
  [
    "L2: another command line: the volume stays closed and says why",
    (s) => volumes.otherCommandLine(s.guest),
  ],
  ["L2: another TPM: the volume stays closed, and opens with its password", (s) => volumes.otherTpm(s.guest)],
]

async function volumesAreMade({ guest }: Scene): Promise<void> {
  await volumes.passwordIsNotSeen(guest)
  await volumes.measureCommandLine(guest)
}

/** Guests, each with its steps: `npm run e2e -- uefi` runs one of them. */
const PARTS = { vm: STEPS, volumes: VOLUME_STEPS, uefi: UEFI_STEPS } as const

process.exit(await main(process.argv.slice(2)))

async function main(asked: readonly string[]): Promise<number> {
  const unknown = asked.find((part) => !Object.hasOwn(PARTS, part))
  if (unknown !== undefined) {
    console.error(`there is no part ${unknown}: ${Object.keys(PARTS).join(", ")}`)
    return 2
  }
  const wanted = (part: keyof typeof PARTS) => asked.length === 0 || asked.includes(part)
  const all = (["vm", "volumes", "uefi"] as const).flatMap((part) => (wanted(part) ? PARTS[part] : []))
  const tally = { passed: 0, failed: 0, skipped: 0 }
  const directory = join(KEPT, `run-${process.pid}`)
  mkdirSync(directory, { recursive: true })
  removeAbandonedRuns()
  try {
    const parts = await prepareParts(directory)
    const take = (steps: readonly Step[]) => async (scene: Scene) => {
      for (const [name, act] of steps) {
        if (tally.failed > 0) break
        if (await passes(name, () => act(scene))) tally.passed++
        else tally.failed++
      }
      if (tally.failed > 0) await keepLogs(scene)
    }
    for (const part of ["vm", "volumes"] as const)
      if (wanted(part) && tally.failed === 0) await inGuest(parts, join(directory, part), take(PARTS[part]))
    const uefi = join(directory, "uefi")
    if (wanted("uefi") && tally.failed === 0)
      await inGuest({ ...parts, firmware: await prepareFirmware(parts.image, uefi) }, uefi, take(UEFI_STEPS))
  } catch (error) {
    console.log(`FAIL  the guest: ${error instanceof Error ? error.message : error}`)
    tally.failed++
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  tally.skipped = Math.max(0, all.length - tally.passed - tally.failed)
  console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`)
  return tally.failed === 0 ? 0 : 1
}

/** What guests are made from. */
interface Parts {
  readonly image: GuestImage
  readonly payload: Payload
  readonly firmware?: UefiFirmware
}

async function prepareParts(directory: string): Promise<Parts> {
  const payload = await timed("build, package", () => preparePayload(join(directory, "payload")))
  const imageDirectory = join(CACHE, "guest")
  mkdirSync(imageDirectory, { recursive: true })
  const image = await timed("guest image", () =>
    ensureImage(imageDirectory, readFileSync(IMA_POLICY, "utf8"), say),
  )
  return { image, payload }
}

/** Runs the test in a guest that is stopped again whatever happens. @param directory of this guest. */
async function inGuest(
  { payload, ...parts }: Parts,
  directory: string,
  test: (scene: Scene) => Promise<void>,
): Promise<void> {
  const guest = await timed("boot", () =>
    Guest.start({
      ...parts,
      directory: join(directory, "machine"),
      payload: payload.directory,
      ports: [AGENT_PORT, APPLICATION_PORT, BOOTSTRAP_PORT, REDIS_PORT, HTTP_PORT],
    }),
  )
  const interrupted = () => void guest.stop().finally(() => process.exit(1))
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted)
  const scene = { guest, payload, directory }
  try {
    await timed("install", () => provision(guest, TOKEN, parts.firmware === undefined ? "required" : "off"))
    await test(scene)
  } catch (error) {
    await keepLogs(scene)
    throw error
  } finally {
    process.off("SIGINT", interrupted).off("SIGTERM", interrupted)
    await guest.stop()
  }
}

async function agentFindsDevices({ guest }: Scene): Promise<void> {
  const info = await agentInfo(guest)
  expectEqual("service", (await guest.mustShell("systemctl is-active cosmian_vm_agent")).trim(), "active")
  for (const [field, value] of [
    ["tee", "sev-guest"],
    ["tpm", true],
    ["ima", true],
    ["token_required", true],
  ] as const) {
    expectEqual(`/v1/info ${field}`, memberOf(info, field), value)
  }
}

async function initApplication(scene: Scene, key: "agent" | "other"): Promise<void> {
  const file = join(scene.directory, "app.conf")
  writeFileSync(file, applicationConfiguration(key))
  const options = ["app", "init", "-c", file, ...trust(scene), "--any-vm", "--token-file", tokenFile(scene)]
  expectExit(await cli(scene, options), EXIT.ok)
  const path = "/var/lib/cosmian_vm/data/e2e/app.conf"
  expectEqual(path, await scene.guest.mustShell(`cat ${path}`), applicationConfiguration(key))
  expectEqual("application", (await scene.guest.mustShell("systemctl is-active e2e-app")).trim(), "active")
}

async function restartApplication(scene: Scene): Promise<void> {
  const pid = () => scene.guest.mustShell("systemctl show --property=MainPID --value e2e-app")
  const before = await pid()
  expectExit(
    await cli(scene, ["app", "restart", ...trust(scene), "--any-vm", "--token-file", tokenFile(scene)]),
    EXIT.ok,
  )
  if ((await pid()) === before) throw new Error("the application's process is still the old one")
}

async function refusedWithoutToken(scene: Scene): Promise<void> {
  expectExit(
    await cli(scene, ["app", "init", "-c", join(scene.directory, "app.conf"), ...trust(scene), "--any-vm"]),
    EXIT.operational,
  )
}

async function snapshotIsComplete(scene: Scene): Promise<void> {
  await takeSnapshot(scene)
  const snapshot: unknown = JSON.parse(readFileSync(snapshotFile(scene), "utf8"))
  // The unit's sandbox must not hide anything from the agent.
  expectEqual("unreadable files", memberOf(snapshot, "unreadable"), [])
  const files = memberOf(snapshot, "filehashes")
  const pair = Array.isArray(files)
    ? files.find((entry: unknown) => memberOf(entry, "0") === AGENT)
    : undefined
  const digest = (await scene.guest.mustShell(`sha256sum < ${AGENT}`)).split(" ")[0]
  expectEqual(`hash of ${AGENT}`, memberOf(pair, "1"), digest)
}

async function withoutTrustRoot(scene: Scene): Promise<void> {
  expectExit(await cli(scene, ["verify", "-s", snapshotFile(scene)]), EXIT.tee)
}

async function applicationWithOtherKey(scene: Scene): Promise<void> {
  await makeOtherKey(scene.guest)
  await initApplication(scene, "other")
  const claims = await verified(scene, EXIT.application, applicationOption(scene))
  expectEqual("failed checks", failedChecks(claims), ["application"])
  await initApplication(scene, "agent")
  await verified(scene, EXIT.ok, applicationOption(scene))
}

async function newProgramIsNamed(scene: Scene): Promise<void> {
  await scene.guest.mustShell(`cp /usr/bin/true ${NEW_TOOL} && printf x >> ${NEW_TOOL} && ${NEW_TOOL}`)
  const claims = await verified(scene, EXIT.ima)
  expectEqual("failed checks", failedChecks(claims), ["ima"])
  const subjects = claims
    .filter(({ status }) => status === "failed")
    .flatMap(({ findings }) => findings.map((finding) => finding.subject))
  expectEqual("findings", subjects, [NEW_TOOL])
  const digest = (await scene.guest.mustShell(`sha256sum < ${NEW_TOOL}`)).split(" ")[0] ?? ""
  writeFileSync(whitelist(scene), `# brought along by the test\n${NEW_TOOL} ${digest}\n`)
}

async function rebootIsNamed(scene: Scene): Promise<void> {
  await scene.guest.reboot()
  await agentInfo(scene.guest)
  const claims = await verified(scene, EXIT.reboot)
  expectEqual("failed checks", failedChecks(claims), ["reboot"])
}

async function knownProgramPasses(scene: Scene): Promise<void> {
  await scene.guest.mustShell(NEW_TOOL)
  await verified(scene, EXIT.ok)
}

function whitelist(scene: Scene): string {
  return join(scene.directory, "whitelist")
}

function applicationOption(scene: Scene): string[] {
  return ["--application", `127.0.0.1:${scene.guest.port(APPLICATION_PORT)}`]
}

async function passes(name: string, act: () => Promise<unknown>): Promise<boolean> {
  const start = performance.now()
  try {
    await act()
    say(`ok    ${name} (${seconds(start)})`)
    return true
  } catch (error) {
    say(`FAIL  ${name} (${seconds(start)})\n${error instanceof Error ? error.message : error}`)
    return false
  }
}

async function timed<T>(what: string, act: () => Promise<T>): Promise<T> {
  const start = performance.now()
  const result = await act()
  say(`      ${what} (${seconds(start)})`)
  return result
}

async function keepLogs(scene: Scene): Promise<void> {
  const kept = join(KEPT, `failed-${new Date().toISOString().replaceAll(":", "-")}`)
  await scene.guest.saveLogs(kept)
  const talk = join(scene.directory, "cli.txt")
  if (existsSync(talk)) copyFileSync(talk, join(kept, "cli.txt"))
  say(`      the guest's journal and the other logs are in ${kept}`)
  const failures = readdirSync(KEPT).filter((entry) => entry.startsWith("failed-"))
  for (const old of failures.sort().slice(0, -5)) rmSync(join(KEPT, old), { recursive: true })
}

/** Disks of runs that were killed. */
function removeAbandonedRuns(): void {
  for (const entry of readdirSync(KEPT)) {
    const pid = /^run-([0-9]+)$/.exec(entry)?.[1]
    if (pid !== undefined && !existsSync(join("/proc", pid))) rmSync(join(KEPT, entry), { recursive: true })
  }
}

function say(line: string): void {
  console.log(line)
}

function seconds(start: number): string {
  return `${((performance.now() - start) / 1000).toFixed(1)} s`
}
