import { describe, expect, test } from "bun:test"
import { fakeHclReport } from "../../test/fakes/azure.ts"
import { ANCHOR, type Change, fakeCollateral, LEVEL } from "../../test/fakes/intel.ts"
import { bundle } from "../../test/fakes/intel-vectors.ts"
import {
  azureSnpMachine,
  azureTdxMachine,
  boundQuote,
  claimsOf,
  evidenceOf,
  judged,
  type Machine,
  NONCE,
  outcomeOf,
  snapshotOf,
  snpMachine,
  TLS_KEY,
  tdxMachine,
  withQuote,
} from "../../test/fakes/machines.ts"
import { fakeChip } from "../../test/fakes/snp.ts"
import { makeSoftwareAk } from "../../test/fakes/software-ak.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { AMD_ANCHORS } from "../endorsements/amd-roots.ts"
import { INTEL_ANCHORS } from "../endorsements/intel-roots.ts"
import { EndorsementError, EXIT } from "../errors.ts"
import { committedBytes, type Evidence, evidenceReportData, type TeeEvidence } from "../formats/evidence.ts"
import { tpmName } from "../formats/tpm/public.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "./snapshot.ts"
import { serviceTdFindings } from "./tdx.ts"
import type { Check } from "./verdict.ts"
import type { JudgeInput } from "./verify-vm.ts"

const chip = await fakeChip()
const MACHINES: Readonly<Record<TeeEvidence["kind"], Machine>> = {
  "sev-snp": snpMachine(chip),
  tdx: tdxMachine(),
  "azure-snp": azureSnpMachine(chip),
  "azure-tdx": azureTdxMachine(),
}
const KINDS = ["sev-snp", "tdx", "azure-snp", "azure-tdx"] as const

const snapshots = new Map<string, Snapshot>()
for (const kind of KINDS) snapshots.set(kind, snapshotOf(await judged(evidenceOf(MACHINES[kind]), chip)))

function reference(kind: TeeEvidence["kind"]): Snapshot {
  const snapshot = snapshots.get(kind)
  if (snapshot === undefined) throw new Error("no snapshot")
  return snapshot
}

/** Honest evidence, changed, against the snapshot of its machine. */
async function attacked(
  kind: TeeEvidence["kind"],
  change: (honest: Evidence, machine: Machine) => Evidence = (honest) => honest,
  input: Partial<JudgeInput> = {},
) {
  const machine = MACHINES[kind]
  const evidence = change(evidenceOf(machine), machine)
  return outcomeOf(await judged(evidence, chip, { reference: reference(kind), ...input }))
}

const label = (kind: string) => (kind.startsWith("azure") ? "tpm-inside-tee" : "tpm-by-host")

