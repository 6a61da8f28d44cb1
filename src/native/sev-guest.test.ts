import { describe, expect, test } from "bun:test"
import { constants } from "node:os"
import { join } from "node:path"
import { codeOf, withDirectory } from "../../test/fakes/simulated.ts"
import { fakeChip } from "../../test/fakes/snp.ts"
import { encodeCertificateTable, SNP_CERTIFICATE_GUIDS } from "../formats/snp/certificate-table.ts"
import { parseSnpReport } from "../formats/snp/report.ts"
import { DERIVED_KEY_FIELDS } from "./ports.ts"
import { openReportDevice, openTeeDevice } from "./report-device.ts"
import {
  errnoName,
  openSevGuest,
  requestDerivedKey,
  requestReport,
  SEV_GUEST_IOCTL,
  type SevGuestIoctl,
} from "./sev-guest.ts"
import { signSimulatedReport } from "./simulated-report.ts"

const { chip, leaf } = await fakeChip()
const DATA = new Uint8Array(64).fill(3)
const TABLE = encodeCertificateTable([{ guid: SNP_CERTIFICATE_GUIDS.VCEK, der: leaf }])
const { EAGAIN, EIO, ENOTTY } = constants.errno
const noSleep = () => undefined

/** A driver that answers as Linux does. Each member is one thing that may differ. */
interface Behaviour {
  readonly table?: Uint8Array
  /** The most privileged VMPL that the firmware grants. */
  readonly floor?: number
  readonly status?: number
  readonly reportSize?: number
  /** Errors before an ioctl succeeds, by command. */
  readonly errors?: (command: number, call: number) => { errno: number; exitInfo2: bigint } | null
}

function driver(behaviour: Behaviour = {}): SevGuestIoctl & { readonly commands: number[] } {
  const buffers: Uint8Array[] = []
  const commands: number[] = []
  return {
    commands,
    addressOf: (buffer) => BigInt(buffers.push(buffer)),
    call(command, request, response) {
      commands.push(command)
      const error = behaviour.errors?.(command, commands.length) ?? null
      if (error !== null) return error
      const view = new DataView(request.buffer, request.byteOffset, request.byteLength)
      const vmpl = view.getUint32(64, true)
      if (command === SEV_GUEST_IOCTL.getExtReport) {
        const buffer = buffers[Number(view.getBigUint64(96, true)) - 1]
        if (buffer?.length !== view.getUint32(104, true))
          return { errno: constants.errno.EINVAL, exitInfo2: 0n }
        buffer.set(behaviour.table ?? TABLE)
      }
      const answer = new DataView(response.buffer, response.byteOffset, response.byteLength)
      const granted = vmpl >= (behaviour.floor ?? 0)
      answer.setUint32(0, granted ? (behaviour.status ?? 0) : 0x16, true)
      answer.setUint32(4, behaviour.reportSize ?? 1184, true)
      if (granted) response.set(signSimulatedReport(chip, { reportData: request.subarray(0, 64), vmpl }), 32)
      return { errno: 0, exitInfo2: 0n }
    },
  }
}

test("the report and the host's certificates come in one call", () => {
  const ioctl = driver()
  const { report, certificates } = requestReport(ioctl, DATA, noSleep)
  expect(parseSnpReport(report)).toMatchObject({ vmpl: 0, reportData: DATA })
  expect(certificates).toEqual([{ name: "VCEK", guid: SNP_CERTIFICATE_GUIDS.VCEK, der: leaf }])
  expect(ioctl.commands).toEqual([SEV_GUEST_IOCTL.getExtReport])
})

test("under an SVSM the first VMPL that the firmware grants is used", () => {
  expect(parseSnpReport(requestReport(driver({ floor: 2 }), DATA, noSleep).report).vmpl).toBe(2)
  expect(() => requestReport(driver({ floor: 4 }), DATA, noSleep)).toThrowCode("ERR_SNP_FIRMWARE")
})

test("without the extended request, or with too many certificates, the report alone is taken", () => {
  for (const error of [
    { errno: ENOTTY, exitInfo2: 0n },
    { errno: EIO, exitInfo2: 1n << 32n },
  ]) {
    const errors = (command: number) => (command === SEV_GUEST_IOCTL.getExtReport ? error : null)
    const { report, certificates } = requestReport(driver({ errors }), DATA, noSleep)
    expect(parseSnpReport(report).reportData).toEqual(DATA)
    expect(certificates).toEqual([])
  }
})

test("a device that knows neither request is said so", () => {
  const errors = () => ({ errno: ENOTTY, exitInfo2: 0n })
  expect(() => requestReport(driver({ errors }), DATA, noSleep)).toThrowCode("ERR_SNP_DEVICE")
})

test("a busy host is asked again, and not for ever", () => {
  let pauses = 0
  const sleep = () => {
    pauses++
  }
  for (const busy of [
    { errno: EAGAIN, exitInfo2: 0n },
    { errno: EIO, exitInfo2: 2n << 32n },
  ]) {
    pauses = 0
    const twice = (_: number, call: number) => (call <= 2 ? busy : null)
    expect(requestReport(driver({ errors: twice }), DATA, sleep).report.length).toBe(1184)
    expect(pauses).toBe(2)
    expect(() => requestReport(driver({ errors: () => busy }), DATA, sleep)).toThrowCode("ERR_SNP_FIRMWARE")
    expect(pauses).toBe(21)
  }
})

