import { afterEach, beforeEach, expect, test } from "bun:test"
import { createPrivateKey, X509Certificate } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { flushDirectory, writeFileAtomically } from "../agent/atomic-file.ts"
import { createSelfSigned } from "../agent/identity.ts"
import { type DurableFiles, type Pair, Workspace } from "./workspace.ts"

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "workspace-"))
})
afterEach(() => rmSync(dir, { recursive: true }))

const FILES: DurableFiles = {
  write: writeFileAtomically,
  flush: flushDirectory,
  lock: async () => () => undefined,
}

async function newPair(): Promise<Pair> {
  const { certificatePem, keyPem } = await createSelfSigned({ hosts: ["localhost"], now: new Date() })
  return { chainPem: certificatePem, keyPem }
}

/** Which of the pairs a reader finds who takes certificate and key from a directory; null: they do not fit. */
function readerFinds(output: string): string | null {
  const certificate = new X509Certificate(readFileSync(join(output, "cert.pem")))
  const key = createPrivateKey(readFileSync(join(output, "key.pem")))
  return certificate.checkPrivateKey(key) ? certificate.serialNumber : null
}

const serialOf = ({ chainPem }: Pair) => new X509Certificate(chainPem).serialNumber

test("a reader finds the old pair or the new one at every step, and a power cut at any of them is recovered", async () => {
  const [old, first, second] = [await newPair(), await newPair(), await newPair()]
  const output = join(dir, "output")
  mkdirSync(output)
  writeFileSync(join(output, "key.pem"), old.keyPem)
  writeFileSync(join(output, "cert.pem"), old.chainPem)
  const seen: (string | null)[] = []
  const watching: DurableFiles = {
    write: (path, content, mode) => {
      seen.push(readerFinds(output))
      writeFileAtomically(path, content, mode)
      seen.push(readerFinds(output))
    },
    flush: (directory) => {
      flushDirectory(directory)
      seen.push(readerFinds(output))
    },
    lock: FILES.lock,
  }
  const folder = new Workspace(join(dir, "ws"), watching).folder("x")
  for (const pair of [first, second]) {
    folder.install(pair)
    folder.link(output)
  }
  expect(seen.length).toBeGreaterThan(10)
  expect([...new Set(seen)]).toEqual([serialOf(old), serialOf(first), serialOf(second)])
  // Cut at each of these steps, and done again.
  for (let step = 1; step <= seen.length; step++) {
    const here = join(dir, `cut-${step}`)
    mkdirSync(here)
    writeFileSync(join(here, "key.pem"), old.keyPem)
    writeFileSync(join(here, "cert.pem"), old.chainPem)
    let left = step
    const cutting: DurableFiles = {
      write: (path, content, mode) => cut(() => writeFileAtomically(path, content, mode)),
      flush: (directory) => cut(() => flushDirectory(directory)),
      lock: FILES.lock,
    }
    function cut(act: () => void): void {
      left -= 1
      if (left === 0) throw new Error("power cut")
      act()
    }
    const broken = new Workspace(join(here, "ws"), cutting).folder("x")
    try {
      broken.install(first)
      broken.link(here)
    } catch (error) {
      expect(`${error}`).toContain("power cut")
    }
    expect(readerFinds(here)).not.toBeNull()
    const again = new Workspace(join(here, "ws"), FILES).folder("x")
    again.install(second)
    again.link(here)
    expect(readerFinds(here)).toBe(serialOf(second))
  }
})

test("the key is for its owner alone; the pair before the present one stays, older ones go", async () => {
  const folder = new Workspace(dir, FILES).folder("x")
  const pairs = [await newPair(), await newPair(), await newPair()]
  for (const pair of pairs) folder.install(pair)
  expect(readdirSync(join(dir, "x/versions")).sort()).toEqual(["2", "3"])
  expect(folder.current()).toEqual(pairs[2] ?? null)
  expect(statSync(folder.keyFile).mode & 0o777).toBe(0o600)
  expect(statSync(join(dir, "x/versions/3")).mode & 0o777).toBe(0o700)
})

test("a begun issue is found again; one without a purpose is not", () => {
  const folder = new Workspace(dir, FILES).folder("x")
  folder.begin("p", "key")
  folder.saveOrder("https://x/order")
  expect(folder.pending()).toEqual({ purpose: "p", keyPem: "key", orderUrl: "https://x/order" })
  folder.saveOrder(null)
  expect(folder.pending()?.orderUrl).toBeNull()
  rmSync(join(dir, "x/pending/purpose"))
  expect(folder.pending()).toBeNull()
  folder.abandon()
  expect(existsSync(join(dir, "x/pending"))).toBe(false)
})

test("what is no account or no settings is refused, and a file of any size is not read", () => {
  const workspace = new Workspace(dir, FILES)
  const account = workspace.account("https://x/")
  expect([account.key(), account.url()]).toEqual([null, null])
  account.saveKey("key")
  account.saveUrl("https://x/1")
  expect([account.key(), account.url()]).toEqual(["key", "https://x/1"])
  writeFileSync(join(account.path, "account.json"), "[]")
  expect(() => account.url()).toThrowCode("ERR_ACME_WORKSPACE")
  mkdirSync(join(dir, "x"))
  for (const text of ["", "{}", '{"version":1,"version":1}', '{"version":2}', "[1]"]) {
    writeFileSync(join(dir, "x/certificate.json"), text)
    expect(() => workspace.folder("x").settings()).toThrowCode("ERR_ACME_WORKSPACE")
  }
  writeFileSync(join(dir, "x/certificate.json"), " ".repeat(2_000_000))
  expect(() => workspace.folder("x").settings()).toThrowCode("ERR_TOO_LARGE")
})
