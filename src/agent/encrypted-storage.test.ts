import { describe, expect, test } from "bun:test"
import { requireEncryptedData, requireEncryptedPlace } from "./encrypted-storage.ts"

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

describe("a file with a secret, in the agent's directories,", () => {
  const place = (path: string, kernel = mounted("254:1")) => requireEncryptedPlace("/srv/vm", path, kernel)

  test("may lie on the encrypted volume", () => {
    expect(() => place("/srv/vm/data/app/app.conf")).not.toThrow()
  })

  test("may lie in memory", () => {
    const memory = {
      ...mounted("0:44"),
      mountInfo: () =>
        "27 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n40 27 0:44 / /srv/vm/tmp rw - tmpfs tmpfs rw\n",
    }
    expect(() => place("/srv/vm/tmp/values", memory)).not.toThrow()
    expect(() => place("/srv/vm/data/values", memory)).toThrowCode("ERR_STORAGE_PLAIN")
  })

  for (const path of ["/srv/vm/key.pem", "/srv/vm/data/../key.pem", "/srv/vm/data2/key.pem", "/srv/vm/tmp/x"])
    test(`may not lie beside it: ${path}`, () => {
      expect(() => place(path)).toThrowCode("ERR_STORAGE_PLAIN")
    })

  test("may not lie where the volume was unmounted", () => {
    expect(() => place("/srv/vm/data/key.pem", mounted("254:1", "/srv/vm/other"))).toThrowCode(
      "ERR_STORAGE_PLAIN",
    )
  })

  test("elsewhere it is where the administrator wanted it", () => {
    expect(() => place("/etc/app/app.conf")).not.toThrow()
    expect(() => place("/srv/vmware/app.conf")).not.toThrow()
  })
})
