import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { CodedError } from "../errors.ts"
import { toHex } from "../formats/hex.ts"
import { ANY_SNP, ANY_TDX, type AttestationPolicy, defaultPolicy } from "./attestation-policy.ts"
import { describePolicy } from "./describe-policy.ts"
import { encodeCocosPolicy } from "./encode-cocos.ts"
import { encodeTomlPolicy } from "./encode-toml.ts"
import { exactGuestPolicy, guestPolicyBounds, PERMISSIONS, RESTRICTIONS } from "./guest-policy.ts"
import { readPolicy } from "./read-policy.ts"
import { parseTomlPolicy } from "./toml-policy.ts"

const filled = (size: number, value: number) => new Uint8Array(size).fill(value)
const hex = (size: number, value: number) => toHex(filled(size, value))
const parse = (text: string) => parseTomlPolicy(text, "p.toml")

const EVERYTHING = `
version = 1
[trust]
require_revocation = true
offline = true

[snp]
products = ["Milan", "Genoa-B1"]
measurement = ["${hex(48, 1)}", "${hex(48, 2)}"]
host_data = "${hex(32, 3)}"
family_id = "${hex(16, 4)}"
image_id = "${hex(16, 5)}"
report_data = "${hex(64, 6)}"
report_id = "${hex(32, 7)}"
report_id_ma = "${hex(32, 8)}"
chip_id = ["${hex(64, 9)}", "${hex(8, 10)}"]
id_key_digest = "${hex(48, 11)}"
author_key_digest = "${hex(48, 12)}"
vmpl = [0, 2]
minimum_guest_svn = 3
minimum_version = "1.55"
minimum_build = 8
provisional_firmware = "allowed"

[snp.guest_policy]
debug = true
smt = false
single_socket = true
minimum_abi = "1.51"

[snp.platform]
smt = false
ecc = true
other_bits = "0x40"

[snp.launch_signer]
require_id_block = true
require_author_key = true
trusted_id_key_digest = "${hex(48, 13)}"
trusted_author_key_digest = ["${hex(48, 14)}"]

[snp.minimum_tcb.Milan]
bootloader = 4
microcode = 211
[snp.minimum_tcb.Turin]
fmc = 1
[snp.minimum_committed_tcb.Milan]
snp = 22
[snp.minimum_launch_tcb.Genoa]
tee = 1

[tdx]
mr_td = "${hex(48, 20)}"
mr_seam = "${hex(48, 21)}"
mr_config_id = "${hex(48, 22)}"
mr_owner = "${hex(48, 23)}"
mr_owner_config = "${hex(48, 24)}"
rtmr0 = "${hex(48, 25)}"
rtmr3 = ["${hex(48, 26)}", "${hex(48, 27)}"]
report_data = "${hex(64, 28)}"
qe_vendor_id = "${hex(16, 29)}"
td_attributes = "0x8000000010000000"
xfam = 0x602e7
debug = "allowed"
minimum_tee_tcb_svn = "${hex(16, 3)}"
minimum_qe_svn = 1
minimum_pce_svn = 2
minimum_tcb_evaluation_number = 17

[[tdx.accept]]
status = "OutOfDate"
until = 2026-12-31
advisories = ["INTEL-SA-00960", "INTEL-SA-00982"]
[[tdx.accept]]
status = "SWHardeningNeeded"
until = 2026-06-30T12:00:00Z
advisories = "any"
[[tdx.accept]]
status = "ConfigurationNeeded"
until = 2026-06-30
advisories = []

[tpm]
ak_name = "${hex(34, 30)}"
[tpm.pcrs.sha256]
0 = "${hex(32, 31)}"
7 = ["${hex(32, 32)}", "${hex(32, 33)}"]
[tpm.pcrs.sha384]
23 = "${hex(48, 34)}"

[boot]
secure_boot = true
authority = ["${hex(32, 40)}", "${hex(32, 41)
  .toUpperCase()
  .replaceAll(/(..)(?=.)/g, "$1:")}"]
db = "${hex(32, 42)}"
[boot.command_line]
required = ["ima_policy=tcb", "ima_hash=sha256"]
forbidden = ["init=*"]
initrd = "${hex(32, 43)}"

[ima]
violations = "ignore-paths"
ignore_violations = ["/var/log/**", "/run/x"]
max_violations = 16
required = ["programs", "modules"]
`

