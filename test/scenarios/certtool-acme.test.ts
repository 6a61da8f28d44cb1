/** Certificates by ACME: the built executable against a real ACME server. Attack R1, and A4 for renewals. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createPrivateKey, X509Certificate } from "node:crypto"
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect } from "node:tls"
import { createSelfSigned } from "../../src/agent/identity.ts"
import { EXIT } from "../../src/errors.ts"
import { EXECUTABLE, type Finished, freePort, run, simulatedVm } from "../executable.ts"
import { acmeFront, type FrontRules } from "../fakes/acme-front.ts"
import { HAVE_PEBBLE, type Pebble, startPebble } from "../fakes/pebble.ts"

let pebble: Pebble
let root: string
let next = 0

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "cosmian-vm-acme-"))
  if (HAVE_PEBBLE) pebble = await startPebble()
}, 60_000)

afterAll(async () => {
  if (HAVE_PEBBLE) await pebble.stop()
  rmSync(root, { recursive: true, force: true })
})

interface Answer extends Finished {
  /** What `--json` printed. */
  readonly json: {
    readonly action?: string
    readonly serial?: string
    readonly not_after?: string
    readonly renew_at?: string
    readonly error?: { readonly code: string; readonly at?: string; readonly hint?: string }
    readonly certificates?: readonly Answer["json"][]
  }
}

async function certtool(...args: string[]): Promise<Answer> {
  const { code, stdout, stderr } = await run(["certtool", ...args, "--json"])
  return { code, stdout, stderr, json: stdout === "" ? {} : JSON.parse(stdout) }
}

/** A workspace and an output directory of its own, and the options that name them and the server. */
function place(server: { directory: string; caFile: string } = pebble) {
  next += 1
  const dir = join(root, `${next}`)
  mkdirSync(dir)
  const workspace = join(dir, "workspace")
  const output = join(dir, "output")
  const where = ["-w", workspace]
  const options = [...where, "-o", output, "--directory", server.directory, "--ca-file", server.caFile]
  return { dir, workspace, output, where, options }
}

type Place = ReturnType<typeof place>

/** `certtool acme` for a name, answered on the port that the server comes to. */
function obtain({ options }: Pick<Place, "options">, name: string, ...more: string[]): Promise<Answer> {
  return certtool("acme", "-d", name, ...options, "--listen", `127.0.0.1:${pebble.httpPort}`, ...more)
}

function leafOf(directory: string): X509Certificate {
  return new X509Certificate(readFileSync(join(directory, "cert.pem")))
}

function pairFits(directory: string): boolean {
  return leafOf(directory).checkPrivateKey(createPrivateKey(readFileSync(join(directory, "key.pem"))))
}

/** Makes the certificate due. */
function age({ workspace }: Place, name: string, changes: Record<string, unknown> = {}): void {
  const file = join(workspace, name, "certificate.json")
  const settings = JSON.parse(readFileSync(file, "utf8"))
  writeFileSync(file, JSON.stringify({ ...settings, renew_at: "2020-01-01T00:00:00.000Z", ...changes }))
}

/** A front before pebble, for as long as the work takes. */
async function withFront<T>(
  rules: FrontRules,
  work: (server: Awaited<ReturnType<typeof acmeFront>> & { caFile: string }) => Promise<T>,
): Promise<T> {
  next += 1
  const caFile = join(root, `front-${next}.pem`)
  const front = await acmeFront(pebble, caFile, rules)
  try {
    return await work({ ...front, caFile })
  } finally {
    await front.close()
  }
}

const limited = (seconds: number) => ({
  status: 429,
  headers: { "content-type": "application/problem+json", "retry-after": `${seconds}` },
  body: JSON.stringify({ type: "urn:ietf:params:acme:error:rateLimited", detail: "too many certificates" }),
})

