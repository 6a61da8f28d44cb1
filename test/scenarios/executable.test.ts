/** The built executable as a user runs it, on a simulated VM: exit codes, what is written, what is refused. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { generateKeyPairSync, X509Certificate } from "node:crypto"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { createServer } from "node:tls"
import { createSelfSigned } from "../../src/agent/identity.ts"
import { EXIT } from "../../src/errors.ts"
import { parseSavedEvidence } from "../../src/formats/saved-evidence.ts"
import { parseSnapshot } from "../../src/policy/snapshot.ts"
import { run, type SimulatedVm, simulatedVm } from "../executable.ts"
import { makeTpmMaker } from "../fakes/tpm-certificates.ts"
import { type Relay, startRelay } from "../relay.ts"

let vm: SimulatedVm
let files: string
let snapshot: string
let relay: Relay

const CONFIG = `[agent]\n\n[snapshot]\nroot = "/usr/sbin"\n`

beforeAll(async () => {
  files = mkdtempSync(join(tmpdir(), "cosmian-vm-cli-"))
  snapshot = join(files, "vm.snapshot")
  vm = await simulatedVm(CONFIG)
  await vm.exec("/usr/bin/ls")
  const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })
  relay = await startRelay(vm.port, keyPem, certificatePem)
  const taken = await run(["snapshot", ...trusted(), "-o", snapshot])
  if (taken.code !== 0) throw new Error(taken.stdout + taken.stderr)
}, 60_000)

afterAll(async () => {
  relay.close()
  await vm.remove()
  rmSync(files, { recursive: true, force: true })
})

/** Options for reaching the VM, or whatever answers at another URL. */
function trusted(url = vm.url): string[] {
  return ["--url", url, "--allow-insecure-tls", "--trust-root", vm.trustRoot]
}

async function verified(args: string[] = trusted(), more: string[] = []) {
  const { code, stdout, stderr } = await run(["verify", ...args, "-s", snapshot, "--json", ...more])
  const verdict: unknown = stdout.trim() === "" ? null : JSON.parse(stdout)
  return { code, stdout, stderr, verdict }
}

describe("doctor", () => {
  test("of a simulated VM that runs: warned of what it is, and nothing fails", async () => {
    const dir = dirname(vm.trustRoot)
    const { code, stdout } = await run(["doctor", "--simulate", dir, "--json"])
    expect(code).toBe(EXIT.ok)
    const { healthy, checks } = JSON.parse(stdout)
    expect(healthy).toBe(true)
    const statusOf = (name: string) => checks.find(({ check }: { check: string }) => check === name)?.status
    expect(
      ["TEE", "TPM", "attestation key", "TPM certificate", "IMA list", "TLS certificate"].map(statusOf),
    ).toEqual(["warn", "ok", "ok", "ok", "ok", "ok"])
  })

  test("of one that does not run, and of this machine, which is no confidential VM", async () => {
    expect((await run(["doctor", "--simulate", files])).code).toBe(EXIT.operational)
    const here = await run(["doctor", "--imds", "http://127.0.0.1:1", "--conf", join(files, "absent.toml")])
    expect(here.code).toBe(EXIT.operational)
    expect(here.stdout).toContain("[ FAIL ]")
  })
})