const ALL: AttestationPolicy = {
  source: "p.toml",
  trust: { requireRevocation: true, offline: true },
  notes: [],
  snp: {
    products: [
      { product: "Milan", stepping: null },
      { product: "Genoa", stepping: 1 },
    ],
    measurements: [filled(48, 1), filled(48, 2)],
    hostData: [filled(32, 3)],
    familyIds: [filled(16, 4)],
    imageIds: [filled(16, 5)],
    reportData: [filled(64, 6)],
    reportIds: [filled(32, 7)],
    reportIdMas: [filled(32, 8)],
    chipIds: [filled(64, 9), filled(8, 10)],
    idKeyDigests: [filled(48, 11)],
    authorKeyDigests: [filled(48, 12)],
    vmpls: [0, 2],
    minimumGuestSvn: 3,
    firmware: { minimumVersion: { major: 1, minor: 55 }, minimumBuild: 8, provisional: "allowed" },
    guestPolicy: guestPolicyBounds({
      permissions: [PERMISSIONS.debug, PERMISSIONS.cxl],
      restrictions: [RESTRICTIONS.singleSocket],
      minimumAbi: { major: 1, minor: 51 },
    }),
    platform: { allowed: 0b111_1110n, required: 0b100n },
    signer: {
      requireIdBlock: true,
      requireAuthorKey: true,
      trustedIdKeys: [filled(48, 13)],
      trustedAuthorKeys: [filled(48, 14)],
    },
    minimumTcb: {
      reported: { Milan: { bootloader: 4, microcode: 211 }, Turin: { fmc: 1 } },
      committed: { Milan: { snp: 22 } },
      launch: { Genoa: { tee: 1 } },
    },
  },
  tdx: {
    mrTds: [filled(48, 20)],
    mrSeams: [filled(48, 21)],
    mrConfigIds: [filled(48, 22)],
    mrOwners: [filled(48, 23)],
    mrOwnerConfigs: [filled(48, 24)],
    rtmrs: [[filled(48, 25)], null, null, [filled(48, 26), filled(48, 27)]],
    reportData: [filled(64, 28)],
    qeVendorIds: [filled(16, 29)],
    tdAttributes: 0x8000000010000000n,
    xfam: 0x602e7n,
    debug: "allowed",
    minimumTeeTcbSvn: filled(16, 3),
    minimumQeSvn: 1,
    minimumPceSvn: 2,
    minimumEvaluationNumber: 17,
    accept: [
      {
        status: "OutOfDate",
        until: new Date("2026-12-31T23:59:59.999Z"),
        advisories: ["INTEL-SA-00960", "INTEL-SA-00982"],
      },
      { status: "SWHardeningNeeded", until: new Date("2026-06-30T12:00:00Z"), advisories: null },
      { status: "ConfigurationNeeded", until: new Date("2026-06-30T23:59:59.999Z"), advisories: [] },
    ],
  },
  tpm: {
    akNames: [filled(34, 30)],
    pcrs: {
      sha256: new Map([
        [0, [filled(32, 31)]],
        [7, [filled(32, 32), filled(32, 33)]],
      ]),
      sha384: new Map([[23, [filled(48, 34)]]]),
    },
  },
  boot: {
    secureBoot: true,
    authorities: [filled(32, 40), filled(32, 41)],
    db: [filled(32, 42)],
    commandLine: {
      required: ["ima_policy=tcb", "ima_hash=sha256"],
      forbidden: ["init=*"],
      initrds: [filled(32, 43)],
    },
  },
  ima: {
    violations: { mode: "ignore-paths", paths: ["/var/log/**", "/run/x"], max: 16 },
    required: ["programs", "modules"],
  },
}

