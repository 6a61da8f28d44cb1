import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { fakeClaims, fakeHclReport, fakeVtpm } from "../../../test/fakes/azure.ts"
import { fakeChip } from "../../../test/fakes/snp.ts"
import { vector, vectorsUnder } from "../../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { toHex } from "../hex.ts"
import { encodeHclReport, parseHclEnvelope, parseHclReport } from "./hcl.ts"
import { parseRuntimeClaims } from "./runtime-claims.ts"
import { encodeTdReport, parseTdReport } from "./td-report.ts"

const real = ["azure-snp", "azure-tdx"].flatMap(vectorsUnder)
const blobs = real.filter(({ file }) => file.endsWith("/hcl-report.bin"))

describe.skipIf(!HAVE_VECTORS)("real HCL reports", () => {
  for (const { file, facts } of blobs) {
    const blob = HAVE_VECTORS ? vector(file) : new Uint8Array()

    test(`${file}: decoded as recorded`, () => {
      const report = parseHclReport(blob)
      const { claims } = report
      expect(report.kind as string).toBe(file.split("/")[0]?.slice("azure-".length) ?? "")
      expect(report).toMatchObject({ version: facts["hcl_header_version"], hash: facts["hash"] })
      expect(report.runtimeData.length as unknown).toBe(facts["runtime_data_len"])
      expect(toHex(report.reportData) as unknown).toBe(facts["report_data"])
      expect(claims.userData && toHex(claims.userData).toUpperCase()).toEqual(facts["user_data"] as string)
      expect(claims.vmConfiguration.members).toEqual(facts["vm_configuration"] as Record<string, unknown>)
      const kids = [claims.akPublicKey, claims.ekPublicKey].flatMap((key) => (key === null ? [] : [key.kid]))
      expect(kids as unknown).toEqual(facts["keys"])
      expect(report.runtimeData).toEqual(vector(file.replace("hcl-report.bin", "runtime-data.json")))
    })

    test(`${file}: encodes to what was parsed`, () => {
      expect(encodeHclReport(parseHclEnvelope(blob), blob.length)).toEqual(blob)
    })

    test(`${file}: each truncation in front of the padding is refused`, () => {
      const end = 1236 + parseHclEnvelope(blob).runtimeData.length
      for (let size = 0; size < end; size++)
        expect(() => parseHclReport(blob.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
      expect(parseHclReport(blob.subarray(0, end)).kind).toBe(parseHclReport(blob).kind)
    })
  }

  test("TDREPORTs encode to what was parsed, and say that they are of a trust domain", () => {
    for (const { file } of blobs.filter(({ file }) => file.startsWith("azure-tdx"))) {
      const { hardwareReport } = parseHclEnvelope(vector(file))
      expect(encodeTdReport(parseTdReport(hardwareReport))).toEqual(hardwareReport)
      for (let size = 0; size < 1024; size++)
        expect(() => parseTdReport(hardwareReport.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
    }
  })

  const [first] = blobs
  const original = first === undefined ? new Uint8Array() : vector(first.file)
  test.each<[string, number, readonly number[], string]>([
    ["another signature", 3, [0x42], "ERR_HCL_SIGNATURE"],
    ["header version 0", 4, [0], "ERR_UNSUPPORTED"],
    ["header version 3", 4, [3], "ERR_UNSUPPORTED"],
    ["a report size of one more", 8, [0x2b], "ERR_MALFORMED"],
    ["a request for a wrapped key", 12, [3], "ERR_UNSUPPORTED"],
    ["a status", 16, [1], "ERR_MALFORMED"],
    ["something reserved", 20, [1], "ERR_RESERVED_NOT_ZERO"],
    ["a data size of one less", 1216, [0x69], "ERR_MALFORMED"],
    ["request data version 2", 1220, [2], "ERR_UNSUPPORTED"],
    ["report type VBS", 1224, [1], "ERR_UNSUPPORTED"],
    ["report type TVM", 1224, [3], "ERR_UNSUPPORTED"],
    ["report type TDX", 1224, [4], "ERR_HCL_REPORT_TYPE"],
    ["report type 2^32-1", 1224, [0xff, 0xff, 0xff, 0xff], "ERR_UNSUPPORTED"],
    ["no hash", 1228, [0], "ERR_UNSUPPORTED"],
    ["hash 4", 1228, [4], "ERR_UNSUPPORTED"],
    ["claims of one byte less", 1232, [0x55], "ERR_MALFORMED"],
    ["claims past the end", 1232, [0xff, 0xff], "ERR_TRUNCATED"],
    ["claims of 2^32-1 bytes", 1232, [0xff, 0xff, 0xff, 0xff], "ERR_TRUNCATED"],
    ["no claims", 1232, [0, 0], "ERR_MALFORMED"],
    ["something in the padding", 2599, [1], "ERR_TRAILING_BYTES"],
    ["an SNP report of version 1", 32, [1], "ERR_UNSUPPORTED"],
    ["a TDREPORT's type in an SNP report", 32, [0x81], "ERR_HCL_REPORT_TYPE"],
  ])("%s", (_, at, bytes, code) => {
    const blob = original.slice()
    blob.set(bytes, at)
    expect(() => parseHclReport(blob)).toThrowCode(code)
  })

  test("more than any NV index holds", () => {
    const long = new Uint8Array(9000)
    long.set(original)
    expect(() => parseHclReport(long)).toThrowCode("ERR_TOO_LARGE")
  })

  test("zero bytes where the TDREPORT leaves room, and nothing else", () => {
    const blob = vector("azure-tdx/trustee-v0/hcl-report.bin")
    blob[32 + 1024] = 1
    expect(() => parseHclReport(blob)).toThrowCode("ERR_RESERVED_NOT_ZERO")
  })

  test("whatever is changed, only coded errors come out", () => {
    const changes = fc.array(fc.tuple(fc.nat(original.length - 1), fc.nat(255)), {
      minLength: 1,
      maxLength: 12,
    })
    fc.assert(
      fc.property(changes, (all) => {
        const blob = original.slice()
        for (const [at, value] of all) blob[at] = value
        onlyCoded(() => parseHclReport(blob))
      }),
      { numRuns: 2000 },
    )
  })
})

test("random bytes are refused with a code", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4000 }), (bytes) => {
      onlyCoded(() => parseHclReport(bytes))
      onlyCoded(() => parseHclReport(Uint8Array.of(0x48, 0x43, 0x4c, 0x41, ...bytes)))
      onlyCoded(() => parseRuntimeClaims(bytes))
      onlyCoded(() => parseTdReport(bytes))
    }),
    { numRuns: 500 },
  )
})

