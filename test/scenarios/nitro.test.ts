/** NitroTPM documents: a software TPM that answers AWS's command, with documents under a root of its own. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { appraisalOf } from "../../src/commands/appraisal.ts"
import { judgeSaved } from "../../src/commands/saved-evidence.ts"
import { EXIT } from "../../src/errors.ts"
import {
  committedBytes,
  EVIDENCE_PCRS,
  type Evidence,
  encodeEvidence,
  evidenceQualifyingData,
  parseEvidence,
} from "../../src/formats/evidence.ts"
import {
  encodeSavedEvidence,
  parseSavedEvidence,
  type SavedEvidence,
} from "../../src/formats/saved-evidence.ts"
import { NITRO_INDEX } from "../../src/native/nitro-tpm.ts"
import { encodeSnapshot, parseSnapshot, type Snapshot } from "../../src/policy/snapshot.ts"
import type { JudgeInput } from "../../src/policy/verify-vm.ts"
import type { NitroAnchor } from "../../src/verify/nitro-tpm.ts"
import { NitroFront } from "../fakes/nitro-front.ts"
import { nitroPki } from "../fakes/nitro-tpm.ts"
import { withDirectory } from "../fakes/simulated.ts"
import { makeSoftwareAk, quoteAttest, softwareQuote } from "../fakes/software-ak.ts"
import { Lab, outcome, sha256 } from "./lab.ts"

const front = new NitroFront()
const genuine = front.pki
const nitroAnchors: NitroAnchor[] = [...genuine.roots].map((fingerprint) => ({
  fingerprint,
  simulated: true,
}))
let lab: Lab
let reference: Snapshot

beforeAll(async () => {
  lab = await Lab.open(front)
  reference = await lab.snapshot({ nitroAnchors })
}, 60_000)

afterAll(() => lab.close())

/** Fresh evidence, changed, judged against the snapshot. */
async function judged(
  change: (honest: Evidence, nonce: Uint8Array) => Evidence | Promise<Evidence> = (honest) => honest,
  options: Partial<JudgeInput> = {},
) {
  const nonce = randomBytes(32)
  const changed = await change(await lab.evidence(nonce), nonce)
  return lab.judge(changed, nonce, { reference, nitroAnchors, ...options })
}

function withDocument(evidence: Evidence, nitroDocument: Uint8Array | null): Evidence {
  if (evidence.tpm === null) throw new Error("no TPM part")
  const { nitroDocument: _, ...tpm } = evidence.tpm
  return { ...evidence, tpm: nitroDocument === null ? tpm : { ...tpm, nitroDocument } }
}

function bindingOf({ tee }: Evidence, nonce: Uint8Array): Uint8Array {
  if (tee === null) throw new Error("no TEE part")
  return evidenceQualifyingData(nonce, lab.spki, committedBytes(tee))
}

