/** ATTACKS: honest evidence, one thing changed, judged by failure code and exit code. The unchanged twin verifies. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { generateKeyPairSync, randomBytes, sign } from "node:crypto"
import { appendFileSync, copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { withVerified } from "../../src/commands/snapshot.ts"
import { AMD_ANCHORS } from "../../src/endorsements/amd-roots.ts"
import { EXIT } from "../../src/errors.ts"
import { EVIDENCE_PCRS, type Evidence, evidenceQualifyingData } from "../../src/formats/evidence.ts"
import { parseMeasurementList } from "../../src/formats/ima/measurement-list.ts"
import { SNP_SIGNED_SIZE } from "../../src/formats/snp/report.ts"
import { ALG } from "../../src/formats/tpm/algorithms.ts"
import { encodeAttest, parseAttest } from "../../src/formats/tpm/attest.ts"
import { selectPcrs } from "../../src/formats/tpm/pcr-selection.ts"
import { encodePublic, OBJECT, parsePublic } from "../../src/formats/tpm/public.ts"
import { encodeSignature, type TpmSignature } from "../../src/formats/tpm/signature.ts"
import { parseCrl } from "../../src/formats/x509/crl.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "../../src/policy/snapshot.ts"
import { parseTomlPolicy } from "../../src/policy/toml-policy.ts"
import { parseWhitelist } from "../../src/policy/whitelist.ts"
import { emptyTdxPolicy } from "../fakes/snapshots.ts"
import { makeSoftwareAk, type SoftwareAk } from "../fakes/software-ak.ts"
import { Lab, newTlsKey, outcome, sha256 } from "./lab.ts"

let lab: Lab
let other: Lab
let reference: Snapshot
let files: string

beforeAll(async () => {
  files = mkdtempSync(join(tmpdir(), "cosmian-vm-files-"))
  lab = await Lab.open()
  other = await Lab.open()
  await lab.exec("/usr/bin/ls")
  await other.exec("/usr/bin/ls")
  reference = await lab.snapshot()
}, 60_000)

afterAll(async () => {
  await lab.close()
  await other.close()
  rmSync(files, { recursive: true, force: true })
})

/** Evidence for a fresh nonce, changed, judged against the snapshot. */
async function attacked(change: (honest: Evidence, nonce: Uint8Array) => Evidence | Promise<Evidence>) {
  const nonce = randomBytes(32)
  const changed = await change(await lab.evidence(nonce), nonce)
  return outcome(lab.judge(changed, nonce, { reference }))
}

function tpmOf(evidence: Evidence) {
  if (evidence.tpm === null) throw new Error("no TPM part")
  return evidence.tpm
}

function teeOf(evidence: Evidence) {
  if (evidence.tee?.kind !== "sev-snp") throw new Error("no TEE part")
  return evidence.tee
}

/** Whether this is the revocation list among the certificates. */
function isList(der: Uint8Array): boolean {
  try {
    return parseCrl(der).der.length > 0
  } catch {
    return false
  }
}

function listOf(evidence: Evidence): Uint8Array {
  if (evidence.ima === null) throw new Error("no IMA part")
  return evidence.ima.list
}

function withList(evidence: Evidence, list: Uint8Array): Evidence {
  return { ...evidence, ima: { from: 0, list } }
}

test("the unchanged twin verifies", async () => {
  expect(await attacked((honest) => honest)).toEqual({ exit: EXIT.ok, codes: [] })
})

