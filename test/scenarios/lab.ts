/** A simulated VM in this process, from the parts that the agent is made of, so that one thing at a time can be changed. */
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AttestationKey } from "../../src/agent/attestation-key.ts"
import { ekKeyOf } from "../../src/agent/ek-key.ts"
import { collectEvidence } from "../../src/agent/evidence.ts"
import { makeCredential } from "../../src/client/make-credential.ts"
import { withVerified } from "../../src/commands/snapshot.ts"
import { readTpmAuthorities } from "../../src/commands/tpm-authorities.ts"
import { trustAnchorFromPem } from "../../src/endorsements/amd-roots.ts"
import { CodedError } from "../../src/errors.ts"
import {
  type Evidence,
  evidenceQualifyingData,
  evidenceReportData,
  type TpmEvidence,
} from "../../src/formats/evidence.ts"
import type { SnpReportFields } from "../../src/formats/snp/report.ts"
import { parsePublic, tpmName } from "../../src/formats/tpm/public.ts"
import { parseCertificate } from "../../src/formats/x509/certificate.ts"
import type { Devices } from "../../src/native/ports.ts"
import {
  extendSimulatedPcr,
  measureFile,
  openSimulatedMachine,
  type SimulatedMachine,
} from "../../src/native/simulated-machine.ts"
import { signSimulatedReport } from "../../src/native/simulated-report.ts"
import { loadSimulatedTee, openSimulatedTee, type SimulatedTee } from "../../src/native/simulated-tee.ts"
import { openTpm } from "../../src/native/tpm.ts"
import type { Snapshot } from "../../src/policy/snapshot.ts"
import type { Check } from "../../src/policy/verdict.ts"
import { type JudgeInput, type Judgement, judge } from "../../src/policy/verify-vm.ts"
import { EMPTY_WHITELIST } from "../../src/policy/whitelist.ts"
import type { TrustAnchor } from "../../src/verify/snp.ts"
import type { TpmAuthorities } from "../../src/verify/tpm-certificate.ts"
import type { CredentialAnswer } from "../../src/verify/tpm-credential.ts"
import type { NitroFront } from "../fakes/nitro-front.ts"

/** A TLS key, as DER SubjectPublicKeyInfo. */
export function newTlsKey(): Uint8Array {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  return new Uint8Array(publicKey.export({ type: "spki", format: "der" }))
}

/** A VM that is powered on, and what honest code makes of it. */
export class Lab {
  readonly spki = newTlsKey()
  readonly #dir: string
  readonly #chip: SimulatedTee
  readonly anchor: TrustAnchor
  #machine: SimulatedMachine
  #devices: Devices
  #key: AttestationKey
  readonly #front: NitroFront | null

  private constructor(
    dir: string,
    chip: SimulatedTee,
    anchor: TrustAnchor,
    machine: SimulatedMachine,
    devices: Devices,
    front: NitroFront | null,
  ) {
    this.#dir = dir
    this.#chip = chip
    this.anchor = anchor
    this.#machine = machine
    this.#devices = devices
    this.#key = keyOf(devices)
    this.#front = front
  }

  /** @param front what stands before its TPM; null: nothing. */
  static async open(front: NitroFront | null = null): Promise<Lab> {
    const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-lab-"))
    const chip = await loadSimulatedTee(dir)
    const anchor = trustAnchorFromPem(await Bun.file(join(dir, "trust-root.pem")).text())
    const machine = await openSimulatedMachine(dir)
    return new Lab(dir, chip, anchor, machine, await devicesOf(dir, machine, front), front)
  }