describe("verify", () => {
  test("--policy adds requirements; one that is misspelt is refused", async () => {
    const policy = join(files, "policy.toml")
    const pcr4 = JSON.parse(readFileSync(snapshot, "utf8")).tpm_reference.pcrs["4"]
    writeFileSync(policy, `[tpm.pcrs.sha256]\n4 = "${pcr4}"\n`)
    expect((await verified(trusted(), ["--policy", policy])).code).toBe(EXIT.ok)
    writeFileSync(policy, `{"pcr_values": {"sha256": {"4": "${"00".repeat(32)}"}}}`)
    expect((await verified(trusted(), ["--policy", policy])).code).toBe(EXIT.boot)
    writeFileSync(policy, "[boot]\nsecureboot = true\n")
    const misspelt = await verified(trusted(), ["--policy", policy])
    expect(misspelt.code).toBe(EXIT.usage)
    expect(misspelt.verdict).toMatchObject({ error: { code: "ERR_POLICY" } })
  })

  test("passes on the machine of the snapshot, in each of the ways to call it", async () => {
    expect((await verified()).code).toBe(EXIT.ok)
    const old = [
      "cli",
      "--url",
      vm.url,
      "--allow-insecure-tls",
      "verify",
      "-s",
      snapshot,
      "--trust-root",
      vm.trustRoot,
    ]
    const { code, stdout } = await run(old)
    expect(code).toBe(EXIT.ok)
    expect(stdout).toContain("[ OK ]")
    expect(stdout).toContain("SIMULATED")
  })

  test("M1: the TPM proves its key, the snapshot keeps the proof, and another TPM's maker is not believed", async () => {
    const agent = trusted()
    const plain = join(files, "plain.snapshot")
    copyFileSync(snapshot, plain)
    const claimOf = async (...more: string[]) => {
      const { code, stdout } = await run(["verify", ...agent, "--json", ...more])
      const { claims } = JSON.parse(stdout)
      return { code, ak: claims.find(({ check }: { check: string }) => check === "ak") }
    }
    expect(await claimOf("-s", plain)).toMatchObject({ code: EXIT.ok, ak: { status: "warning" } })
    const ca = join(dirname(vm.trustRoot), "tpm-ca")
    const by = (akProvenBy: string) => ({ code: EXIT.ok, ak: { status: "passed", facts: { akProvenBy } } })
    expect(await claimOf("-s", plain, "--tpm-ca", ca)).toMatchObject(by("ek-certificate"))
    const enrolled = join(files, "enrolled.snapshot")
    expect((await run(["enroll", ...agent, "-s", plain, "-o", enrolled, "--tpm-ca", ca])).code).toBe(EXIT.ok)
    expect(await claimOf("-s", enrolled)).toMatchObject(by("enrolled"))
    expect(await claimOf("-s", plain)).toMatchObject({ code: EXIT.ok, ak: { status: "warning" } })
    const stranger = join(files, "stranger")
    mkdirSync(stranger)
    writeFileSync(join(stranger, "root.der"), makeTpmMaker("stranger").rootDer)
    for (const against of [plain, enrolled])
      expect(await claimOf("-s", against, "--tpm-ca", stranger)).toMatchObject({
        code: EXIT.tpm,
        ak: { status: "failed", findings: [{ code: "ERR_CERT_UNTRUSTED" }] },
      })
    const refused = await run(["enroll", ...agent, "-s", plain, "--tpm-ca", stranger])
    expect(refused.code).toBe(EXIT.tpm)
    expect(readFileSync(plain)).toEqual(readFileSync(snapshot))
    expect((await run(["enroll", ...agent, "-s", plain])).code).toBe(EXIT.usage)
    expect((await run(["enroll", ...agent, "-s", plain, "--tpm-ca", ca, "--skip", "ak"])).code).toBe(
      EXIT.usage,
    )
    expect((await run(["verify", ...agent, "-s", plain, "--tpm-ca", join(files, "absent")])).code).toBe(
      EXIT.usage,
    )
  })

  test("M1: a TPM without certificate is enrolled by its endorsement key, and another TPM is not", async () => {
    const agent = trusted()
    const [plain, enrolled] = [join(files, "ek-plain.snapshot"), join(files, "ek-enrolled.snapshot")]
    copyFileSync(snapshot, plain)
    const evidence = join(files, "ek.evidence")
    expect((await run(["verify", ...agent, "-s", plain, "--save-evidence", evidence])).code).toBe(EXIT.ok)
    const der = parseSavedEvidence(readFileSync(evidence)).evidence.tpm?.ekCertificate
    const [ek, other] = [join(files, "ek.pem"), join(files, "other-ek.pem")]
    writeFileSync(ek, new X509Certificate(der ?? "").publicKey.export({ type: "spki", format: "pem" }))
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
    writeFileSync(other, publicKey.export({ type: "spki", format: "pem" }))
    const enroll = async (...more: string[]) => {
      const { code, stdout } = await run(["enroll", ...agent, "-s", plain, "-o", enrolled, "--json", ...more])
      const { claims } = JSON.parse(stdout).verdict ?? { claims: [] }
      return { code, ak: claims.find(({ check }: { check: string }) => check === "ak") }
    }
    expect(await enroll("--ek", other)).toMatchObject({
      code: EXIT.tpm,
      ak: { status: "failed", findings: [{ code: "ERR_TPM_EK_OTHER" }] },
    })
    expect(existsSync(enrolled)).toBe(false)
    expect((await enroll("--ek", ek, "--tpm-ca", join(dirname(vm.trustRoot), "tpm-ca"))).code).toBe(
      EXIT.usage,
    )
    expect((await enroll("--ek", vm.trustRoot)).code).not.toBe(EXIT.ok)
    expect(await enroll("--ek", ek)).toMatchObject({
      code: EXIT.ok,
      ak: { status: "passed", facts: { akProvenBy: "ek-key" } },
    })
    expect(parseSnapshot(readFileSync(enrolled)).tpm_reference?.ak_enrolment).toMatchObject({
      kind: "ek-key",
    })
    const { code, stdout } = await run(["verify", ...agent, "-s", enrolled])
    expect(code).toBe(EXIT.ok)
    expect(stdout.replace(/\s+/g, " ")).toContain("rests on the endorsement key which the administrator gave")
  })

  test("the verdict of --json is whole: every check, in order, and nothing else on standard output", async () => {
    const { verdict } = await verified()
    expect(verdict).toMatchObject({ passed: true, simulated: true, exitCode: 0, skipped: [] })
    const { claims } = verdict as { claims: { check: string }[] }
    expect(claims.map(({ check }) => check)).toEqual([
      "channel",
      "tee",
      "revocation",
      "tcb",
      "binding",
      "tpm",
      "ak",
      "reboot",
      "boot",
      "ima",
    ])
  })

  test("C2: a relay with a certificate of its own", async () => {
    expect((await verified(trusted(`https://127.0.0.1:${relay.port}`))).code).toBe(EXIT.binding)
  })

  test("T1: a simulated root that was not named is not trusted", async () => {
    expect((await verified(["--url", vm.url, "--allow-insecure-tls"])).code).toBe(EXIT.tee)
  })

  test("a self-signed certificate needs --allow-insecure-tls", async () => {
    expect((await verified(["--url", vm.url, "--trust-root", vm.trustRoot])).code).toBe(EXIT.channel)
  })

  test("a check that is skipped is named in the verdict, and only that check", async () => {
    const { code, verdict } = await verified(
      ["--url", vm.url, "--trust-root", vm.trustRoot],
      ["--skip", "channel"],
    )
    expect(code).toBe(EXIT.ok)
    expect(verdict).toMatchObject({ passed: true, skipped: ["channel"] })
    const skippedOther = await verified(["--url", vm.url, "--trust-root", vm.trustRoot], ["--skip", "ima"])
    expect(skippedOther.code).toBe(EXIT.channel)
  })

  test("nobody answers: no verdict, exit code 1", async () => {
    expect((await verified(trusted("https://127.0.0.1:1"))).code).toBe(EXIT.operational)
  })

  test("C5: an application inside, one with another key, one that is off", async () => {
    const certificate = readFileSync(join(vm.dir, "vm", "data", "cert.pem"), "utf8")
    const key = readFileSync(join(vm.dir, "vm", "data", "key.pem"), "utf8")
    const inside = await tlsServer(key, certificate)
    expect((await verified(trusted(), ["-a", `127.0.0.1:${inside.port}`])).code).toBe(EXIT.ok)
    expect((await verified(trusted(), ["-a", `127.0.0.1:${relayless.port}`])).code).toBe(EXIT.application)
    inside.close()
    expect((await verified(trusted(), ["-a", `127.0.0.1:${inside.port}`])).code).toBe(EXIT.application)
  })
})

