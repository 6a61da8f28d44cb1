import { join } from "node:path"
import { AK_HANDLES, EK_CERTIFICATES } from "../agent/attestation-key.ts"
import type { AgentConfig } from "../agent/config.ts"
import { CodedError } from "../errors.ts"
import { HASH_ALGORITHMS } from "../formats/hash-algorithms.ts"
import { parseMeasurementList } from "../formats/ima/measurement-list.ts"
import { parseAttest } from "../formats/tpm/attest.ts"
import { hasAttribute, parsePublic } from "../formats/tpm/public.ts"
import type { MeasurementListSource, Tpm } from "../native/ports.ts"
import { DEFAULT_LOCATION, volumeAt } from "./fstool/volume-config.ts"

/** What one look at the machine found, and what to do where it is not as it should be. */
export interface Diagnosis {
  /** What was looked at, in a word or two. */
  readonly check: string
  readonly status: "ok" | "warn" | "fail"
  readonly found: string
  /** Absent where there is nothing to do. */
  readonly advice?: string
}

/** The machine that is looked at. Nothing is changed on it: keys are not made, files not written. */
export interface ExaminedMachine {
  readonly simulated: boolean
  /** Which path gives reports; null: none. */
  tee(): Promise<string | null>
  /** Null where there is none. */
  tpm(): Promise<Tpm | null>
  readonly ima: MeasurementListSource | null
  /** @throws CodedError where it cannot be read */
  config(): AgentConfig
  /** Content of a small file; null where it is absent or may not be read. */
  readText(path: string): string | null
  /** Standard output of a program; null where it is not there or failed. */
  output(command: readonly string[]): Promise<string | null>
  /** HTTP status of a GET without body; null where nobody answers in time. */
  reach(url: string): Promise<number | null>
  /** The end of validity of the agent's certificate; null: no certificate yet. @throws CodedError */
  certificate(config: AgentConfig): { readonly notAfter: Date; readonly keyExposed: boolean } | null
  readonly now: Date
  /** Base URL of the cloud's metadata service. */
  readonly metadata: string
  readonly cloud: "AWS" | "Azure" | "GCP" | null
}

/** Before this, no version of this program was built. */
const EARLIEST = new Date("2025-01-01T00:00:00Z")
const DAY_MS = 24 * 3600 * 1000
/** Certificates that end sooner are warned of. */
const SOON_DAYS = 14
const IMA_ARGUMENTS = ["ima_policy", "ima_hash", "ima_template"] as const
const AGENT_VOLUME = volumeAt(DEFAULT_LOCATION)
const LOCAL_UNITS = "/etc/systemd/system"
const UNITS = ["cosmian_vm_agent.service", "mount_luks.service"] as const
const IMA_POLICY_FILE = "/etc/ima/ima-policy"

type Check = (machine: ExaminedMachine) => Promise<Diagnosis | readonly Diagnosis[]>

const ok = (check: string, found: string): Diagnosis => ({ check, status: "ok", found })
const warn = (check: string, found: string, advice: string): Diagnosis => ({
  check,
  status: "warn",
  found,
  advice,
})
const fail = (check: string, found: string, advice: string): Diagnosis => ({
  check,
  status: "fail",
  found,
  advice,
})

/** Looks at everything, whatever else was found, in the order in which it is used. */
export async function examine(machine: ExaminedMachine): Promise<Diagnosis[]> {
  const found: Diagnosis[] = []
  for (const [name, check] of CHECKS)
    try {
      found.push(...[await check(machine)].flat())
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      found.push(fail(name, error.message, error.hint ?? "see the message"))
    }
  return found
}

async function checkTee({ tee, simulated }: ExaminedMachine): Promise<Diagnosis> {
  const provider = await tee()
  if (simulated)
    return warn("TEE", "simulated", "for trying the product out; it proves nothing about hardware")
  if (provider !== null) return ok("TEE", `reports come from ${provider}`)
  return fail(
    "TEE",
    "no device that gives reports",
    "run as root, in a SEV-SNP or TDX virtual machine whose kernel has the sev-guest or tdx-guest driver",
  )
}