describe.skipIf(!HAVE_PEBBLE)("certtool acme, against pebble", () => {
  test("several names, on a port of its own; the files are as they should be, and a second run keeps them", async () => {
    const here = place()
    const first = await obtain(
      here,
      "a.example.com",
      "-s",
      "b.example.com",
      "-s",
      "A.example.com",
      "-e",
      "x@example.com",
    )
    expect([first.code, first.json.action]).toEqual([EXIT.ok, "issued"])
    expect(leafOf(here.output).subjectAltName).toBe("DNS:a.example.com, DNS:b.example.com")
    expect(pairFits(here.output)).toBe(true)
    expect(
      createPrivateKey(readFileSync(join(here.output, "key.pem"))).asymmetricKeyDetails?.namedCurve,
    ).toBe("prime256v1")
    const chain = readFileSync(join(here.output, "cert.pem"), "utf8")
    expect(chain.match(/BEGIN CERTIFICATE/g)?.length).toBe(2)
    // The key is in the workspace, for its owner alone, and the output leads to it.
    const key = realpathSync(join(here.output, "key.pem"))
    expect(key).toBe(join(here.workspace, "a.example.com/versions/1/key.pem"))
    expect(statSync(key).mode & 0o777).toBe(0o600)
    expect(lstatSync(join(here.output, "key.pem")).isSymbolicLink()).toBe(true)
    expect(existsSync(join(here.workspace, "a.example.com/pending"))).toBe(false)
    const second = await obtain(here, "a.example.com", "-s", "b.example.com")
    expect([second.code, second.json.action, second.json.serial]).toEqual([
      EXIT.ok,
      "kept",
      first.json.serial,
    ])
    // Other names are another certificate.
    const third = await obtain(here, "a.example.com", "-s", "c.example.com")
    expect([third.code, third.json.action]).toEqual([EXIT.ok, "issued"])
    expect(leafOf(here.output).subjectAltName).toBe("DNS:a.example.com, DNS:c.example.com")
  })

  test("each kind of key", async () => {
    for (const [type, expected] of [
      ["p384", { namedCurve: "secp384r1" }],
      ["rsa2048", { modulusLength: 2048 }],
      ["rsa3072", { modulusLength: 3072 }],
    ] as const) {
      const here = place()
      expect((await obtain(here, "key.example.com", "--key-type", type)).code).toBe(EXIT.ok)
      expect(pairFits(here.output)).toBe(true)
      const { asymmetricKeyDetails } = createPrivateKey(readFileSync(join(here.output, "key.pem")))
      expect(asymmetricKeyDetails).toMatchObject(expected)
    }
  })

  test("a key derived from the TEE is the same again, also in another workspace; another salt gives another", async () => {
    const simulate = join(root, "simulated-tee")
    const keyWith = async (salt: string, here = place()) => {
      const done = await obtain(here, "tee.example.com", "--derived-from-tee", salt, "--simulate", simulate)
      expect([done.code, done.json.action]).toEqual([EXIT.ok, "issued"])
      return readFileSync(join(here.output, "key.pem"), "utf8")
    }
    const here = place()
    const key = await keyWith("00ff", here)
    expect(pairFits(here.output)).toBe(true)
    expect((await certtool("renew", ...here.where, "--force")).code).toBe(EXIT.ok)
    expect(readFileSync(join(here.output, "key.pem"), "utf8")).toBe(key)
    expect(await keyWith("00FF")).toBe(key)
    expect(await keyWith("00fe")).not.toBe(key)
    const rsa = await obtain(place(), "tee.example.com", "--derived-from-tee", "00", "--key-type", "rsa2048")
    expect([rsa.code, rsa.json.error?.code]).toEqual([EXIT.usage, "ERR_BAD_VALUE"])
  })

  test("through a web server's directory, which is left as it was", async () => {
    const here = place()
    const webroot = join(here.dir, "www")
    mkdirSync(webroot)
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: pebble.httpPort,
      fetch: (request) => new Response(Bun.file(join(webroot, new URL(request.url).pathname))),
    })
    try {
      const done = await certtool("acme", "-d", "web.example.com", ...here.options, "--webroot", webroot)
      expect([done.code, done.json.action]).toEqual([EXIT.ok, "issued"])
      expect(readdirSync(join(webroot, ".well-known/acme-challenge"))).toEqual([])
    } finally {
      await server.stop(true)
    }
  })

  test("a link in the web server's directory is not followed", async () => {
    const here = place()
    const webroot = join(here.dir, "www")
    mkdirSync(join(webroot, ".well-known"), { recursive: true })
    mkdirSync(join(here.dir, "elsewhere"))
    await Bun.spawn(["ln", "-s", join(here.dir, "elsewhere"), join(webroot, ".well-known/acme-challenge")])
      .exited
    const done = await certtool("acme", "-d", "link.example.com", ...here.options, "--webroot", webroot)
    expect([done.code, done.json.error?.code]).toEqual([EXIT.operational, "ERR_IO"])
    expect(readdirSync(join(here.dir, "elsewhere"))).toEqual([])
  })

  test("by TLS with ALPN, for two names", async () => {
    const here = place()
    const done = await certtool(
      ...["acme", "-d", "alpn.example.com", "-s", "alpn2.example.com", ...here.options],
      ...["--challenge", "tls-alpn-01", "--listen", `127.0.0.1:${pebble.tlsPort}`],
    )
    expect([done.code, done.json.action]).toEqual([EXIT.ok, "issued"])
    expect(pairFits(here.output)).toBe(true)
  })

  test("by DNS, through a hook: a wildcard beside its own domain, which share a record's name", async () => {
    const here = place()
    const hook = dnsHook(here)
    const done = await certtool(
      ...["acme", "-d", "*.wild.example.com", "-s", "wild.example.com", ...here.options],
      ...["--dns-hook", `${hook} with an argument`, "--dns-wait", "0"],
    )
    expect([done.code, done.json.action]).toEqual([EXIT.ok, "issued"])
    expect(leafOf(here.output).subjectAltName).toBe("DNS:*.wild.example.com, DNS:wild.example.com")
    const calls = readFileSync(`${hook}.log`, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(calls.map(({ args }) => args.slice(0, 5))).toEqual(
      ["present", "present", "remove", "remove"].map((action) => [
        "with",
        "an",
        "argument",
        action,
        "_acme-challenge.wild.example.com",
      ]),
    )
    expect(Object.keys(calls[0].env).sort()).toEqual([
      "ACME_ACTION",
      "ACME_DOMAIN",
      "ACME_RECORD",
      "ACME_VALUE",
      "LC_ALL",
      "PATH",
    ])
    expect(existsSync(join(here.workspace, "_wildcard.wild.example.com/certificate.json"))).toBe(true)
  })

  test("a hook that fails is an error, and what it showed is taken back", async () => {
    const here = place()
    const hook = dnsHook(here, "present-fails")
    const options = ["acme", "-d", "hook.example.com", ...here.options, "--dns-wait", "0"]
    const failed = await certtool(...options, "--dns-hook", hook)
    expect([failed.code, failed.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_HOOK"])
    expect(readFileSync(`${hook}.log`, "utf8")).toContain('"remove"')
    const absent = await certtool(...options, "--dns-hook", "no-such-program")
    expect([absent.code, absent.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_HOOK"])
    expect((await certtool(...options, "--dns-hook", dnsHook(here))).code).toBe(EXIT.ok)
  })

  test("a hundred names in one order", async () => {
    const here = place()
    const names = Array.from({ length: 99 }, (_, index) => ["-s", `n${index}.many.example.com`]).flat()
    const done = await obtain(here, "many.example.com", ...names)
    expect([done.code, done.json.action]).toEqual([EXIT.ok, "issued"])
    expect(leafOf(here.output).subjectAltName?.split(", ").length).toBe(100)
    const more = await obtain(here, "more.example.com", ...names, "-s", "one.more.example.com")
    expect([more.code, more.json.error?.code]).toEqual([EXIT.usage, "ERR_BAD_VALUE"])
  })

  test("good nonces that the server refuses are no matter; a server that refuses all is", async () => {
    const picky = await startPebble({ nonceReject: 15 })
    const hostile = await startPebble({ nonceReject: 100 })
    try {
      const here = place(picky)
      const listen = ["--listen", `127.0.0.1:${picky.httpPort}`]
      const names = Array.from({ length: 9 }, (_, index) => ["-s", `n${index}.nonce.example.com`]).flat()
      const done = await certtool("acme", "-d", "nonce.example.com", ...names, ...here.options, ...listen)
      expect([done.code, done.json.action]).toEqual([EXIT.ok, "issued"])
      const refused = await certtool("acme", "-d", "nonce.example.com", ...place(hostile).options, ...listen)
      expect([refused.code, refused.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_REFUSED"])
    } finally {
      await Promise.all([picky.stop(), hostile.stop()])
    }
  })

  test("names that were verified before are not verified again where the server says so", async () => {
    const server = await startPebble({ authorizationReuse: 100 })
    try {
      const here = place(server)
      const listen = ["--listen", `127.0.0.1:${server.httpPort}`]
      expect((await certtool("acme", "-d", "again.example.com", ...here.options, ...listen)).code).toBe(
        EXIT.ok,
      )
      // Nobody answers the server any more.
      const elsewhere = ["--listen", `127.0.0.1:${await freePort()}`, "--force"]
      const done = await certtool("acme", "-d", "again.example.com", ...here.options, ...elsewhere)
      expect([done.code, done.json.action]).toEqual([EXIT.ok, "issued"])
    } finally {
      await server.stop()
    }
  })

  test("external account binding: asked for, refused, accepted", async () => {
    const binding = { kid: "kid-1", hmacKey: Buffer.alloc(48, 7).toString("base64url") }
    const server = await startPebble({ binding })
    try {
      const here = place(server)
      const acme = (...more: string[]) =>
        certtool(
          "acme",
          "-d",
          "eab.example.com",
          ...here.options,
          "--listen",
          `127.0.0.1:${server.httpPort}`,
          ...more,
        )
      const right = join(here.dir, "right")
      const wrong = join(here.dir, "wrong")
      writeFileSync(right, `${binding.hmacKey}\n`)
      writeFileSync(wrong, Buffer.alloc(48, 8).toString("base64url"))
      const failures = [
        await acme(),
        await acme("--eab-kid", "kid-1", "--eab-key-file", wrong),
        await acme("--eab-kid", "kid-2", "--eab-key-file", right),
      ]
      for (const { code, json } of failures)
        expect([code, json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_ACCOUNT_BINDING"])
      const half = await acme("--eab-kid", "kid-1")
      expect([half.code, half.json.error?.code]).toEqual([EXIT.usage, "ERR_MISSING_ARGUMENT"])
      expect((await acme("--eab-kid", "kid-1", "--eab-key-file", right)).code).toBe(EXIT.ok)
      // The account is bound for good.
      expect((await acme("--force")).code).toBe(EXIT.ok)
      const { stdout } = await run(["certtool", "acme", "--help"])
      expect(stdout).not.toContain(binding.hmacKey)
    } finally {
      await server.stop()
    }
  })

  test("revocation: the server knows, nothing is renewed, and the next certificate has a new key", async () => {
    const here = place()
    const { json } = await obtain(here, "rev.example.com", "--reuse-key")
    const key = readFileSync(join(here.output, "key.pem"), "utf8")
    expect((await certtool("renew", ...here.where, "--force")).code).toBe(EXIT.ok)
    expect(readFileSync(join(here.output, "key.pem"), "utf8")).toBe(key)
    const serial = leafOf(here.output).serialNumber.toLowerCase()
    expect(serial).not.toBe(json.serial ?? "")
    const revoked = await certtool("revoke", "rev.example.com", ...here.where, "--reason", "key-compromise")
    expect([revoked.code, revoked.json.action]).toEqual([EXIT.ok, "revoked"])
    expect(await pebble.status(serial)).toMatchObject({ Status: "Revoked", Reason: 1 })
    age(here, "rev.example.com")
    const renewed = await certtool("renew", ...here.where)
    expect([renewed.code, renewed.json.certificates?.[0]?.action]).toEqual([EXIT.ok, "revoked"])
    expect((await obtain(here, "rev.example.com", "--reuse-key")).json.action).toBe("issued")
    expect(readFileSync(join(here.output, "key.pem"), "utf8")).not.toBe(key)
  })
})

describe.skipIf(!HAVE_PEBBLE)("R1: what goes wrong at the authority", () => {
  test("a challenge that fails: the names, and nothing half-written; the twin that answers passes", async () => {
    const here = place()
    mkdirSync(here.output)
    const { keyPem, certificatePem } = await createSelfSigned({ hosts: ["localhost"], now: new Date() })
    writeFileSync(join(here.output, "key.pem"), keyPem)
    writeFileSync(join(here.output, "cert.pem"), certificatePem)
    const acme = (port: number) =>
      certtool(
        "acme",
        "-d",
        "fail.example.com",
        "-s",
        "fail2.example.com",
        ...here.options,
        "--listen",
        `127.0.0.1:${port}`,
      )
    const failed = await acme(await freePort())
    expect([failed.code, failed.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_CHALLENGE"])
    expect(failed.json.error?.hint).toContain("port 80")
    expect(readFileSync(join(here.output, "key.pem"), "utf8")).toBe(keyPem)
    expect(readFileSync(join(here.output, "cert.pem"), "utf8")).toBe(certificatePem)
    expect(readdirSync(join(here.workspace, "fail.example.com"))).toEqual(["pending"])
    expect((await acme(pebble.httpPort)).code).toBe(EXIT.ok)
    expect(pairFits(here.output)).toBe(true)
    expect(readFileSync(join(here.output, "key.pem"), "utf8")).not.toBe(keyPem)
  })

  test("a renewal whose challenge fails leaves the certificate in use", async () => {
    const here = place()
    await obtain(here, "keep.example.com")
    const before = leafOf(here.output).fingerprint256
    // Pebble takes a name that it has verified for verified again now and then, whatever it is told: so there is a new one.
    age(here, "keep.example.com", {
      names: ["keep.example.com", "new.keep.example.com"],
      challenge: { type: "http-01", host: "127.0.0.1", port: await freePort() },
    })
    const failed = await certtool("renew", ...here.where)
    expect([failed.code, failed.json.certificates?.[0]?.error?.code]).toEqual([
      EXIT.operational,
      "ERR_ACME_CHALLENGE",
    ])
    expect(leafOf(here.output).fingerprint256).toBe(before)
    age(here, "keep.example.com", {
      challenge: { type: "http-01", host: "127.0.0.1", port: pebble.httpPort },
    })
    expect((await certtool("renew", ...here.where)).json.certificates?.[0]?.action).toBe("renewed")
    expect(leafOf(here.output).fingerprint256).not.toBe(before)
  })

  test("a port that is taken", async () => {
    const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() })
    const here = place()
    for (const type of ["http-01", "tls-alpn-01"]) {
      const where = ["--challenge", type, "--listen", `127.0.0.1:${server.port}`]
      const done = await certtool("acme", "-d", "taken.example.com", ...here.options, ...where)
      expect([done.code, done.json.error?.code]).toEqual([EXIT.operational, "ERR_PORT_IN_USE"])
    }
    await server.stop(true)
  })

  test("rate limit: a short one is waited for, as long as the server says", async () => {
    const rules: FrontRules = { before: once((path) => path.includes("order"), limited(2)) }
    await withFront(rules, async (front) => {
      const started = performance.now()
      expect((await obtain(place(front), "slow.example.com")).code).toBe(EXIT.ok)
      expect(performance.now() - started).toBeGreaterThan(2000)
    })
  })

  test("rate limit: a long one ends the run, and no renewal asks again before", async () => {
    let strict = false
    const rules: FrontRules = {
      before: ({ path }) => (strict && path.includes("order") ? limited(7200) : null),
    }
    await withFront(rules, async (front) => {
      const here = place(front)
      expect((await obtain(here, "limit.example.com")).code).toBe(EXIT.ok)
      strict = true
      const direct = await obtain(here, "limit2.example.com")
      expect([direct.code, direct.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_RATE_LIMITED"])
      age(here, "limit.example.com")
      const first = await certtool("renew", ...here.where)
      expect([first.code, first.json.certificates?.[0]?.error?.code]).toEqual([
        EXIT.operational,
        "ERR_ACME_RATE_LIMITED",
      ])
      const asked = front.requests.length
      const second = await certtool("renew", ...here.where)
      expect([second.code, second.json.certificates?.[0]?.action]).toEqual([EXIT.ok, "waiting"])
      expect(front.requests.length).toBe(asked)
      strict = false
      age(here, "limit.example.com", { retry_after: new Date().toISOString() })
      expect((await certtool("renew", ...here.where)).json.certificates?.[0]?.action).toBe("renewed")
    })
  })

  test("rate limit: one of thirty years holds renewals up for a day and no more", async () => {
    let strict = false
    const rules: FrontRules = {
      before: ({ path }) => (strict && path.includes("order") ? limited(999_999_999) : null),
    }
    await withFront(rules, async (front) => {
      const here = place(front)
      expect((await obtain(here, "ages.example.com")).code).toBe(EXIT.ok)
      strict = true
      age(here, "ages.example.com")
      expect((await certtool("renew", ...here.where)).code).toBe(EXIT.operational)
      const waiting = (await certtool("renew", ...here.where)).json.certificates?.[0]
      expect(waiting?.action).toBe("waiting")
      const file = join(here.workspace, "ages.example.com/certificate.json")
      const until = Date.parse(JSON.parse(readFileSync(file, "utf8")).retry_after)
      expect(until - Date.now()).toBeLessThanOrEqual(24 * 3600 * 1000)
    })
  })

  test("another account key than the registered one", async () => {
    const here = place()
    await obtain(here, "acc.example.com")
    const [account = ""] = readdirSync(join(here.workspace, "accounts"))
    const file = join(here.workspace, "accounts", account, "key.pem")
    const own = readFileSync(file)
    writeFileSync(file, (await createSelfSigned({ hosts: ["x"], now: new Date() })).keyPem)
    const wrong = await certtool("renew", ...here.where, "--force")
    expect([wrong.code, wrong.json.certificates?.[0]?.error?.code]).toEqual([
      EXIT.operational,
      "ERR_ACME_ACCOUNT",
    ])
    writeFileSync(file, "no key")
    const none = await certtool("renew", ...here.where, "--force")
    expect([none.code, none.json.certificates?.[0]?.error?.code]).toEqual([
      EXIT.operational,
      "ERR_ACME_WORKSPACE",
    ])
    writeFileSync(file, own)
    expect((await certtool("renew", ...here.where, "--force")).code).toBe(EXIT.ok)
  })

  test("an authority that answers with another certificate", async () => {
    const other = place()
    await obtain(other, "other.example.com")
    const chain = readFileSync(join(other.output, "cert.pem"), "utf8")
    let swap = true
    const rules: FrontRules = {
      after: (_, answer) =>
        swap && answer.body.startsWith("-----BEGIN CERTIFICATE") ? { ...answer, body: chain } : answer,
    }
    await withFront(rules, async (front) => {
      const here = place(front)
      const done = await obtain(here, "mine.example.com")
      expect([done.code, done.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_CERTIFICATE"])
      expect(existsSync(here.output)).toBe(false)
      swap = false
      expect((await obtain(here, "mine.example.com")).code).toBe(EXIT.ok)
    })
  })

  test("an authority that is not there, is none, answers too much, or is not who it says", async () => {
    const here = place()
    const gone = await obtain(
      place({ directory: `https://127.0.0.1:${await freePort()}/dir`, caFile: pebble.caFile }),
      "x.example.com",
    )
    expect([gone.code, gone.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_UNREACHABLE"])
    const body = (text: string): FrontRules => ({
      before: () => ({ status: 200, headers: { "content-type": "application/json" }, body: text }),
    })
    for (const [text, code] of [
      ["{}", "ERR_ACME_ANSWER"],
      ["<html>", "ERR_ACME_ANSWER"],
      [`{"newNonce":"${"x".repeat(2 * 1024 * 1024)}"}`, "ERR_TOO_LARGE"],
    ] as const)
      await withFront(body(text), async (front) => {
        const done = await obtain(place(front), "x.example.com")
        expect([done.code, done.json.error?.code]).toEqual([EXIT.operational, code])
      })
    await withFront({}, async (front) => {
      const done = await obtain(place({ ...front, caFile: pebble.caFile }), "x.example.com")
      expect([done.code, done.json.error?.code]).toEqual([EXIT.operational, "ERR_ACME_UNREACHABLE"])
    })
    const profile = await obtain(here, "x.example.com", "--profile", "none")
    expect([profile.code, profile.json.error?.code]).toEqual([EXIT.usage, "ERR_ACME_PROFILE"])
  })
})

describe.skipIf(!HAVE_PEBBLE)("certtool renew", () => {
  test("only what is due; an unknown name; a workspace that somebody else prepared", async () => {
    const here = place()
    await obtain(here, "due.example.com")
    await obtain(here, "fresh.example.com")
    age(here, "due.example.com")
    const done = await certtool("renew", ...here.where)
    expect(done.json.certificates?.map(({ action }) => action)).toEqual(["renewed", "kept"])
    const unknown = await certtool("renew", "none.example.com", ...here.where)
    expect([unknown.code, unknown.json.certificates?.[0]?.error?.code]).toEqual([
      EXIT.usage,
      "ERR_ACME_UNKNOWN",
    ])
    chmodSync(join(here.workspace, "fresh.example.com"), 0o777)
    const open = await certtool("renew", "fresh.example.com", ...here.where)
    expect([open.code, open.json.certificates?.[0]?.error?.code]).toEqual([
      EXIT.operational,
      "ERR_ACME_WORKSPACE",
    ])
    chmodSync(join(here.workspace, "fresh.example.com"), 0o700)
    chmodSync(here.workspace, 0o777)
    expect(
      (await certtool("renew", "fresh.example.com", ...here.where)).json.certificates?.[0]?.error?.code,
    ).toBe("ERR_ACME_WORKSPACE")
    chmodSync(here.workspace, 0o700)
    // Settings that cannot be read: acme writes them anew.
    writeFileSync(join(here.workspace, "fresh.example.com/certificate.json"), "{")
    const broken = await certtool("renew", "fresh.example.com", ...here.where)
    expect([broken.code, broken.json.certificates?.[0]?.error?.code]).toEqual([
      EXIT.operational,
      "ERR_ACME_WORKSPACE",
    ])
    expect((await obtain(here, "fresh.example.com")).json.action).toBe("issued")
    expect((await certtool("renew", "fresh.example.com", ...here.where)).json.certificates?.[0]?.action).toBe(
      "kept",
    )
    const none = await certtool("renew", "-w", join(here.dir, "empty"))
    expect([none.code, none.json.error?.code]).toEqual([EXIT.usage, "ERR_ACME_UNKNOWN"])
    expect(existsSync(join(here.dir, "empty"))).toBe(false)
    mkdirSync(join(here.dir, "empty"))
    const empty = await certtool("renew", "-w", join(here.dir, "empty"))
    expect([empty.code, empty.json.certificates]).toEqual([EXIT.ok, []])
  })

  test("renewal information: the authority's window decides, and the order names what it replaces", async () => {
    const window = { start: "2020-01-01T00:00:00Z", end: "2020-01-02T00:00:00Z" }
    let suggested = window
    const rules: FrontRules = {
      before: ({ path }) =>
        path.startsWith("/renewal-info/")
          ? {
              status: 200,
              headers: { "content-type": "application/json", "retry-after": "21600" },
              body: JSON.stringify({ suggestedWindow: suggested }),
            }
          : null,
      after: ({ path }, answer) =>
        path === "/dir"
          ? {
              ...answer,
              body: JSON.stringify({
                ...JSON.parse(answer.body),
                renewalInfo: `${front.directory.slice(0, -4)}/renewal-info`,
              }),
            }
          : answer,
    }
    let front: { directory: string; requests: { path: string; payload: unknown }[] }
    await withFront(rules, async (own) => {
      front = own
      const here = place(own)
      suggested = { start: "2031-01-01T00:00:00Z", end: "2031-01-02T00:00:00Z" }
      const first = await obtain(here, "ari.example.com")
      expect(first.json.renew_at?.slice(0, 10)).toBe("2031-01-01")
      const [id] = own.requests
        .map(({ path }) => /^\/renewal-info\/([\w-]+\.[\w-]+)$/.exec(path)?.[1])
        .filter((found) => found !== undefined)
      expect(id).toBeDefined()
      // Not asked again before the server's Retry-After; then the window has moved to the past.
      suggested = window
      expect((await certtool("renew", ...here.where)).json.certificates?.[0]?.action).toBe("kept")
      const file = join(here.workspace, "ari.example.com/certificate.json")
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), check_after: null }))
      expect((await certtool("renew", ...here.where)).json.certificates?.[0]?.action).toBe("renewed")
      const orders = own.requests.filter(
        ({ payload }) => payload !== null && typeof payload === "object" && "identifiers" in payload,
      )
      expect(orders.at(-1)?.payload).toMatchObject({ replaces: id })
      // A window after the certificate's end would have it expire.
      suggested = { start: "2090-01-01T00:00:00Z", end: "2090-01-02T00:00:00Z" }
      const late = await obtain(here, "late.example.com")
      const { validTo } = leafOf(join(here.workspace, "late.example.com/current"))
      expect(Date.parse(late.json.renew_at ?? "")).toBeLessThan(Date.parse(validTo) - 24 * 3600 * 1000)
    })
  })

  test("the agent serves on while its certificate is renewed", async () => {
    const here = place()
    const vm = await simulatedVm(
      `[agent]\nssl_certificate = "${here.output}/cert.pem"\nssl_private_key = "${here.output}/key.pem"\n`,
    )
    try {
      const clients = connecting(vm.port)
      const first = await obtain(here, "vm.example.com")
      expect(first.code).toBe(EXIT.ok)
      const hook = join(here.dir, "reload")
      writeFileSync(hook, `#!/bin/sh\nkill -HUP ${vm.pid()}\n`)
      chmodSync(hook, 0o755)
      const again = await obtain(here, "vm.example.com", "--deploy-hook", hook, "--force")
      expect(again.code).toBe(EXIT.ok)
      for (let renewal = 0; renewal < 3; renewal++) {
        expect((await certtool("renew", ...here.where, "--force")).code).toBe(EXIT.ok)
        await Bun.sleep(500)
      }
      const { connections, failures, serials } = await clients.stop()
      expect(connections).toBeGreaterThan(50)
      expect(failures).toEqual([])
      expect(serials.at(-1)).toBe(leafOf(here.output).serialNumber)
      expect(new Set(serials).size).toBeGreaterThanOrEqual(4)
    } finally {
      await vm.remove()
    }
  })

  test("A4: killed at each signed request to the authority, the next run goes on, and the pair in use always fits", async () => {
    const rules = { kill: -1, count: 0, child: null as Bun.Subprocess | null }
    await withFront(
      {
        before: ({ method }) => {
          // The reads in between (directory, nonces) leave nothing behind.
          if (method !== "POST") return null
          rules.count += 1
          if (rules.count === rules.kill) rules.child?.kill("SIGKILL")
          return null
        },
      },
      async (front) => {
        const here = place(front)
        expect((await obtain(here, "kill.example.com")).code).toBe(EXIT.ok)
        for (let at = 1; ; at++) {
          const before = leafOf(here.output).fingerprint256
          Object.assign(rules, { kill: at, count: 0 })
          const child = Bun.spawn([EXECUTABLE, "certtool", "renew", ...here.where, "--force"], {
            stdio: ["ignore", "ignore", "ignore"],
          })
          rules.child = child
          const code = await child.exited
          expect(pairFits(here.output)).toBe(true)
          if (code === EXIT.ok) {
            expect(rules.count).toBeLessThan(at)
            expect(at).toBeGreaterThan(5)
            break
          }
          expect(child.signalCode).toBe("SIGKILL")
          expect(leafOf(here.output).fingerprint256).toBe(before)
          const key = join(here.workspace, "kill.example.com/pending/key.pem")
          const pending = existsSync(key) ? readFileSync(key, "utf8") : null
          rules.kill = -1
          expect((await certtool("renew", ...here.where, "--force")).code).toBe(EXIT.ok)
          expect(pairFits(here.output)).toBe(true)
          // The key that was begun with is the one that came into use.
          if (pending !== null) expect(readFileSync(join(here.output, "key.pem"), "utf8")).toBe(pending)
        }
      },
    )
  })

  test("A4: killed while a deploy hook runs, the hook is run again, and no other certificate is ordered", async () => {
    const here = place()
    const hook = join(here.dir, "hook")
    writeFileSync(
      hook,
      `#!/bin/sh\necho "$ACME_NAME $ACME_DOMAINS" >> ${hook}.log\n[ -e ${hook}.kill ] && kill -KILL $PPID\nexit 0\n`,
    )
    chmodSync(hook, 0o755)
    expect((await obtain(here, "hook2.example.com", "--deploy-hook", hook)).code).toBe(EXIT.ok)
    writeFileSync(`${hook}.kill`, "")
    age(here, "hook2.example.com")
    expect((await run(["certtool", "renew", ...here.where])).code).not.toBe(EXIT.ok)
    const serial = leafOf(here.output).serialNumber
    rmSync(`${hook}.kill`)
    expect((await certtool("renew", ...here.where)).json.certificates?.[0]?.action).toBe("kept")
    expect(leafOf(here.output).serialNumber).toBe(serial)
    expect(readFileSync(`${hook}.log`, "utf8")).toBe("hook2.example.com hook2.example.com\n".repeat(3))
    expect((await certtool("renew", ...here.where)).code).toBe(EXIT.ok)
    expect(readFileSync(`${hook}.log`, "utf8").split("\n").length).toBe(4)
  })

  test("one process at a time works on a certificate", async () => {
    const here = place()
    const hook = join(here.dir, "slow")
    writeFileSync(hook, `#!/bin/sh\ntouch ${hook}.running\nsleep 1\n`)
    chmodSync(hook, 0o755)
    const first = obtain(here, "busy.example.com", "--deploy-hook", hook)
    while (!existsSync(`${hook}.running`)) await Bun.sleep(20)
    const second = await certtool("renew", ...here.where, "--force")
    expect([second.code, second.json.certificates?.[0]?.error?.code]).toEqual([
      EXIT.operational,
      "ERR_ACME_BUSY",
    ])
    expect((await first).code).toBe(EXIT.ok)
    expect((await certtool("renew", ...here.where, "--force")).code).toBe(EXIT.ok)
  })
})

test("command lines that cannot be meant", async () => {
  const acme = async (...args: string[]) => {
    const { code, json } = await certtool("acme", "-w", join(root, "none"), ...args)
    return [code, json.error?.code]
  }
  const bad = [EXIT.usage, "ERR_BAD_VALUE"]
  expect(await acme("-d", "*.example.com")).toEqual(bad)
  expect(await acme("-d", "10.0.0.1")).toEqual(bad)
  expect(await acme("-d", "localhost")).toEqual(bad)
  expect(await acme("-d", "-x.example.com")).toEqual([EXIT.usage, "ERR_MISSING_VALUE"])
  expect(await acme("-d", "a_b/../c.example.com")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--staging", "--directory", "https://x/")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--directory", "http://x/")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--webroot", "/", "--dns-hook", "x")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--webroot", "/", "--listen", "80")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--listen", "99999")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--email", "no address")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--name", "../x")).toEqual(bad)
  expect(await acme("-d", "a.example.com", "--challenge", "dns-01")).toEqual([
    EXIT.usage,
    "ERR_MISSING_ARGUMENT",
  ])
  expect(existsSync(join(root, "none"))).toBe(false)
})

/** Lets a request to the first path that fits fail once. */
function once(
  fits: (path: string) => boolean,
  answer: ReturnType<typeof limited>,
): NonNullable<FrontRules["before"]> {
  let done = false
  return ({ path }) => {
    if (done || !fits(path)) return null
    done = true
    return answer
  }
}

/** A hook that speaks to the test's DNS server, and writes down what it was given. */
function dnsHook({ dir }: Place, fault = ""): string {
  const path = join(dir, `dns-hook${fault}`)
  const script = `#!${process.execPath}
import { appendFileSync } from "node:fs"
const args = process.argv.slice(2)
appendFileSync(${JSON.stringify(`${path}.log`)}, JSON.stringify({ args, env: process.env }) + "\\n")
const [action, record, value] = args.slice(-3)
if (action === "present" && ${fault === "present-fails"}) process.exit(3)
const act = action === "present" ? "set-txt" : "clear-txt"
await fetch(${JSON.stringify(pebble.dns)} + "/" + act, { method: "POST", body: JSON.stringify({ host: record + ".", value }) })
`
  writeFileSync(path, script)
  chmodSync(path, 0o755)
  return path
}

/** Clients that connect one after the other, four at a time, for at most half a minute. */
function connecting(port: number) {
  const failures: string[] = []
  const serials: string[] = []
  let running = true
  const deadline = Date.now() + 30_000
  const serialSeen = async () => {
    const { promise, resolve } = Promise.withResolvers<string | Error>()
    const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false })
    socket.once("secureConnect", () => resolve(socket.getPeerX509Certificate()?.serialNumber ?? ""))
    socket.once("error", resolve)
    const result = await promise
    socket.destroy()
    return result
  }
  const client = async () => {
    while (running && Date.now() < deadline) {
      // The kernel may reset a connection that it made in the very instant of a change, where net.ipv4.tcp_migrate_req is 0:
      // such a client asks again, once.
      const first = await serialSeen()
      const result = typeof first === "string" ? first : await serialSeen()
      if (typeof result === "string") serials.push(result)
      else failures.push(result.message)
      await Bun.sleep(20)
    }
  }
  const clients = Array.from({ length: 4 }, client)
  return {
    stop: async () => {
      running = false
      await Promise.all(clients)
      return { connections: serials.length, failures, serials }
    },
  }
}
