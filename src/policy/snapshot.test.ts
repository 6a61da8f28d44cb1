import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../test/setup.ts"
import { CodedError } from "../errors.ts"
import {
  encodeSnapshot,
  encodeSnapshotBytes,
  fileHashIndex,
  parseSnapshot,
  type Snapshot,
} from "./snapshot.ts"

const bytes = (text: string) => new TextEncoder().encode(text)
const parse = (text: string) => parseSnapshot(bytes(text))
const DIGEST = "0f".repeat(32)
const TCB = { bootloader: 3, tee: 0, snp: 8, microcode: 209 }

const SNAPSHOT: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: {
    Sev: {
      measurement: "11".repeat(48),
      report_data: null,
      family_id: "00".repeat(16),
      image_id: "00".repeat(16),
      guest_svn: 0,
      id_key_digest: "22".repeat(48),
      author_key_digest: "33".repeat(48),
      policy: 0x3001f,
      report_id: "44".repeat(32),
      report_id_ma: "ff".repeat(32),
    },
  },
  tpm_policy: { reset_count: 3, restart_count: 0 },
  filehashes: [
    ["/usr/bin/a", DIGEST],
    ['/usr/bin/b "quoted" \\ é \udcff\n', DIGEST],
  ],
  taken_at: "2026-01-02T03:04:05.000Z",
  agent_version: "2.0.0",
  host: "vm.example",
  hash_algorithm: "sha256",
  tee_reference: {
    product: "Milan",
    vmpl: 0,
    host_data: "00".repeat(32),
    platform_info: 1,
    reported_tcb: TCB,
    committed_tcb: TCB,
    launch_tcb: TCB,
  },
  tpm_reference: { ak_name: `000b${"ab".repeat(32)}`, pcrs: { "0": DIGEST, "15": DIGEST }, clock: 1234 },
  ima_reference: { template: "ima-ng", boot_aggregate: `sha256:${DIGEST}` },
  boot_reference: { pcrs: { "4": [["EV_EFI_ACTION", DIGEST, "action \u001b"]] }, rtmrs: {} },
  unreadable: [["/usr/bin/secret", "EACCES"]],
}
const TEXT = encodeSnapshot(SNAPSHOT)

/** As the predecessor writes it: no line breaks, pairs in no order. */
const PREDECESSOR = JSON.stringify({
  cloud_type: "Azure",
  tee_policy: { Sev: { ...sevOf(SNAPSHOT), report_data: null } },
  tpm_policy: { reset_count: 17, restart_count: 0 },
  filehashes: [
    ["/usr/bin/zz", "0a".repeat(20)],
    ["boot_aggregate", "0b".repeat(20)],
    ["/usr/bin/aa", "0c".repeat(20)],
  ],
})

function sevOf(snapshot: Snapshot) {
  if (snapshot.tee_policy === null || !("Sev" in snapshot.tee_policy)) throw new Error("not SEV")
  return snapshot.tee_policy.Sev
}

function edited(from: string, to: string): string {
  expect(TEXT).toContain(from)
  return TEXT.replace(from, to)
}

