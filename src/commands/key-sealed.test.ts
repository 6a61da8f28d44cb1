/** A key that a software TPM keeps: the same again, and never one that somebody else put there. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { codeOf } from "../../test/fakes/simulated.ts"
import { toHex } from "../formats/hex.ts"
import { encodeSystemdTpm2Token } from "../formats/luks/systemd-tpm2-token.ts"
import type { TpmStorage } from "../native/ports.ts"
import { type SoftwareTpm, startSoftwareTpm } from "../native/swtpm.ts"
import { openTpmStorage, withTpm } from "../native/tpm.ts"
import { writeKey } from "./key-derive.ts"
import { sealedSecret } from "./key-sealed.ts"

const PCRS = [0, 2, 4, 7]
const dir = mkdtempSync(join(tmpdir(), "sealed-key-"))
let swtpm: SoftwareTpm
let tpm: TpmStorage

beforeAll(async () => {
  swtpm = await startSoftwareTpm(join(dir, "tpm"))
  tpm = await openTpmStorage(swtpm.tcti)
})
afterAll(async () => {
  await tpm.close()
  await swtpm.stop()
  rmSync(dir, { recursive: true, force: true })
})

let files = 0
const newPlace = (pcrs: readonly number[] = PCRS) => ({ file: join(dir, `sealed-${files++}.json`), pcrs })

test("the secret is made once, and is the same again; the file does not hold it in clear", async () => {
  const place = newPlace()
  const secret = await sealedSecret(tpm, place)
  expect(secret).toHaveLength(32)
  expect(await sealedSecret(tpm, place)).toEqual(secret)
  expect(statSync(place.file).mode & 0o777).toBe(0o600)
  expect(readFileSync(place.file, "latin1")).not.toContain(
    Buffer.from(secret).toString("base64").slice(0, 20),
  )
  expect(await sealedSecret(tpm, newPlace())).not.toEqual(secret)
})

test("a file that somebody sealed by the same TPM for the same PCRs is refused: they know what is in it", async () => {
  const place = newPlace()
  const secret = await sealedSecret(tpm, place)
  const honest = readFileSync(place.file)
  const known = new Uint8Array(32).fill(7)
  writeFileSync(
    place.file,
    encodeSystemdTpm2Token(await tpm.seal({ secret: known, pcrs: PCRS, pin: null }), 0),
  )
  expect(await codeOf(sealedSecret(tpm, place))).toBe("ERR_SEALED_KEY")
  writeFileSync(place.file, honest)
  expect(await sealedSecret(tpm, place)).toEqual(secret)
})

test("a file that the TPM does not remember is refused, and so is one for other PCRs", async () => {
  const place = newPlace()
  await sealedSecret(tpm, place)
  const copy = newPlace()
  copyFileSync(place.file, copy.file)
  expect(await codeOf(sealedSecret(tpm, copy))).toBe("ERR_SEALED_KEY")
  expect(await codeOf(sealedSecret(tpm, { ...place, pcrs: [7] }))).toBe("ERR_HEADER_REFERENCE")
})

test("another TPM gives nothing", async () => {
  const place = newPlace()
  await sealedSecret(tpm, place)
  const other = await startSoftwareTpm(join(dir, "other"))
  const theirs = await openTpmStorage(other.tcti)
  try {
    expect(await codeOf(sealedSecret(theirs, place))).toBe("ERR_SEALED_KEY")
  } finally {
    await theirs.close()
    await other.stop()
  }
})

test("certtool key: the same key from the same file, another type another; after another boot none", async () => {
  const { file, pcrs } = newPlace([16])
  const output = join(dir, "keys")
  const key = async (type: "x25519" | "ed25519") => {
    const source = { kind: "tpm", file, pcrs, tcti: swtpm.tcti } as const
    await writeKey({ source, output, type, salt: new Uint8Array(0), purpose: "", json: false, quiet: true })
    return toHex(readFileSync(join(output, `${type}_sk.bin`)))
  }
  const first = await key("x25519")
  expect(await key("x25519")).toBe(first)
  expect(await key("ed25519")).not.toBe(first)
  await withTpm(swtpm.tcti, (worker) => worker.call("extend", { pcr: 16, data: new Uint8Array(1) }))
  expect(await codeOf(key("x25519"))).toBe("ERR_HEADER_REFERENCE")
  expect(existsSync(file)).toBe(true)
})
