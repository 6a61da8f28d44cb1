import { describe, expect, test } from "bun:test"
import { requireEncryptedData } from "./encrypted-storage.ts"

const UUIDS: Readonly<Record<string, string>> = {
  "254:1": "CRYPT-LUKS2-0123-data",
  "254:2": "LVM-x",
  "254:3": "CRYPT-INTEGRITY-0123-data",
  "254:4": "CRYPT-PLAIN-data",
}

const mounted = (device: string, at = "/srv/vm/data") => ({
  mountInfo: () => `27 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n40 27 ${device} / ${at} rw - ext4 /dev/x rw\n`,
  mappingUuid: (number: string) => UUIDS[number] ?? null,
})

describe("the agent's files have to be on an encrypted volume", () => {
  test("a mount of a dm-crypt mapping is one", () => {
    expect(() => requireEncryptedData("/srv/vm", mounted("254:1"))).not.toThrow()
  })

  for (const [what, kernel] of [
    ["nothing mounted there", mounted("254:1", "/srv/vm/other")],
    ["another mapping", mounted("254:2")],
    ["a mapping for integrity alone", mounted("254:3")],
    ["a mapping without a LUKS header", mounted("254:4")],
    ["a plain disk", mounted("259:3")],
    ["memory", mounted("0:44")],
  ] as const)
    test(`${what} is none`, () => {
      expect(() => requireEncryptedData("/srv/vm", kernel)).toThrowCode("ERR_STORAGE_PLAIN")
    })
})
