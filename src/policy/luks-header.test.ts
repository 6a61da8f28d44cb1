import { describe, expect, test } from "bun:test"
import { type Json, luksHeader, metadataOf, set, withIntegrity, withMetadata } from "../../test/fakes/luks.ts"
import { parseLuksHeader } from "../formats/luks/header.ts"
import { appraiseLuksHeader, DEFAULT_LUKS_POLICY, type LuksPolicy } from "./luks-header.ts"

const HONEST = withIntegrity(luksHeader())

function codes(image: Uint8Array, policy?: LuksPolicy): string[] {
  return [...new Set(appraiseLuksHeader(parseLuksHeader(image), policy).map(({ code }) => code))]
}

function changed(change: (metadata: Json) => void): string[] {
  return codes(withMetadata(HONEST, change))
}

const first = (metadata: Json, kind: string): Json => metadata[kind]["0"]

test("an honest header has no findings", () => {
  expect(codes(HONEST)).toEqual([])
})

test("a header without integrity is accepted only by a policy that says so", () => {
  expect(codes(luksHeader())).toEqual(["ERR_LUKS_INTEGRITY"])
  expect(codes(luksHeader(), { ...DEFAULT_LUKS_POLICY, integrity: "optional" })).toEqual([])
})

describe("L1: a header that the host changed is refused", () => {
  const cases: readonly (readonly [string, string, (metadata: Json) => void])[] = [
    ["null cipher of the data", "ERR_LUKS_CIPHER", set("segments.0.encryption", "cipher_null-ecb")],
    ["ECB", "ERR_LUKS_CIPHER", set("segments.0.encryption", "aes-ecb")],
    ["guessable IVs", "ERR_LUKS_CIPHER", set("segments.0.encryption", "aes-cbc-plain")],
    ["a member of every object as cipher", "ERR_LUKS_CIPHER", set("segments.0.encryption", "constructor")],
    [
      "cipher specification of the kernel",
      "ERR_LUKS_CIPHER",
      set("segments.0.encryption", "capi:ecb(cipher_null)-null"),
    ],
    ["null cipher of a keyslot", "ERR_LUKS_CIPHER", set("keyslots.0.area.encryption", "cipher_null-ecb")],
    ["short key of a keyslot's area", "ERR_LUKS_CIPHER", set("keyslots.0.area.key_size", 32)],
    ["short volume key", "ERR_LUKS_KEYSLOT", set("keyslots.0.key_size", 32)],
    ["integrity that is none", "ERR_LUKS_INTEGRITY", set("segments.0.integrity", undefined)],
    ["integrity without a key", "ERR_LUKS_INTEGRITY", set("segments.0.integrity.type", "crc32c")],
    ["integrity by an unknown name", "ERR_LUKS_INTEGRITY", set("segments.0.integrity.type", "toString")],
    [
      "a journal of its own kind",
      "ERR_LUKS_INTEGRITY",
      set("segments.0.integrity.journal_encryption", "ecb(cipher_null)"),
    ],
    [
      "a linear segment",
      "ERR_LUKS_SEGMENT",
      set("segments.0", { type: "linear", offset: "0", size: "dynamic" }),
    ],
    ["a second segment", "ERR_LUKS_SEGMENT", set("segments.1", { type: "linear", offset: "0", size: "512" })],
    ["no segment", "ERR_LUKS_SEGMENT", set("segments", {})],
    ["a segment that starts elsewhere", "ERR_LUKS_SEGMENT", set("segments.0.offset", "4096")],
    ["a segment of a fixed size", "ERR_LUKS_SEGMENT", set("segments.0.size", "1048576")],
    ["shifted IVs", "ERR_LUKS_SEGMENT", set("segments.0.iv_tweak", "8")],
    ["sectors of an odd size", "ERR_LUKS_SEGMENT", set("segments.0.sector_size", 8192)],
    ["a flagged segment", "ERR_LUKS_SEGMENT", set("segments.0.flags", ["in-reencryption"])],
    ["a keyslot for re-encryption", "ERR_LUKS_KEYSLOT", set("keyslots.1", { type: "reencrypt" })],
    ["no keyslot", "ERR_LUKS_KEYSLOT", set("keyslots", {})],
    ["a key that is not split", "ERR_LUKS_KEYSLOT", set("keyslots.0.af.stripes", 1)],
    ["a key split by a weak hash", "ERR_LUKS_KEYSLOT", set("keyslots.0.af.hash", "md5")],
    ["cheap Argon2id", "ERR_LUKS_KDF", set("keyslots.0.kdf.memory", 32)],
    ["short Argon2id", "ERR_LUKS_KDF", set("keyslots.0.kdf.time", 1)],
    ["Argon2i", "ERR_LUKS_KDF", set("keyslots.0.kdf.type", "argon2i")],
    ["PBKDF2 with few iterations", "ERR_LUKS_KDF", set("keyslots.0.kdf", pbkdf2(1000))],
    ["PBKDF2 with a weak hash", "ERR_LUKS_KDF", set("keyslots.0.kdf", { ...pbkdf2(10 ** 6), hash: "md5" })],
    ["a short salt", "ERR_LUKS_KDF", set("keyslots.0.kdf.salt", "AAAA")],
    ["an unknown derivation", "ERR_LUKS_KDF", set("keyslots.0.kdf", { type: "none" })],
    ["an area in the header itself", "ERR_LUKS_AREA", set("keyslots.0.area.offset", "4096")],
    ["an area past the end", "ERR_LUKS_AREA", set("keyslots.0.area.offset", "18446744073709551615")],
    ["an area that is too small", "ERR_LUKS_AREA", set("keyslots.0.area.size", "4096")],
    ["areas that overlap", "ERR_LUKS_AREA", (m) => copyKeyslot(m)],
    ["keyslots past the end of the file", "ERR_LUKS_AREA", set("config.keyslots_size", "16748544")],
    ["another size of the text", "ERR_LUKS_AREA", set("config.json_size", "16384")],
    ["a keyslot without digest", "ERR_LUKS_DIGEST", set("digests.0.keyslots", [])],
    ["a digest of a keyslot that is not there", "ERR_LUKS_DIGEST", set("digests.0.keyslots", ["0", "1"])],
    ["a segment without digest", "ERR_LUKS_DIGEST", set("digests.0.segments", [])],
    ["a second digest", "ERR_LUKS_DIGEST", set("digests.1", metadataOf(HONEST)["digests"]["0"])],
    ["an unknown digest", "ERR_LUKS_DIGEST", set("digests.0", { type: "crc" })],
    ["a digest of a weak hash", "ERR_LUKS_DIGEST", set("digests.0.hash", "md5")],
    ["a short digest", "ERR_LUKS_DIGEST", set("digests.0.digest", "AA")],
    ["an unknown token", "ERR_LUKS_TOKEN", set("tokens.0", { type: "evil", keyslots: ["0"] })],
    [
      "a keyring token",
      "ERR_LUKS_TOKEN",
      set("tokens.0", { type: "luks2-keyring", keyslots: ["0"], key_description: "x" }),
    ],
    ["a token of no keyslot", "ERR_LUKS_TOKEN", set("tokens.0", { type: "systemd-tpm2", keyslots: ["5"] })],
    [
      "a requirement",
      "ERR_LUKS_REQUIREMENT",
      set("config.requirements", { mandatory: ["online-reencrypt"] }),
    ],
    ["an unknown flag", "ERR_LUKS_REQUIREMENT", set("config.flags", ["no-journal"])],
  ]
  for (const [name, code, change] of cases)
    test(name, () => {
      expect(changed(change)).toContain(code)
    })
})

