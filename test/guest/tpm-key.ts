/** The guest's TPM proves its attestation key, by its maker's certificate and by its endorsement key; and what `doctor` says of it. */
import { generateKeyPairSync, X509Certificate } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { EXIT } from "../../src/errors.ts"
import { parseSavedEvidence } from "../../src/formats/saved-evidence.ts"
import { makeTpmMaker } from "../fakes/tpm-certificates.ts"
import {
  type Claims,
  cli,
  expectEqual,
  expectExit,
  failedChecks,
  memberOf,
  type Scene,
  snapshotFile,
  trust,
  verified,
} from "./scene.ts"

/** A TPM that was never shut down in order says so of its clock: that is no fault of the guest. */
const MAY_WARN: readonly string[] = ["TPM clock"]
/** What it has to have looked at. */
const LOOKED_AT = [
  "TEE",
  "TPM",
  "attestation key",
  "TPM certificate",
  "IMA list",
  "IMA policy",
  "configuration",
]

/** `cosmian_vm doctor` inside the guest. */
export async function doctorIsContent({ guest }: Scene): Promise<void> {
  const result = await guest.shell("cosmian_vm doctor --json", { timeoutMs: 120_000 })
  expectExit(result, EXIT.ok)
  const answer: unknown = JSON.parse(result.stdout)
  const checks = memberOf(answer, "checks")
  if (!Array.isArray(checks)) throw new Error("doctor has no checks")
  const named = (check: unknown) => `${memberOf(check, "check")}`
  const wrong = checks.filter(
    (check: unknown) => memberOf(check, "status") !== "ok" && !MAY_WARN.includes(named(check)),
  )
  expectEqual("what is not OK", wrong, [])
  expectEqual(
    "what was not looked at",
    LOOKED_AT.filter((name) => !checks.map(named).includes(name)),
    [],
  )
}

/** By the certificate that swtpm's authority gave its endorsement key, and by no other authority. */
export async function certificateProvesKey(scene: Scene): Promise<void> {
  const claims = await verified(scene, EXIT.ok, ["--tpm-ca", scene.guest.tpmAuthorities()])
  expectEqual("ak", statusOf(claims), "passed")
  expectEqual("ak without authority", statusOf(await verified(scene, EXIT.ok)), "warning")
  const stranger = join(scene.directory, "stranger")
  mkdirSync(stranger, { recursive: true })
  writeFileSync(join(stranger, "root.der"), makeTpmMaker("stranger").rootDer)
  const others = await verified(scene, EXIT.tpm, ["--tpm-ca", stranger])
  expectEqual("failed checks", failedChecks(others), ["ak"])
}

/** By the endorsement key alone, as an administrator has it who got it another way. */
export async function endorsementKeyProvesKey(scene: Scene): Promise<void> {
  const file = (name: string) => join(scene.directory, name)
  await verified(scene, EXIT.ok, ["--save-evidence", file("ek.evidence")])
  const der = parseSavedEvidence(readFileSync(file("ek.evidence"))).evidence.tpm?.ekCertificate
  writeFileSync(
    file("ek.pem"),
    new X509Certificate(der ?? "").publicKey.export({ type: "spki", format: "pem" }),
  )
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
  writeFileSync(file("other-ek.pem"), publicKey.export({ type: "spki", format: "pem" }))
  const enroll = (ek: string) =>
    cli(scene, [
      "enroll",
      "-s",
      snapshotFile(scene),
      "-o",
      file("enrolled.snapshot"),
      ...trust(scene),
      "--ek",
      ek,
    ])
  const refused = await enroll(file("other-ek.pem"))
  expectExit(refused, EXIT.tpm)
  expectEqual("code of the refusal", refused.stdout.includes("ERR_TPM_EK_OTHER"), true)
  expectEqual("a snapshot of another TPM", existsSync(file("enrolled.snapshot")), false)
  expectExit(await enroll(file("ek.pem")), EXIT.ok)
  const result = await cli(scene, ["verify", "-s", file("enrolled.snapshot"), ...trust(scene)])
  expectExit(result, EXIT.ok)
  expectEqual("what it rests on", result.stdout.includes("--ek"), true)
}

function statusOf(claims: Claims): string | undefined {
  return claims.find(({ check }) => check === "ak")?.status
}
