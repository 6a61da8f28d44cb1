import type { ImaHook, ImaMask, ImaRule } from "../formats/ima/policy.ts"
import { IMA_PCR } from "../verify/ima-replay.ts"

/** What a kernel may measure, or not. */
export const COVERAGE_POINTS = [
  "programs",
  "libraries",
  "modules",
  "firmware",
  "kexec-kernel",
  "kexec-initramfs",
  "kexec-command-line",
  "policy",
  "critical-data",
  "keys",
  "root-reads",
] as const
export type CoveragePoint = (typeof COVERAGE_POINTS)[number]

interface PointInfo {
  readonly hook: ImaHook
  /** Access that the kernel asks for at that place; null where no file is opened. */
  readonly mask: ImaMask | null
  /** What escapes where it is not measured. */
  readonly escapes: string
  /** A rule that measures it. */
  readonly rule: string
  /** Whether something unknown may run in the VM where it is not measured, as far as rules can prevent that. */
  readonly needed: boolean
}

export const INFO: Readonly<Record<CoveragePoint, PointInfo>> = {
  programs: {
    hook: "BPRM_CHECK",
    mask: "MAY_EXEC",
    escapes: "programs, and scripts that are run by their own name",
    rule: "measure func=BPRM_CHECK mask=MAY_EXEC",
    needed: true,
  },
  libraries: {
    hook: "MMAP_CHECK",
    mask: "MAY_EXEC",
    escapes: "shared libraries, and whatever else is mapped to be executed",
    rule: "measure func=MMAP_CHECK mask=MAY_EXEC",
    needed: true,
  },
  modules: {
    hook: "MODULE_CHECK",
    mask: "MAY_READ",
    escapes: "kernel modules",
    rule: "measure func=MODULE_CHECK",
    needed: true,
  },
  firmware: {
    hook: "FIRMWARE_CHECK",
    mask: "MAY_READ",
    escapes: "firmware that drivers load into devices",
    rule: "measure func=FIRMWARE_CHECK",
    needed: true,
  },
  "kexec-kernel": {
    hook: "KEXEC_KERNEL_CHECK",
    mask: "MAY_READ",
    escapes: "a kernel that is started from the running one",
    rule: "measure func=KEXEC_KERNEL_CHECK",
    needed: true,
  },
  "kexec-initramfs": {
    hook: "KEXEC_INITRAMFS_CHECK",
    mask: "MAY_READ",
    escapes: "the initial RAM disk of a kernel that is started from the running one",
    rule: "measure func=KEXEC_INITRAMFS_CHECK",
    needed: true,
  },
  "kexec-command-line": {
    hook: "KEXEC_CMDLINE",
    mask: null,
    escapes: "the command line of a kernel that is started from the running one",
    rule: "measure func=KEXEC_CMDLINE",
    needed: true,
  },
  policy: {
    hook: "POLICY_CHECK",
    mask: "MAY_READ",
    escapes: "a policy that is loaded later and measures less",
    rule: "measure func=POLICY_CHECK",
    needed: true,
  },
  "critical-data": {
    hook: "CRITICAL_DATA",
    mask: null,
    escapes: "state of the kernel, as of SELinux and the device mapper",
    rule: "measure func=CRITICAL_DATA",
    needed: false,
  },
  keys: {
    hook: "KEY_CHECK",
    mask: null,
    escapes: "keys that are added to keyrings",
    rule: "measure func=KEY_CHECK",
    needed: false,
  },
  "root-reads": {
    hook: "FILE_CHECK",
    mask: "MAY_READ",
    escapes: "files that root's programs read: scripts given to an interpreter, configuration",
    rule: "measure func=FILE_CHECK mask=^MAY_READ euid=0",
    needed: false,
  },
}

/** What a policy makes of a point. */
export interface PointCoverage {
  readonly measured: "yes" | "partly" | "no"
  /** Where it does not measure, as conditions of rules. Empty unless "partly". */
  readonly except: readonly string[]
}
export type Coverage = ReadonlyMap<CoveragePoint, PointCoverage>
export const NOT_MEASURED: PointCoverage = { measured: "no", except: [] }

/** What a coverage says of a point. */
export function at(coverage: Coverage, point: CoveragePoint): PointCoverage {
  return coverage.get(point) ?? NOT_MEASURED
}

/**
 * Names of file systems by their magic number. `pseudo`: holds nothing that somebody could put there to be executed, so that
 * leaving it out leaves out nothing.
 * Source: Linux 6.12, include/uapi/linux/magic.h.
 */
