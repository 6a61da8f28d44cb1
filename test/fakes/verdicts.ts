import { EXIT } from "../../src/errors.ts"
import { explain } from "../../src/policy/explain.ts"
import { appraiseIma } from "../../src/policy/ima.ts"
import { parseSnapshot } from "../../src/policy/snapshot.ts"
import type { Check, Claim, Finding, Verdict } from "../../src/policy/verdict.ts"
import { EMPTY_WHITELIST } from "../../src/policy/whitelist.ts"
import { bootAggregate, file, hexOf, PCRS, quoted } from "./measurement-list.ts"

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

/**
 * The verdict on a VM with three updated packages, an unknown file, and a library that was put back to an older version. The names
 * are what a hostile VM may choose where `hostile` says so.
 */
export function updatedVerdict(hostile = false): Verdict {
  const libraries = "/usr/lib/x86_64-linux-gnu"
  const name = hostile ? HOSTILE.replaceAll("\0", "") : "/tmp/.cache/kworker"
  const entries = [
    bootAggregate(),
    file("/usr/bin/bash", "bash 1"),
    file(`${libraries}/libssl.so.3`, "ssl 2"),
    file("/usr/bin/curl", "curl 2"),
    file(`${libraries}/libcurl.so.4`, "libcurl 2"),
    file("/usr/sbin/nginx", "nginx 2"),
    file("/usr/share/nginx/modules/a.so", "nginx a 2"),
    file("/usr/share/nginx/modules/b.so", "nginx b 2"),
    file(name, "evil"),
    file(`${libraries}/libssl.so.3`, "ssl 1"),
  ]
  const known = (manager: string, name: string, version: string, files: string[]) => ({
    ...{ manager, name, version, architecture: "amd64", files },
  })
  const pairs = [
    ["/usr/bin/bash", "bash 1"],
    [`${libraries}/libssl.so.3`, "ssl 2"],
    ["/usr/bin/curl", "curl 1"],
    [`${libraries}/libcurl.so.4`, "libcurl 1"],
    ["/usr/sbin/nginx", "nginx 1"],
    ["/usr/share/nginx/modules/a.so", "nginx a 1"],
    ["/usr/share/nginx/modules/b.so", "nginx b 1"],
  ].map(([path = "", content = ""]) => [path, hexOf(content)])
  const reference = parseSnapshot(
    Buffer.from(
      JSON.stringify({
        format: 2,
        hash_algorithm: "sha256",
        ima_reference: {
          template: "ima-ng",
          boot_aggregate: `sha256:${Buffer.from(bootAggregate().digest).toString("hex")}`,
        },
        packages: [
          known("dpkg", "bash", "5.2.15-2+b7", ["/usr/bin/bash"]),
          known("dpkg", "libssl3", "3.0.16-1~deb12u1", [`${libraries}/libssl.so.3`]),
          known("dpkg", "curl", "7.88.1-10+deb12u12", ["/usr/bin/curl"]),
          known("dpkg", "libcurl4", "7.88.1-10+deb12u12", [`${libraries}/libcurl.so.4`]),
          known(
            "dpkg",
            "nginx",
            "1.22.1-9+deb12u1",
            pairs.slice(4).map(([path = ""]) => path),
          ),
          {
            ...known("dpkg", "libssl3", "3.0.15-1~deb12u1", []),
            replaced: true,
            superseded: [[0, 1]],
          },
        ],
        superseded: [[`${libraries}/libssl.so.3`, hexOf("ssl 1")]],
        filehashes: pairs,
      }),
    ),
  )
  const ima = appraiseIma(quoted(...entries), reference, {
    whitelist: EMPTY_WHITELIST,
    pcrs: PCRS,
    at: new Date(0),
  })
  const { claims, ...failed } = failedVerdict()
  const all = claims.map((one) => (one.check === "ima" ? ima : one))
  const explanation = explain(all)
  return {
    ...failed,
    simulated: false,
    claims: all,
    assurance: passedVerdict().assurance,
    ...(explanation === undefined ? {} : { explanation }),
  }
}