describe("our policy", () => {
  test("every setting is read", () => expect(parse(EVERYTHING)).toEqual(ALL))

  test("what is written reads back the same", () => {
    expect(parse(encodeTomlPolicy(ALL, ["two", "lines"]))).toEqual(ALL)
    const { snp } = ALL
    if (snp === null) throw new Error("no snp")
    const exact = { ...ALL, snp: { ...snp, guestPolicy: exactGuestPolicy(0x3001fn), vmpls: null } }
    expect(parse(encodeTomlPolicy(exact))).toEqual(exact)
  })

  test("defaults are strict", () => {
    const { snp, tdx, trust } = parse("[snp]\n[tdx]\n")
    expect(snp).toEqual({ ...ANY_SNP, vmpls: [0], firmware: { ...ANY_SNP.firmware, provisional: "refused" } })
    expect(tdx).toEqual(ANY_TDX)
    expect(trust).toEqual({ requireRevocation: false, offline: false })
    expect(parse('[snp]\nvmpl = "any"').snp?.vmpls).toBeNull()
  })

  test("a description names what is fixed and what is not", () => {
    const { parts, notes } = describePolicy(ALL)
    expect(parts.map(({ about }) => about)).toEqual([
      "SEV-SNP",
      "Intel TDX",
      "TPM",
      "boot events",
      "IMA",
      "collateral",
    ])
    expect(parts[0]?.fixed["minimum_tcb"]).toBe("Milan: bootloader 4, microcode 211; Turin: fmc 1")
    expect(parts[1]?.fixed["TCB status"]).toContain("OutOfDate until 2026-12-31")
    expect(notes.some((note) => note.includes("debugging"))).toBe(true)
    const open = describePolicy(parse("[snp]"))
    expect(open.parts[0]?.open).toContain("measurement")
    expect(open.notes.some((note) => note.includes("any software may run"))).toBe(true)
  })

  const WRONG: ReadonlyArray<readonly [place: string, text: string]> = [
    ["p.toml: snp", "version = 1"],
    ["p.toml:1: version", "version = 2\n[snp]"],
    ["p.toml:2: snp.mesurement", `[snp]\nmesurement = "${hex(48, 1)}"`],
    ["p.toml:2: snp.measurement", `[snp]\nmeasurement = "${hex(47, 1)}"`],
    ["p.toml:2: snp.measurement", '[snp]\nmeasurement = "xyz"'],
    ["p.toml:2: snp.measurement", "[snp]\nmeasurement = []"],
    ["p.toml:2: snp.chip_id", `[snp]\nchip_id = "${hex(9, 1)}"`],
    ["p.toml:2: snp.products", '[snp]\nproducts = ["Naples"]'],
    ["p.toml:2: snp.vmpl", "[snp]\nvmpl = 4"],
    ["p.toml:2: boot.authority", `[boot]\nauthority = "${hex(31, 1)}"`],
    ["p.toml:2: boot.secureboot", "[boot]\nsecureboot = true"],
    ["p.toml:2: boot.command_line.initrd", `[boot.command_line]\ninitrd = "${hex(20, 1)}"`],
    ["p.toml:2: boot.secure_boot", `[boot]\nsecure_boot = false\nauthority = "${hex(32, 1)}"`],
    ["p.toml:2: boot.command_line.required", '[boot.command_line]\nrequired = ["two words"]'],
    ["p.toml:2: ima.violation", '[ima]\nviolation = "fail"'],
    ["p.toml:2: ima.violations", '[ima]\nviolations = "ignore"'],
    ["p.toml:2: ima.required", '[ima]\nrequired = "everything"'],
    ["p.toml:3: ima.ignore_violations", '[ima]\nviolations = "report"\nignore_violations = "/a"'],
    ["p.toml:3: ima.ignore_violations", '[ima]\nviolations = "ignore-paths"\nignore_violations = "a"'],
    ["p.toml:1: ima.max_violations", '[ima]\nviolations = "ignore-paths"\nignore_violations = "/a"'],
    ["p.toml:2: boot.command_line.optional", '[boot.command_line]\noptional = ["a"]'],
    ["p.toml:2: snp.vmpl", "[snp]\nvmpl = []"],
    ["p.toml:2: snp.minimum_version", "[snp]\nminimum_version = 1.55"],
    ["p.toml:2: snp.minimum_version", '[snp]\nminimum_version = "1"'],
    ["p.toml:2: snp.provisional_firmware", '[snp]\nprovisional_firmware = "maybe"'],
    ["p.toml:2: snp.guest_policy.exact", "[snp.guest_policy]\nexact = 1"],
    ["p.toml:3: snp.guest_policy.debug", "[snp.guest_policy]\nexact = 0x30000\ndebug = true"],
    ["p.toml:2: snp.guest_policy.debug", '[snp.guest_policy]\ndebug = "no"'],
    ["p.toml:2: snp.platform.other_bits", "[snp.platform]\nother_bits = 1"],
    ["p.toml:1: snp.minimum_tcb", "[snp.minimum_tcb]"],
    ["p.toml:2: snp.minimum_tcb.bootloader", "[snp.minimum_tcb]\nbootloader = 4"],
    ["p.toml:2: snp.minimum_tcb.Milan.fmc", "[snp.minimum_tcb.Milan]\nfmc = 1"],
    ["p.toml:2: snp.minimum_tcb.Milan.snp", "[snp.minimum_tcb.Milan]\nsnp = 256"],
    ["p.toml:1: snp.minimum_tcb.Milan", "[snp.minimum_tcb.Milan]"],
    ["p.toml:2: tdx.xfam", "[tdx]\nxfam = -1"],
    ["p.toml:2: tdx.minimum_tee_tcb_svn", `[tdx]\nminimum_tee_tcb_svn = ["${hex(16, 1)}", "${hex(16, 2)}"]`],
    ["p.toml:2: tdx.accept", '[tdx]\naccept = "OutOfDate"'],
    ["p.toml:2: tdx.accept[0].status", '[[tdx.accept]]\nstatus = "Revoked"'],
    ["p.toml:1: tdx.accept[0].status", "[[tdx.accept]]\nuntil = 2026-12-31"],
    ["p.toml:1: tdx.accept[0].until", '[[tdx.accept]]\nstatus = "OutOfDate"'],
    ["p.toml:3: tdx.accept[0].until", '[[tdx.accept]]\nstatus = "OutOfDate"\nuntil = "soon"'],
    ["p.toml:1: tdx.accept[0].advisories", '[[tdx.accept]]\nstatus = "OutOfDate"\nuntil = 2026-12-31'],
    [
      "p.toml:4: tdx.accept[0].advisories",
      '[[tdx.accept]]\nstatus = "OutOfDate"\nuntil = 2026-12-31\nadvisories = ["none"]',
    ],
    ["p.toml:2: tpm.ak_name", '[tpm]\nak_name = "00"'],
    ["p.toml:2: tpm.pcrs.sha256.24", `[tpm.pcrs.sha256]\n24 = "${hex(32, 1)}"`],
    ["p.toml:2: tpm.pcrs.sha256.1", `[tpm.pcrs.sha256]\n1 = "${hex(20, 1)}"`],
    ["p.toml:1: tpm.pcrs.md5", "[tpm.pcrs.md5]"],
    ["p.toml:2: trust.revocation", "[trust]\nrevocation = true\n[snp]"],
  ]
  for (const [place, text] of WRONG)
    test(`${JSON.stringify(text).slice(0, 80)} is refused at ${place}`, () => {
      expect(() => parse(text)).toThrowCode("ERR_POLICY")
      try {
        parse(text)
      } catch (error) {
        expect(error instanceof CodedError ? error.at : "").toBe(place)
      }
    })

  test("whatever is changed or cut off, only coded errors come out", () => {
    const onlyCoded = (text: string) => {
      try {
        parse(text)
      } catch (error) {
        if (!(error instanceof CodedError)) throw error
      }
    }
    for (let size = 0; size < EVERYTHING.length; size += 3) onlyCoded(EVERYTHING.slice(0, size))
    fc.assert(
      fc.property(fc.nat(EVERYTHING.length), fc.string({ maxLength: 4 }), fc.nat(4), (at, text, cut) =>
        onlyCoded(EVERYTHING.slice(0, at) + text + EVERYTHING.slice(at + cut)),
      ),
      { numRuns: 400 },
    )
  })
})

