import { bytesEqual, shortHex } from "../formats/hex.ts"
import type { Claim, Finding } from "./verdict.ts"

/** What a TLS connection to an application showed. Made by the client; judged here. */
export interface ApplicationProbe {
  /** `host:port` as the user named it. May be shown. */
  readonly target: string
  /** DER SubjectPublicKeyInfo of the leaf certificate that the application presented; null where no TLS connection came about. */
  readonly spki: Uint8Array | null
  /** Why there is no connection, where there is none. */
  readonly failure: string | null
}

/**
 * Whether each application's TLS channel ends inside the attested VM: its key must be the very key that the TEE report
 * commits to. A host name or a web certificate authority proves nothing about a VM and is not looked at.
 * @param attestedSpki the key proven by the binding check; null where that check did not pass.
 */
export function appraiseApplications(
  probes: readonly ApplicationProbe[],
  attestedSpki: Uint8Array | null,
): Claim {
  const findings = probes.flatMap((probe) => appraiseOne(probe, attestedSpki))
  const names = probes.map((probe) => probe.target).join(", ")
  if (findings.length === 0)
    return {
      check: "application",
      status: "passed",
      summary: `${names}: TLS ends inside the VM (same key as the attested one)`,
      findings,
      facts: { applications: probes.length },
    }
  return {
    check: "application",
    status: "failed",
    failureClass: "application",
    summary: `${findings.length} of ${probes.length} applications not proven to run inside the VM`,
    findings,
    facts: { applications: probes.length },
  }
}

function appraiseOne(probe: ApplicationProbe, attestedSpki: Uint8Array | null): Finding[] {
  if (attestedSpki === null)
    return [
      {
        code: "ERR_NOT_JUDGED",
        subject: probe.target,
        meaning: "there is no attested key to compare the application's key with",
        remedy: "see the binding check above; it has to pass first",
      },
    ]
  if (probe.spki === null)
    return [
      {
        code: "ERR_APPLICATION_UNREACHABLE",
        subject: probe.target,
        expected: "a TLS server",
        found: probe.failure ?? "no connection",
        meaning: "the application could not be asked, so nothing is known about it",
        remedy: "check host and port, and that the application is running (cosmian_vm app restart)",
      },
    ]
  if (bytesEqual(probe.spki, attestedSpki)) return []
  return [
    {
      code: "ERR_APPLICATION_KEY",
      subject: probe.target,
      expected: `TLS key ${shortHex(attestedSpki.subarray(-16))} (end of the attested key)`,
      found: `TLS key ${shortHex(probe.spki.subarray(-16))}`,
      meaning: "the connection to the application ends at another key, perhaps outside the VM",
      remedy:
        "let the application serve the VM's certificate and key, or find out who answers at this address",
    },
  ]
}