describe("snapshot", () => {
  test("S2: through a relay, or of a machine that is not trusted: refused, and the old file stays as it was", async () => {
    const file = join(files, "kept.snapshot")
    await Bun.write(file, "old")
    for (const [args, code] of [
      [trusted(`https://127.0.0.1:${relay.port}`), EXIT.binding],
      [["--url", vm.url, "--allow-insecure-tls"], EXIT.tee],
    ] as const) {
      expect((await run(["snapshot", ...args, "-o", file])).code).toBe(code)
      expect(await Bun.file(file).text()).toBe("old")
    }
    const absent = join(files, "absent.snapshot")
    expect((await run(["snapshot", "--url", vm.url, "--allow-insecure-tls", "-o", absent])).code).toBe(
      EXIT.tee,
    )
    expect(existsSync(absent)).toBe(false)
  })

  test("S1: a snapshot that was cut, or is not there, is no verdict", async () => {
    const cut = join(files, "cut.snapshot")
    await Bun.write(cut, readFileSync(snapshot).subarray(0, 500))
    for (const file of [cut, join(files, "nowhere")]) {
      const { code, stdout } = await run(["verify", ...trusted(), "-s", file, "--json"])
      expect([EXIT.operational, EXIT.usage] as number[]).toContain(code)
      expect(JSON.parse(stdout)).toHaveProperty("error.code")
    }
  })
})

