import { describe, expect, test } from "bun:test"
import type { ErrorCode } from "../errors.ts"
import type { TpmAttestation } from "../verify/tpm.ts"
import { markVerified } from "../verify/verified.ts"
import {
  akNameFindings,
  appraisePcrs,
  policyPcrFindings,
  type QuotedPcrs,
  quotedPcrs,
} from "./appraise-pcrs.ts"
import { type AttestationPolicy, defaultPolicy, type TpmExpectations } from "./attestation-policy.ts"

const value = (size: number, fill: number) => new Uint8Array(size).fill(fill)
const [a, b] = [value(32, 1), value(32, 2)]
const [long1, long2, short1] = [value(48, 1), value(48, 2), value(20, 1)]

function policyOf(tpm: Partial<TpmExpectations> | null): AttestationPolicy {
  return {
    ...defaultPolicy({ allowDebug: false }),
    source: "test",
    tpm: tpm === null ? null : { akNames: null, pcrs: {}, ...tpm },
  }
}

type Values = Readonly<Record<number, Uint8Array>>
const bank = (values: Values) => new Map(Object.entries(values).map(([pcr, bytes]) => [Number(pcr), bytes]))
const expectedBank = (values: Values) => new Map([...bank(values)].map(([pcr, bytes]) => [pcr, [bytes]]))

describe("PCR values", () => {
  const CASES: ReadonlyArray<readonly [string, TpmExpectations["pcrs"], QuotedPcrs, readonly ErrorCode[]]> = [
    ["equal", { sha256: expectedBank({ 0: a, 7: b }) }, { sha256: bank({ 0: a, 7: b, 9: b }) }, []],
    ["one of several", { sha256: new Map([[0, [b, a]]]) }, { sha256: bank({ 0: a }) }, []],
    ["another value", { sha256: expectedBank({ 0: a }) }, { sha256: bank({ 0: b }) }, ["ERR_BOOT_PCR"]],
    ["not quoted", { sha256: expectedBank({ 0: a, 1: a }) }, { sha256: bank({ 0: a }) }, ["ERR_POLICY_PCRS"]],
    [
      "quoted in another bank",
      { sha384: expectedBank({ 0: long1 }) },
      { sha256: bank({ 0: a }) },
      ["ERR_POLICY_PCRS"],
    ],
    [
      "two banks, one of them quoted",
      { sha256: expectedBank({ 0: a }), sha384: expectedBank({ 0: long1 }) },
      { sha256: bank({ 0: a }) },
      [],
    ],
    [
      "two banks, one of them wrong",
      { sha256: expectedBank({ 0: a }), sha384: expectedBank({ 0: long1 }) },
      { sha256: bank({ 0: a }), sha384: bank({ 0: long2 }) },
      ["ERR_BOOT_PCR"],
    ],
    [
      "SHA-1 alone proves nothing",
      { sha1: expectedBank({ 0: short1 }) },
      { sha1: bank({ 0: short1 }) },
      ["ERR_POLICY_PCRS"],
    ],
    [
      "all differences are told",
      { sha256: expectedBank({ 0: a, 1: a, 2: a }) },
      { sha256: bank({ 0: b, 1: b, 2: a }) },
      ["ERR_BOOT_PCR", "ERR_BOOT_PCR"],
    ],
  ]
  for (const [name, pcrs, quoted, codes] of CASES)
    test(`${name}: ${codes.join() || "passes"}`, () => {
      const claim = appraisePcrs(quoted, policyOf({ pcrs }))
      expect(claim.status).toBe(codes.length === 0 ? "passed" : "failed")
      expect(claim.findings.map(({ code }) => code)).toEqual([...codes])
      expect(claim.failureClass).toBe(codes.length === 0 ? undefined : "boot")
    })

  test("a policy that expects nothing gives a warning", () => {
    for (const policy of [policyOf(null), policyOf({})])
      expect(appraisePcrs({ sha256: bank({ 0: a }) }, policy)).toMatchObject({
        check: "boot",
        status: "warning",
      })
  })
})

test("a quote is compared by its SHA-256 bank, and the key that signed it by its Name", () => {
  const tpm = markVerified<TpmAttestation>({
    akName: value(34, 7),
    qualifiedSigner: value(34, 8),
    pcrSelection: [3, 5],
    pcrs: [a, b],
    resetCount: 1,
    restartCount: 0,
    clock: 1n,
    safe: true,
    firmwareVersion: 1n,
  })
  const expected = { pcrs: { sha256: expectedBank({ 3: a, 5: b }) }, akNames: [value(34, 7)] }
  const codes = (other: Partial<typeof expected>) =>
    [
      ...akNameFindings(tpm, { ...expected, ...other }),
      ...policyPcrFindings(quotedPcrs(tpm), { ...expected, ...other }),
    ].map(({ code }) => code)
  expect(codes({})).toEqual([])
  expect(codes({ akNames: [value(34, 9)] })).toEqual(["ERR_TPM_AK_CHANGED"])
  expect(codes({ pcrs: { sha256: expectedBank({ 3: b, 5: b }) } })).toEqual(["ERR_BOOT_PCR"])
  expect(codes({ pcrs: { sha256: expectedBank({ 4: a }) } })).toEqual(["ERR_POLICY_PCRS"])
})
