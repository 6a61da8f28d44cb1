import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { bootAggregate, file, PCRS, quoted } from "../../test/fakes/measurement-list.ts"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import { appraiseIma } from "../policy/ima.ts"
import { parseSnapshot } from "../policy/snapshot.ts"
import { EMPTY_WHITELIST } from "../policy/whitelist.ts"
import { verifyAppendedSignature } from "./ima-modsig.ts"
import { type ImaKey, parseImaKeys } from "./ima-signature.ts"

const CONTENT = "a kernel module, without its signature"
let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "modsig-"))
  writeFileSync(join(dir, "module"), CONTENT)
  for (const [name, ...key] of [
    ["rsa", "rsa:2048"],
    ["other", "rsa:2048"],
    ["ec", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
  ])
    openssl(
      "req",
      "-x509",
      "-nodes",
      "-subj",
      "/CN=modules",
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.pem`,
      "-newkey",
      ...key,
    )
})
afterAll(() => rmSync(dir, { recursive: true }))

function openssl(...args: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["openssl", ...args], { cwd: dir })
  if (exitCode !== 0) throw new Error(stderr.toString())
}

/** As scripts/sign-file of the kernel makes it; with attributes unless "-noattr" is given. */
function signed(key: string, hash: string, ...more: string[]): Uint8Array {
  const signer = ["-signer", `${key}.pem`, "-inkey", `${key}.key`, "-md", hash]
  openssl(
    "cms",
    "-sign",
    "-binary",
    "-nosmimecap",
    "-outform",
    "DER",
    "-in",
    "module",
    "-out",
    "sig",
    ...signer,
    ...more,
  )
  return Uint8Array.from(readFileSync(join(dir, "sig")))
}

const keysOf = (name: string): ImaKey[] =>
  parseImaKeys(Uint8Array.from(readFileSync(join(dir, `${name}.pem`))))
const digestOf = (algorithm: string, content = CONTENT) => ({
  algorithm,
  digest: new Uint8Array(createHash(algorithm).update(content).digest()),
})

describe("signatures appended to a file", () => {
  test.each([
    ["rsa", "sha256", ["-noattr", "-nocerts"]],
    ["rsa", "sha512", ["-noattr", "-nocerts", "-keyid"]],
    ["rsa", "sha256", []],
    ["ec", "sha384", ["-noattr", "-nocerts"]],
    ["ec", "sha256", []],
  ])("by a key of kind %s over %s %p hold", (key, hash, more) => {
    const signature = signed(key, hash, ...more)
    expect(verifyAppendedSignature(signature, digestOf(hash), keysOf(key)).algorithm).toBe(hash)
    expect(() => verifyAppendedSignature(signature, digestOf(hash), keysOf("other"))).toThrowCode(
      "ERR_IMA_SIGNATURE_KEY",
    )
    expect(() => verifyAppendedSignature(signature, digestOf(hash, "x"), keysOf(key))).toThrowCode(
      "ERR_IMA_SIGNATURE_KEY",
    )
  })

  test("are looked for among all keys", () => {
    const signature = signed("rsa", "sha256", "-noattr")
    const keys = [...keysOf("ec"), ...keysOf("other"), ...keysOf("rsa")]
    expect(verifyAppendedSignature(signature, digestOf("sha256"), keys).algorithm).toBe("sha256")
  })

  test("of another algorithm than the measured digest's do not", () => {
    const signature = signed("rsa", "sha256", "-noattr")
    expect(() => verifyAppendedSignature(signature, digestOf("sha512"), keysOf("rsa"))).toThrowCode(
      "ERR_IMA_SIGNATURE_KEY",
    )
    expect(() => verifyAppendedSignature(signed("rsa", "sha1"), digestOf("sha1"), keysOf("rsa"))).toThrowCode(
      "ERR_IMA_SIGNATURE",
    )
  })

  test("with a content of their own say nothing about the file", () => {
    const signature = signed("rsa", "sha256", "-nodetach")
    expect(() => verifyAppendedSignature(signature, digestOf("sha256"), keysOf("rsa"))).toThrowCode(
      "ERR_TRAILING_BYTES",
    )
  })

  test("changed in any byte do not hold, and only coded errors escape", () => {
    for (const more of [["-noattr", "-nocerts", "-keyid"], ["-nocerts"]]) {
      const honest = signed("rsa", "sha256", ...more)
      const accepted: number[] = []
      for (let at = 0; at < honest.length; at++) {
        const changed = honest.with(at, (honest[at] ?? 0) ^ 1)
        try {
          verifyAppendedSignature(changed, digestOf("sha256"), keysOf("rsa"))
          accepted.push(at)
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }
      // Versions, names of algorithms and of the signer choose nothing, and may change.
      expect(accepted.length).toBeLessThan(honest.length - 256)
      for (const end of [1, 20, honest.length - 1])
        expect(() =>
          verifyAppendedSignature(honest.subarray(0, end), digestOf("sha256"), keysOf("rsa")),
        ).toThrow(CodedError)
    }
  })

  test("accept a module that is not in the snapshot, in template ima-modsig alone", () => {
    const modsig = signed("rsa", "sha256", "-noattr", "-nocerts")
    const field = (content: string) =>
      new Uint8Array(Buffer.concat([Buffer.from("sha256:\0"), digestOf("sha256", content).digest]))
    const boot = bootAggregate()
    const members = {
      format: 2,
      hash_algorithm: "sha256",
      ima_reference: {
        template: "ima-ng",
        boot_aggregate: `sha256:${Buffer.from(boot.digest).toString("hex")}`,
      },
      filehashes: [],
    }
    const reference = parseSnapshot(new TextEncoder().encode(JSON.stringify(members)))
    const codes = (name: string, content = CONTENT, imaKeys = keysOf("rsa")) => {
      const fields = { "d-modsig": field(content), modsig }
      const entry = file("/lib/modules/x.ko", `${CONTENT} and its signature`, { template: name, fields })
      const options = { whitelist: EMPTY_WHITELIST, pcrs: PCRS, at: new Date(0), imaKeys }
      return appraiseIma(quoted(boot, entry), reference, options).findings.map(({ code }) => code)
    }
    expect(codes("ima-modsig")).toEqual([])
    expect(codes("ima-modsig", "other content")).toEqual(["ERR_IMA_UNKNOWN_FILE"])
    expect(codes("ima-modsig", CONTENT, keysOf("other"))).toEqual(["ERR_IMA_UNKNOWN_FILE"])
    expect(codes("d-ng|n-ng|d-modsig|modsig")).toEqual(["ERR_IMA_UNKNOWN_FILE"])
  })
})