const vtpm = fakeVtpm()
const claims = (change: Readonly<Record<string, unknown>> = {}) =>
  parseRuntimeClaims(Buffer.from(fakeClaims(vtpm, change)))
const key = (change: Readonly<Record<string, unknown>> = {}) => ({ kid: "HCLAkPub", ...vtpm.jwk, ...change })

describe("runtime claims", () => {
  test("hold both keys, the user data and what newer paravisors add to the configuration", () => {
    const members = { "hardware-sealing-policy": "hash", "vmgs-provisioner": { id: "x", signer: "y" } }
    const read = claims({ "vm-configuration": members, "user-data": "ab".repeat(64) })
    expect(read.userData).toEqual(new Uint8Array(64).fill(0xab))
    expect(read.ekPublicKey?.kid).toBe("HCLEkPub")
    expect(read.vmConfiguration).toMatchObject({ secureBoot: null, members })
  })

  test("hold no user data where the paravisor is too old", () => {
    expect(claims({ "user-data": undefined }).userData).toBeNull()
  })

  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ["no keys", { keys: [] }, "ERR_MALFORMED"],
    ["no attestation key", { keys: [key({ kid: "HCLEkPub" })] }, "ERR_MALFORMED"],
    ["two attestation keys", { keys: [key(), key()] }, "ERR_DUPLICATE_KEY"],
    ["another key", { keys: [key(), key({ kid: "HCLTransferKey" })] }, "ERR_UNSUPPORTED"],
    ["nine keys", { keys: Array.from({ length: 9 }, () => key()) }, "ERR_TOO_LARGE"],
    ["a key that is no object", { keys: ["HCLAkPub"] }, "ERR_MALFORMED"],
    ["an EC key", { keys: [key({ kty: "EC" })] }, "ERR_UNSUPPORTED"],
    ["a key without modulus", { keys: [key({ n: undefined })] }, "ERR_MALFORMED"],
    ["a modulus in base64", { keys: [key({ n: `${vtpm.jwk["n"]}=` })] }, "ERR_MALFORMED"],
    ["a short modulus", { keys: [key({ n: "_".repeat(171) })] }, "ERR_MALFORMED"],
    ["a huge modulus", { keys: [key({ n: "_".repeat(2000) })] }, "ERR_MALFORMED"],
    ["a modulus with leading zeros", { keys: [key({ n: "A".repeat(344) })] }, "ERR_MALFORMED"],
    ["exponent 0", { keys: [key({ e: "AA" })] }, "ERR_MALFORMED"],
    ["no exponent", { keys: [key({ e: "" })] }, "ERR_MALFORMED"],
    ["a private part", { keys: [key({ d: "AQAB" })] }, "ERR_MALFORMED"],
    ["key_ops of numbers", { keys: [key({ key_ops: [1] })] }, "ERR_MALFORMED"],
    ["short user data", { "user-data": "00" }, "ERR_MALFORMED"],
    ["user data in no hex", { "user-data": "zz".repeat(64) }, "ERR_MALFORMED"],
    ["user data as a number", { "user-data": 0 }, "ERR_MALFORMED"],
    ["no configuration", { "vm-configuration": undefined }, "ERR_MALFORMED"],
    ["secure boot as text", { "vm-configuration": { "secure-boot": "yes" } }, "ERR_MALFORMED"],
    ["another member", { extra: 1 }, "ERR_MALFORMED"],
  ])("%s", (_, change, code) => {
    expect(() => claims(change)).toThrowCode(code)
  })

  test("a name that occurs twice", () => {
    const text = fakeClaims(vtpm).replace("{", '{"user-data":"",')
    expect(() => parseRuntimeClaims(Buffer.from(text))).toThrowCode("ERR_DUPLICATE_KEY")
  })

  test("far more than a paravisor states", () => {
    expect(() => claims({ "vm-configuration": { text: "x".repeat(5000) } })).toThrowCode("ERR_TOO_LARGE")
  })
})

test("a report of our own is read as it was made", async () => {
  const chip = await fakeChip()
  for (const hash of ["sha256", "sha384", "sha512"] as const)
    expect(parseHclReport(fakeHclReport(chip, fakeClaims(vtpm), { hash })).hash).toBe(hash)
})

function onlyCoded(run: () => unknown): void {
  try {
    run()
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERNAL") throw error
  }
}