describe("channel and relay", () => {
  test("C1: a proxy asks the honest agent with a nonce of its own", async () => {
    const result = await attacked(() => lab.evidence(randomBytes(32)))
    expect(result.exit).toBe(EXIT.binding)
    expect(result.codes).toContain("ERR_BINDING_REPORT_DATA")
  })

  test("C2: a proxy ends TLS with its own key and passes the verifier's nonce on", async () => {
    const nonce = randomBytes(32)
    const evidence = await lab.evidence(nonce)
    const channel = { spki: newTlsKey(), authorized: true, reason: null, insecureAllowed: false }
    const result = outcome(lab.judge(evidence, nonce, { reference, channel }))
    expect(result.exit).toBe(EXIT.binding)
    expect(result.codes).toContain("ERR_BINDING_REPORT_DATA")
    expect(result.codes).toContain("ERR_TPM_QUALIFYING_DATA")
  })

  test("C3: TPM quote and list of another VM", async () => {
    const result = await attacked(async (honest, nonce) => {
      const theirs = await other.evidence(nonce, lab.spki)
      return { ...honest, tpm: theirs.tpm, ima: theirs.ima }
    })
    expect(result.exit).toBe(EXIT.binding)
  })

  test("C3: both VMs work together, so that report and quote fit", async () => {
    const result = await attacked(async (honest, nonce) => {
      const theirs = await other.evidence(nonce, lab.spki)
      const bound = await lab.evidenceWithKey(nonce, tpmOf(theirs).akPublic, () => tpmOf(theirs))
      const quote = await other.quote(
        EVIDENCE_PCRS,
        evidenceQualifyingData(nonce, lab.spki, teeOf(bound).report),
      )
      return { ...honest, tee: bound.tee, tpm: { ...tpmOf(theirs), ...quote }, ima: theirs.ima }
    })
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes).toContain("ERR_TPM_AK_CHANGED")
  })

  test("C4: evidence of an earlier verification", async () => {
    const old = await lab.evidence(randomBytes(32))
    const result = await attacked(() => old)
    expect(result.exit).toBe(EXIT.binding)
    expect(result.codes).toContain("ERR_TPM_QUALIFYING_DATA")
  })

  test("C4: evidence for a nonce of zeros", async () => {
    expect((await attacked(() => lab.evidence(new Uint8Array(32)))).exit).toBe(EXIT.binding)
  })

  test("C5: an application with another key, one that does not answer, and the VM's own", async () => {
    const nonce = randomBytes(32)
    const evidence = await lab.evidence(nonce)
    const judged = (spki: Uint8Array | null) =>
      outcome(
        lab.judge(evidence, nonce, { reference, applications: [{ target: "app:443", spki, failure: null }] }),
      )
    expect(judged(newTlsKey())).toEqual({ exit: EXIT.application, codes: ["ERR_APPLICATION_KEY"] })
    expect(judged(null)).toEqual({ exit: EXIT.application, codes: ["ERR_APPLICATION_UNREACHABLE"] })
    expect(judged(lab.spki)).toEqual({ exit: EXIT.ok, codes: [] })
  })

  test("C6: the agent's certificate is renewed after the connection was made", async () => {
    const result = await attacked((_, nonce) => lab.evidence(nonce, newTlsKey()))
    expect(result.exit).toBe(EXIT.binding)
  })
})

describe("TEE", () => {
  test("T1: a chain that signs itself, where only AMD's roots are trusted", async () => {
    const nonce = randomBytes(32)
    const result = outcome(lab.judge(await lab.evidence(nonce), nonce, { reference, anchors: AMD_ANCHORS }))
    expect(result.exit).toBe(EXIT.tee)
  })

  test("T1: another simulated root with the same names", async () => {
    const nonce = randomBytes(32)
    const evidence = await other.evidence(nonce, lab.spki)
    expect(outcome(lab.judge(evidence, nonce, { reference })).exit).toBe(EXIT.tee)
  })

  test("T2: one bit in each byte of the signed part", async () => {
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    const exits = new Set<number>()
    for (let at = 0; at < SNP_SIGNED_SIZE; at++) {
      const report = Uint8Array.from(teeOf(honest).report)
      report[at] = (report[at] ?? 0) ^ (1 << (at % 8))
      exits.add(
        outcome(lab.judge({ ...honest, tee: { ...teeOf(honest), report } }, nonce, { reference })).exit,
      )
    }
    expect([...exits]).toEqual([EXIT.tee])
  }, 30_000)

  test("T4: the revocation list is kept back, altered, or another root's", async () => {
    const foreign = teeOf(await other.evidence(randomBytes(32))).certificates.find(isList)
    const withList = (change: (list: Uint8Array) => readonly Uint8Array[]) =>
      attacked((honest) => {
        const certificates = teeOf(honest).certificates.flatMap((der) => (isList(der) ? change(der) : [der]))
        return { ...honest, tee: { ...teeOf(honest), certificates } }
      })
    const altered = (list: Uint8Array) => {
      const changed = list.slice()
      changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1
      return [changed]
    }
    expect((await withList((list) => [list])).exit).toBe(EXIT.ok)
    expect(await withList(() => [])).toEqual({ exit: EXIT.tee, codes: ["ERR_REVOCATION_NOT_CHECKED"] })
    expect(await withList(altered)).toEqual({ exit: EXIT.tee, codes: ["ERR_CRL_SIGNATURE"] })
    expect(await withList(() => (foreign === undefined ? [] : [foreign]))).toEqual({
      exit: EXIT.tee,
      codes: ["ERR_CRL_SIGNATURE"],
    })
  })

  test.each([
    ["T5: debug allowed", { policy: 0x30000n | (1n << 19n) }, EXIT.tee],
    ["T5: migration agent", { policy: 0x30000n | (1n << 18n) }, EXIT.tee],
    ["T5: VMPL 1", { vmpl: 1 }, EXIT.tee],
    ["T5: single-socket bit differs", { policy: 0x30000n | (1n << 20n) }, EXIT.tee],
    ["T7: measurement differs", { measurement: new Uint8Array(48).fill(7) }, EXIT.tee],
    ["T7: host data differs", { hostData: new Uint8Array(32).fill(7) }, EXIT.tee],
    [
      "T6: committed TCB lower in one component, higher in another",
      { committedTcb: Uint8Array.of(5, 0, 0, 0, 0, 0, 23, 219) },
      EXIT.tcb,
    ],
    ["T6: launch TCB lower", { launchTcb: Uint8Array.of(3, 0, 0, 0, 0, 0, 24, 219) }, EXIT.tcb],
  ] as const)("%s", async (_, overrides, exit) => {
    const result = await attacked((honest) => {
      const { reportData } = { reportData: teeOf(honest).report.slice(0x50, 0x90) }
      return { ...honest, tee: { ...teeOf(honest), report: lab.report(reportData, overrides) } }
    })
    expect(result.exit).toBe(exit)
  })

  test("T12: a report version that is not known", async () => {
    const result = await attacked((honest) => {
      const report = Uint8Array.from(teeOf(honest).report)
      report[0] = 99
      return { ...honest, tee: { ...teeOf(honest), report } }
    })
    expect(result.exit).toBe(EXIT.tee)
  })

  test("no TEE part at all", async () => {
    const result = await attacked((honest) => ({ ...honest, tee: null }))
    expect(result.exit).toBe(EXIT.tee)
    expect(result.codes).toContain("ERR_TEE_ABSENT")
  })
})