describe.each(KINDS)("%s", (kind) => {
  test("the unchanged twin verifies, and its snapshot reads back", async () => {
    expect(await attacked(kind)).toEqual({ exit: EXIT.ok, label: label(kind), failed: {} })
    const text = encodeSnapshot(reference(kind))
    expect(parseSnapshot(Buffer.from(text))).toEqual(reference(kind))
  })

  test("C1, C4: evidence for another nonce", async () => {
    const { exit, failed } = await attacked(kind, (_, machine) => evidenceOf(machine, new Uint8Array(32)))
    const code = kind.startsWith("azure") ? "ERR_AZURE_USER_DATA" : "ERR_BINDING_REPORT_DATA"
    expect<unknown>([exit, failed]).toEqual([
      EXIT.binding,
      { binding: [code], tpm: ["ERR_TPM_QUALIFYING_DATA"], ...afterTpm },
    ])
  })

  test("C2: evidence for another TLS key", async () => {
    const { exit } = await attacked(kind, (_, machine) =>
      evidenceOf(machine, NONCE, new Uint8Array(91).fill(3)),
    )
    expect(exit).toBe(EXIT.binding)
  })

  test("C3: quote of another VM's TPM, which commits to this TEE part", async () => {
    const other = makeSoftwareAk("rsassa")
    const { exit, failed } = await attacked(kind, ({ tee }) => {
      if (tee === null) throw new Error("no TEE part")
      return withQuote(other, tee)
    })
    expect(exit).toBe(EXIT.binding)
    expect(failed["tpm"]).toEqual([kind.startsWith("azure") ? "ERR_AZURE_AK" : "ERR_TPM_AK_CHANGED"])
  })

  test("M1: a key made by root, to which the TEE part commits", async () => {
    const { exit, failed } = await attacked(kind, (_, machine) => {
      const ak = makeSoftwareAk("rsassa")
      return withQuote(ak, machine.tee(evidenceReportData(NONCE, TLS_KEY, tpmName(ak.publicArea))))
    })
    // Where a paravisor names the key, the other one is found out already by that.
    const azure = kind.startsWith("azure")
    expect(exit).toBe(azure ? EXIT.binding : EXIT.tpm)
    expect(failed["tpm"]).toEqual([azure ? "ERR_AZURE_AK" : "ERR_TPM_AK_CHANGED"])
  })

  test("each byte of the quote's commitment counts", async () => {
    const { failed } = await attacked(kind, (honest, machine) => ({
      ...honest,
      tpm: evidenceOf(machine, new Uint8Array(32)).tpm,
    }))
    expect(failed["tpm"]).toEqual(["ERR_TPM_QUALIFYING_DATA"])
  })

  for (const other of KINDS)
    if (other !== kind)
      test(`evidence of kind ${other} does not pass for it`, async () => {
        const evidence = evidenceOf(MACHINES[other])
        const verdict = await judged(evidence, chip, { reference: reference(kind) })
        expect(outcomeOf(verdict).exit).toBe(EXIT.tee)
      })

  test("any bit of the TEE part that was changed is found out, and nothing falls over", async () => {
    const honest = evidenceOf(MACHINES[kind])
    const tee = partOf(honest)
    const bytes = committedBytes(tee)
    for (let at = 0; at < bytes.length; at += 13) {
      const changed = Uint8Array.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      const input = { reference: reference(kind) }
      const { exit, failed } = outcomeOf(
        await judged({ ...honest, tee: withBytes(tee, changed) }, chip, input),
      )
      expect(exit).toBeGreaterThan(EXIT.usage)
      expect(Object.values(failed).flat()).not.toContain("ERR_INTERNAL")
    }
  })

  test("every truncation is refused", async () => {
    const honest = evidenceOf(MACHINES[kind])
    const tee = partOf(honest)
    const bytes = committedBytes(tee)
    for (let length = 0; length < bytes.length; length += 29) {
      const cut = withQuote(MACHINES[kind].ak, withBytes(tee, bytes.subarray(0, length)))
      const { exit, failed } = outcomeOf(await judged(cut, chip, { reference: reference(kind) }))
      // An HCL report may be longer than what is in it: zeros that go missing there are nothing.
      if (exit !== EXIT.ok) expect([exit, failed["tee"]?.length]).toEqual([EXIT.tee, 1])
      else expect(bytes.subarray(length).every((byte) => byte === 0)).toBeTrue()
    }
  })

  test("no TEE part, and one that cannot be read, fail every check of it", async () => {
    const { failed } = await attacked(kind, (honest) => ({ ...honest, tee: null }))
    expect(failed).toMatchObject({
      tee: ["ERR_TEE_ABSENT"],
      revocation: ["ERR_NOT_JUDGED"],
      tcb: ["ERR_NOT_JUDGED"],
      binding: ["ERR_NOT_JUDGED"],
    })
    const cut = await attacked(kind, (honest) => ({ ...honest, tee: shortened(honest.tee) }))
    expect(cut.exit).toBe(EXIT.tee)
    expect(Object.keys(cut.failed)).toEqual(expect.arrayContaining(["tee", "revocation", "tcb", "binding"]))
  })
})

const afterTpm = { reboot: ["ERR_NOT_JUDGED"], boot: ["ERR_NOT_JUDGED"] }