describe("snapshot", () => {
  test("survives the way to its file and back", () => {
    const read = parse(TEXT)
    expect(JSON.parse(JSON.stringify(read))).toEqual(JSON.parse(JSON.stringify(SNAPSHOT)))
    expect(encodeSnapshot(read)).toBe(TEXT)
    expect([...(read.filehashes ?? [])]).toEqual([...(SNAPSHOT.filehashes ?? [])])
  })

  test("is JSON for everybody else, with the predecessor's members in their places", () => {
    const plain = JSON.parse(TEXT)
    expect(plain.filehashes[0]).toEqual(["/usr/bin/a", DIGEST])
    expect(plain.tpm_policy).toEqual({ reset_count: 3, restart_count: 0 })
    expect(plain.tee_policy.Sev.policy).toBe(0x3001f)
  })

  test("gives equal text whatever order the files came in", () => {
    const reversed = { ...SNAPSHOT, filehashes: [...(SNAPSHOT.filehashes ?? [])].reverse() }
    expect(encodeSnapshot(reversed)).toBe(TEXT)
  })

  test("gives the same as bytes, with and without files", () => {
    for (const filehashes of [SNAPSHOT.filehashes, [], null]) {
      const snapshot = { ...SNAPSHOT, filehashes }
      expect(new TextDecoder().decode(encodeSnapshotBytes(snapshot))).toBe(encodeSnapshot(snapshot))
    }
  })

  test("any paths survive", () => {
    const path = fc.uint8Array({ minLength: 1, maxLength: 20 }).map((raw) => {
      const text = [...raw].map((byte) => (byte < 0x80 ? String.fromCharCode(byte || 1) : `\udc00`))
      return text.map((char, index) =>
        char === "\udc00" ? String.fromCharCode(0xdc00 + (raw[index] ?? 0x80)) : char,
      )
    })
    fc.assert(
      fc.property(fc.array(path, { maxLength: 6 }), (paths) => {
        // Through bytes and back, so that bytes which happen to be UTF-8 have their one form.
        const filehashes = paths.map((parts) => [parts.join(""), DIGEST] as const)
        const once = encodeSnapshot({ ...SNAPSHOT, filehashes })
        const again = parse(once)
        expect(encodeSnapshot(again)).toBe(once)
        expect(new TextDecoder().decode(encodeSnapshotBytes(again))).toBe(once)
        expect(again.filehashes?.length).toBe(paths.length)
      }),
    )
  })

  test("the predecessor's file is format 1", () => {
    const snapshot = parse(PREDECESSOR)
    expect(snapshot.format).toBe(1)
    expect(snapshot.cloud_type).toBe("Azure")
    expect(snapshot.tpm_policy).toEqual({ reset_count: 17, restart_count: 0 })
    expect(snapshot.tpm_reference).toBeNull()
    expect(snapshot.ima_reference).toBeNull()
    expect(fileHashIndex(snapshot).digestsOf(bytes("/usr/bin/zz"), 2)).toEqual(["0a".repeat(20)])
    expect(Object.keys(JSON.parse(encodeSnapshot(snapshot))).sort()).toEqual(
      Object.keys(JSON.parse(PREDECESSOR)).sort(),
    )
  })

  test.each([
    '{"cloud_type":null,"tee_policy":null,"tpm_policy":null,"filehashes":null}',
    '{"cloud_type":"GCP","tee_policy":{"Sgx":{}},"tpm_policy":null,"filehashes":null}',
  ])("the predecessor's %p parses", (text) => {
    expect(encodeSnapshot(parse(text)).replaceAll("\n", "").replaceAll(": ", ":").length).toBe(text.length)
  })

  describe("of a trust domain", () => {
    const tdx = (header: string, body: string) =>
      parse(`{"cloud_type":"GCP","tee_policy":{"Tdx":{"header":{${header}},"body":{${body}}}}}`).tee_policy
    const member = (body: string) => {
      const policy = tdx("", body)
      if (policy === null || !("Tdx" in policy)) throw new Error("not TDX")
      return policy.Tdx.body
    }

    test("members that are absent are not fixed", () => {
      expect(Object.values(member("")).every((value) => value === null)).toBeTrue()
    })

    test("byte strings are hex, or arrays of byte values", () => {
      const [hex, array] = [`"${"0a".repeat(48)}"`, JSON.stringify(Array(48).fill(10))]
      expect(member(`"mr_td":${array}`)).toEqual(member(`"mr_td":${hex}`))
    })

    test.each([
      ['"minimum_qe_svn":65536', ""],
      ['"minimum_qe_svn":"1"', ""],
      ['"mr_td":null', ""],
      ["", '"mr_td":"0a"'],
      ["", `"mr_td":"${"0A".repeat(48)}"`],
      ["", `"mr_td":${JSON.stringify(Array(48).fill(256))}`],
      ["", `"mr_td":${JSON.stringify(Array(47).fill(1))}`],
      ["", '"rtmr0":null'],
    ])("header %p with body %p is refused", (header, body) => {
      expect(() => tdx(header, body)).toThrowCode("ERR_MALFORMED")
    })

    test("RTMRs and the paravisor stand beside, and read back", () => {
      const [rtmr0, rtmr1, rtmr2] = ["01", "02", "03"].map((byte) => byte.repeat(48))
      const text = (paravisor: string) =>
        JSON.stringify({ format: 2, tee_reference: { rtmr0, rtmr1, rtmr2, paravisor } })
      const snapshot = parse(text("azure"))
      expect<unknown>(snapshot.tee_reference).toEqual({ rtmr0, rtmr1, rtmr2, paravisor: "azure" })
      expect(parse(encodeSnapshot(snapshot))).toEqual(snapshot)
      expect(() => parse(text("other"))).toThrowCode("ERR_MALFORMED")
      expect(() => parse(text("azure").replace('"rtmr1"', '"rtmr3"'))).toThrowCode("ERR_MALFORMED")
    })
  })

  test("one without files knows no file", () => {
    expect(fileHashIndex({ ...SNAPSHOT, filehashes: null }).length).toBe(0)
  })

  test.each([
    ["a later format", '"format": 2', '"format": 3', "ERR_SNAPSHOT_FORMAT"],
    ["format 0", '"format": 2', '"format": 0', "ERR_SNAPSHOT_FORMAT"],
    ["a format that is text", '"format": 2', '"format": "2"', "ERR_SNAPSHOT_FORMAT"],
    ["members of format 2 in format 1", '"format": 2,', "", "ERR_MALFORMED"],
    ["an unknown member", '"format": 2', '"format": 2, "extra": 1', "ERR_MALFORMED"],
    ["files named twice", '"format": 2', '"format": 2, "filehashes": []', "ERR_DUPLICATE_KEY"],
    ["null files, then files", '"format": 2', '"format": 2, "filehashes": null', "ERR_DUPLICATE_KEY"],
    ["a policy member named twice", '"guest_svn":0', '"guest_svn":0,"guest_svn":1', "ERR_DUPLICATE_KEY"],
    ["two policies", '{"Sev":', '{"Tdx":{},"Sev":', "ERR_MALFORMED"],
    ["an unknown policy", '{"Sev":', '{"Arm":', "ERR_MALFORMED"],
    ["an unknown cloud", '"cloud_type": null', '"cloud_type": "Moon"', "ERR_MALFORMED"],
    ["a short measurement", '"measurement":"11', '"measurement":"', "ERR_MALFORMED"],
    [
      "a measurement that is a number",
      `"measurement":"${"11".repeat(48)}"`,
      '"measurement":1',
      "ERR_MALFORMED",
    ],
    ["a negative reset count", '"reset_count":3', '"reset_count":-3', "ERR_MALFORMED"],
    ["no reset count", '"reset_count":3,', "", "ERR_MALFORMED"],
    ["a TCB component beyond a byte", '"microcode":209', '"microcode":256', "ERR_MALFORMED"],
    ["a PCR that no TPM has", '"15":', '"24":', "ERR_MALFORMED"],
    ["an AK Name that is no hex", '"ak_name":"000b', '"ak_name":"000x', "ERR_MALFORMED"],
    [
      "a boot_aggregate without algorithm",
      '"boot_aggregate":"sha256:',
      '"boot_aggregate":"',
      "ERR_MALFORMED",
    ],
    [
      "unreadable files without reason",
      '["/usr/bin/secret","EACCES"]',
      '["/usr/bin/secret"]',
      "ERR_MALFORMED",
    ],
    ["an unknown hash algorithm", '"hash_algorithm": "sha256"', '"hash_algorithm": "crc32"', "ERR_MALFORMED"],
    [
      "digests of another algorithm",
      '"hash_algorithm": "sha256"',
      '"hash_algorithm": "sha512"',
      "ERR_MALFORMED",
    ],
    [
      "files that are an object",
      TEXT.slice(TEXT.indexOf('"filehashes"')),
      '"filehashes": {}}',
      "ERR_MALFORMED",
    ],
    ["a pair of three", `"${DIGEST}"]`, `"${DIGEST}",1]`, "ERR_MALFORMED"],
    ["a pair of one", `["/usr/bin/a","${DIGEST}"]`, '["/usr/bin/a"]', "ERR_MALFORMED"],
    ["a path that is a number", '["/usr/bin/a"', "[1", "ERR_MALFORMED"],
    ["an empty path", '["/usr/bin/a"', '[""', "ERR_MALFORMED"],
    ["a NUL in a path", '["/usr/bin/a"', '["/usr/\\u0000a"', "ERR_MALFORMED"],
    ["a control character in a path", '["/usr/bin/a"', '["/usr/\na"', "ERR_MALFORMED"],
    ["a lone surrogate that is no byte", '["/usr/bin/a"', '["/usr/\\ud800"', "ERR_MALFORMED"],
    ["a digest with an odd digit", `"${DIGEST}"]`, `"${DIGEST.slice(1)}"]`, "ERR_MALFORMED"],
    ["a digest that is not hex", `"${DIGEST}"]`, `"${DIGEST.replace("f", "g")}"]`, "ERR_MALFORMED"],
    ["an empty digest", `"${DIGEST}"]`, '""]', "ERR_MALFORMED"],
    ["a digest without end", `"${DIGEST}"]`, `"${DIGEST.repeat(9)}"]`, "ERR_MALFORMED"],
    ["a digest of no known size", `"${DIGEST}"]`, `"${DIGEST.slice(2)}"]`, "ERR_MALFORMED"],
  ])("%s: refused", (_, from, to, code) => {
    expect(() => parse(edited(from, to))).toThrowCode(code)
  })

  test("the predecessor's digests must be of a known size", () => {
    expect(() => parse(PREDECESSOR.replace("0a".repeat(20), "0a".repeat(19)))).toThrowCode("ERR_MALFORMED")
  })

  test("text after the end, and a file over the cap, are refused", () => {
    expect(() => parse(`${TEXT}{}`)).toThrowCode("ERR_TRAILING_BYTES")
    expect(() => parseSnapshot(bytes(TEXT), TEXT.length - 1)).toThrowCode("ERR_TOO_LARGE")
  })

  test("every truncation is refused", () => {
    const whole = bytes(TEXT.trimEnd())
    for (let length = 0; length < whole.length; length++)
      expect(() => parseSnapshot(whole.subarray(0, length))).toThrow(CodedError)
  })

  test("whatever is changed, only coded errors escape", () => {
    const whole = bytes(TEXT)
    fc.assert(
      fc.property(fc.nat(whole.length - 8), fc.uint8Array({ minLength: 1, maxLength: 8 }), (at, patch) => {
        const mutated = Uint8Array.from(whole)
        mutated.set(patch, at)
        try {
          encodeSnapshot(parseSnapshot(mutated))
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 3000 },
    )
  })
})
