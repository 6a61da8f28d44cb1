import { describe, expect, test } from "bun:test"
import { createHash, generateKeyPairSync } from "node:crypto"
import { CodedError } from "../errors.ts"
import { DEFAULT_EXCLUDE, defaultAgentConfig, parseAgentConfig } from "./config.ts"

const PREDECESSOR = `
[agent]
host = "0.0.0.0"
port = 5556
ssl_certificate = "data/cert.pem"
ssl_private_key = "/etc/ssl/key.pem"
tpm_device = "/dev/tpmrm0"

[app]
service_type = "supervisor"
service_name = "cosmian_kms"
app_storage = "data/app"
`

function faultOf(text: string): CodedError {
  try {
    parseAgentConfig(text, "agent.toml")
  } catch (error) {
    if (error instanceof CodedError) return error
    throw error
  }
  throw new Error("nothing was thrown")
}

test("the predecessor's file is understood", () => {
  const config = parseAgentConfig(PREDECESSOR, "agent.toml")
  expect(config).toMatchObject({
    host: "0.0.0.0",
    port: 5556,
    certificate: "/var/lib/cosmian_vm/data/cert.pem",
    privateKey: "/etc/ssl/key.pem",
    tpm: "device:/dev/tpmrm0",
    application: {
      serviceType: "supervisor",
      serviceName: "cosmian_kms",
      storage: "/var/lib/cosmian_vm/data/app",
    },
    auth: { tokens: [], ownerKeys: [], firstOwner: false, clients: null, openWrites: false },
    warnings: [],
  })
})

test("without settings, the predecessor's defaults hold", () => {
  const config = defaultAgentConfig()
  expect(config).toMatchObject({ host: "127.0.0.1", port: 5555, application: null })
  expect(config.tpm).toBeUndefined()
  expect(config.certificate).toBe("/var/lib/cosmian_vm/data/cert.pem")
  expect(config.snapshot).toEqual({ root: "/", exclude: [...DEFAULT_EXCLUDE], packages: true })
})

test("an unknown setting in the predecessor's tables is a warning with its line", () => {
  const { warnings } = parseAgentConfig(`[agent]\nport = 1\nold_setting = true\n\n[other]\n`, "agent.toml")
  expect(warnings).toEqual([
    "agent.toml:3: agent.old_setting: unknown setting, ignored",
    "agent.toml:5: other: unknown setting, ignored",
  ])
})

test("tokens are kept as hashes, with or without prefix", () => {
  const hash = createHash("sha256").update("secret").digest("hex")
  const { auth } = parseAgentConfig(`[auth]\ntokens = ["${hash}", "sha256:${hash}"]\n`, "agent.toml")
  expect(auth.tokens.map((token) => Buffer.from(token).toString("hex"))).toEqual([hash, hash])
})

test("an owner's key is the text of its PEM file; anything else is refused with line and reason", () => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519")
  const text = publicKey.export({ type: "spki", format: "der" }).toString("base64")
  const { auth } = parseAgentConfig(`[auth]\nowner_keys = ["${text}"]\n`, "agent.toml")
  expect(auth.ownerKeys.map((key) => key.equals(publicKey))).toEqual([true])
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey
  for (const wrong of [
    "no key",
    Buffer.from("no key").toString("base64"),
    rsa.export({ type: "spki", format: "der" }).toString("base64"),
    privateKey.export({ type: "pkcs8", format: "der" }).toString("base64"),
  ])
    expect(faultOf(`[auth]\nowner_keys = ["${wrong}"]\n`)).toMatchObject({
      code: "ERR_CONFIG",
      at: "agent.toml:2: auth.owner_keys",
    })
})

test("a port for clients with certificates needs their authority", () => {
  expect(faultOf("[auth]\nclient_port = 5557\n").code).toBe("ERR_CONFIG")
  const { auth } = parseAgentConfig('[auth]\nclient_ca = "data/clients.pem"\n', "agent.toml")
  expect(auth.clients).toEqual({ ca: "/var/lib/cosmian_vm/data/clients.pem", port: 5556 })
})