function partOf({ tee }: Evidence): TeeEvidence {
  if (tee === null) throw new Error("no TEE part")
  return tee
}

function withBytes(tee: TeeEvidence, bytes: Uint8Array): TeeEvidence {
  if (tee.kind === "sev-snp") return { ...tee, report: bytes }
  return tee.kind === "tdx" ? { ...tee, quote: bytes } : { ...tee, hcl: bytes }
}

function shortened(tee: TeeEvidence | null): TeeEvidence {
  switch (tee?.kind) {
    case "sev-snp":
      return { ...tee, report: tee.report.subarray(1) }
    case "tdx":
      return { ...tee, quote: tee.quote.subarray(0, -1) }
    case "azure-snp":
    case "azure-tdx":
      return { ...tee, hcl: tee.hcl.subarray(0, 1000) }
    default:
      throw new Error("no TEE part")
  }
}

describe("TDX", () => {
  const other = new Uint8Array(48).fill(9)
  const changed = (change: Change) =>
    attacked("tdx", (honest, { ak }) => {
      const reportData = evidenceReportData(NONCE, TLS_KEY, tpmName(ak.publicArea))
      return honest.tee === null
        ? honest
        : withQuote(ak, { kind: "tdx", quote: boundQuote(reportData, change) })
    })

  test.each<[string, Change, readonly string[]]>([
    [
      "debugging allowed",
      { body: { tdAttributes: (1n << 28n) | 1n } },
      ["ERR_TEE_DEBUG", "ERR_TDX_ATTRIBUTES"],
    ],
    ["other attributes", { body: { tdAttributes: 1n << 29n } }, ["ERR_TDX_ATTRIBUTES"]],
    ["MRTD", { body: { mrTd: other } }, ["ERR_TEE_MEASUREMENT"]],
    ["another module", { body: { mrSeam: other } }, ["ERR_TDX_SEAM"]],
    ["xfam", { body: { xfam: 3n } }, ["ERR_TDX_XFAM"]],
    ["RTMR0", { body: { rtmr0: other } }, ["ERR_TDX_RTMR"]],
    ["RTMR1", { body: { rtmr1: other } }, ["ERR_TDX_RTMR"]],
    ["RTMR2", { body: { rtmr2: other } }, ["ERR_TDX_RTMR"]],
    [
      "all at once",
      { body: { mrTd: other, mrConfigId: other, mrOwner: other, mrOwnerConfig: other, rtmr2: other } },
      [
        "ERR_TEE_MEASUREMENT",
        "ERR_TDX_CONFIGURATION",
        "ERR_TDX_CONFIGURATION",
        "ERR_TDX_CONFIGURATION",
        "ERR_TDX_RTMR",
      ],
    ],
  ])("T10: %s", async (_, change, codes) => {
    expect<unknown>(await changed(change)).toEqual({
      exit: EXIT.tee,
      label: "unproven",
      failed: { tee: [...codes] },
    })
  })

  test("RTMR3 is for the software of the TD to write to", async () => {
    expect((await changed({ body: { rtmr3: other } })).exit).toBe(EXIT.ok)
  })

  test("T9: one bit of body, QE report or signature", async () => {
    for (const at of [50, 200, 600, 640, 800, 1200])
      expect(
        await attacked("tdx", (honest, { ak }) => {
          if (honest.tee?.kind !== "tdx") throw new Error("no quote")
          const quote = Uint8Array.from(honest.tee.quote)
          quote[at] = (quote[at] ?? 0) ^ 1
          return withQuote(ak, { kind: "tdx", quote })
        }),
      ).toMatchObject({ exit: EXIT.tee })
  })

  const documents = (change: Change, skip: readonly Check[] = []) => {
    const skips = new Set<Check>(["ima", ...skip])
    return judged(evidenceOf(MACHINES.tdx), chip, {
      reference: reference("tdx"),
      skip: skips,
      intel: { anchors: [ANCHOR], collateral: fakeCollateral(change), problems: [] },
    })
  }

  test("T10: without Intel's documents both checks that need them fail, and tell why", async () => {
    const problem = new EndorsementError("ERR_COLLATERAL_OFFLINE", { at: "TCB info" })
    const judgement = await judged(evidenceOf(MACHINES.tdx), chip, {
      reference: reference("tdx"),
      intel: { anchors: [ANCHOR], collateral: null, problems: [problem] },
    })
    const { exit, failed } = outcomeOf(judgement)
    expect(exit).toBe(EXIT.tee)
    expect<unknown>(failed).toEqual({
      revocation: ["ERR_REVOCATION_NOT_CHECKED"],
      tcb: ["ERR_COLLATERAL_MISSING"],
    })
    const { claims } = judgement.verdict
    expect(claims.find(({ check }) => check === "tcb")?.findings[0]?.found).toContain("TCB info")
  })

  test("T10: a TCB status that is not UpToDate is a failure of the TCB, and skipped by name only", async () => {
    const level = { tcbInfo: { tcbLevels: [{ ...LEVEL, tcbStatus: "OutOfDate" }] } }
    const { exit, failed } = outcomeOf(await documents(level))
    expect<unknown>([exit, failed]).toEqual([EXIT.tcb, { tcb: ["ERR_TCB_STATUS"] }])
    const { verdict } = await documents(level, ["tcb"])
    expect(verdict).toMatchObject({ passed: true, skipped: ["tcb", "ima"] })
    expect(verdict.claims.find(({ check }) => check === "tcb")?.summary).toContain("would have failed")
  })

  test("T4: a revocation list kept back fails revocation alone", async () => {
    const { exit, failed } = outcomeOf(await documents({ collateral: { pckCrl: null } }))
    expect<unknown>([exit, failed]).toEqual([EXIT.tee, { revocation: ["ERR_REVOCATION_NOT_CHECKED"] }])
    expect((await documents({ collateral: { pckCrl: null } }, ["revocation"])).verdict.passed).toBeTrue()
  })

  test("service TDs: others than the snapshot's, and ones that a quote no longer shows", () => {
    const bound = (mr_service_td: string | undefined): Snapshot => {
      const { tee_reference, ...rest } = reference("tdx")
      if (tee_reference === null || !("rtmr0" in tee_reference)) throw new Error("not TDX")
      const member = mr_service_td === undefined ? {} : { mr_service_td }
      return parseSnapshot(
        Buffer.from(encodeSnapshot({ ...rest, tee_reference: { ...tee_reference, ...member } })),
      )
    }
    const codes = (found: Uint8Array | null, expected?: string) =>
      serviceTdFindings(found, bound(expected)).map(({ code }) => code)
    const [none, one, two] = [0, 1, 2].map((byte) => new Uint8Array(48).fill(byte))
    if (none === undefined || one === undefined || two === undefined) throw new Error("no values")
    const fails = ["ERR_TDX_CONFIGURATION"] as const
    expect(codes(null)).toEqual([])
    expect(codes(none)).toEqual([])
    expect(codes(one)).toEqual([...fails])
    expect(codes(one, "01".repeat(48))).toEqual([])
    expect(codes(two, "01".repeat(48))).toEqual([...fails])
    expect(codes(null, "01".repeat(48))).toEqual([...fails])
    expect(codes(null, "00".repeat(48))).toEqual([...fails])
  })

  test("a snapshot that leaves values out turns no check off", async () => {
    const { tee_policy, ...rest } = reference("tdx")
    if (tee_policy === null || !("Tdx" in tee_policy)) throw new Error("not TDX")
    const { header, body } = tee_policy.Tdx
    for (const name of [
      "mr_td",
      "mr_seam",
      "td_attributes",
      "xfam",
      "mr_config_id",
      "mr_owner",
      "mr_owner_config",
    ]) {
      const policy = { Tdx: { header, body: { ...body, [name]: null } } }
      const { failed } = await attacked("tdx", undefined, { reference: { ...rest, tee_policy: policy } })
      expect(failed["tee"]).toContain("ERR_TEE_REFERENCE")
    }
    const floors = {
      Tdx: {
        header: { ...header, minimum_qe_svn: null, minimum_pce_svn: null },
        body: { ...body, minimum_tee_tcb_svn: null },
      },
    }
    const { failed } = await attacked("tdx", undefined, { reference: { ...rest, tee_policy: floors } })
    expect<unknown>(failed).toEqual({ tcb: Array(3).fill("ERR_TCB_REFERENCE") })
    const none = await attacked("tdx", undefined, { reference: { ...rest, tee_policy, tee_reference: null } })
    expect(none.failed).toEqual({ tee: ["ERR_TEE_REFERENCE"] })
  })
})

