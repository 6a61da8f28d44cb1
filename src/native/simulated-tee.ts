import { createPrivateKey, createPublicKey, type KeyObject, randomBytes } from "node:crypto"
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { CodedError, NativeError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { encodePem } from "../formats/pem.ts"
import { SNP_CERTIFICATE_GUIDS } from "../formats/snp/certificate-table.ts"
import { parseSnpLeaf, type SnpLeaf } from "../formats/snp/leaf-certificate.ts"
import type { Tcb } from "../formats/snp/tcb.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import type { KeyDerivation, ReportDevice, TeeCertificate } from "./ports.ts"
import {
  createReportKey,
  createSimulatedAuthorities,
  issueSimulatedCrl,
  issueSimulatedVcek,
} from "./simulated-certificates.ts"
import { deriveSimulatedKey } from "./simulated-derived-key.ts"
import { type SimulatedChip, signSimulatedReport, simulatedMeasurement } from "./simulated-report.ts"

/** A simulated chip with its certificates. */
export interface SimulatedTee {
  readonly chip: SimulatedChip
  /** ARK, ASK, VCEK, and the root's revocation list. */
  readonly certificates: readonly TeeCertificate[]
}

const PRODUCT = "Milan"
const TCB: Tcb = { bootloader: 4, tee: 0, snp: 24, microcode: 219 }
/** Within the directory: everything that makes the chip. It appears at once and complete, by a rename. */
const CHIP = "tee"
const ROOT = "trust-root.pem"
/** What stands for firmware and kernel of the VM: another content, another measurement. Absent: nothing was changed. */
const LAUNCH = "launch"

/**
 * A TEE made of software: reports in the real format, signed under a root that was made for this directory on first
 * use. It proves nothing about hardware, and a verifier accepts it only where the root is named (`dir/trust-root.pem`).
 * @throws NativeError ERR_SIMULATED_TEE, ERR_IO
 */
export async function openSimulatedTee(dir: string): Promise<ReportDevice & KeyDerivation> {
  const { chip, certificates } = await loadSimulatedTee(dir)
  return {
    provider: "simulated",
    async getReport(reportData) {
      return { kind: "sev-snp", report: signSimulatedReport(chip, { reportData }), certificates }
    },
    deriveKey: async (request) => deriveSimulatedKey(chip, request),
  }
}

/** The chip of a directory, made on first use. Several processes may do so at once. @throws as openSimulatedTee */
export async function loadSimulatedTee(dir: string): Promise<SimulatedTee> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    if (!(await exists(join(dir, CHIP)))) await create(dir)
    const tee = await read(join(dir, CHIP), await launched(dir))
    await writeRoot(dir, tee)
    return tee
  } catch (cause) {
    if (cause instanceof NativeError) throw cause
    if (cause instanceof CodedError) throw unusable(dir, cause.message, cause)
    const found = cause instanceof Error ? cause.message : String(cause)
    throw new NativeError("ERR_IO", { at: dir, found, cause })
  }
}

/** The keys of ARK and ASK are dropped: nothing further can ever be signed under this root, and nothing revoked. */
async function create(dir: string): Promise<void> {
  const now = new Date(Date.now() - 60_000)
  const [{ ark, ask }, key] = await Promise.all([createSimulatedAuthorities(PRODUCT, now), createReportKey()])
  const hwId = Uint8Array.from(randomBytes(64))
  const vcek = issueSimulatedVcek({ product: PRODUCT, ask, publicKey: key.publicKey, hwId, tcb: TCB, now })
  const made = await mkdtemp(join(dir, ".tee-"))
  try {
    await chmod(made, 0o700)
    const pem = key.privateKey.export({ type: "pkcs8", format: "pem" })
    await writeFile(join(made, "vcek.key"), pem, { mode: 0o600, flush: true })
    for (const [name, der] of [
      ["ark", ark.der],
      ["ask", ask.der],
      ["vcek", vcek],
      ["crl", issueSimulatedCrl(ark, now)],
    ] as const)
      await writeFile(join(made, `${name}.der`), der, { flush: true })
    await rename(made, join(dir, CHIP))
  } catch (error) {
    await rm(made, { recursive: true, force: true })
    // Another process was faster: its chip is as good as ours.
    if (!(await exists(join(dir, CHIP)))) throw error
  }
}

async function launched(dir: string): Promise<Uint8Array> {
  const path = join(dir, LAUNCH)
  return (await exists(path)) ? Uint8Array.from(await readFile(path)) : new Uint8Array(0)
}

async function read(dir: string, launch: Uint8Array): Promise<SimulatedTee> {
  const bytes = async (name: string) => Uint8Array.from(await readFile(join(dir, name)))
  const [ark, ask, vcek, crl] = await Promise.all([
    bytes("ark.der"),
    bytes("ask.der"),
    bytes("vcek.der"),
    bytes("crl.der"),
  ])
  const leaf = parseCertificate(vcek)
  const facts = parseSnpLeaf(leaf)
  const key = await readKey(dir, leaf.spki)
  const certificate = (name: "ARK" | "ASK" | "VCEK" | "CRL", der: Uint8Array) => ({
    name,
    guid: SNP_CERTIFICATE_GUIDS[name],
    der,
  })
  return {
    chip: chipOf(dir, key, facts, launch),
    certificates: [
      certificate("ARK", ark),
      certificate("ASK", ask),
      certificate("VCEK", vcek),
      certificate("CRL", crl),
    ],
  }
}

function chipOf(
  dir: string,
  key: KeyObject,
  { product, hwId, tcb }: SnpLeaf,
  launch: Uint8Array,
): SimulatedChip {
  if (hwId === null) throw unusable(dir, "a VLEK certificate")
  const reportId = Uint8Array.from(randomBytes(32))
  return { product, key, hwId, tcb, measurement: simulatedMeasurement(hwId, launch), reportId }
}

async function readKey(dir: string, spki: Uint8Array): Promise<KeyObject> {
  const pem = await readFile(join(dir, "vcek.key"), "utf8")
  const key = decodeKey(dir, pem)
  if (!bytesEqual(createPublicKey(key).export({ type: "spki", format: "der" }), spki))
    throw unusable(dir, "a key that does not belong to its certificate")
  return key
}

function decodeKey(dir: string, pem: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw unusable(dir, "a file that is no private key", cause)
  }
}

/** The root for `--trust-root`, beside the chip. Written anew where it is missing. */
async function writeRoot(dir: string, { certificates }: SimulatedTee): Promise<void> {
  const path = join(dir, ROOT)
  const [ark] = certificates
  if (ark === undefined || (await exists(path))) return
  const draft = `${path}.${process.pid}`
  await writeFile(draft, encodePem("CERTIFICATE", ark.der), { flush: true })
  await rename(draft, path)
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return false
      throw error
    },
  )
}

function unusable(dir: string, found: string, cause?: unknown): NativeError {
  return new NativeError("ERR_SIMULATED_TEE", {
    at: dir,
    found,
    hint: `remove ${dir} to make a new simulated TEE; snapshots of the old one become useless`,
    ...(cause === undefined ? {} : { cause }),
  })
}