async function checkTpm(machine: ExaminedMachine): Promise<readonly Diagnosis[]> {
  const tpm = await machine.tpm()
  if (tpm === null)
    return [fail("TPM", "none", "give the virtual machine a TPM 2.0, or name it as tpm_device in agent.toml")]
  try {
    return [
      ok("TPM", "a TPM 2.0 answers"),
      ...(await checkKey(tpm)),
      await checkEkCertificate(tpm),
      ...(await checkNitro(tpm)),
    ]
  } finally {
    await tpm.close()
  }
}

async function checkKey(tpm: Tpm): Promise<readonly Diagnosis[]> {
  for (const handle of AK_HANDLES) {
    const publicArea = await tpm.readPublic(handle)
    if (publicArea === null) continue
    const at = `at 0x${handle.toString(16)}`
    const missing = (["fixedTPM", "restricted", "sign"] as const).filter(
      (attribute) => !hasAttribute(parsePublic(publicArea), attribute),
    )
    if (missing.length > 0)
      return [
        fail(
          "attestation key",
          `the key ${at} is not ${missing.join(", ")}`,
          `find out whose it is; if nobody's: tpm2_evictcontrol -c 0x${handle.toString(16)}, then start the agent`,
        ),
      ]
    return [ok("attestation key", `a restricted signing key ${at}`), await checkClock(tpm, handle)]
  }
  return [warn("attestation key", "not made yet", "start the agent once: it makes the key")]
}

/** The TPM's clock as it states it itself. */
async function checkClock(tpm: Tpm, keyHandle: number): Promise<Diagnosis> {
  const quoted = await tpm.quote({ pcrs: [0], qualifyingData: new Uint8Array(0), keyHandle })
  const { resetCount, restartCount, safe, clock } = parseAttest(quoted.attest)
  const text = `boot number ${resetCount}, resumed ${restartCount} times, running for ${clock} ms`
  if (safe) return ok("TPM clock", text)
  return warn(
    "TPM clock",
    `${text}; it may repeat`,
    "nothing to do: it was not shut down in order before this boot",
  )
}

async function checkEkCertificate(tpm: Tpm): Promise<Diagnosis> {
  for (const index of EK_CERTIFICATES)
    if ((await tpm.readNv(index)) !== null)
      return ok("TPM certificate", `at NV index 0x${index.toString(16).padStart(8, "0")}`)
  return warn(
    "TPM certificate",
    "none for an endorsement key",
    "--tpm-ca cannot be used with this TPM; the verdict says what is not proven then",
  )
}

/** Nothing to say on other TPMs. */
async function checkNitro(tpm: Tpm): Promise<readonly Diagnosis[]> {
  const check = "NitroTPM document"
  try {
    const document = await tpm.nitroDocument(new Uint8Array(32))
    return document === null ? [] : [ok(check, `${document.length} bytes, signed by AWS or somebody else`)]
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    const advice =
      "on Linux before 6.3, set tpm_device to /dev/tpm0 in agent.toml; without a document nothing rests on AWS's signature"
    return [warn(check, error.message, advice)]
  }
}

async function checkIma({ ima, readText }: ExaminedMachine): Promise<Diagnosis> {
  if (ima === null)
    return fail(
      "IMA list",
      readText("/proc/mounts")?.includes(" /sys/kernel/security ") === true
        ? "the kernel has none"
        : "securityfs is not mounted",
      "mount -t securityfs securityfs /sys/kernel/security, and boot a kernel with CONFIG_IMA",
    )
  const list = parseMeasurementList(await ima.readBinary())
  const templates = list.templates.map(({ name }) => name).join(", ")
  const algorithms = new Set(Array.from(list.algorithm.subarray(0, list.count)))
  const names = [...algorithms].map((index) => HASH_ALGORITHMS[index]?.name ?? `${index}`)
  const text = `${list.count} entries, template ${templates}, digests ${names.join(", ")}`
  if (list.count < 2)
    return fail("IMA list", text, "no file is measured: install the IMA policy of the package, and reboot")
  if (names.includes("sha1")) return warn("IMA list", text, "add ima_hash=sha256 to the kernel command line")
  return ok("IMA list", text)
}

