import { expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { withDirectory } from "../../test/fakes/simulated.ts"
import { toHex } from "../formats/hex.ts"
import type { DerivedKeyField } from "../native/ports.ts"
import { openSimulatedTee } from "../native/simulated-tee.ts"
import { DEFAULT_BINDING, deriveTeeKey } from "./derived-key.ts"

const INPUT = { type: "x25519", salt: new Uint8Array(0), purpose: "", rootKey: "vcek" } as const

async function keyIn(dir: string, fields: readonly DerivedKeyField[] = DEFAULT_BINDING): Promise<string> {
  const { key } = await deriveTeeKey(await openSimulatedTee(dir), { ...INPUT, fields })
  return toHex(key.privateRaw)
}

test("the same VM with the same measurement gets the same key; another measurement or chip another", () =>
  withDirectory(async (dir) => {
    const first = await keyIn(dir)
    expect(await keyIn(dir)).toBe(first)
    writeFileSync(join(dir, "launch"), "another kernel")
    expect(await keyIn(dir)).not.toBe(first)
    writeFileSync(join(dir, "launch"), "")
    expect(await keyIn(dir)).toBe(first)
    await withDirectory(async (other) => expect(await keyIn(other)).not.toBe(first))
  }))

test("a key that is not bound to the measurement outlives another one", () =>
  withDirectory(async (dir) => {
    const first = await keyIn(dir, ["policy"])
    writeFileSync(join(dir, "launch"), "another kernel")
    expect(await keyIn(dir, ["policy"])).toBe(first)
  }))

test("each field, and the root key, makes another key; guest SVN and TCB are those of the report", () =>
  withDirectory(async (dir) => {
    const tee = await openSimulatedTee(dir)
    const keys: string[] = []
    for (const fields of [["measurement"], ["policy"], ["image-id"], ["family-id"], ["guest-svn"]] as const)
      keys.push(await keyIn(dir, fields))
    const { key, request } = await deriveTeeKey(tee, { ...INPUT, fields: ["tcb"] })
    keys.push(toHex(key.privateRaw))
    expect(request.tcbVersion).toBe(0xdb18000000000004n)
    const other = await deriveTeeKey(tee, { ...INPUT, rootKey: "vmrk", fields: ["measurement"] })
    keys.push(toHex(other.key.privateRaw))
    expect(new Set(keys).size).toBe(keys.length)
  }))
