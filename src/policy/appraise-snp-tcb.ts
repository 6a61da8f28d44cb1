import type { Tcb } from "../formats/snp/tcb.ts"
import type { SnpAttestation } from "../verify/snp.ts"
import type { ProductFloors, SnpExpectations, TcbFloor } from "./attestation-policy.ts"
import { compareVersions, versionText } from "./guest-policy.ts"
import { mismatch, policyClaim } from "./policy-findings.ts"
import type { Claim, Finding } from "./verdict.ts"

const UPDATE = "have the host's firmware updated, or move the VM to a host that is up to date"

/**
 * Appraises the platform's firmware: floors of the reported, committed and launch TCB, version and build, and whether what runs
 * is what the host has committed to. The TCB is compared component by component: a higher one makes up for nothing.
 * @param snp null where the policy says nothing: then nothing is compared, and the other claim fails.
 */
export function appraiseSnpTcb(attestation: SnpAttestation, snp: SnpExpectations | null): Claim {
  const { report, reportedTcb, committedTcb, currentTcb, launchTcb } = attestation
  const findings =
    snp === null
      ? []
      : [
          ...floorFindings(attestation, snp),
          ...versionFindings(attestation, snp),
          ...provisionalFindings(attestation, snp),
        ]
  const floors = snp !== null && Object.values(snp.minimumTcb).some((floor) => floor !== null)
  return policyClaim({
    check: "tcb",
    failureClass: "tcb",
    findings,
    warnings: [],
    summary: floors
      ? `no TCB component below the policy's (${tcbText(reportedTcb)})`
      : `reported TCB: ${tcbText(reportedTcb)}; the policy sets no least TCB`,
    facts: {
      reported_tcb: tcbText(reportedTcb),
      committed_tcb: tcbText(committedTcb),
      current_tcb: tcbText(currentTcb),
      launch_tcb: tcbText(launchTcb),
      firmware: `${report.currentMajor}.${report.currentMinor} build ${report.currentBuild}`,
      committed_firmware: `${report.committedMajor}.${report.committedMinor} build ${report.committedBuild}`,
    },
  })
}

/** A TCB for people: `bootloader 4, tee 0, …`. */
function tcbText(tcb: TcbFloor): string {
  return Object.entries(tcb)
    .map(([component, level]) => `${component} ${level}`)
    .join(", ")
}

function floorFindings(attestation: SnpAttestation, { minimumTcb }: SnpExpectations): Finding[] {
  const { product, reportedTcb, committedTcb, launchTcb } = attestation
  const compare = (name: string, floors: ProductFloors, found: Tcb, what: string): Finding[] => {
    if (floors === null) return []
    const floor = floors[product]
    if (floor !== undefined) return belowFloor(name, floor, found, what)
    return [
      mismatch(
        "ERR_TCB_REFERENCE",
        name,
        `a least TCB for ${product}`,
        Object.keys(floors).join(", ") || "none",
        {
          meaning: "the policy sets a least TCB, but for other processors than the one that made the report",
          remedy: `write the least TCB of ${product} into the policy`,
        },
      ),
    ]
  }
  return [
    ...compare(
      "reported_tcb",
      minimumTcb.reported,
      reportedTcb,
      "the TCB that the host reports and signs with",
    ),
    ...compare(
      "committed_tcb",
      minimumTcb.committed,
      committedTcb,
      "the TCB below which the firmware will not go back",
    ),
    ...compare("launch_tcb", minimumTcb.launch, launchTcb, "the TCB under which the VM was launched"),
  ]
}

function belowFloor(name: string, floor: TcbFloor, found: Tcb, what: string): Finding[] {
  const levels: Readonly<Record<string, number | undefined>> = { ...found }
  return Object.entries(floor).flatMap(([component, minimum]) => {
    const level = levels[component]
    if (level !== undefined && level >= minimum) return []
    return [
      mismatch(
        "ERR_TCB_BELOW",
        `${name} ${component}`,
        `${minimum} or higher`,
        `${level ?? "no such component"}`,
        {
          meaning: `${what} is below the policy's`,
          remedy: UPDATE,
        },
      ),
    ]
  })
}

function versionFindings({ report }: SnpAttestation, { firmware }: SnpExpectations): Finding[] {
  const { minimumVersion, minimumBuild } = firmware
  const version = { major: report.currentMajor, minor: report.currentMinor }
  const findings: Finding[] = []
  if (compareVersions(version, minimumVersion) < 0)
    findings.push(
      mismatch(
        "ERR_TCB_FIRMWARE",
        "firmware version",
        `${versionText(minimumVersion)} or higher`,
        versionText(version),
        { meaning: "the platform runs older firmware than the policy allows", remedy: UPDATE },
      ),
    )
  if (report.currentBuild < minimumBuild)
    findings.push(
      mismatch("ERR_TCB_FIRMWARE", "firmware build", `${minimumBuild} or higher`, `${report.currentBuild}`, {
        meaning: "the platform runs older firmware than the policy allows",
        remedy: UPDATE,
      }),
    )
  return findings
}

/** Firmware that the host has not committed to can be taken back to an older one while the VM runs. */
function provisionalFindings(attestation: SnpAttestation, { firmware }: SnpExpectations): Finding[] {
  const { report, currentTcb, committedTcb } = attestation
  const current = { major: report.currentMajor, minor: report.currentMinor }
  const committed = { major: report.committedMajor, minor: report.committedMinor }
  const pairs: (readonly [
    subject: string,
    committed: number,
    current: number,
    text: readonly [string, string],
  ])[] = [
    [
      "committed version",
      compareVersions(committed, current),
      0,
      [versionText(committed), versionText(current)],
    ],
    [
      "committed build",
      report.committedBuild,
      report.currentBuild,
      [`${report.committedBuild}`, `${report.currentBuild}`],
    ],
    ...tcbPairs(committedTcb, currentTcb),
  ]
  return pairs.flatMap(([subject, was, is, [wasText, isText]]) => {
    if (was === is || (was < is && firmware.provisional === "allowed")) return []
    return [
      mismatch("ERR_TCB_PROVISIONAL", subject, was < is ? isText : `${isText} or lower`, wasText, {
        meaning:
          was < is
            ? "the host runs firmware that it has not committed to, and may go back to an older one"
            : "the host has committed to newer firmware than it runs, which cannot be",
        remedy:
          was < is
            ? "have the host commit its firmware, or allow provisional firmware in the policy"
            : "do not trust this host",
      }),
    ]
  })
}

function tcbPairs(
  committed: Tcb,
  current: Tcb,
): (readonly [string, number, number, readonly [string, string]])[] {
  const levels: Readonly<Record<string, number | undefined>> = { ...current }
  return Object.entries(committed).map(([component, level]) => {
    const is = levels[component] ?? 0
    return [`committed_tcb ${component}`, level, is, [`${level}`, `${is}`]] as const
  })
}