describe("TPM", () => {
  /** A key outside any TPM, and quotes by it that say what the honest one says. */
  function softwareKey(attributes: (honest: number) => number) {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
    const jwk = publicKey.export({ format: "jwk" })
    const coordinate = (text: string | undefined) => new Uint8Array(Buffer.from(text ?? "", "base64url"))
    const publicArea = (honest: Uint8Array) => {
      const area = parsePublic(honest)
      if (area.type !== "ecc") throw new Error("the lab's AK is ECC")
      return encodePublic({
        ...area,
        objectAttributes: attributes(area.objectAttributes),
        x: coordinate(jwk.x),
        y: coordinate(jwk.y),
      })
    }
    const signed = (attest: Uint8Array) => {
      const raw = sign("sha256", attest, { key: privateKey, dsaEncoding: "ieee-p1363" })
      const signature = encodeSignature({
        scheme: "ecdsa",
        hash: ALG.sha256,
        r: new Uint8Array(raw.subarray(0, 32)),
        s: new Uint8Array(raw.subarray(32)),
      })
      return { quote: attest, signature }
    }
    return { publicArea, signed }
  }

  test("M1: an AK made by root outside the TPM, everything else honest", async () => {
    const key = softwareKey((honest) => honest)
    const result = await attacked((honest, nonce) =>
      lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) =>
        key.signed(encodeAttest({ ...parseAttest(tpmOf(honest).quote), extraData })),
      ),
    )
    expect(result).toEqual({ exit: EXIT.tpm, codes: ["ERR_TPM_AK_CHANGED"] })
  })

  test("M7: an AK that is not restricted", async () => {
    const key = softwareKey((honest) => honest & ~OBJECT.restricted)
    const result = await attacked((honest, nonce) =>
      lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) =>
        key.signed(encodeAttest({ ...parseAttest(tpmOf(honest).quote), extraData })),
      ),
    )
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes).toContain("ERR_TPM_AK_ATTRIBUTES")
  })

  test("M1: the same when the snapshot is taken: the verdict says that nothing proves the key, and --tpm-ca refuses it", async () => {
    const key = softwareKey((honest) => honest)
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    const forged = await lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) =>
      key.signed(encodeAttest({ ...parseAttest(tpmOf(honest).quote), extraData })),
    )
    const unasked = lab.judge(forged, nonce, { reference: null })
    expect(unasked.verdict).toMatchObject({ passed: true, assurance: { akProvenBy: "tee-report" } })
    expect(unasked.verdict.claims.find(({ check }) => check === "ak")?.status).toBe("warning")
    // Root has the genuine TPM at hand, and asks it for help.
    const tpmAuthorities = lab.tpmAuthorities()
    const judged = async (evidence: Evidence) => {
      const credential = await lab.credential(tpmOf(evidence))
      return outcome(lab.judge(evidence, nonce, { reference: null, tpmAuthorities, credential }))
    }
    expect(await judged(honest)).toEqual({ exit: EXIT.ok, codes: [] })
    expect(await judged(forged)).toEqual({ exit: EXIT.tpm, codes: ["ERR_TPM_COMMAND"] })
    const stranger = { ...tpmOf(honest), ekCertificate: tpmOf(await other.evidence(nonce)).ekCertificate }
    expect(await judged({ ...honest, tpm: stranger })).toEqual({
      exit: EXIT.tpm,
      codes: ["ERR_CERT_UNTRUSTED"],
    })
    expect(await judged({ ...honest, tpm: { ...tpmOf(honest), ekCertificate: null } })).toEqual({
      exit: EXIT.tpm,
      codes: ["ERR_TPM_AK_UNPROVEN"],
    })
  })

  test("M1: a key in software, after the snapshot was enrolled", async () => {
    const enrolled = await lab.enrolledSnapshot()
    const key = softwareKey((honest) => honest)
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    expect(outcome(lab.judge(honest, nonce, { reference: enrolled }))).toEqual({ exit: EXIT.ok, codes: [] })
    const forged = await lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) =>
      key.signed(encodeAttest({ ...parseAttest(tpmOf(honest).quote), extraData })),
    )
    const result = outcome(lab.judge(forged, nonce, { reference: enrolled }))
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes.toSorted()).toEqual(["ERR_TPM_AK_CHANGED", "ERR_TPM_AK_UNPROVEN"])
  })

  describe("M4: signatures that are none", () => {
    /** A quote by a software key, that only its signature is judged by; `change` spoils one thing. */
    async function signedBy(
      key: SoftwareAk,
      change: (made: { signature: TpmSignature; akPublic: Uint8Array }) => {
        signature: TpmSignature
        akPublic: Uint8Array
      },
    ) {
      const nonce = randomBytes(32)
      const honest = await lab.evidence(nonce)
      // The report commits to the key that is shown, so that nothing but the signature is at fault.
      const shown = change({ signature: key.signature(new Uint8Array(1)), akPublic: key.akPublic }).akPublic
      const evidence = await lab.evidenceWithKey(nonce, shown, (extraData) => {
        const quote = encodeAttest({ ...parseAttest(tpmOf(honest).quote), extraData })
        const { signature } = change({ signature: key.signature(quote), akPublic: key.akPublic })
        return { quote, signature: encodeSignature(signature) }
      })
      return outcome(lab.judge(evidence, nonce, { reference: null }))
    }
    const refusedAs = (code: string) => ({ exit: EXIT.tpm, codes: [code, "ERR_NOT_JUDGED"] })
    const zero = new Uint8Array(32)
    const ecdsa = makeSoftwareAk("ecdsa-p256")
    const rsassa = makeSoftwareAk("rsassa")

    test("the unchanged twins verify", async () => {
      for (const key of [
        ecdsa,
        rsassa,
        makeSoftwareAk("rsapss"),
        makeSoftwareAk("ecdsa-p384", { hash: "sha256" }),
      ])
        expect(await signedBy(key, (made) => made)).toEqual({ exit: EXIT.ok, codes: [] })
    })

    test.each([
      ["r zero", { r: zero }],
      ["s zero", { s: zero }],
      ["both zero", { r: zero, s: zero }],
      [
        "r at the order",
        {
          r: Uint8Array.from(
            Buffer.from("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", "hex"),
          ),
        },
      ],
    ])("ECDSA with %s", async (_, parts) => {
      const result = await signedBy(ecdsa, ({ signature, akPublic }) => ({
        akPublic,
        signature: { ...signature, ...parts } as TpmSignature,
      }))
      expect(result).toEqual(refusedAs("ERR_TPM_SIGNATURE"))
    })

    test("an RSA key with exponent 1, under which every signature verifies", async () => {
      const result = await signedBy(rsassa, ({ signature }) => {
        const area = parsePublic(rsassa.akPublic)
        return { signature, akPublic: encodePublic({ ...area, exponent: 1 } as typeof area) }
      })
      expect(result).toEqual(refusedAs("ERR_TPM_AK_KEY"))
    })

    test("PKCS#1 where the key is for PSS, and the reverse; another hash", async () => {
      const pss = makeSoftwareAk("rsapss")
      const named = (key: SoftwareAk, scheme: "rsassa" | "rsapss") =>
        signedBy(key, ({ signature, akPublic }) => ({
          akPublic,
          signature: { ...signature, scheme } as TpmSignature,
        }))
      expect(await named(pss, "rsassa")).toEqual(refusedAs("ERR_TPM_SCHEME"))
      expect(await named(rsassa, "rsapss")).toEqual(refusedAs("ERR_TPM_SCHEME"))
      const hash = await signedBy(rsassa, ({ signature, akPublic }) => ({
        akPublic,
        signature: { ...signature, hash: ALG.sha1 },
      }))
      expect(hash).toEqual(refusedAs("ERR_TPM_SCHEME"))
      // The scheme of both says PSS; what is signed is PKCS#1.
      const area = parsePublic(rsassa.akPublic)
      const disguised = encodePublic({ ...area, scheme: { scheme: ALG.rsapss, hash: ALG.sha256 } })
      const result = await signedBy(rsassa, ({ signature }) => ({
        akPublic: disguised,
        signature: { ...signature, scheme: "rsapss" } as TpmSignature,
      }))
      expect(result).toEqual(refusedAs("ERR_TPM_SIGNATURE"))
    })
  })

  test.each([
    ["16 added", [...EVIDENCE_PCRS, 16]],
    ["only 16 and 23, which can be reset", [16, 23]],
    ["without 10", EVIDENCE_PCRS.filter((pcr) => pcr !== 10)],
  ])("M2: a genuine quote over other PCRs: %s", async (_, pcrs) => {
    const result = await attacked(async (honest, nonce) => ({
      ...honest,
      tpm: {
        ...tpmOf(honest),
        ...(await lab.quote(pcrs, evidenceQualifyingData(nonce, lab.spki, teeOf(honest).report))),
      },
    }))
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes).toContain("ERR_TPM_PCR_SELECTION")
  })

  test("M2: the SHA-1 bank instead of SHA-256", async () => {
    // No TPM has to sign it: the key is pinned to nothing here, so that the selection is what fails.
    const key = softwareKey((honest) => honest)
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    const evidence = await lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) =>
      key.signed(
        encodeAttest({
          ...parseAttest(tpmOf(honest).quote),
          extraData,
          pcrSelect: [selectPcrs(ALG.sha1, EVIDENCE_PCRS)],
        }),
      ),
    )
    const result = outcome(lab.judge(evidence, nonce, { reference: null }))
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes).toContain("ERR_TPM_PCR_SELECTION")
  })

  test("M3: a genuine quote for another nonce", async () => {
    const result = await attacked(async (honest) => ({
      ...honest,
      tpm: { ...tpmOf(honest), ...(await lab.quote(EVIDENCE_PCRS, randomBytes(32))) },
    }))
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes).toContain("ERR_TPM_QUALIFYING_DATA")
  })

  test.each([
    ["magic", 0, "ERR_TPM_MAGIC"],
    ["type", 5, "ERR_TPM_ATTEST_TYPE"],
  ])("M3: signed bytes of another %s", async (_, at, code) => {
    const key = softwareKey((honest) => honest)
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    const evidence = await lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) => {
      const attest = encodeAttest({ ...parseAttest(tpmOf(honest).quote), extraData })
      attest[at] = 0x17
      return key.signed(attest)
    })
    const result = outcome(lab.judge(evidence, nonce, { reference: null }))
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes).toContain(code)
  })

  test("M5: PCR values that do not hash to what was signed", async () => {
    const result = await attacked((honest) => {
      const pcrs = tpmOf(honest).pcrs.map((value, pcr) => (pcr === 4 ? new Uint8Array(32) : value))
      return { ...honest, tpm: { ...tpmOf(honest), pcrs } }
    })
    expect(result.exit).toBe(EXIT.tpm)
    expect(result.codes).toContain("ERR_TPM_PCR_DIGEST")
  })

  test("M5: an empty selection, and one in another order of banks", async () => {
    const key = softwareKey((honest) => honest)
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    for (const pcrSelect of [
      [],
      [selectPcrs(ALG.sha256, [])],
      [selectPcrs(ALG.sha1, [0]), selectPcrs(ALG.sha256, EVIDENCE_PCRS)],
    ]) {
      const evidence = await lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) =>
        key.signed(encodeAttest({ ...parseAttest(tpmOf(honest).quote), extraData, pcrSelect })),
      )
      const result = outcome(lab.judge(evidence, nonce, { reference: null }))
      expect(result.exit).toBe(EXIT.tpm)
      expect(result.codes).toContain("ERR_TPM_PCR_SELECTION")
    }
  })

  test("M6: suspended; a boot counter and a clock that went back", async () => {
    // The key is the snapshot's here, so that only what it states about itself differs.
    const key = softwareKey((honest) => honest)
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    const then = parseAttest(tpmOf(honest).quote)
    const stating = (change: Partial<typeof then>) =>
      lab.evidenceWithKey(nonce, key.publicArea(tpmOf(honest).akPublic), (extraData) =>
        key.signed(encodeAttest({ ...then, extraData, ...change })),
      )
    const known = lab.snapshotOf(await stating({}), nonce)
    const judged = async (change: Partial<typeof then>) =>
      outcome(lab.judge(await stating(change), nonce, { reference: known }))
    expect(await judged({})).toEqual({ exit: EXIT.ok, codes: [] })
    expect(await judged({ restartCount: then.restartCount + 1 })).toEqual({
      exit: EXIT.reboot,
      codes: ["ERR_RESUMED"],
    })
    const back = await judged({ resetCount: then.resetCount - 1 })
    expect(back.exit).toBe(EXIT.tpm)
    expect(back.codes).toContain("ERR_TPM_ROLLED_BACK")
    expect(await judged({ clock: then.clock - 1n })).toEqual({
      exit: EXIT.tpm,
      codes: ["ERR_TPM_ROLLED_BACK"],
    })
  })

  test("no TPM part at all", async () => {
    const result = await attacked((honest) => ({ ...honest, tpm: null }))
    expect(result.exit).toBe(EXIT.binding)
    expect(result.codes).toContain("ERR_TPM_ABSENT")
  })
})

