import { EXIT } from "../../src/errors.ts"
import type { Check, Claim, Finding, Verdict } from "../../src/policy/verdict.ts"

/** Text that tries everything that a page, a file format or a terminal could obey. */
export const HOSTILE =
  '/tmp/<script>document.title="owned"</script>"\' onload=x & ]]> [x](javascript:1) {0} \\ \u001b[2J\n\u009b31m\u202egnp.exe\u0000\ufffe\udc80\u2028</style><img src=//evil.example/x>'

function claim(check: Check, status: Claim["status"], summary: string, more: Partial<Claim> = {}): Claim {
  return { check, status, summary, findings: [], facts: {}, ...more }
}

function unknownFile(path: string): Finding {
  return {
    code: "ERR_IMA_UNKNOWN_FILE",
    subject: path,
    expected: "a file of the snapshot or the whitelist",
    found: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 (position 812)",
    meaning: "a program or library ran that nobody vouched for",
    remedy: "find out where it comes from; if it is yours, add it to a whitelist or take a new snapshot",
  }
}

/** A verdict with a claim of every status, findings that share advice, long and hostile text. */
export function failedVerdict(subjects: readonly string[] = [HOSTILE]): Verdict {
  const pcrs = Array.from({ length: 10 }, (_, pcr) => [`pcr${pcr}`, `${pcr}c`.repeat(32)] as const)
  return {
    passed: false,
    target: "vm.example:5555",
    at: "2026-06-01T10:20:30.400Z",
    simulated: true,
    assurance: {
      label: "simulated",
      meaning: "a simulated TEE: this proves nothing about hardware and is for trying the product out",
    },
    skipped: ["tcb"],
    exitCode: EXIT.ima,
    claims: [
      claim(
        "channel",
        "warning",
        "TLS certificate not vouched for by an authority (self-signed), allowed by --allow-insecure-tls; the binding check has to prove the key",
        {
          facts: { spki: "f29b3d3c3d8d6b0f0a3b9f1c2d4e5f60", authorized: false },
        },
      ),
      claim("tee", "passed", "genuine Milan VM, launched as in the snapshot", {
        facts: { measurement: "ab".repeat(48), vmpl: 0, policy: "0x30000" },
      }),
      claim("revocation", "passed", "not on the revocation list of ARK-Milan, of 2026-05-20T00:00:00.000Z"),
      claim("tcb", "skipped", "left out by --skip tcb; it would have passed"),
      claim(
        "binding",
        "passed",
        "the TEE report commits to the TLS key, the TPM's attestation key and the nonce of this connection",
      ),
      claim("tpm", "passed", "the snapshot's TPM signed the PCRs for this very request"),
      claim("reboot", "warning", "rebooted 1 time(s) since the snapshot, accepted by --accept-reboot", {
        findings: [
          {
            code: "ERR_REBOOTED",
            subject: "resetCount",
            expected: "7",
            found: "8",
            meaning: "the machine was rebooted 1 time(s) since the snapshot",
            remedy: "nothing to do if you know of it",
          },
        ],
      }),
      claim("boot", "passed", "firmware, boot loader, kernel and command line are the snapshot's (15 PCRs)", {
        facts: Object.fromEntries(pcrs),
      }),
      claim("ima", "failed", `${subjects.length + 3} of 1204 files that ran are not the snapshot's`, {
        failureClass: "ima",
        findings: [
          ...["/usr/bin/nc.openbsd", "/opt/backup/agent-2.1.4/lib/libtransport.so.3", ...subjects].map(
            unknownFile,
          ),
          {
            code: "ERR_IMA_CHANGED_FILE",
            subject: "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            expected: `sha256:${"12".repeat(32)}`,
            found: `sha256:${"34".repeat(32)}`,
            meaning: "the file has other content than when the snapshot was taken",
            remedy:
              "if the package was updated since, take a new snapshot; otherwise treat the VM as compromised",
          },
        ],
        facts: { entries: 1204, violations: 0 },
      }),
    ],
  }
}

/** A verdict in which everything passed. */
export function passedVerdict(): Verdict {
  const { claims, ...failed } = failedVerdict()
  const passed = claims.filter(({ status }) => status === "passed")
  const assurance = {
    label: "tpm-by-host",
    meaning:
      "the TPM is run by the host: the TEE report proves memory encryption and launch state, while boot and IMA results hold as far as the host's TPM is honest",
  } as const
  return {
    ...failed,
    passed: true,
    simulated: false,
    assurance,
    skipped: [],
    exitCode: EXIT.ok,
    claims: passed,
  }
}