describe("Azure", () => {
  test("T11: claims changed after the hardware vouched for them", async () => {
    for (const kind of ["azure-snp", "azure-tdx"] as const) {
      const { exit, failed } = await attacked(kind, ({ tee }, { ak }) => {
        if (tee === null || !("hcl" in tee)) throw new Error("no HCL report")
        const hcl = Uint8Array.from(tee.hcl)
        const at = Buffer.from(hcl).indexOf("A-GUID")
        hcl[at] = 0x42
        return withQuote(ak, { ...tee, hcl })
      })
      expect<unknown>([exit, failed]).toEqual([EXIT.binding, { binding: ["ERR_AZURE_RUNTIME_DATA"] }])
    }
  })

  test("T11: the kind says SEV-SNP where the HCL report holds TDX, and the reverse", async () => {
    const swapped = await attacked("azure-snp", (_, { ak }) => {
      const tdx = evidenceOf(MACHINES["azure-tdx"]).tee
      if (tdx?.kind !== "azure-tdx") throw new Error("no HCL report")
      return withQuote(ak, { kind: "azure-snp", hcl: tdx.hcl, certificates: chip.certificates })
    })
    expect(swapped.failed["tee"]).toEqual(["ERR_AZURE_HARDWARE_REPORT"])
    const reverse = await attacked("azure-tdx", ({ tee }, { ak }) => {
      const snp = evidenceOf(MACHINES["azure-snp"]).tee
      if (snp?.kind !== "azure-snp" || tee?.kind !== "azure-tdx") throw new Error("no HCL report")
      return withQuote(ak, { ...tee, hcl: snp.hcl })
    })
    expect(reverse.failed["tee"]).toEqual(["ERR_AZURE_HARDWARE_REPORT"])
  })

  test("T11: a TDX quote over another TDREPORT", async () => {
    const { exit, failed } = await attacked("azure-tdx", ({ tee }, { ak }) => {
      if (tee?.kind !== "azure-tdx") throw new Error("no HCL report")
      return withQuote(ak, { ...tee, quote: boundQuote(new Uint8Array(64)) })
    })
    expect<unknown>([exit, failed]).toEqual([EXIT.binding, { binding: ["ERR_AZURE_HARDWARE_REPORT"] }])
  })

  test("T11: claims that the VM itself asked the hardware for, from below the paravisor", async () => {
    const { failed } = await attacked("azure-snp", (_, { ak }) => {
      const userData = evidenceReportData(NONCE, TLS_KEY, tpmName(ak.publicArea))
      const hcl = fakeHclReport(chip, claimsOf(ak, userData), { vmpl: 2 })
      return withQuote(ak, { kind: "azure-snp", hcl, certificates: chip.certificates })
    })
    expect<unknown>(failed).toEqual({ tee: ["ERR_TEE_VMPL"], binding: ["ERR_TEE_VMPL"] })
  })

  test("a VM without paravisor that writes claims of its own does not pass for one of its snapshot", async () => {
    const plain = reference("sev-snp")
    const judgement = await judged(evidenceOf(MACHINES["azure-snp"]), chip, {
      reference: { ...plain, tpm_reference: reference("azure-snp").tpm_reference },
    })
    expect(outcomeOf(judgement)).toEqual({
      exit: EXIT.tee,
      label: "unproven",
      failed: { tee: ["ERR_TEE_REFERENCE"] },
    })
  })

  test("a snapshot of the predecessor says by its cloud whether there was a paravisor", async () => {
    const old = (cloud_type: Snapshot["cloud_type"]): Snapshot => ({
      ...reference("azure-snp"),
      format: 1,
      cloud_type,
      tee_reference: null,
    })
    const tee = async (cloud: Snapshot["cloud_type"]) =>
      (await attacked("azure-snp", undefined, { reference: old(cloud) })).failed["tee"]
    expect(await tee("Azure")).toBeUndefined()
    expect(await tee("AWS")).toEqual(["ERR_TEE_REFERENCE"])
  })
})