test("firmware errors and answers of another size are errors", () => {
  expect(() => requestReport(driver({ status: 0x27 }), DATA, noSleep)).toThrowCode("ERR_SNP_FIRMWARE")
  expect(() => requestReport(driver({ reportSize: 1183 }), DATA, noSleep)).toThrowCode("ERR_SNP_DEVICE")
  const errors = () => ({ errno: EIO, exitInfo2: 0x16n })
  expect(() => requestReport(driver({ errors }), DATA, noSleep)).toThrowCode("ERR_SNP_FIRMWARE")
})

test("a certificate table that is no table is an error", () => {
  const table = TABLE.slice()
  new DataView(table.buffer).setUint32(16, 0xfffffff0, true)
  expect(() => requestReport(driver({ table }), DATA, noSleep)).toThrowCode("ERR_TRUNCATED")
})

test("report data of another length is refused", () => {
  expect(() => requestReport(driver(), DATA.subarray(1), noSleep)).toThrowCode("ERR_SNP_DEVICE")
})

describe("derived keys", () => {
  const REQUEST = { rootKey: "vcek", fields: ["measurement"], guestSvn: 7, tcbVersion: 9n } as const
  /** Firmware that answers from this VMPL on; what it was asked is kept. */
  function firmware(change: { floor?: number; status?: number; key?: number; errno?: number } = {}) {
    const asked: DataView[] = []
    const ioctl: SevGuestIoctl = {
      addressOf: () => 0n,
      call(command, request, response) {
        expect(command).toBe(SEV_GUEST_IOCTL.getDerivedKey)
        if (change.errno !== undefined) return { errno: change.errno, exitInfo2: 0n }
        const view = new DataView(request.buffer.slice(0))
        asked.push(view)
        const granted = view.getUint32(16, true) >= (change.floor ?? 0)
        new DataView(response.buffer).setUint32(0, granted ? (change.status ?? 0) : 0x16, true)
        if (granted) response.fill(change.key ?? 5, 32)
        return { errno: 0, exitInfo2: 0n }
      },
    }
    return { ioctl, asked }
  }

  test("the request names root key and fields; what is not selected is zero", () => {
    const { ioctl, asked } = firmware()
    expect(requestDerivedKey(ioctl, REQUEST, noSleep)).toEqual(new Uint8Array(32).fill(5))
    requestDerivedKey(ioctl, { ...REQUEST, rootKey: "vmrk", fields: [...DERIVED_KEY_FIELDS] }, noSleep)
    const seen = asked.map((view) => [
      view.getUint32(0, true),
      view.getBigUint64(8, true),
      view.getUint32(16, true),
      view.getUint32(20, true),
      view.getBigUint64(24, true),
    ])
    expect(seen).toEqual([
      [0, 8n, 0, 0, 0n],
      [1, 63n, 0, 7, 9n],
    ])
  })

  test("under an SVSM the first VMPL that the firmware grants is used", () => {
    const { ioctl, asked } = firmware({ floor: 2 })
    requestDerivedKey(ioctl, REQUEST, noSleep)
    expect(asked.map((view) => view.getUint32(16, true))).toEqual([0, 1, 2])
    expect(() => requestDerivedKey(firmware({ floor: 4 }).ioctl, REQUEST, noSleep)).toThrowCode(
      "ERR_SNP_FIRMWARE",
    )
  })

  test("a refusal, a key of zeros, and a kernel without the request are errors", () => {
    for (const [change, code] of [
      [{ status: 0x27 }, "ERR_SNP_FIRMWARE"],
      [{ key: 0 }, "ERR_SNP_FIRMWARE"],
      [{ errno: EIO }, "ERR_SNP_FIRMWARE"],
      [{ errno: ENOTTY }, "ERR_SNP_DEVICE"],
    ] as const)
      expect(() => requestDerivedKey(firmware(change).ioctl, REQUEST, noSleep)).toThrowCode(code)
  })
})

test("errno values have names", () => {
  expect([errnoName(ENOTTY), errnoName(99999)]).toEqual(["ENOTTY", "errno 99999"])
})

test("a device that cannot be opened is an error, and one that is absent is none", () =>
  withDirectory(async (dir) => {
    expect(await codeOf(openSevGuest(join(dir, "absent")))).toBe("ERR_SNP_DEVICE")
    const options = { sevGuestPath: join(dir, "absent"), tsmPath: join(dir, "absent", "tsm") }
    expect(await openReportDevice(options)).toBe(null)
    expect(await codeOf(openReportDevice({ ...options, sevGuestPath: dir }))).toBe("ERR_SNP_DEVICE")
    expect(await openTeeDevice(options)).toBe(null)
    expect(await codeOf(openTeeDevice({ ...options, sevGuestPath: dir }))).toBe("ERR_SNP_DEVICE")
  }))

test("a file that is no such device refuses the ioctl in its own thread", async () => {
  const device = await openSevGuest("/dev/null")
  expect(await codeOf(device.getReport(DATA))).toBe("ERR_SNP_DEVICE")
})
