/** `certtool ratls` on a simulated TEE: files, a live server, options that exclude each other. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { createHash, generateKeyPairSync, X509Certificate } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { codeOf } from "../../test/fakes/simulated.ts"
import { serverKey, type TlsServer, tlsServer } from "../../test/fakes/tls-server.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { EXIT } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { loadSimulatedTee } from "../native/simulated-tee.ts"
import { parseCommandLine } from "./command-line.ts"
import { fetchRatls } from "./ratls-fetch.ts"
import { generateRatls } from "./ratls-generate.ts"
import { mrSignerOf, type RatlsJudgeOptions } from "./ratls-judge.ts"
import { type RatlsVerifyOptions, verifyRatls } from "./ratls-verify.ts"
import { rootCommand } from "./root.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

let dir = ""
let out = ""
let server: TlsServer
let measurement: Uint8Array
const terminal: Terminal = {
  out: (text) => {
    out = text
  },
  talk: () => undefined,
  outStyle: PLAIN,
  talkStyle: PLAIN,
  live: false,
  columns: 80,
  outColumns: null,
}

const path = (...names: string[]) => join(dir, ...names)
const read = (name: string) => readFileSync(path("out", name), "utf8")

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "ratls-"))
  await generate("out")
  measurement = (await loadSimulatedTee(path("vm"))).chip.measurement
  server = await tlsServer({ key: read("key.ratls.pem"), cert: read("cert.ratls.pem") }, () => undefined)
})
afterAll(async () => {
  await server.close()
  rmSync(dir, { recursive: true, force: true })
})

function generate(output: string, change: { extraData?: string; salt?: Uint8Array } = {}): Promise<number> {
  return generateRatls(
    {
      subject: "CN=vm.test",
      names: ["vm.test", "127.0.0.1"],
      days: 30,
      extraData: null,
      salt: null,
      simulate: path("vm"),
      json: false,
      quiet: true,
      ...change,
      output: path(output),
    },
    terminal,
  )
}

const EXPECTS: RatlsJudgeOptions = {
  policy: null,
  measurement: null,
  mrTd: null,
  mrEnclave: null,
  mrSigner: null,
  extraData: new Uint8Array(32),
  allowDebug: false,
  leaf: null,
  chain: null,
  crl: null,
  collateral: null,
  product: null,
  trustRoots: [],
  skip: new Set(),
  source: { kdsUrl: "http://127.0.0.1:9", pcsUrl: "http://127.0.0.1:9", cacheDir: null, offline: true },
}

async function verify(
  change: Partial<RatlsVerifyOptions>,
): Promise<{ exit: number; code: string | null; simulated: boolean }> {
  const exit = await verifyRatls(
    {
      ...EXPECTS,
      trustRoots: [path("vm", "trust-root.pem")],
      source: { ...EXPECTS.source, cacheDir: path("cache") },
      file: change.server === undefined ? path("out", "cert.ratls.pem") : null,
      server: null,
      timeout: "10",
      at: null,
      json: true,
      quiet: false,
      ...change,
    },
    terminal,
  )
  const { code, simulated } = JSON.parse(out)
  return { exit, code, simulated }
}

const PASSED = { exit: EXIT.ok, code: null, simulated: true }

test("generate: the key is for its owner alone and fits the certificate, which names what it is for", () => {
  expect(statSync(path("out", "key.ratls.pem")).mode & 0o777).toBe(0o600)
  const certificate = new X509Certificate(read("cert.ratls.pem"))
  expect(certificate.subjectAltName).toBe("DNS:vm.test, IP Address:127.0.0.1")
  expect(certificate.subject).toBe("CN=vm.test")
  expect(certificate.ca).toBe(false)
})

test("generate: a derived key is the same again, and with another salt another", async () => {
  const keyOf = async (salt: Uint8Array) => {
    await generate("derived", { salt })
    expect(await verify({ file: path("derived", "cert.ratls.pem") })).toEqual(PASSED)
    return readFileSync(path("derived", "key.ratls.pem"), "utf8")
  }
  const first = await keyOf(new Uint8Array(0))
  expect(await keyOf(new Uint8Array(0))).toBe(first)
  expect(await keyOf(Uint8Array.of(1))).not.toBe(first)
})

test("verify: a file and a live server pass, without the root neither does", async () => {
  const url = `https://127.0.0.1:${server.port}`
  expect(await verify({})).toEqual(PASSED)
  expect(await verify({ server: url })).toEqual(PASSED)
  expect(await verify({ trustRoots: [] })).toEqual({
    exit: EXIT.tee,
    code: "ERR_CERT_UNTRUSTED",
    simulated: false,
  })
})

test("verify: a server without evidence in its certificate is refused", async () => {
  const plain = await tlsServer(await serverKey(), () => undefined)
  try {
    expect(await verify({ server: `https://127.0.0.1:${plain.port}` })).toMatchObject({
      exit: EXIT.tee,
      code: "ERR_RATLS_ABSENT",
    })
  } finally {
    await plain.close()
  }
})

test("verify: values of the TEE are compared, and another TEE's are not passed over", async () => {
  expect(await verify({ measurement })).toEqual(PASSED)
  const refused = { exit: EXIT.tee, code: "ERR_TEE_MEASUREMENT" }
  expect(await verify({ measurement: new Uint8Array(48) })).toMatchObject(refused)
  for (const other of [
    { mrTd: new Uint8Array(48) },
    { mrEnclave: new Uint8Array(32) },
    { mrSigner: new Uint8Array(32) },
  ])
    expect(await verify(other)).toMatchObject({ exit: EXIT.tee, code: "ERR_POLICY_PLATFORM" })
})

test("verify: a policy holds together with a value beside it", async () => {
  const policy = path("vm.toml")
  writeFileSync(policy, `[snp]\nmeasurement = "${toHex(measurement)}"\n`)
  expect(await verify({ policy })).toEqual(PASSED)
  expect(await verify({ policy, measurement })).toEqual(PASSED)
  expect(await codeOf(verify({ policy, measurement: new Uint8Array(48) }))).toBe("ERR_BAD_VALUE")
  expect(await codeOf(verify({ mrTd: new Uint8Array(48), measurement }))).toBe("ERR_BAD_VALUE")
})

test("extra data: written from a file, expected by name", async () => {
  writeFileSync(path("extra"), "tenant 7")
  await generate("extra-out", { extraData: path("extra") })
  const file = path("extra-out", "cert.ratls.pem")
  const extraData = new Uint8Array(32)
  extraData.set(Buffer.from("tenant 7"))
  expect(await verify({ file, extraData })).toEqual(PASSED)
  expect(await verify({ file })).toMatchObject({ exit: EXIT.binding, code: "ERR_RATLS_EXTRA_DATA" })
  writeFileSync(path("long"), new Uint8Array(33))
  expect(await codeOf(generate("never", { extraData: path("long") }))).toBe("ERR_TOO_LARGE")
  writeFileSync(path("empty"), "")
  expect(await codeOf(generate("never", { extraData: path("empty") }))).toBe("ERR_BAD_VALUE")
})

test("fetch: the saved file is the very certificate of the connection, even one that is no RA-TLS certificate", async () => {
  const fetched = async (port: number) => {
    const options = { server: `https://127.0.0.1:${port}`, timeout: "10", output: path("fetched") }
    expect(await fetchRatls({ ...options, json: true, quiet: false }, terminal)).toBe(0)
    const { evidence } = JSON.parse(out)
    return { evidence, raw: new X509Certificate(readFileSync(path("fetched", "cert.ratls.pem"))).raw }
  }
  const own = await fetched(server.port)
  expect(own.raw).toEqual(new X509Certificate(read("cert.ratls.pem")).raw)
  expect(own.evidence).toHaveLength(2)
  const key = await serverKey()
  const plain = await tlsServer(key, () => undefined)
  try {
    const other = await fetched(plain.port)
    expect(other).toEqual({ evidence: [], raw: new X509Certificate(key.cert).raw })
  } finally {
    await plain.close()
  }
})

async function refusedLine(...argv: string[]): Promise<string> {
  const { command, args, rawArgs } = await parseCommandLine(rootCommand, "cosmian_vm", [
    "certtool",
    "ratls",
    ...argv,
  ])
  return codeOf(Promise.resolve(command.run?.({ args, rawArgs: [...rawArgs], cmd: command })))
}

test("options that exclude each other, or are no values, are refused", async () => {
  const cert = () => ["-c", path("out", "cert.ratls.pem")]
  for (const line of [
    ["verify"],
    ["verify", ...cert(), "--url", "https://127.0.0.1:1"],
    ["verify", "--hostname", "a", "--url", "https://127.0.0.1:1"],
    ["verify", "--url", "https://127.0.0.1:1", "--at", "2026-01-01T00:00:00Z"],
    ["verify", ...cert(), "--measurement", "00"],
    ["verify", ...cert(), "--extra-data", "00".repeat(33)],
    ["verify", ...cert(), "--mrsigner", "00".repeat(32), "--public-signer-key", "x"],
    ["generate", "--days", "0"],
    ["generate", "--random-secret-key", "--tee-secret-key-no-salt"],
    ["generate", "--tee-secret-key", "00", "--tee-secret-key-no-salt"],
  ])
    expect(await refusedLine(...line)).toBe("ERR_BAD_VALUE")
  expect(await refusedLine("fetch")).toBe("ERR_MISSING_ARGUMENT")
})

test("MRSIGNER is the digest of the modulus, last byte first; keys that sign no enclaves have none", () => {
  const signer = generateKeyPairSync("rsa", { modulusLength: 3072, publicExponent: 3 }).publicKey
  const modulus = Buffer.from(signer.export({ format: "jwk" }).n ?? "", "base64url").reverse()
  const signerPem = Buffer.from(signer.export({ type: "spki", format: "pem" }))
  expect(toHex(mrSignerOf(signerPem, "key"))).toBe(createHash("sha256").update(modulus).digest("hex"))
  expect(() => mrSignerOf(Buffer.from("no key"), "key")).toThrowCode("ERR_BAD_VALUE")
  const { publicKey } = new X509Certificate(read("cert.ratls.pem"))
  const pem = Buffer.from(publicKey.export({ type: "spki", format: "pem" }))
  expect(() => mrSignerOf(pem, "key")).toThrowCode("ERR_BAD_VALUE")
})

test.skipIf(!HAVE_VECTORS)("the predecessor's certificate through the command, as of its time", async () => {
  const file = path("old.pem")
  writeFileSync(file, vector("tdx/v4-tee-tools-ratls/tdx-cert.ratls.pem"))
  const mrTd = Buffer.from(
    "5f53c3881242a5b418854923bb4adec34c72aa4b570d526179d63f9ee6e4cefb6abd4f0f35e5e6e29655a60d90bcf27f",
    "hex",
  )
  const change = { file, at: new Date("2024-02-01T00:00:00Z"), skip: new Set(["revocation", "tcb"] as const) }
  const passed = { exit: EXIT.ok, code: null, simulated: false }
  expect(await verify(change)).toEqual(passed)
  expect(await verify({ ...change, mrTd })).toEqual(passed)
  expect(await verify({ ...change, mrTd: new Uint8Array(48) })).toMatchObject({
    exit: EXIT.tee,
    code: "ERR_TEE_MEASUREMENT",
  })
  expect(await verify({ ...change, at: new Date("2025-02-01T00:00:00Z") })).toMatchObject({
    exit: EXIT.channel,
    code: "ERR_RATLS_VALIDITY",
  })
})
