import { describe, expect, test } from "bun:test"
import { z } from "zod"
import { asIfVerified } from "../../test/fakes/attestation.ts"
import { type VectorEntry, vector, vectorsUnder } from "../../test/fakes/vectors.ts"
import { toHex } from "../formats/hex.ts"
import { fileDigest, parseMeasurementList, pathBytes } from "../formats/ima/measurement-list.ts"
import { SNP_PRODUCTS, type SnpProduct } from "../formats/snp/tcb.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { appraiseByPolicy } from "./appraise-by-policy.ts"
import { parseCocosPolicy } from "./cocos-policy.ts"
import { encodeCocosPolicy } from "./encode-cocos.ts"
import { encodeTomlPolicy } from "./encode-toml.ts"
import { readPolicy } from "./read-policy.ts"
import { fileHashIndex, parseSnapshot } from "./snapshot.ts"
import { parseTomlPolicy } from "./toml-policy.ts"
import { type Claim, exitCodeOf } from "./verdict.ts"

const AT = new Date("2026-01-01T00:00:00Z")
const entries = vectorsUnder("policy")
const ofKind = (kind: string) => entries.filter((entry) => entry.kind === kind)

/** The folder of a report says which processor made it. */
function productOf(file: string): SnpProduct {
  const found = SNP_PRODUCTS.find((product) => file.includes(`/${product.toLowerCase()}-`))
  if (found === undefined) throw new Error(`no product in ${file}`)
  return found
}

function codesOf({ tee, tcb }: { tee: Claim; tcb: Claim }): string[] {
  return [tee, tcb].flatMap(({ findings, status }) =>
    status === "failed" ? findings.map(({ code }) => code) : [],
  )
}

const Case = z.object({ report: z.string(), policy: z.unknown(), expected: z.string() })

/** What a row of the cases names, as our codes. */
const REASONS: ReadonlyArray<readonly [RegExp, string]> = [
  [/measurement/, "ERR_TEE_MEASUREMENT"],
  [/vmpl/, "ERR_TEE_VMPL"],
  [/host_data/, "ERR_TEE_HOST_DATA"],
  [/TCB/, "ERR_TCB_BELOW"],
  [/debug/, "ERR_TEE_DEBUG"],
]

for (const { file } of ofKind("policy-cases"))
  describe(file, () => {
    const rows = z.array(Case).parse(JSON.parse(new TextDecoder().decode(vector(file))))
    for (const [index, row] of rows.entries())
      test(`row ${index}, ${row.report}: ${row.expected}`, async () => {
        const policy = parseCocosPolicy(new TextEncoder().encode(JSON.stringify(row.policy)))
        const claims = appraiseByPolicy(
          await asIfVerified(vector(row.report), productOf(row.report)),
          policy,
          AT,
        )
        const reason = REASONS.find(([pattern]) => pattern.test(row.expected))?.[1]
        if (row.expected.startsWith("policy satisfied")) {
          expect(codesOf(claims)).toEqual([])
          expect(exitCodeOf([claims.tee, claims.tcb])).toBe(0)
        } else expect(codesOf(claims)).toEqual([reason ?? "a reason that is not known"])
      })
  })

describe.skipIf(entries.length === 0)("Cocos' policies", () => {
  for (const entry of ofKind("policy-cocos")) {
    test(`${entry.file}: ${entry.expected}`, async () => {
      const policy = parseCocosPolicy(vector(entry.file), entry.file)
      const report = related(entry, "report")
      const quote = related(entry, "quote")
      if (report !== null) {
        const claims = appraiseByPolicy(await asIfVerified(vector(report), productOf("/milan-")), policy, AT)
        expect(codesOf(claims)).toEqual([])
      }
      if (quote !== null) {
        const { mrTd } = parseTdxQuote(vector(quote)).body
        expect(policy.tdx?.mrTds?.map(toHex)).toEqual([toHex(mrTd)])
      }
    })

    const unfilled = entry.file.endsWith("backend-info-b.json")
    test(`${entry.file}: ${unfilled ? "is not converted, as its values were never filled in" : "reads back from TOML and from JSON"}`, () => {
      const policy = parseCocosPolicy(vector(entry.file), entry.file)
      if (unfilled) {
        expect(() => encodeTomlPolicy(policy)).toThrowCode("ERR_POLICY")
        expect(() => encodeCocosPolicy(policy)).toThrowCode("ERR_POLICY")
        return
      }
      const expected = { ...policy, notes: [] }
      const toml = encodeTomlPolicy(policy, ["comment"])
      expect(parseTomlPolicy(toml, entry.file)).toEqual(expected)
      const json = new TextEncoder().encode(encodeCocosPolicy(policy))
      expect(parseCocosPolicy(json, entry.file)).toEqual(expected)
    })
  }

  test("a policy that was never filled in fits no report", async () => {
    const policy = parseCocosPolicy(vector("policy/cocos-backend-info-b.json"))
    const report = vector("snp/milan-v2-cocos-novcek-a/report.bin")
    const claims = appraiseByPolicy(await asIfVerified(report, "Milan"), policy, AT)
    expect(codesOf(claims)).toContain("ERR_TEE_MEASUREMENT")
    expect(policy.notes.join()).toContain("measurement was never filled in")
  })
})

describe.skipIf(entries.length === 0)("snapshots as policies", () => {
  for (const entry of ofKind("policy-snapshot"))
    test(`${entry.file}: ${entry.expected}`, async () => {
      const { format, policy } = readPolicy(vector(entry.file), entry.file)
      expect(format).toBe("snapshot")
      const [report, log] = [related(entry, "report"), related(entry, "log")]
      if (report === null || log === null) return
      const claims = appraiseByPolicy(await asIfVerified(vector(report), productOf(report)), policy, AT)
      expect(codesOf(claims)).toEqual([])
      const known = fileHashIndex(parseSnapshot(vector(entry.file)))
      const list = parseMeasurementList(vector(log))
      const unknown = Array.from({ length: list.count }, (_, index) => index).filter((index) => {
        const digest = toHex(fileDigest(list, index))
        return !known.digestsOf(pathBytes(list, index), 100).includes(digest)
      })
      expect({ entries: list.count > 100, unknown }).toEqual({ entries: true, unknown: [] })
    })
})

function related({ related: others }: VectorEntry, name: string): string | null {
  const file = others?.[name]
  return typeof file === "string" ? file : null
}