async function checkKernel({ readText, simulated }: ExaminedMachine): Promise<Diagnosis> {
  if (simulated) return ok("kernel command line", "of the simulation")
  const line = readText("/proc/cmdline")
  if (line === null) return warn("kernel command line", "cannot be read", "run as root, with /proc mounted")
  const given = line.split(/\s+/).filter((word) => IMA_ARGUMENTS.some((name) => word.startsWith(`${name}=`)))
  const policy = given.some((word) => word.startsWith("ima_policy="))
  const file = readText(IMA_POLICY_FILE) !== null
  if (policy || file) return ok("IMA policy", [...given, ...(file ? [IMA_POLICY_FILE] : [])].join(", "))
  return fail(
    "IMA policy",
    "neither ima_policy= on the kernel command line nor a file that is loaded at boot",
    `install -D -m 0644 /usr/share/cosmian_vm/ima-policy ${IMA_POLICY_FILE}, and reboot`,
  )
}

async function checkVolumes(machine: ExaminedMachine): Promise<readonly Diagnosis[]> {
  if (machine.simulated) return []
  const volumes = (machine.readText("/etc/crypttab") ?? "")
    .split("\n")
    .map((text) => text.replace(/#.*/, "").trim().split(/\s+/))
    .filter(([name = "", device = ""]) => name !== "" && device !== "")
  const found: Diagnosis[] = []
  for (const [name = "", device = "", , options = ""] of volumes)
    found.push(await checkVolume(machine, name, deviceOf(device), options))
  return found
}

async function checkVolume(
  { readText, output }: ExaminedMachine,
  name: string,
  device: string,
  options: string,
): Promise<Diagnosis> {
  const what = `volume ${name}`
  const open = readText("/proc/mounts")?.includes(`/dev/mapper/${name} `) === true
  const state = open ? "mounted" : "not mounted"
  if (name === AGENT_VOLUME.name)
    return fail(
      what,
      "in /etc/crypttab: opened with whatever header lies on the disk, and then refused by fstool",
      "remove it from /etc/crypttab and /etc/fstab, and reboot: mount_luks.service opens it",
    )
  if (/(^|,)(swap|plain|tmp(=|,|$))/.test(options)) return ok(what, `${state}, without a header`)
  const dump = await output(["cryptsetup", "luksDump", "--dump-json-metadata", device])
  if (dump === null)
    return warn(
      what,
      `${state}; the header of ${device} cannot be read`,
      "run as root; is it a LUKS2 volume?",
    )
  const tokens = tokenTypes(dump)
  if (!tokens.includes("systemd-tpm2"))
    return warn(
      what,
      `${state}; no TPM token`,
      "it asks for its passphrase at each boot: cosmian_vm fstool --help",
    )
  if (open) return ok(what, "mounted, opened by the TPM at boot")
  return warn(what, "has a TPM token and is not mounted", "see journalctl -u systemd-cryptsetup@*")
}

/** Scripts that made images of Cosmian VM 1.3 wrote units where they come before those of packages. */
async function checkUnits({ readText, simulated }: ExaminedMachine): Promise<readonly Diagnosis[]> {
  if (simulated) return []
  return UNITS.filter((unit) => (readText(join(LOCAL_UNITS, unit)) ?? "") !== "").map((unit) =>
    fail(
      `unit ${unit}`,
      `${join(LOCAL_UNITS, unit)} hides the package's`,
      "remove it, systemctl daemon-reload; what you want to change goes into a drop-in: systemctl edit",
    ),
  )
}

function deviceOf(text: string): string {
  const uuid = /^UUID=(.+)$/.exec(text)?.[1]
  return uuid === undefined ? text : `/dev/disk/by-uuid/${uuid}`
}

/** Types of the tokens in LUKS2 metadata; none where it is not understood. */
function tokenTypes(json: string): string[] {
  try {
    const { tokens }: { tokens?: Record<string, { type?: unknown }> } = JSON.parse(json)
    return Object.values(tokens ?? {}).map(({ type }) => `${type}`)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return []
    throw error
  }
}

async function checkAgent(machine: ExaminedMachine): Promise<readonly Diagnosis[]> {
  const config = machine.config()
  const { auth, warnings, file } = config
  const settings =
    warnings.length === 0
      ? ok("configuration", file)
      : warn("configuration", warnings.join("; "), `remove what has no effect from ${file}`)
  return [settings, checkCertificate(machine, config), checkWrites(auth)]
}

function checkCertificate(machine: ExaminedMachine, config: AgentConfig): Diagnosis {
  const certificate = machine.certificate(config)
  if (certificate === null) return ok("TLS certificate", "none yet: the agent makes one when it starts")
  const { notAfter, keyExposed } = certificate
  if (keyExposed)
    return fail("TLS certificate", `others may read ${config.privateKey}`, `chmod 0600 ${config.privateKey}`)
  const days = Math.floor((notAfter.getTime() - machine.now.getTime()) / DAY_MS)
  const text = `good until ${notAfter.toISOString()}`
  const advice = "renew it (cosmian_vm certtool), or remove certificate and key, and the agent makes new ones"
  if (days < 0) return fail("TLS certificate", `expired on ${notAfter.toISOString()}`, advice)
  return days < SOON_DAYS ? warn("TLS certificate", text, advice) : ok("TLS certificate", text)
}

function checkWrites(auth: AgentConfig["auth"]): Diagnosis {
  if (auth.openWrites)
    return fail(
      "writes",
      "everybody may write (open_writes)",
      "remove open_writes, and set a token in [auth]",
    )
  const kinds = [
    ...(auth.tokens.length > 0 ? ["tokens"] : []),
    ...(auth.ownerKeys.length > 0 ? ["owner keys"] : []),
    ...(auth.clients === null ? [] : ["client certificates"]),
  ]
  if (kinds.length > 0) return ok("writes", `need ${kinds.join(" or ")}`)
  return warn(
    "writes",
    auth.firstOwner ? "the first to ask becomes the owner" : "refused, save starting a snapshot",
    "set a token or an owner's key in [auth]",
  )
}

async function checkTime({ now, readText }: ExaminedMachine): Promise<Diagnosis> {
  if (now < EARLIEST)
    return fail(
      "clock",
      now.toISOString(),
      "set the clock: certificates are judged by it (timedatectl set-ntp true)",
    )
  if (readText("/run/systemd/timesync/synchronized") !== null)
    return ok("clock", `${now.toISOString()}, synchronized by systemd-timesyncd`)
  return ok("clock", now.toISOString())
}

async function checkMetadata({
  reach,
  metadata,
  cloud,
  simulated,
}: ExaminedMachine): Promise<readonly Diagnosis[]> {
  if (simulated) return []
  const status = await reach(metadata)
  if (status !== null) return [ok("metadata service", `${metadata} answers`)]
  if (cloud !== "Azure") return [ok("metadata service", "none; only Azure's is needed")]
  return [
    fail(
      "metadata service",
      `${metadata} does not answer`,
      "let the agent reach it: certificates for reports, and quotes of trust domains, come from there",
    ),
  ]
}

const CHECKS: readonly (readonly [name: string, check: Check])[] = [
  ["TEE", checkTee],
  ["TPM", checkTpm],
  ["IMA list", checkIma],
  ["IMA policy", checkKernel],
  ["volumes", checkVolumes],
  ["units", checkUnits],
  ["agent", checkAgent],
  ["clock", checkTime],
  ["metadata service", checkMetadata],
]