describe("Cocos' form of it", () => {
  const base = (): AttestationPolicy => ({
    ...defaultPolicy({ allowDebug: false }),
    source: "p.json",
    tdx: null,
  })
  const withSnp = (snp: Partial<typeof ANY_SNP>): AttestationPolicy => ({
    ...base(),
    snp: { ...ANY_SNP, ...snp },
  })
  const read = (policy: AttestationPolicy) =>
    readPolicy(new TextEncoder().encode(encodeCocosPolicy(policy)), "p.json")

  test("what can be said reads back the same", () => {
    const policies: AttestationPolicy[] = [
      withSnp({}),
      withSnp({
        products: [{ product: "Turin", stepping: 1 }],
        measurements: [filled(48, 1)],
        chipIds: [filled(8, 2)],
        vmpls: [1],
        minimumTcb: {
          reported: { Turin: { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 5 } },
          committed: null,
          launch: null,
        },
        platform: { allowed: 0b111101n, required: 0b100n },
        signer: { ...ANY_SNP.signer, requireIdBlock: true, trustedIdKeys: [filled(48, 3)] },
      }),
      { ...base(), snp: null, tdx: { ...ANY_TDX, debug: "required", mrTds: [filled(48, 1), filled(48, 2)] } },
      {
        ...base(),
        snp: null,
        tdx: { ...ANY_TDX, debug: "allowed", rtmrs: [null, [filled(48, 1)], null, null] },
      },
      { ...base(), tpm: { akNames: null, pcrs: { sha256: new Map([[1, [filled(32, 1)]]]) } } },
    ]
    for (const policy of policies) expect(read(policy)).toEqual({ format: "cocos", policy })
  })

  const CANNOT: ReadonlyArray<readonly [string, AttestationPolicy]> = [
    ["[snp] and [tdx]", { ...base(), tdx: ANY_TDX }],
    ["measurement", withSnp({ measurements: [filled(48, 1), filled(48, 2)] })],
    ["products", withSnp({ products: ALL.snp?.products ?? null })],
    ["id_key_digest", withSnp({ idKeyDigests: [filled(48, 1)] })],
    ["author_key_digest", withSnp({ authorKeyDigests: [filled(48, 1)] })],
    ["vmpl", withSnp({ vmpls: [0, 1] })],
    ["guest_policy.exact", withSnp({ guestPolicy: exactGuestPolicy(0x30000n) })],
    ["platform.other_bits", withSnp({ platform: { ...ANY_SNP.platform, required: 4n } })],
    ["minimum_committed_tcb", withSnp({ minimumTcb: { ...ANY_SNP.minimumTcb, committed: { Milan: {} } } })],
    [
      "minimumTcb",
      withSnp({ minimumTcb: { ...ANY_SNP.minimumTcb, reported: { Milan: { snp: 1 }, Genoa: { snp: 2 } } } }),
    ],
    ["[[tdx.accept]]", { ...base(), snp: null, tdx: { ...ANY_TDX, accept: ALL.tdx?.accept ?? [] } }],
    [
      "minimum_tcb_evaluation_number",
      { ...base(), snp: null, tdx: { ...ANY_TDX, minimumEvaluationNumber: 1 } },
    ],
    [
      "rtmr0",
      {
        ...base(),
        snp: null,
        tdx: { ...ANY_TDX, rtmrs: [[filled(48, 1), filled(48, 2)], null, null, null] },
      },
    ],
    ["ak_name", { ...base(), tpm: { akNames: [filled(34, 1)], pcrs: {} } }],
    [
      "tpm.pcrs.sha512",
      { ...base(), tpm: { akNames: null, pcrs: { sha512: new Map([[1, [filled(64, 1)]]]) } } },
    ],
    [
      "tpm.pcrs.sha256.1",
      { ...base(), tpm: { akNames: null, pcrs: { sha256: new Map([[1, [filled(32, 1), filled(32, 2)]]]) } } },
    ],
  ]
  for (const [place, policy] of CANNOT)
    test(`${place} is refused by name`, () => {
      expect(() => encodeCocosPolicy(policy)).toThrowCode("ERR_POLICY")
      try {
        encodeCocosPolicy(policy)
      } catch (error) {
        expect(error instanceof CodedError ? error.at : "").toBe(place)
      }
    })
})

test("text that is none is refused", () => {
  expect(() => readPolicy(Uint8Array.of(0xff, 0xfe), "p")).toThrowCode("ERR_POLICY")
})
