import { expect, test } from "bun:test"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { fakeChip } from "../../test/fakes/snp.ts"
import { encodeCertificateTable, SNP_CERTIFICATE_GUIDS } from "../formats/snp/certificate-table.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { entriesOf, openConfigfsTsm, openTdxGuest, type TsmEntries } from "./configfs-tsm.ts"
import { signSimulatedReport } from "./simulated-report.ts"

const { chip, leaf } = await fakeChip()
const DATA = new Uint8Array(64).fill(4)
const TABLE = encodeCertificateTable([{ guid: SNP_CERTIFICATE_GUIDS.VCEK, der: leaf }])

/** The kernel's side: a write counts up `generation`, and `outblob` is made of the last `inblob`. */
function kernel(
  change: { provider?: string; floor?: string; aux?: Uint8Array | null; intruder?: boolean } = {},
): { entries: TsmEntries; alive: () => number } {
  let alive = 0
  const entries: TsmEntries = async () => {
    alive++
    let generation = 0
    let inblob = new Uint8Array(0)
    let vmpl = 0
    return {
      async read(attribute) {
        switch (attribute) {
          case "provider":
            return Buffer.from(`${change.provider ?? "sev_guest"}\n`)
          case "privlevel_floor":
            return change.floor === undefined ? null : Buffer.from(`${change.floor}\n`)
          case "generation":
            return Buffer.from(`${generation + (change.intruder ? 1 : 0)}\n`)
          case "outblob":
            return signSimulatedReport(chip, { reportData: inblob, vmpl })
          case "auxblob":
            return change.aux === undefined ? TABLE : change.aux
          default:
            return null
        }
      },
      async write(attribute, value) {
        generation++
        if (attribute === "inblob") inblob = Uint8Array.from(value)
        else vmpl = Number(Buffer.from(value).toString())
      },
      async remove() {
        alive--
      },
    }
  }
  return { entries, alive: () => alive }
}

test("the quote of a trust domain, for which nothing else is asked", async () => {
  const { entries, alive } = kernel({ provider: "tdx_guest", aux: null })
  const answer = await (await openTdxGuest(entries))?.getReport(DATA)
  expect(answer?.kind).toBe("tdx")
  expect(answer?.quote.length).toBe(1184)
  expect(alive()).toBe(0)
  expect(await openConfigfsTsm(entries)).toBeNull()
  expect(await openTdxGuest(kernel().entries)).toBeNull()
})

test("a report with certificates, and the entry is removed again", async () => {
  const { entries, alive } = kernel()
  const device = await openConfigfsTsm(entries)
  const answer = await device?.getReport(DATA)
  expect(parseSnpReport(answer?.report ?? new Uint8Array()).reportData).toEqual(DATA)
  expect(answer?.certificates.map(({ name }) => name)).toEqual(["VCEK"])
  expect(alive()).toBe(0)
})

test("no certificates are no error", async () => {
  const device = await openConfigfsTsm(kernel({ aux: null }).entries)
  expect((await device?.getReport(DATA))?.certificates).toEqual([])
})

test("under an SVSM the report is asked for at the lowest level allowed", async () => {
  const device = await openConfigfsTsm(kernel({ floor: "2" }).entries)
  expect(parseSnpReport((await device?.getReport(DATA))?.report ?? new Uint8Array()).vmpl).toBe(2)
})

test("another writer to the entry is noticed, and the entry removed", async () => {
  const { entries, alive } = kernel({ intruder: true })
  const device = await openConfigfsTsm(entries)
  expect(await codeOf(device?.getReport(DATA) ?? Promise.resolve())).toBe("ERR_SNP_REPORT_RACE")
  expect(alive()).toBe(0)
})

test("another kind of TEE is not ours", async () => {
  expect(await openConfigfsTsm(kernel({ provider: "tdx_guest" }).entries)).toBe(null)
})

test("an absent interface is null, a forbidden one an error", async () => {
  const refusing = (code: string) => async () => {
    throw Object.assign(new Error(code), { code, errno: -1 })
  }
  expect(await openConfigfsTsm(refusing("ENXIO"))).toBe(null)
  expect(await codeOf(openConfigfsTsm(refusing("EACCES")))).toBe("ERR_SNP_DEVICE")
})

test("attributes are read to their end and written in place", () =>
  withDirectory(async (dir) => {
    const entry = await entriesOf(dir)()
    const [name = ""] = readdirSync(dir)
    const path = join(dir, name)
    writeFileSync(join(path, "outblob"), new Uint8Array(5000).fill(1))
    writeFileSync(join(path, "inblob"), "0123456789")
    expect((await entry.read("outblob"))?.length).toBe(5000)
    expect(await entry.read("absent")).toBe(null)
    await entry.write("inblob", Buffer.from("abc"))
    // configfs refuses O_TRUNC and O_CREAT: neither may be used.
    expect(readFileSync(join(path, "inblob"), "utf8")).toBe("abc3456789")
    await expect(entry.write("absent", DATA)).rejects.toThrow()
    mkdirSync(join(path, "busy"))
    await expect(entry.remove()).rejects.toThrow()
  }))
