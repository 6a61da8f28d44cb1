import { beforeAll, describe, expect, test } from "bun:test"
import { generateKeyPairSync } from "node:crypto"
import fc from "fast-check"
import { attested, type FakeChip, fakeChip } from "../../test/fakes/snp.ts"
import { vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { CodedError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { encodePem } from "../formats/pem.ts"
import type { SnpReportFields } from "../formats/snp/report.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import { parseCocosPolicy } from "./cocos-policy.ts"
import { snpKeyDigest } from "./launch-key.ts"

const AT = new Date("2026-01-01T00:00:00Z")
const parse = (value: unknown) => parseText(JSON.stringify(value))
const parseText = (text: string) => parseCocosPolicy(new TextEncoder().encode(text), "p.json")
const filled = (size: number, value: number) => new Uint8Array(size).fill(value)
const base64 = (size: number, value: number) => Buffer.from(filled(size, value)).toString("base64")
const camelCase = (name: string) => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

let chip: FakeChip
beforeAll(async () => {
  chip = await fakeChip()
})

/** Codes of what a report is refused for by a policy whose `policy` holds these fields. */
function judge(fields: object, overrides: Partial<SnpReportFields> = {}): string[] {
  const policy = parse({ policy: { permit_provisional_firmware: true, ...fields } })
  const { tee, tcb } = appraiseByPolicy(attested(chip, overrides), policy, AT)
  return [tee, tcb]
    .filter(({ status }) => status === "failed")
    .flatMap(({ findings }) => findings.map(({ code }) => code))
}

type Field = readonly [
  name: string,
  value: unknown,
  fits: Partial<SnpReportFields>,
  differs: Partial<SnpReportFields>,
  code: string,
]

describe("every field of the policy works, in both spellings", () => {
  const FIELDS: readonly Field[] = [
    ["minimum_guest_svn", 3, { guestSvn: 3 }, { guestSvn: 2 }, "ERR_TEE_GUEST_SVN"],
    ["minimum_guest_svn", "3", { guestSvn: 4 }, { guestSvn: 2 }, "ERR_TEE_GUEST_SVN"],
    ["policy", "131072", { policy: 0x20000n }, { policy: 0x30000n }, "ERR_TEE_POLICY"],
    ["policy", 0x130005, { policy: 0x130005n }, { policy: 0x30005n }, "ERR_TEE_POLICY"],
    ["policy", 0x30005, { policy: 0x30006n }, { policy: 0x30004n }, "ERR_TEE_POLICY"],
    ["policy", 0x30000, { policy: 0x20000n }, { policy: 0xb0000n }, "ERR_TEE_DEBUG"],
    ["family_id", base64(16, 1), { familyId: filled(16, 1) }, { familyId: filled(16, 2) }, "ERR_TEE_IMAGE"],
    [
      "image_id",
      toHex(filled(16, 1)),
      { imageId: filled(16, 1) },
      { imageId: filled(16, 2) },
      "ERR_TEE_IMAGE",
    ],
    ["vmpl", 2, { vmpl: 2 }, { vmpl: 0 }, "ERR_TEE_VMPL"],
    ["vmpl", { value: 0 }, { vmpl: 0 }, { vmpl: 1 }, "ERR_TEE_VMPL"],
    ["minimum_tcb", "1", {}, {}, ""],
    ["platform_info", 4, { platformInfo: 4n }, { platformInfo: 5n }, "ERR_TEE_PLATFORM"],
    ["platform_info", { value: "5" }, { platformInfo: 4n }, { platformInfo: 1n }, "ERR_TEE_PLATFORM"],
    ["platform_info", 0, { platformInfo: 0x24n }, { platformInfo: 0x40n }, "ERR_TEE_PLATFORM"],
    [
      "report_data",
      base64(64, 1),
      { reportData: filled(64, 1) },
      { reportData: filled(64, 2) },
      "ERR_TEE_REPORT_DATA",
    ],
    [
      "measurement",
      [...filled(48, 1)],
      { measurement: filled(48, 1) },
      { measurement: filled(48, 2) },
      "ERR_TEE_MEASUREMENT",
    ],
    [
      "host_data",
      base64(32, 1),
      { hostData: filled(32, 1) },
      { hostData: filled(32, 2) },
      "ERR_TEE_HOST_DATA",
    ],
    [
      "report_id",
      base64(32, 1),
      { reportId: filled(32, 1) },
      { reportId: filled(32, 2) },
      "ERR_TEE_REPORT_ID",
    ],
    [
      "report_id_ma",
      base64(32, 255),
      { reportIdMa: filled(32, 255) },
      { reportIdMa: filled(32, 2) },
      "ERR_TEE_REPORT_ID",
    ],
    [
      "minimum_build",
      7,
      { currentBuild: 7, committedBuild: 7 },
      { currentBuild: 6, committedBuild: 6 },
      "ERR_TCB_FIRMWARE",
    ],
    [
      "minimum_version",
      "1.55",
      { currentMajor: 1, currentMinor: 55 },
      { currentMajor: 1, currentMinor: 54, committedMinor: 54 },
      "ERR_TCB_FIRMWARE",
    ],
    ["require_id_block", true, {}, {}, "always ERR_TEE_ID_KEY"],
    ["require_author_key", true, {}, {}, "always ERR_TEE_AUTHOR_KEY"],
    [
      "trusted_id_key_hashes",
      [base64(48, 1)],
      { idKeyDigest: filled(48, 1) },
      { idKeyDigest: filled(48, 2) },
      "ERR_TEE_ID_KEY",
    ],
    [
      "trusted_author_key_hashes",
      [base64(48, 1)],
      { authorKeyDigest: filled(48, 1), flags: 1 },
      { authorKeyDigest: filled(48, 2), flags: 1 },
      "ERR_TEE_ID_KEY",
    ],
    ["product", { name: "SEV_PRODUCT_MILAN" }, {}, {}, ""],
    ["product", { name: 2 }, {}, {}, "always ERR_TEE_PRODUCT"],
    ["product", { name: "SEV_PRODUCT_MILAN", machineStepping: 14 }, {}, {}, "always ERR_TEE_PRODUCT"],
    ["product", { name: 1, stepping: 14 }, {}, {}, "always ERR_TEE_PRODUCT"],
  ]
  for (const [name, value, fits, differs, code] of FIELDS)
    for (const spelling of new Set([name, camelCase(name)]))
      test(`${spelling} ${JSON.stringify(value).slice(0, 40)}`, () => {
        if (code.startsWith("always")) {
          expect(judge({ [spelling]: value })).toEqual([code.slice(7)])
          return
        }
        expect(judge({ [spelling]: value }, fits)).toEqual([])
        if (code !== "") expect(judge({ [spelling]: value }, differs)).toEqual([code])
      })

  test("chip_id", () => {
    const { chipId } = attested(chip).report
    expect(judge({ chip_id: Buffer.from(chipId).toString("base64") })).toEqual([])
    expect(judge({ chip_id: base64(64, 3) })).toEqual(["ERR_TEE_CHIP"])
  })

  test("permit_provisional_firmware", () => {
    const provisional = { currentBuild: 9, committedBuild: 8 }
    expect(judge({}, provisional)).toEqual([])
    expect(judge({ permit_provisional_firmware: false }, provisional)).toEqual(["ERR_TCB_PROVISIONAL"])
  })

  test("TCBs are compared component by component, in the layout of the report's product", async () => {
    for (const product of ["Milan", "Turin"] as const) {
      const fake = await fakeChip(product)
      const { report } = attested(fake)
      const number = (raw: Uint8Array) => raw.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
      const tcb = number(report.reportedTcb)
      for (const field of ["minimum_tcb", "minimum_launch_tcb"])
        for (const place of product === "Milan" ? [0, 1, 6, 7] : [0, 1, 2, 3, 7]) {
          const judged = (value: bigint, name = field) => {
            const policy = parse({ policy: { permit_provisional_firmware: true, [name]: `${value}` } })
            const { tee, tcb: claim } = appraiseByPolicy(attested(fake), policy, AT)
            return [tee.status === "failed", claim.findings.map(({ code }) => code)]
          }
          expect(judged(tcb)).toEqual([false, []])
          expect(judged(tcb + (1n << BigInt(8 * place)))).toEqual([false, ["ERR_TCB_BELOW"]])
          if (product === "Turin")
            expect(judged(tcb + (1n << BigInt(8 * place)), `${field}_turin`)).toEqual([
              false,
              ["ERR_TCB_BELOW"],
            ])
        }
    }
  })

  test("a TCB of one layout is no floor for a report of another", async () => {
    const turin = await fakeChip("Turin")
    const milan = attested(chip).report.reportedTcb.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
    const policy = parse({ policy: { permit_provisional_firmware: true, minimum_tcb: `${milan}` } })
    const { tcb } = appraiseByPolicy(attested(turin), policy, AT)
    expect(tcb.findings.map(({ code }) => code)).toEqual(["ERR_TCB_REFERENCE"])
  })

  test("trusted keys may be given as certificates", () => {
    const der = chip.certificates[0] ?? new Uint8Array(0)
    const policy = parse({ policy: { trusted_id_keys: [Buffer.from(der).toString("base64")] } })
    const [digest] = policy.snp?.signer.trustedIdKeys ?? []
    expect(digest?.length).toBe(48)
    expect(
      judge(
        { trusted_id_keys: [Buffer.from(der).toString("base64")] },
        { idKeyDigest: digest ?? filled(48, 0) },
      ),
    ).toEqual([])
  })

  test("root of trust, PCR values", () => {
    const policy = parse({
      policy: { vmpl: 0 },
      rootOfTrust: { checkCrl: true, disallowNetwork: true, product: "Milan-B1", productLine: "Milan" },
      pcr_values: { sha1: null, sha256: { 0: toHex(filled(32, 1)) }, sha384: { 23: base64(48, 2) } },
    })
    expect(policy.trust).toEqual({ requireRevocation: true, offline: true })
    expect(policy.snp?.products).toEqual([{ product: "Milan", stepping: 1 }])
    expect(policy.tpm?.pcrs.sha256?.get(0)).toEqual([filled(32, 1)])
    expect(policy.tpm?.pcrs.sha384?.get(23)).toEqual([filled(48, 2)])
  })

  test("TDX", () => {
    const text = {
      policy: {
        header_policy: { minmum_qe_svn: 1, minimumPceSvn: 2, qe_vendor_id: base64(16, 1) },
        td_quote_body_policy: {
          minimum_tee_tcb_svn: base64(16, 2),
          mr_seam: base64(48, 3),
          td_attributes: "AAAAEAAAAAA=",
          xfam: "5wIGAAAAAAA=",
          any_mr_td: [base64(48, 4), base64(48, 5)],
          mr_config_id: base64(48, 6),
          mr_owner: base64(48, 7),
          mr_owner_config: base64(48, 8),
          rtmrs: ["", base64(48, 9), "", ""],
          report_data: base64(64, 10),
          allow_debug: true,
        },
      },
      root_of_trust: { check_crl: true, get_collateral: false },
    }
    const { tdx, snp, trust } = parse(text)
    expect(snp).toBeNull()
    expect(trust).toEqual({ requireRevocation: true, offline: true })
    expect(tdx).toEqual({
      mrTds: [filled(48, 4), filled(48, 5)],
      mrSeams: [filled(48, 3)],
      mrConfigIds: [filled(48, 6)],
      mrOwners: [filled(48, 7)],
      mrOwnerConfigs: [filled(48, 8)],
      rtmrs: [null, [filled(48, 9)], null, null],
      reportData: [filled(64, 10)],
      qeVendorIds: [filled(16, 1)],
      tdAttributes: 0x10000000n,
      xfam: 0x602e7n,
      debug: "allowed",
      minimumTeeTcbSvn: filled(16, 2),
      minimumQeSvn: 1,
      minimumPceSvn: 2,
      minimumEvaluationNumber: 0,
      accept: [],
    })
  })
})

describe("what does not work is refused by name", () => {
  const REFUSED: ReadonlyArray<readonly [string, unknown]> = [
    ["policy.mesurement", { policy: { mesurement: base64(48, 1) } }],
    ["policy.measurement", { policy: { measurement: base64(47, 1) } }],
    ["policy.measurement", { policy: { measurement: [0, 0] } }],
    ["policy.measurement", { policy: { measurement: "not base64!" } }],
    ["policy.measurement", { policy: { measurement: 7 } }],
    ["policy.host_data", { policy: { host_data: base64(32, 1), hostData: base64(32, 1) } }],
    ["policy.vmpl", { policy: { vmpl: 4 } }],
    ["policy.vmpl", { policy: { vmpl: -1 } }],
    ["policy.vmpl.value", { policy: { vmpl: { value: 4 } } }],
    ["policy.vmpl.level", { policy: { vmpl: { level: 1 } } }],
    ["policy.policy", { policy: { policy: 1 } }],
    ["policy.policy", { policy: { policy: "8589934592" } }],
    ["policy.minimum_build", { policy: { minimum_build: 256 } }],
    ["policy.minimum_version", { policy: { minimum_version: "1.55.8" } }],
    ["policy.minimum_version", { policy: { minimum_version: "1.256" } }],
    ["policy.minimum_tcb", { policy: { minimum_tcb: "18446744073709551616" } }],
    ["policy.minimum_tcb", { policy: { minimum_tcb: "18446744073709551615" } }],
    ["policy.minimum_tcb_turin", { policy: { minimum_tcb_turin: "18446744073709551615" } }],
    ["policy.product.name", { policy: { product: { name: "SEV_PRODUCT_VENICE" } } }],
    ["policy.product.name", { policy: { product: { name: 9 } } }],
    ["policy.product", { policy: { product: { name: 1 } }, root_of_trust: { product_line: "Genoa" } }],
    ["policy.require_id_block", { policy: { require_id_block: "yes" } }],
    ["policy.trusted_id_key_hashes[0]", { policy: { trusted_id_key_hashes: [base64(32, 1)] } }],
    ["policy.trusted_author_keys[0]", { policy: { trusted_author_keys: [base64(32, 1)] } }],
    ["root_of_trust.cabundles", { policy: {}, root_of_trust: { cabundles: ["x"] } }],
    ["root_of_trust.cabundle_paths", { policy: {}, root_of_trust: { cabundle_paths: ["x"] } }],
    ["root_of_trust.product", { policy: {}, root_of_trust: { product: "Milan", product_line: "Genoa" } }],
    ["root_of_trust.product", { policy: {}, root_of_trust: { product: "Naples" } }],
    ["root_of_trust.checkCRL", { policy: {}, root_of_trust: { checkCRL: true } }],
    ["pcr_values.sha256.24", { pcr_values: { sha256: { 24: toHex(filled(32, 1)) } } }],
    ["pcr_values.sha256.1", { pcr_values: { sha256: { 1: toHex(filled(31, 1)) } } }],
    ["pcr_values.sha256.1", { pcr_values: { sha256: { 1: null } } }],
    ["pcr_values.sm3", { pcr_values: { sm3: {} } }],
    ["policy.td_quote_body_policy.rtmrs", { policy: { td_quote_body_policy: { rtmrs: [base64(48, 1)] } } }],
    ["policy.td_quote_body_policy.mr_td", { policy: { td_quote_body_policy: { mr_td: base64(32, 1) } } }],
    [
      "policy.td_quote_body_policy.any_mr_td",
      { policy: { td_quote_body_policy: { mr_td: base64(48, 1), any_mr_td: [base64(48, 2)] } } },
    ],
    [
      "policy.td_quote_body_policy.policy.mr_td",
      { policy: { td_quote_body_policy: { policy: { mr_td: base64(32, 1) } } } },
    ],
    ["policy.header_policy.qe_svn", { policy: { header_policy: { qe_svn: 1 } } }],
    ["policy.measurement", { policy: { header_policy: {}, measurement: base64(48, 1) } }],
    ["snp_policy", { policy: {}, snp_policy: {} }],
    ["policy", {}],
    ["surprise", { policy: {}, surprise: 1 }],
  ]
  for (const [place, policy] of REFUSED)
    test(`${place} of ${JSON.stringify(policy).slice(0, 90)}`, () => {
      expect(() => parse(policy)).toThrowCode("ERR_POLICY")
      try {
        parse(policy)
      } catch (error) {
        expect(error instanceof CodedError ? error.at : "").toBe(`p.json: ${place}`)
      }
    })

  test("a member named twice", () => {
    expect(() => parseText('{"policy":{"vmpl":0,"vmpl":1}}')).toThrowCode("ERR_DUPLICATE_KEY")
  })
})

describe("hostile files", () => {
  const samples = vectorsUnder("policy").filter(({ kind }) => kind === "policy-cocos")

  function onlyCoded(bytes: Uint8Array): void {
    try {
      parseCocosPolicy(bytes)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
    }
  }

  test("every truncation is refused", () => {
    for (const { file } of samples) {
      const bytes = Uint8Array.from(Buffer.from(new TextDecoder().decode(vector(file)).trim()))
      for (let size = 0; size < bytes.length; size++)
        expect(() => parseCocosPolicy(bytes.subarray(0, size))).toThrow(CodedError)
    }
  })

  test("whatever is changed, only coded errors come out", () => {
    for (const { file } of samples) {
      const bytes = vector(file)
      for (let at = 0; at < bytes.length; at++) {
        const changed = Uint8Array.from(bytes)
        changed[at] = (changed[at] ?? 0) ^ (1 + ((at * 7) % 127))
        onlyCoded(changed)
      }
    }
  })

  test("any JSON gives a policy or a coded error", () => {
    fc.assert(
      fc.property(fc.json(), (text) =>
        onlyCoded(new TextEncoder().encode(`{"policy":${text},"pcr_values":${text}}`)),
      ),
      { numRuns: 500 },
    )
  })
})

describe("key that signs launches", () => {
  test("its digest is over the curve's number and little-endian coordinates", () => {
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-384" })
    const { x = "", y = "" } = publicKey.export({ format: "jwk" })
    const structure = Buffer.alloc(0x404)
    structure.writeUInt32LE(2, 0)
    Buffer.from(x, "base64url").reverse().copy(structure, 4)
    Buffer.from(y, "base64url")
      .reverse()
      .copy(structure, 4 + 72)
    const expected = new Bun.CryptoHasher("sha384").update(structure).digest("hex")
    const spki = publicKey.export({ format: "der", type: "spki" })
    expect(toHex(snpKeyDigest(Uint8Array.from(spki)))).toBe(expected)
  })

  test("keys of other kinds, and what is none, are refused", () => {
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
    const spki = Uint8Array.from(publicKey.export({ format: "der", type: "spki" }))
    expect(() => snpKeyDigest(spki)).toThrowCode("ERR_UNSUPPORTED")
    expect(() => snpKeyDigest(new TextEncoder().encode(encodePem("PUBLIC KEY", spki)))).toThrowCode(
      "ERR_UNSUPPORTED",
    )
  })
})