test("PBKDF2 with 1000 iterations is enough for the random passphrase of a token, and only for its keyslot", () => {
  const weak = (m: Json) => {
    first(m, "keyslots")["kdf"] = pbkdf2(1000)
  }
  const sealed = (m: Json) => {
    weak(m)
    m["tokens"]["0"] = { type: "systemd-tpm2", keyslots: ["0"] }
  }
  expect(changed(weak)).toEqual(["ERR_LUKS_KDF"])
  expect(changed(sealed)).toEqual([])
  expect(
    changed((m) => {
      sealed(m)
      first(m, "keyslots")["kdf"].iterations = 999
    }),
  ).toEqual(["ERR_LUKS_KDF"])
  expect(
    changed((m) => {
      weak(m)
      copyKeyslot(m, "417792")
      m["digests"]["0"].keyslots = ["0", "1"]
      m["tokens"]["0"] = { type: "systemd-tpm2", keyslots: ["1"] }
    }),
  ).toEqual(["ERR_LUKS_KDF"])
})

test("two keyslots side by side are accepted", () => {
  expect(
    changed((m) => {
      copyKeyslot(m, "417792")
      m["digests"]["0"].keyslots = ["1", "0"]
    }),
  ).toEqual([])
})

test("hostile text is escaped and cut", () => {
  const image = withMetadata(HONEST, (m) => {
    first(m, "segments")["encryption"] = `\u001b[2J${"x".repeat(500)}`
  })
  const found = appraiseLuksHeader(parseLuksHeader(image)).map((finding) => finding.found ?? "")
  expect(found.join("")).not.toContain("\u001b")
  expect(Math.max(...found.map((text) => text.length))).toBeLessThan(120)
})

function pbkdf2(iterations: number): Json {
  return { type: "pbkdf2", hash: "sha512", iterations, salt: Buffer.alloc(32, 1).toString("base64") }
}

function copyKeyslot(metadata: Json, offset?: string): void {
  metadata["keyslots"]["1"] = structuredClone(metadata["keyslots"]["0"])
  if (offset !== undefined) metadata["keyslots"]["1"].area.offset = offset
}