describe("IMA", () => {
  /** Where each entry begins. */
  function starts(list: Uint8Array): number[] {
    const parsed = parseMeasurementList(list)
    return Array.from({ length: parsed.count }, (_, index) => (parsed.templateDigestAt[index] ?? 0) - 4)
  }

  const imaAttack = async (edit: (list: Uint8Array, starts: number[]) => Uint8Array) =>
    attacked((honest) => withList(honest, edit(listOf(honest), starts(listOf(honest)))))

  test("I2: an entry removed, repeated, and two swapped", async () => {
    const removed = await imaAttack((list, at) =>
      Buffer.concat([list.subarray(0, at[2]), list.subarray(list.length)]),
    )
    const repeated = await imaAttack((list, at) =>
      Buffer.concat([list.subarray(0, at[2]), list.subarray(at[1])]),
    )
    const swapped = await imaAttack((list, at) =>
      Buffer.concat([list.subarray(0, at[1]), list.subarray(at[2]), list.subarray(at[1], at[2])]),
    )
    for (const result of [removed, repeated, swapped])
      expect(result).toEqual({ exit: EXIT.ima, codes: ["ERR_IMA_REPLAY"] })
  })

  test("I2: template data changed under an honest digest, and the digest under honest data", async () => {
    const data = await imaAttack((list) => {
      const changed = Uint8Array.from(list)
      changed[changed.length - 2] = 0x78
      return changed
    })
    const digest = await imaAttack((list, at) => {
      const changed = Uint8Array.from(list)
      changed[(at[1] ?? 0) + 4] = (changed[(at[1] ?? 0) + 4] ?? 0) ^ 1
      return changed
    })
    expect(data).toEqual({ exit: EXIT.ima, codes: ["ERR_IMA_TEMPLATE_DIGEST"] })
    expect(digest).toEqual({ exit: EXIT.ima, codes: ["ERR_IMA_TEMPLATE_DIGEST"] })
  })

  test("I7: the list cut at every byte, and with a size of 2^32 - 1", async () => {
    const nonce = randomBytes(32)
    const honest = await lab.evidence(nonce)
    const list = listOf(honest)
    for (let end = 0; end < list.length; end++)
      expect(outcome(lab.judge(withList(honest, list.slice(0, end)), nonce, { reference })).exit).toBe(
        EXIT.ima,
      )
    const huge = Uint8Array.from(list)
    huge.fill(0xff, 24, 28)
    expect(outcome(lab.judge(withList(honest, huge), nonce, { reference })).exit).toBe(EXIT.ima)
  }, 30_000)

  test("a list that grew after the quote is no error, and what came after is not trusted", async () => {
    const result = await attacked((honest) => {
      const list = listOf(honest)
      const last = starts(list).at(-1) ?? 0
      return withList(honest, Buffer.concat([list, list.subarray(last)]))
    })
    expect(result).toEqual({ exit: EXIT.ok, codes: [] })
  })

  test("no list, and one that does not begin at its beginning", async () => {
    expect((await attacked((honest) => ({ ...honest, ima: null }))).codes).toEqual(["ERR_IMA_ABSENT"])
    expect(
      (await attacked((honest) => ({ ...honest, ima: { from: 1, list: listOf(honest) } }))).codes,
    ).toEqual(["ERR_IMA_ABSENT"])
  })

  test("I1 and I8: an unknown program, a known path with other content; then whitelisted", async () => {
    const mine = await Lab.open()
    const program = join(files, "program")
    copyFileSync("/usr/bin/true", program)
    await mine.exec(program)
    const known = await mine.snapshot()
    const judged = async (whitelist = parseWhitelist(new Uint8Array(0))) => {
      const nonce = randomBytes(32)
      return outcome(mine.judge(await mine.evidence(nonce), nonce, { reference: known, whitelist }))
    }
    expect(await judged()).toEqual({ exit: EXIT.ok, codes: [] })

    appendFileSync(program, "changed")
    await mine.exec(program)
    expect(await judged()).toEqual({ exit: EXIT.ima, codes: ["ERR_IMA_CHANGED_FILE"] })

    await mine.exec("/usr/bin/cat")
    const both = await judged()
    expect(both.exit).toBe(EXIT.ima)
    expect(both.codes.toSorted()).toEqual(["ERR_IMA_CHANGED_FILE", "ERR_IMA_UNKNOWN_FILE"])

    const line = async (path: string) =>
      `${path} ${Buffer.from(sha256(await Bun.file(path).bytes())).toString("hex")}\n`
    const cat = Bun.which("cat") ?? "/usr/bin/cat"
    const listed = parseWhitelist(new TextEncoder().encode((await line(program)) + (await line(cat))))
    expect(await judged(listed)).toEqual({ exit: EXIT.ok, codes: [] })
    expect(() => parseWhitelist(new TextEncoder().encode(`/usr/bin/cat nonsense\n`))).toThrowCode(
      "ERR_WHITELIST_LINE",
    )
    await mine.close()
  }, 30_000)
})

