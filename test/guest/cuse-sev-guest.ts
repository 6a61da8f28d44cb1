/**
 * The guest's `/dev/sev-guest`: cuse-sev-guest SIMULATED-TEE-DIRECTORY
 * Runs in the guest as a service, and answers the real driver's ioctls with reports under a simulated root.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { encodeCertificateTable } from "../../src/formats/snp/certificate-table.ts"
import { signSimulatedReport } from "../../src/native/simulated-report.ts"
import { loadSimulatedTee } from "../../src/native/simulated-tee.ts"
import { serveCharacterDevice } from "./cuse.ts"
import { answerSevGuest, type SnpHardware } from "./sev-guest-driver.ts"

const [directory] = process.argv.slice(2)
if (directory === undefined) {
  console.error("usage: cuse-sev-guest SIMULATED-TEE-DIRECTORY")
  process.exit(2)
}
const hardware = await simulatedHardware(directory)
await serveCharacterDevice("sev-guest", (call) => answerSevGuest(call, hardware))

async function simulatedHardware(directory: string): Promise<SnpHardware> {
  const { chip, certificates } = await loadSimulatedTee(directory)
  const table = encodeCertificateTable(certificates)
  return {
    report: async (reportData) => signSimulatedReport(chip, { reportData }),
    certificateTable: async () => table,
    rootSecret: rootSecret(join(directory, "derived-key-secret")),
  }
}

/** The chip's secret: kept, so that a derived key is the same after a reboot. */
function rootSecret(path: string): Uint8Array {
  if (!existsSync(path)) {
    writeFileSync(path, crypto.getRandomValues(new Uint8Array(32)), { mode: 0o600, flag: "wx" })
  }
  return new Uint8Array(readFileSync(path))
}