  /** File with the root of its TEE. */
  get trustRoot(): string {
    return join(this.#dir, "trust-root.pem")
  }

  async close(): Promise<void> {
    await this.#powerOff()
    this.#front?.close()
    rmSync(this.#dir, { recursive: true, force: true })
  }

  async #powerOff(): Promise<void> {
    await this.#devices.tpm?.close()
    await this.#machine.close()
  }

  /** Off and on again: a TPM reset. */
  async reboot(): Promise<void> {
    await this.#powerOff()
    this.#machine = await openSimulatedMachine(this.#dir)
    this.#devices = await devicesOf(this.#dir, this.#machine, this.#front)
    this.#key = keyOf(this.#devices)
  }

  /** The kernel command line that the next boot measures. */
  async setCommandLine(text: string): Promise<void> {
    await Bun.write(join(this.#dir, "cmdline"), text)
  }

  /** Content of the initial RAM disk that the next boot measures. */
  async setInitrd(text: string): Promise<void> {
    await Bun.write(join(this.#dir, "initrd"), text)
  }

  /** What starts the kernel at the next boot: `none` for the firmware itself. */
  async setBootLoader(loader: "grub" | "none"): Promise<void> {
    await Bun.write(join(this.#dir, "boot-loader"), loader)
  }

  /** Whether Secure Boot is on at the next boot. */
  async setSecureBoot(on: boolean): Promise<void> {
    await Bun.write(join(this.#dir, "secure-boot"), on ? "on" : "off")
  }

  /** Root in the VM measures something after it booted. */
  extend(pcr: number, data: Uint8Array): Promise<void> {
    return extendSimulatedPcr(this.#dir, pcr, data)
  }

  /** A program is run in the VM. */
  exec(path: string): Promise<void> {
    return measureFile(this.#dir, path)
  }

  /** Evidence by honest code. */
  evidence(nonce: Uint8Array, spki = this.spki): Promise<Evidence> {
    const identity = {
      spki,
      certificatePem: "",
      privateKeyPem: "",
      leafDer: new Uint8Array(0),
      notAfter: new Date(0),
    }
    return collectEvidence({ devices: this.#devices, identity, key: this.#key }, nonce, 0)
  }

  /** What root in the VM can always have: a genuine report over any data, with fields as the launch made them. */
  report(reportData: Uint8Array, overrides: Partial<SnpReportFields> = {}): Uint8Array {
    return signSimulatedReport(this.#chip.chip, { reportData, overrides })
  }

  /** What root in the VM can always have: a genuine quote over any PCRs and data. */
  async quote(pcrs: readonly number[], qualifyingData: Uint8Array) {
    const { tpm } = this.#devices
    if (tpm === null) throw new Error("the lab has a TPM")
    const { attest, signature, pcrValues } = await tpm.quote({ pcrs, qualifyingData })
    return { quote: attest, signature, pcrs: pcrValues }
  }

  /** What root in the VM can always have: a document of its own NitroTPM with any nonce. */
  async nitroDocument(nonce: Uint8Array): Promise<Uint8Array> {
    const document = await this.#devices.tpm?.nitroDocument(nonce)
    if (document == null) throw new Error("the lab has no NitroTPM")
    return document
  }

  /** Writes an NV index of the TPM. */
  async writeNv(index: number, data: Uint8Array): Promise<void> {
    await this.#devices.tpm?.writeNv(index, data)
  }

  /** Evidence with another TPM part, under a report that commits to its key and a quote that commits to the report. */
  async evidenceWithKey(
    nonce: Uint8Array,
    akPublic: Uint8Array,
    quote: (qualifyingData: Uint8Array) => { quote: Uint8Array; signature: Uint8Array },
  ): Promise<Evidence> {
    const honest = await this.evidence(nonce)
    if (honest.tee?.kind !== "sev-snp" || honest.tpm === null) throw new Error("the lab has TEE and TPM")
    const report = this.report(evidenceReportData(nonce, this.spki, tpmName(parsePublic(akPublic))))
    const made = quote(evidenceQualifyingData(nonce, this.spki, report))
    return { ...honest, tee: { ...honest.tee, report }, tpm: { ...honest.tpm, akPublic, ...made } }
  }

  /** The maker of the lab's TPM, for who believes them. */
  tpmAuthorities(): TpmAuthorities {
    return readTpmAuthorities(join(this.#dir, "tpm-ca"))
  }

  /** What a challenge for the key of this evidence gives, when the lab's genuine TPM answers it. */
  async credential({ akPublic, ekCertificate }: TpmEvidence): Promise<CredentialAnswer | CodedError | null> {
    if (ekCertificate === null) return null
    const ekSpki = parseCertificate(ekCertificate).spki
    const akName = tpmName(parsePublic(akPublic))
    const expected = Uint8Array.from(randomBytes(32))
    try {
      const request = { ek: ekKeyOf(ekSpki), ...makeCredential(ekSpki, akName, expected) }
      const returned = (await this.#devices.tpm?.activateCredential(request)) ?? new Uint8Array(0)
      return { ekSpki, akName, expected, returned }
    } catch (error) {
      if (error instanceof CodedError) return error
      throw error
    }
  }

  /** A snapshot by honest code. The files are those of the measurement list. */
  async snapshot(changes: Partial<JudgeInput> = {}): Promise<Snapshot> {
    const nonce = randomBytes(32)
    return this.snapshotOf(await this.evidence(nonce), nonce, changes)
  }

  /** A snapshot whose TPM has proven its key. */
  async enrolledSnapshot(): Promise<Snapshot> {
    const nonce = randomBytes(32)
    const evidence = await this.evidence(nonce)
    const credential = evidence.tpm === null ? null : await this.credential(evidence.tpm)
    return this.snapshotOf(evidence, nonce, { tpmAuthorities: this.tpmAuthorities(), credential })
  }

  /** A snapshot of the VM that this evidence is of. */
  snapshotOf(evidence: Evidence, nonce: Uint8Array, changes: Partial<JudgeInput> = {}): Snapshot {
    const judgement = this.judge(evidence, nonce, { ...changes, reference: null })
    if (!judgement.verdict.passed) throw new Error(JSON.stringify(judgement.verdict, null, 1))
    return withVerified(EMPTY, judgement, judgement.verdict)
  }

  judge(
    evidence: Evidence,
    nonce: Uint8Array,
    changes: Partial<JudgeInput> & { reference: Snapshot | null },
  ): Judgement {
    return judge({
      target: "https://vm.test:5555",
      at: new Date(),
      nonce,
      evidence,
      channel: {
        spki: this.spki,
        authorized: false,
        reason: "self-signed certificate",
        insecureAllowed: true,
      },
      whitelist: EMPTY_WHITELIST,
      anchors: [this.anchor],
      crl: null,
      crlAbsence: null,
      intel: { anchors: [], collateral: null, problems: [] },
      applications: [],
      skip: new Set<Check>(),
      ...changes,
    })
  }
}

/** What the assertions look at: the exit code, and the codes of the failed claim that decided it. */
export function outcome({ verdict }: Judgement): { exit: number; codes: string[] } {
  const failed = verdict.claims.filter((claim) => claim.status === "failed")
  return {
    exit: verdict.exitCode,
    codes: [...new Set(failed.flatMap((claim) => claim.findings.map(({ code }) => code)))],
  }
}

export function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest())
}

const EMPTY: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: null,
  tpm_policy: null,
  filehashes: [],
  taken_at: null,
  agent_version: null,
  host: null,
  hash_algorithm: "sha256",
  tee_reference: null,
  tpm_reference: null,
  ima_reference: null,
  unreadable: [],
}

async function devicesOf(dir: string, machine: SimulatedMachine, front: NitroFront | null): Promise<Devices> {
  return {
    tee: await openSimulatedTee(dir),
    tpm: await openTpm(front === null ? machine.tcti : await front.before(machine.tcti)),
    ima: machine.ima,
    eventLogs: machine.eventLogs,
  }
}

function keyOf(devices: Devices): AttestationKey {
  if (devices.tpm === null) throw new Error("the lab has a TPM")
  return new AttestationKey(devices.tpm)
}