test("a token in clear is refused and not repeated", () => {
  const fault = faultOf(`[auth]\ntokens = ["my-secret-token"]\n`)
  expect(fault.code).toBe("ERR_CONFIG")
  expect(JSON.stringify(fault)).not.toContain("my-secret-token")
})

describe("errors name file, line and key", () => {
  for (const [what, text, at] of [
    ["not TOML", "[agent]\nport = \n", "agent.toml:2:8"],
    ["wrong kind", '[agent]\nport = "5555"\n', "agent.toml:2: agent.port"],
    ["out of range", "[agent]\n\nport = 65536\n", "agent.toml:3: agent.port"],
    ["misspelt restriction", "[auth]\nopen_write = true\n", "agent.toml:2: auth.open_write"],
    ["unknown limit", "[limits]\nbody = 1\n", "agent.toml:2: limits.body"],
    ["dotted key", 'agent.host = ""\n', "agent.toml:1: agent.host"],
    ["no table", "snapshot = 3\n", "agent.toml:1: snapshot"],
    ["missing key", '[app]\nservice_type = "systemd"\n', "agent.toml:1: app.service_name"],
    ["relative root", '[snapshot]\nroot = "usr"\n', "agent.toml:2: snapshot.root"],
    ["not a TPM", '[agent]\ntpm_device = "tpm0"\n', "agent.toml:2: agent.tpm_device"],
  ] as const)
    test(what, () => {
      const fault = faultOf(text)
      expect(fault.code).toBe("ERR_CONFIG")
      expect(fault.at).toBe(at)
      expect(fault.exitCode).toBe(2)
    })
})

test("a root that is itself left out is refused: its snapshot would be empty", () => {
  expect(faultOf('[snapshot]\nroot = "/var/www"\n').code).toBe("ERR_CONFIG")
  expect(parseAgentConfig('[snapshot]\nroot = "/var/www"\nexclude = []\n', "f").snapshot.root).toBe(
    "/var/www",
  )
})

describe("the agent's encrypted volume", () => {
  const storageOf = (text: string) => parseAgentConfig(text, "agent.toml").storage

  test("is required where nothing is said, as the predecessor's was", () => {
    expect(storageOf(PREDECESSOR)).toEqual({
      encrypted: "required",
      sizeBytes: 500e6,
      keepPassword: true,
      pcrs: [],
    })
  })

  test("can be made otherwise, or done without", () => {
    const text =
      '[storage]\nencrypted = "when-possible"\nsize = "1GiB"\nkeep_password = false\npcrs = [7, 4, 7]\n'
    expect(storageOf(text)).toEqual({
      encrypted: "when-possible",
      sizeBytes: 2 ** 30,
      keepPassword: false,
      pcrs: [4, 7],
    })
  })

  for (const line of [
    'encrypted = "sometimes"',
    'size = "big"',
    "pcrs = [24]",
    "pcrs = 7",
    "keep_pasword = false",
  ])
    test(`${line} is refused`, () => {
      expect(faultOf(`[storage]\n${line}\n`).code).toBe("ERR_CONFIG")
    })
})

describe("service names that could be taken for something else are refused", () => {
  for (const name of ["-H root@elsewhere", "--help", "../evil", "a b", "", "a/b", "a\\nb", "$(x)"])
    test(JSON.stringify(name), () => {
      const text = `[app]\nservice_type = "systemd"\nservice_name = "${name}"\napp_storage = "x"\n`
      expect(faultOf(text).code).toBe("ERR_CONFIG")
    })
  test("app_storage may not leave its place", () => {
    const text = `[app]\nservice_type = "systemd"\nservice_name = "a"\napp_storage = "data/../../etc"\n`
    expect(faultOf(text).at).toBe("agent.toml:4: app.app_storage")
  })
})