describe.skipIf(!HAVE_VECTORS)("real evidence, made for other requests", () => {
  const at = (text: string) => ({ at: new Date(text), anchors: AMD_ANCHORS, crl: null })
  const intel = (file: string) => ({ anchors: INTEL_ANCHORS, collateral: bundle(file), problems: [] })
  const ofTee = (tee: TeeEvidence): Evidence => withQuote(makeSoftwareAk("rsassa"), tee)

  test("a TDX quote is proven, and fails for its report data alone", async () => {
    const tee: TeeEvidence = { kind: "tdx", quote: vector("tdx/v4-phala-uptodate/quote.bin") }
    const input = {
      ...at("2025-07-04T10:16:31Z"),
      intel: intel("tdx/v4-phala-uptodate/collateral-202506.json"),
    }
    const judgement = await judged(ofTee(tee), chip, input)
    expect(outcomeOf(judgement)).toEqual({
      exit: EXIT.binding,
      label: "unproven",
      failed: { binding: ["ERR_BINDING_REPORT_DATA"] },
    })
    const again = outcomeOf(await judged(ofTee(tee), chip, { ...input, reference: snapshotOf(judgement) }))
    expect(again.failed).toEqual({ binding: ["ERR_BINDING_REPORT_DATA"], tpm: ["ERR_TPM_AK_CHANGED"] })
    const late = outcomeOf(await judged(ofTee(tee), chip, { ...input, at: new Date("2026-07-04T00:00:00Z") }))
    expect(late.failed["tcb"]).toEqual(["ERR_COLLATERAL_EXPIRED"])
  })

  test("an Azure SEV-SNP report is proven, and its claims were made for nobody", async () => {
    const folder = "azure-snp/trustee-v2-milan"
    const tee: TeeEvidence = {
      kind: "azure-snp",
      hcl: vector(`${folder}/hcl-report.bin`),
      certificates: [vector(`${folder}/vcek.der`), vector("trust/amd/ask-milan.der")],
    }
    const { exit, failed } = outcomeOf(await judged(ofTee(tee), chip, at("2025-10-01T00:00:00Z")))
    expect(exit).toBe(EXIT.tee)
    expect<unknown>(failed).toEqual({
      revocation: ["ERR_REVOCATION_NOT_CHECKED"],
      binding: ["ERR_AZURE_USER_DATA"],
      tpm: ["ERR_AZURE_AK"],
      ...afterTpm,
    })
  })

  test("an Azure TDX quote of a platform that is out of date", async () => {
    const tee: TeeEvidence = {
      kind: "azure-tdx",
      hcl: vector("azure-tdx/trustee-v1/hcl-report.bin"),
      quote: vector("azure-tdx/trustee-v1/td-quote.bin"),
    }
    const input = {
      ...at("2025-07-20T00:00:00Z"),
      intel: intel("tdx/v4-gcp-automata/collateral-202507-outofdate.json"),
    }
    const { failed } = outcomeOf(await judged(ofTee(tee), chip, input))
    expect(failed).toMatchObject({ tcb: ["ERR_TCB_STATUS"], binding: ["ERR_AZURE_USER_DATA"] })
    expect(failed["tee"]).toBeUndefined()
  })
})