describe("the machine changes", () => {
  test("I1: an unknown program, until it is whitelisted; M6: a reboot", async () => {
    const program = join(files, "new program")
    copyFileSync("/usr/bin/true", program)
    chmodSync(program, 0o755)
    await vm.exec(program)
    const failed = await verified()
    expect(failed.code).toBe(EXIT.ima)
    // As the kernel writes it into its list.
    expect(failed.stdout).toContain(program.replaceAll(" ", "_"))

    const digest = new Bun.CryptoHasher("sha256").update(await Bun.file(program).bytes()).digest("hex")
    const whitelist = join(files, "whitelist")
    await Bun.write(whitelist, `${program} ${digest}\n`)
    expect((await verified(trusted(), ["-w", whitelist])).code).toBe(EXIT.ok)
    await Bun.write(whitelist, `${program} ${digest}\nnonsense\n`)
    expect((await verified(trusted(), ["-w", whitelist])).code).toBe(EXIT.usage)

    await vm.stop()
    await vm.start()
    expect((await verified()).code).toBe(EXIT.reboot)
    expect((await run(["snapshot", ...trusted(), "-o", snapshot])).code).toBe(EXIT.ok)
    expect((await verified()).code).toBe(EXIT.ok)
  }, 60_000)

  test("C6: the TLS key is replaced while the agent runs: verification goes on, with the new key", async () => {
    const before = spkiOf((await verified()).verdict)
    const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })
    const data = join(vm.dir, "vm", "data")
    await Bun.write(join(data, "key.pem"), keyPem)
    await Bun.write(join(data, "cert.pem"), certificatePem)
    process.kill(vm.pid(), "SIGHUP")
    let last = await verified()
    for (let tries = 0; tries < 50 && spkiOf(last.verdict) === before; tries++) {
      await Bun.sleep(100)
      last = await verified()
    }
    expect(spkiOf(last.verdict)).not.toBe(before)
    expect(last.code).toBe(EXIT.ok)
  }, 60_000)
})

function spkiOf(verdict: unknown): unknown {
  const { claims } = verdict as { claims: { check: string; facts: Record<string, unknown> }[] }
  return claims.find(({ check }) => check === "channel")?.facts["spki"]
}

describe("usage", () => {
  test.each([
    [["verfy"]],
    [["verify", "--snapshott", "x"]],
    [["verify", "-s"]],
    [["verify", "-s", "x", "--skip", "everything"]],
    [["snapshot", "--timeout", "soon"]],
    [["app"]],
    [[]],
  ])("%j is a usage error with a code", async (args) => {
    const { code, stderr } = await run([...args])
    expect(code).toBe(EXIT.usage)
    expect(stderr).toMatch(/ERR_|Usage/)
  })

  test("a misspelt command and option get a suggestion", async () => {
    expect((await run(["verfy"])).stderr).toContain("verify")
    expect((await run(["verify", "--snapshott", "x"])).stderr).toContain("--snapshot")
  })

  test("--help everywhere, with examples, on standard output, without colour", async () => {
    for (const path of [
      [],
      ["verify"],
      ["snapshot"],
      ["app"],
      ["app", "init"],
      ["agent"],
      ["cli"],
      ["simulate", "exec"],
    ]) {
      const { code, stdout } = await run([...path, "--help"])
      expect(code).toBe(EXIT.ok)
      expect(stdout).toContain("Usage:")
      expect(stdout).not.toContain("\u001b")
    }
  })
})

describe("A1: writes", () => {
  test("the application cannot be set up without credentials", async () => {
    const conf = join(files, "app.conf")
    await Bun.write(conf, "secret")
    const { code, stdout } = await run(["app", "init", ...trusted(), "-c", conf, "--json"])
    expect(code).not.toBe(EXIT.ok)
    expect(JSON.parse(stdout)).toHaveProperty("error.code")
  })
})

const relayless = { port: 0 }
let strange: { port: number; close(): void } | null = null
beforeAll(async () => {
  const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["127.0.0.1"], now: new Date() })
  strange = await tlsServer(keyPem, certificatePem)
  relayless.port = strange.port
})
afterAll(() => strange?.close())

async function tlsServer(key: string, cert: string): Promise<{ port: number; close(): void }> {
  const server = createServer({ key, cert }, (socket) => socket.end())
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  return { port: address.port, close: () => server.close() }
}
