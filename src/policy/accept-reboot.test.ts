import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { makeSoftwareAk, quoteAttest, softwareQuote } from "../../test/fakes/software-ak.ts"
import type { QuoteAttest } from "../formats/tpm/attest.ts"
import { verifyQuote } from "../verify/tpm.ts"
import type { Snapshot } from "./snapshot.ts"
import { appraiseTpm, tpmReferenceOf } from "./tpm.ts"

const PCRS = Array.from({ length: 16 }, (_, pcr) => pcr)
const VALUES = PCRS.map((pcr) => new Uint8Array(32).fill(pcr + 1))
const ak = makeSoftwareAk("ecdsa-p256")
const other = makeSoftwareAk("ecdsa-p256")

function attestation(changes: Partial<QuoteAttest> = {}, values = VALUES, key = ak) {
  const digest = new Uint8Array(createHash("sha256").update(Buffer.concat(values)).digest())
  const quoted = softwareQuote(key, quoteAttest(PCRS, digest, changes))
  return verifyQuote(
    { ...quoted, akPublic: key.akPublic, pcrs: values },
    { qualifyingData: new Uint8Array(32), pcrSelection: PCRS },
  )
}

/** Taken in boot 7, after 3 suspensions. */
const SNAPSHOT: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: null,
  filehashes: null,
  taken_at: "2026-01-01T00:00:00.000Z",
  agent_version: "2.0.0",
  host: "vm",
  hash_algorithm: "sha256",
  tee_reference: null,
  ima_reference: null,
  unreadable: [],
  ...tpmReferenceOf(attestation({ resetCount: 7, restartCount: 3 })),
}

const reboot = (...quoted: Parameters<typeof attestation>) =>
  appraiseTpm(attestation(...quoted), SNAPSHOT, { acceptReboot: true }).reboot

describe("--accept-reboot", () => {
  test("makes a reboot and a suspension notes, which the verdict shows", () => {
    for (const [changes, code] of [
      [{ resetCount: 9, restartCount: 0 }, "ERR_REBOOTED"],
      [{ resetCount: 7, restartCount: 4 }, "ERR_RESUMED"],
    ] as const) {
      const claim = reboot(changes)
      expect(claim).toMatchObject({ status: "warning", facts: { accepted: true }, findings: [{ code }] })
      expect(claim.summary).toContain("--accept-reboot")
    }
  })

  test("changes nothing where there was none", () =>
    expect(reboot({ resetCount: 7, restartCount: 3 })).toMatchObject({ status: "passed" }))

  test("accepts none with another TPM key, or after which something else booted", () => {
    const changes = { resetCount: 9 }
    const otherKernel = VALUES.map((value, pcr) => (pcr === 9 ? new Uint8Array(32) : value))
    expect(reboot(changes, VALUES, other).status).toBe("failed")
    expect(reboot(changes, otherKernel).status).toBe("failed")
    const unmeasured = VALUES.map((value, pcr) => (pcr < 8 ? new Uint8Array(32) : value))
    expect(reboot(changes, unmeasured).status).toBe("failed")
  })

  test("accepts no counter that went back", () => {
    expect(reboot({ resetCount: 6, restartCount: 9 }).status).toBe("failed")
    expect(reboot({ resetCount: 7, restartCount: 2 }).status).toBe("failed")
  })

  test("accepts nothing where the snapshot has no counters or PCRs to compare with", () => {
    for (const missing of ["tpm_policy", "tpm_reference"] as const) {
      const bare = { ...SNAPSHOT, [missing]: null }
      const claims = appraiseTpm(attestation({ resetCount: 9 }), bare, { acceptReboot: true })
      expect(claims.reboot.status).toBe("failed")
    }
  })

  test("is off unless asked for", () => {
    expect(appraiseTpm(attestation({ resetCount: 9 }), SNAPSHOT).reboot.status).toBe("failed")
  })
})