describe("snapshot and boot", () => {
  test("M6: reboot; and B2: another kernel command line", async () => {
    const mine = await Lab.open()
    const known = await mine.snapshot()
    const judged = async () => {
      const nonce = randomBytes(32)
      return outcome(mine.judge(await mine.evidence(nonce), nonce, { reference: known }))
    }
    await mine.reboot()
    expect(await judged()).toEqual({ exit: EXIT.reboot, codes: ["ERR_REBOOTED"] })
    await mine.setCommandLine("root=/dev/vda1 init=/bin/sh\n")
    await mine.reboot()
    const changed = await judged()
    expect(changed.exit).toBe(EXIT.boot)
    expect(changed.codes).toContain("ERR_BOOT_PCR")
    await mine.close()
  }, 30_000)

  test("M6: another TPM altogether", async () => {
    const result = await attacked(async (honest, nonce) => {
      const theirs = await other.evidence(nonce, lab.spki)
      return { ...honest, tpm: theirs.tpm }
    })
    expect(result.exit).toBe(EXIT.binding)
  })

  test("S1: the snapshot of another VM", async () => {
    const nonce = randomBytes(32)
    const result = outcome(lab.judge(await lab.evidence(nonce), nonce, { reference: await other.snapshot() }))
    expect(result.exit).toBe(EXIT.tee)
    expect(result.codes).toContain("ERR_TPM_AK_CHANGED")
  })

  test("S1: a digest edited, an unknown format, a name twice, too large", () => {
    const text = encodeSnapshot(reference)
    const bytes = (edited: string) => new TextEncoder().encode(edited)
    expect(() =>
      parseSnapshot(bytes(text.replace(`"format": 2`, `"format": 3`).replace(`"format":2`, `"format":3`))),
    ).toThrowCode("ERR_SNAPSHOT_FORMAT")
    expect(() => parseSnapshot(bytes(text.replace("{", `{"cloud_type":"AWS",`)))).toThrowCode(
      "ERR_DUPLICATE_KEY",
    )
    expect(() => parseSnapshot(bytes(text), 100)).toThrowCode("ERR_TOO_LARGE")
  })

  test("S2: what a VM says of evidence, replaced files and who vouches for its packages is not kept", async () => {
    const nonce = randomBytes(32)
    const judgement = lab.judge(await lab.evidence(nonce), nonce, { reference: null })
    const hex = "ab".repeat(32)
    const told = parseSnapshot(
      Buffer.from(
        JSON.stringify({
          format: 2,
          hash_algorithm: "sha256",
          taken_under: { nonce: hex, tee_report: hex, tpm_quote: hex },
          packages: [
            {
              manager: "dpkg",
              name: "a",
              version: "1",
              architecture: "all",
              source: "repository",
              files: ["/a"],
            },
          ],
          superseded: [["/usr/bin/ls", hex]],
          filehashes: [["/a", hex]],
        }),
      ),
    )
    const kept = withVerified(told, judgement, judgement.verdict)
    expect(kept.taken_under).toBeUndefined()
    expect(kept.superseded).toBeUndefined()
    expect(kept.packages).toEqual([{ manager: "dpkg", name: "a", version: "1", architecture: "all" }])
  })

  test("S1: reference values taken out of the snapshot never make a check pass", async () => {
    const nonce = randomBytes(32)
    const evidence = await lab.evidence(nonce)
    const judged = (changes: Partial<Snapshot>) =>
      outcome(lab.judge(evidence, nonce, { reference: { ...reference, ...changes } })).exit
    expect(judged({ tee_policy: null })).toBe(EXIT.tee)
    expect(judged({ tee_policy: { Tdx: emptyTdxPolicy() } })).toBe(EXIT.tee)
    expect(judged({ tee_reference: null })).not.toBe(EXIT.ok)
    expect(judged({ tpm_reference: null })).toBe(EXIT.tpm)
    expect(judged({ tpm_policy: null })).toBe(EXIT.reboot)
    expect(judged({ ima_reference: null })).toBe(EXIT.ima)
    expect(judged({ filehashes: null })).toBe(EXIT.ima)
    expect(judged({ filehashes: [] })).toBe(EXIT.ima)
  })
})