describe("with a document", () => {
  test("the verdict rests on what AWS signed, and says for which instance and under which root", async () => {
    const { verdict } = await judged()
    expect(verdict).toMatchObject({ exitCode: EXIT.ok, simulated: true })
    expect(verdict.assurance.nitroInstance).toBe("i-0123456789abcdef0")
    expect(verdict.assurance.meaning).toContain("SIMULATED root in AWS's place signed the PCR values")
    expect(verdict.assurance.meaning).toContain("boot and IMA results rest on that signature")
    const tpm = verdict.claims.find(({ check }) => check === "tpm")
    expect(tpm?.facts).toMatchObject({ nitroInstance: "i-0123456789abcdef0", nitroModuleId: front.moduleId })
    // The key itself is no more proven than without.
    expect(verdict.assurance.akProvenBy).toBe("snapshot")
  })

  test("the snapshot keeps instance, root and the SHA-384 PCRs, and reads them again", () => {
    const kept = reference.tpm_reference?.nitro_tpm
    expect(kept?.instance).toBe("i-0123456789abcdef0")
    expect(Object.keys(kept?.pcrs ?? {})).toHaveLength(15)
    expect(kept?.pcrs["4"]).toHaveLength(96)
    const again = parseSnapshot(Buffer.from(encodeSnapshot(reference)))
    expect(again.tpm_reference).toEqual(reference.tpm_reference)
  })

  test("it stays the same instance after another start of its TPM", async () => {
    const before = front.moduleId
    front.moduleId = "i-0123456789abcdef0-tpm00000000000000bb"
    expect(outcome(await judged()).exit).toBe(EXIT.ok)
    front.moduleId = before
  })

  test("a snapshot that was taken without one gains nothing, and does not say that it did", async () => {
    const { tpm_reference } = reference
    if (tpm_reference === null) throw new Error("no TPM")
    const { nitro_tpm: _, ...older } = tpm_reference
    const { verdict } = await judged(undefined, { reference: { ...reference, tpm_reference: older } })
    expect(verdict.exitCode).toBe(EXIT.ok)
    expect(verdict.assurance.nitroInstance).toBeUndefined()
    expect(verdict.assurance.meaning).not.toContain("signed the PCR values")
  })

  test("evidence holds it as text, bounded", async () => {
    const evidence = await lab.evidence(randomBytes(32))
    expect(evidence.tpm?.nitroDocument?.length).toBeGreaterThan(1000)
    expect(parseEvidence(encodeEvidence(evidence))).toEqual(evidence)
    const large = encodeEvidence(withDocument(evidence, new Uint8Array(16 * 1024 + 2)))
    expect(() => parseEvidence(large)).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("saved evidence, as the command judges it", () => {
  const saved = async (): Promise<SavedEvidence> => {
    const nonce = randomBytes(32)
    const channel = { spki: lab.spki, authorized: true, reason: null }
    const evidence = await lab.evidence(nonce)
    const documents = { certificates: [], crl: null, intel: null }
    const collectedAt = new Date()
    return { target: "vm", collectedAt, nonce, channel, evidence, documents, applications: [] }
  }
  const judgedWith = async (trustRoots: readonly string[]) => {
    const collateral = { kdsUrl: "", pcsUrl: "", cacheDir: null, offline: true }
    const appraisal = { ...appraisalOf({ trustRoots, skip: [], collateral }), reference }
    const again = parseSavedEvidence(new TextEncoder().encode(encodeSavedEvidence(await saved())))
    return judgeSaved(again, appraisal, { at: new Date(), insecureAllowed: false })
  }

  test("rests on the root of --trust-root, and on AWS's alone without it", async () => {
    await withDirectory(async (dir) => {
      const root = join(dir, "nitro.der")
      writeFileSync(root, genuine.rootDer)
      const { verdict } = await judgedWith([lab.trustRoot, root])
      expect([verdict.exitCode, verdict.assurance.nitroInstance]).toEqual([EXIT.ok, "i-0123456789abcdef0"])
    })
    expect(outcome(await judgedWith([lab.trustRoot]))).toEqual({
      exit: EXIT.tpm,
      codes: ["ERR_CERT_UNTRUSTED"],
    })
  })
})

describe("is refused:", () => {
  test("no document, where the snapshot was taken with one", async () => {
    const result = outcome(await judged((honest) => withDocument(honest, null)))
    expect(result).toEqual({ exit: EXIT.tpm, codes: ["ERR_NITRO_ABSENT"] })
  })

  test("another instance's document, made for this very request", async () => {
    const before = front.moduleId
    front.moduleId = "i-0fedcba9876543210-tpm00000000000000aa"
    const result = outcome(await judged())
    front.moduleId = before
    expect(result).toEqual({ exit: EXIT.tpm, codes: ["ERR_NITRO_INSTANCE"] })
  })

  test("a document for another request, or for the bare nonce", async () => {
    const old = await lab.nitroDocument(randomBytes(32))
    const result = outcome(await judged((honest) => withDocument(honest, old)))
    expect(result).toEqual({ exit: EXIT.tpm, codes: ["ERR_NITRO_NONCE"] })
    const bare = await judged(async (honest, nonce) => withDocument(honest, await lab.nitroDocument(nonce)))
    expect(outcome(bare).codes).toEqual(["ERR_NITRO_NONCE"])
  })

  test("a document under another root; without a snapshot it says nothing", async () => {
    front.pki = nitroPki()
    const against = outcome(await judged())
    const first = await judged(undefined, { reference: null })
    front.pki = genuine
    expect(against).toEqual({ exit: EXIT.tpm, codes: ["ERR_CERT_UNTRUSTED"] })
    expect(first.verdict.exitCode).toBe(EXIT.ok)
    expect(first.nitro).toBeNull()
    expect(first.verdict.assurance.nitroInstance).toBeUndefined()
    const tpm = first.verdict.claims.find(({ check }) => check === "tpm")
    expect([tpm?.status, tpm?.findings[0]?.code]).toEqual(["warning", "ERR_CERT_UNTRUSTED"])
  })

  test("a root that the snapshot was not taken under, trusted or not", async () => {
    front.pki = nitroPki()
    const both = [
      ...nitroAnchors,
      ...[...front.pki.roots].map((fingerprint) => ({ fingerprint, simulated: true })),
    ]
    const result = outcome(await judged(undefined, { nitroAnchors: both }))
    front.pki = genuine
    expect(result).toEqual({ exit: EXIT.tpm, codes: ["ERR_NITRO_INSTANCE"] })
  })

  test.each([
    [
      "a bank that nobody measured into",
      (values: readonly Uint8Array[]) => values.map(() => new Uint8Array(48)),
    ],
    ["PCRs that are left out", (values: readonly Uint8Array[]) => values.slice(0, 15)],
  ])("%s, with a snapshot and without", async (_, change) => {
    const before = front.pcrs
    front.pcrs = change
    const against = outcome(await judged())
    const first = await judged(undefined, { reference: null })
    front.pcrs = before
    expect(against).toEqual({ exit: EXIT.tpm, codes: ["ERR_NITRO_PCR"] })
    expect([outcome(first).exit, first.nitro]).toEqual([EXIT.tpm, null])
  })

  test("a document that is none", async () => {
    for (const bytes of [new Uint8Array(1), new Uint8Array(300).fill(0xd2)])
      expect(outcome(await judged((honest) => withDocument(honest, bytes))).exit).toBe(EXIT.tpm)
  })
})

/**
 * M1 with a snapshot of the forger's own key: root in the VM holds the attestation key in software, and has the VM's genuine TPM sign
 * what AWS signs for anybody who is root there.
 */
describe("an attestation key in software", () => {
  const key = makeSoftwareAk("ecdsa-p256")
  let stated: Evidence
  let forged: Snapshot

  /** A quote over PCRs as they were, with the log of then, beside a genuine document of now. */
  async function lies(nonce: Uint8Array): Promise<Evidence> {
    const pcrs = stated.tpm?.pcrs ?? []
    const digest = sha256(Buffer.concat(pcrs))
    const evidence = await lab.evidenceWithKey(nonce, key.akPublic, (extraData) =>
      softwareQuote(key, quoteAttest(EVIDENCE_PCRS, digest, { extraData })),
    )
    if (evidence.tpm === null) throw new Error("no TPM part")
    const { eventLog = new Uint8Array(0), ima } = stated
    const whole: Evidence = { ...evidence, eventLog, ima, tpm: { ...evidence.tpm, pcrs } }
    return withDocument(whole, await lab.nitroDocument(bindingOf(whole, nonce)))
  }

  beforeAll(async () => {
    stated = await lab.evidence(randomBytes(32))
    const nonce = randomBytes(32)
    forged = lab.snapshotOf(await lies(nonce), nonce, { nitroAnchors })
  })

  test("the twin: as long as it says what is, it is not told apart", async () => {
    expect(outcome(await judged((_, nonce) => lies(nonce), { reference: forged })).exit).toBe(EXIT.ok)
  })

  test("a program that ran is not hidden: AWS signed PCR 10 with it", async () => {
    await lab.exec("/usr/bin/ls")
    const result = outcome(await judged((_, nonce) => lies(nonce), { reference: forged }))
    expect(result).toEqual({ exit: EXIT.ima, codes: ["ERR_IMA_REPLAY"] })
    const without = outcome(
      await judged(async (_, nonce) => withDocument(await lies(nonce), null), {
        reference: { ...forged, tpm_reference: withoutNitro(forged) },
      }),
    )
    expect(without.exit).toBe(EXIT.ok)
  })

  test("another boot is not hidden: AWS signed its PCRs", async () => {
    stated = await lab.evidence(randomBytes(32))
    await lab.extend(4, Uint8Array.of(1))
    const result = outcome(await judged((_, nonce) => lies(nonce), { reference: forged }))
    expect(result.exit).toBe(EXIT.boot)
    expect(result.codes).toContain("ERR_NITRO_PCR")
    // Nor when a snapshot is taken: the log explains the quote, and not what AWS signed.
    const first = outcome(await judged((_, nonce) => lies(nonce), { reference: null }))
    expect(first.exit).toBe(EXIT.boot)
    expect(first.codes).toContain("ERR_NITRO_PCR")
  })
})

function withoutNitro({ tpm_reference }: Snapshot): Snapshot["tpm_reference"] {
  if (tpm_reference === null) return null
  const { nitro_tpm: _, ...rest } = tpm_reference
  return rest
}

describe("the agent does without", () => {
  const documentOf = async () => (await lab.evidence(randomBytes(32))).tpm?.nitroDocument ?? null

  test("where the TPM refuses", async () => {
    front.refusal = "InvalidOperation"
    const document = await documentOf()
    front.refusal = null
    expect(document).toBeNull()
    expect(await documentOf()).not.toBeNull()
  })

  test("where somebody else has the NV index, which is left alone", async () => {
    await lab.writeNv(NITRO_INDEX, Uint8Array.of(1, 2, 3))
    expect(await documentOf()).toBeNull()
  })

  test("on a TPM that is no NitroTPM", async () => {
    const plain = await Lab.open()
    try {
      expect((await plain.evidence(randomBytes(32))).tpm).not.toHaveProperty("nitroDocument")
    } finally {
      await plain.close()
    }
  })
})