const FILE_SYSTEMS = new Map<number, { readonly name: string; readonly pseudo: boolean }>([
  [0x9fa0, { name: "proc", pseudo: true }],
  [0x62656572, { name: "sysfs", pseudo: true }],
  [0x64626720, { name: "debugfs", pseudo: true }],
  [0x74726163, { name: "tracefs", pseudo: true }],
  [0x1cd1, { name: "devpts", pseudo: true }],
  [0x42494e4d, { name: "binfmt_misc", pseudo: true }],
  [0x73636673, { name: "securityfs", pseudo: true }],
  [0xf97cff8c, { name: "selinuxfs", pseudo: true }],
  [0x43415d53, { name: "smackfs", pseudo: true }],
  [0x27e0eb, { name: "cgroup", pseudo: true }],
  [0x63677270, { name: "cgroup2", pseudo: true }],
  [0x6e736673, { name: "nsfs", pseudo: true }],
  [0xde5e81e4, { name: "efivarfs", pseudo: true }],
  [0xcafe4a11, { name: "bpf", pseudo: true }],
  [0x1021994, { name: "tmpfs, memory files (memfd) and shared memory", pseudo: false }],
  [0x858458f6, { name: "ramfs", pseudo: false }],
  [0x794c7630, { name: "overlayfs, as containers have it", pseudo: false }],
  [0x6969, { name: "NFS", pseudo: false }],
  [0x65735546, { name: "FUSE", pseudo: false }],
])

/** What the kernel measures by these rules. */
export function coverageOf(rules: readonly ImaRule[]): Coverage {
  const measuring = rules.filter(({ action }) => action === "measure" || action === "dont_measure")
  return new Map(COVERAGE_POINTS.map((point) => [point, pointCoverage(measuring, point)]))
}

/**
 * Goes through the rules as the kernel does: the first one that fits decides, whether the file is then measured or not.
 * Source: Linux 6.12, security/integrity/ima/ima_policy.c (ima_match_policy, ima_match_rules).
 */
function pointCoverage(rules: readonly ImaRule[], point: CoveragePoint): PointCoverage {
  const without: string[] = []
  const only: string[] = []
  for (const rule of rules) {
    if (!concerns(rule, INFO[point])) continue
    const limits = limitsOf(rule, point)
    const text = limits.map(limitText).join(" and ")
    if (rule.action === "dont_measure" || isElsewhere(rule)) {
      if (limits.length === 0) break
      if (!isPseudo(limits)) without.push(`not where ${text}`)
    } else if (rule.options.includes(VERITY)) {
      only.push([...limits.map(limitText), UNDER_VERITY].join(" and "))
      if (limits.length === 0) break
      without.push(`not where ${text} and not ${UNDER_VERITY}`)
    } else {
      if (limits.length === 0) return { measured: without.length === 0 ? "yes" : "partly", except: without }
      only.push(text)
    }
  }
  if (only.length === 0) return NOT_MEASURED
  return { measured: "partly", except: [`only where ${only.join(", or ")}`, ...without] }
}

/** What has no digest of fs-verity is not measured at all by such a rule, nor by one behind it. */
const VERITY = "digest_type=verity"
const UNDER_VERITY = "under fs-verity"

/** Measured into a register that is no part of the list's replay. */
function isElsewhere({ options }: ImaRule): boolean {
  return options.some((option) => option.startsWith("pcr=") && Number(option.slice(4)) !== IMA_PCR)
}

/** Keys and critical data are asked about by their own rules alone; a command line is data beside a file, opened for nothing. */
function concerns({ hook: named, mask: asked, action }: ImaRule, { hook, mask }: PointInfo): boolean {
  if (named !== null && named !== hook) return false
  if (mask === null) return named === hook || (hook === "KEXEC_CMDLINE" && asked === null)
  if (asked === null || asked.name === mask) return true
  // A file may be opened for more than one thing at once.
  return hook === "FILE_CHECK" && asked.among && action === "dont_measure"
}

/** Conditions that not everything which the point is about meets. */
function limitsOf({ action, conditions, mask, hook }: ImaRule, point: CoveragePoint): string[] {
  const byRoot = (condition: string) => point === "root-reads" && /^e?uid=0+$/.test(condition)
  const limits = conditions.filter((condition) => !byRoot(condition))
  // Linux before 5.9 asks rules that name it alone.
  if (point === "kexec-command-line" && hook === null && action === "measure")
    return [...limits, "the kernel is Linux 5.9 or later"]
  if (point !== "root-reads" || mask === null) return limits
  // Opened for reading and writing at once is another access.
  if (!mask.among) return [...limits, `mask=${mask.name} alone`]
  return mask.name === "MAY_READ" ? limits : [...limits, `mask=^${mask.name}`]
}

function isPseudo(limits: readonly string[]): boolean {
  return limits.length === 1 && fileSystem(limits[0] ?? "")?.pseudo === true
}

function limitText(limit: string): string {
  const name = fileSystem(limit)?.name
  return name === undefined ? limit : `${limit} (${name})`
}

function fileSystem(condition: string) {
  const magic = /^fsmagic=(?:0x)?([0-9a-fA-F]+)$/.exec(condition)?.[1]
  return magic === undefined ? undefined : FILE_SYSTEMS.get(Number.parseInt(magic, 16))
}

/** A point of a policy for people: what it is about, and the rule that measures it. */
export interface DescribedPoint extends PointCoverage {
  readonly point: CoveragePoint
  readonly about: string
  readonly rule: string
  readonly needed: boolean
}

/** What a policy measures, point by point. */
export function describeCoverage(coverage: Coverage): DescribedPoint[] {
  return COVERAGE_POINTS.map((point) => {
    const { escapes, rule, needed } = INFO[point]
    return { point, ...at(coverage, point), about: escapes, rule, needed }
  })
}