describe("a policy beside the snapshot", () => {
  async function judged(text: string, changes: Parameters<Lab["judge"]>[2] = { reference }) {
    const nonce = randomBytes(32)
    const policy = parseTomlPolicy(text, "vm.toml")
    return outcome(lab.judge(await lab.evidence(nonce), nonce, { ...changes, policy }))
  }

  test("what the machine has passes, and each other value fails by its own check", async () => {
    const pcr4 = reference.tpm_reference?.pcrs["4"] ?? ""
    const ak = reference.tpm_reference?.ak_name ?? ""
    expect(await judged(`[tpm]\nak_name = "${ak}"\n[tpm.pcrs.sha256]\n4 = "${pcr4}"\n`)).toEqual({
      exit: EXIT.ok,
      codes: [],
    })
    const zeros = "00".repeat(32)
    expect(await judged(`[tpm.pcrs.sha256]\n4 = "${zeros}"\n`)).toEqual({
      exit: EXIT.boot,
      codes: ["ERR_BOOT_PCR"],
    })
    // PCR 16 and up can be reset by anybody, and no evidence covers them.
    expect(await judged(`[tpm.pcrs.sha256]\n16 = "${zeros}"\n`)).toEqual({
      exit: EXIT.boot,
      codes: ["ERR_POLICY_PCRS"],
    })
    expect(await judged(`[tpm]\nak_name = "000b${zeros}"\n`)).toEqual({
      exit: EXIT.tpm,
      codes: ["ERR_TPM_AK_CHANGED"],
    })
    expect(await judged('[snp]\nvmpl = "any"\nprovisional_firmware = "allowed"\n')).toEqual({
      exit: EXIT.ok,
      codes: [],
    })
    expect(await judged(`[snp]\nhost_data = "${"01".repeat(32)}"\n`)).toEqual({
      exit: EXIT.tee,
      codes: ["ERR_TEE_HOST_DATA"],
    })
    expect(await judged("[tdx]\n")).toEqual({ exit: EXIT.tee, codes: ["ERR_POLICY_PLATFORM"] })
  })
})
