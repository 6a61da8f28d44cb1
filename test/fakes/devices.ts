/** Devices without hardware: they sign for real, with test keys, so that the real verifier runs on what they give. */
import { createHash } from "node:crypto"
import { NativeError } from "../../src/errors.ts"
import { encodeMeasurementList, type NewEntry } from "../../src/formats/ima/encode.ts"
import { encodeSnpReport } from "../../src/formats/snp/report.ts"
import { ALG } from "../../src/formats/tpm/algorithms.ts"
import { encodeAttest } from "../../src/formats/tpm/attest.ts"
import { selectPcrs } from "../../src/formats/tpm/pcr-selection.ts"
import { encodeSignature } from "../../src/formats/tpm/signature.ts"
import type { Devices, MeasurementListSource, ReportDevice, Tpm } from "../../src/native/ports.ts"
import { makeSoftwareAk } from "./software-ak.ts"

/** A report device that signs nothing: fields of a report, with the report data asked for. */
export function fakeReportDevice(): ReportDevice {
  const tcb = new Uint8Array(8)
  return {
    provider: "fake",
    getReport: async (reportData) => ({
      kind: "sev-snp",
      certificates: [
        {
          name: "VCEK",
          guid: "63da758d-e664-4564-adc5-f4b93be8accd",
          der: Uint8Array.of(0x30, 3, 1, 1, 0xff),
        },
      ],
      report: encodeSnpReport({
        version: 2,
        guestSvn: 7,
        policy: 0x30000n,
        familyId: new Uint8Array(16),
        imageId: new Uint8Array(16),
        vmpl: 0,
        signatureAlgo: 1,
        currentTcb: tcb,
        platformInfo: 1n,
        flags: 0,
        reportData,
        measurement: new Uint8Array(48).fill(0xab),
        hostData: new Uint8Array(32),
        idKeyDigest: new Uint8Array(48),
        authorKeyDigest: new Uint8Array(48),
        reportId: new Uint8Array(32).fill(1),
        reportIdMa: new Uint8Array(32).fill(0xff),
        reportedTcb: tcb,
        cpuid: null,
        chipId: new Uint8Array(64),
        committedTcb: tcb,
        currentBuild: 0,
        currentMinor: 0,
        currentMajor: 1,
        committedBuild: 0,
        committedMinor: 0,
        committedMajor: 1,
        launchTcb: tcb,
        launchMitVector: null,
        currentMitVector: null,
        signatureR: new Uint8Array(72),
        signatureS: new Uint8Array(72),
      }),
    }),
  }
}

/** A TPM with a restricted P-256 AK, fixed PCR values, and no EK certificate. */
export function fakeTpm(pcrs: readonly Uint8Array[] = Array.from({ length: 24 }, pcrOf)): Tpm {
  const ak = makeSoftwareAk("ecdsa-p256")
  return {
    random: async (count) => crypto.getRandomValues(new Uint8Array(count)),
    ensureKeys: async () => ({ ekPublic: ak.akPublic, akPublic: ak.akPublic }),
    readPublic: async () => null,
    ensureKey: async () => {
      throw new NativeError("ERR_TPM_NO_EK")
    },
    activateCredential: async () => {
      throw new NativeError("ERR_TPM_NO_EK")
    },
    readNv: async () => null,
    writeNv: async () => undefined,
    nitroDocument: async () => null,
    close: async () => undefined,
    quote: async (request) => {
      const pcrValues = request.pcrs.map((pcr) => pcrs[pcr] ?? new Uint8Array(32))
      const digest = createHash("sha256")
      for (const value of pcrValues) digest.update(value)
      const attest = encodeAttest({
        qualifiedSigner: new Uint8Array(34),
        extraData: request.qualifyingData,
        clock: 1000n,
        resetCount: 5,
        restartCount: 1,
        safe: true,
        firmwareVersion: 1n,
        pcrSelect: [selectPcrs(ALG.sha256, request.pcrs)],
        pcrDigest: new Uint8Array(digest.digest()),
      })
      return { attest, signature: encodeSignature(ak.signature(attest)), pcrValues }
    },
  }
}

/** A measurement list with these entries; by default boot_aggregate and two programs. */
export function fakeMeasurementList(entries: readonly NewEntry[] = DEFAULT_ENTRIES): MeasurementListSource {
  return {
    readBinary: async () => encodeMeasurementList(entries),
    readAscii: async () =>
      entries.map((entry) => `10 ${"0".repeat(40)} ${entry.template} ${entry.path}\n`).join(""),
  }
}

/** All three devices. */
export function fakeDevices(): Devices {
  return { tee: fakeReportDevice(), tpm: fakeTpm(), ima: fakeMeasurementList() }
}

const DEFAULT_ENTRIES: readonly NewEntry[] = ["boot_aggregate", "/usr/bin/one", "/usr/bin/two"].map(
  (path) => ({
    template: "ima-ng",
    algorithm: "sha256",
    digest: new Uint8Array(createHash("sha256").update(path).digest()),
    path,
  }),
)

function pcrOf(_: unknown, index: number): Uint8Array {
  return new Uint8Array(32).fill(index)
}
