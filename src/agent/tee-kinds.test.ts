import { describe, expect, test } from "bun:test"
import {
  azureSnpMachine,
  azureTdxMachine,
  devicesOf,
  judged,
  NONCE,
  outcomeOf,
  snapshotOf,
  snpMachine,
  TLS_KEY,
  tdxMachine,
} from "../../test/fakes/machines.ts"
import { codeOf } from "../../test/fakes/simulated.ts"
import { fakeChip } from "../../test/fakes/snp.ts"
import { AZURE_VTPM } from "../formats/azure/vtpm.ts"
import { encodeEvidence, parseEvidence } from "../formats/evidence.ts"
import { toBase64, toHex } from "../formats/hex.ts"
import { parseLegacySnpBlob } from "../formats/snp/legacy-blob.ts"
import { parseTdxQuote } from "../formats/tdx/quote.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { createAgentApp } from "./app.ts"
import { AttestationKey } from "./attestation-key.ts"
import { parseAgentConfig } from "./config.ts"
import { collectEvidence } from "./evidence.ts"
import { createLog } from "./log.ts"
import { describeMachine } from "./snapshot-reference.ts"

const chip = await fakeChip()
const IDENTITY = {
  certificatePem: "",
  privateKeyPem: "",
  leafDer: Uint8Array.of(1),
  spki: TLS_KEY,
  notAfter: new Date(0),
}
const { akHandle } = AZURE_VTPM
const MACHINES = [
  ["sev-snp", snpMachine(chip), null],
  ["tdx", tdxMachine(), null],
  ["azure-snp", azureSnpMachine(chip), akHandle],
  ["azure-tdx", azureTdxMachine(), akHandle],
] as const

/** `GET /quote/tee`. */
async function legacyQuote(devices: ReturnType<typeof devicesOf>): Promise<Uint8Array> {
  const app = createAgentApp({
    devices,
    identity: IDENTITY,
    config: parseAgentConfig("", "agent.toml"),
    version: "1.2.3",
    now: () => new Date(0),
    snapshots: {
      running: false,
      progress: () => ({
        state: "none",
        files: 0,
        bytes: 0,
        total_files: null,
        unreadable: 0,
        seconds: 0,
      }),
      start: () => undefined,
      result: () => null,
      takeFailure: () => null,
      cancel: async () => undefined,
      clear: () => undefined,
    },
    apps: null,
    log: createLog(
      "json",
      () => undefined,
      () => new Date(0),
    ),
  })
  const response = await app.request(`/quote/tee?nonce=${encodeURIComponent(toBase64(NONCE))}`)
  return Uint8Array.from(JSON.parse(await response.text()))
}

describe.each(MACHINES)("an agent on %s", (kind, machine, handle) => {
  const devices = devicesOf(machine, handle)
  const key = devices.tpm === null ? null : new AttestationKey(devices.tpm, handle)

  test("gives evidence that verifies, by the key that the platform vouches for", async () => {
    const collected = await collectEvidence({ devices, identity: IDENTITY, key }, NONCE, 0)
    const evidence = parseEvidence(encodeEvidence(collected))
    expect(evidence.tee?.kind).toBe(kind)
    expect(outcomeOf(await judged(evidence, chip))).toMatchObject({ exit: 0, failed: {} })
  })

  test("describes itself as verified evidence does", async () => {
    const collected = await collectEvidence({ devices, identity: IDENTITY, key }, NONCE, 0)
    const { tee_policy } = snapshotOf(await judged(collected, chip))
    const described = await describeMachine(devices, key, null)
    expect(described.tee_policy).toEqual(tee_policy)
    expect(described.tpm_reference?.ak_name).toBe(toHex(tpmName(parsePublic(machine.ak.akPublic))))
  })

  test("answers /quote/tee with what a client of 1.3 takes", async () => {
    const bytes = await legacyQuote(devices)
    if (kind === "tdx" || kind === "azure-tdx") expect(parseTdxQuote(bytes).padding).toBe(0)
    else expect(parseLegacySnpBlob(bytes).certificates).toHaveLength(chip.certificates.length)
  })
})

test("a platform's key that is not there is an error", async () => {
  const { tpm } = devicesOf(azureSnpMachine(chip), akHandle)
  if (tpm === null) throw new Error("no TPM")
  expect(await codeOf(new AttestationKey(tpm, akHandle + 1).info())).toBe("ERR_NO_TPM")
})

test("a trust domain on Azure without a quote has no evidence", async () => {
  const devices = devicesOf(azureTdxMachine(), akHandle)
  const tee = devices.tee
  if (tee === null) throw new Error("no device")
  const without = {
    ...tee,
    getReport: async (data: Uint8Array) => ({ ...(await tee.getReport(data)), tdQuote: null }),
  }
  const sources = { devices: { tee: without, tpm: null, ima: null }, identity: IDENTITY, key: null }
  expect(await codeOf(collectEvidence(sources, NONCE, 0))).toBe("ERR_NO_TEE")
})
