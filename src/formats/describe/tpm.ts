import { toHex } from "../hex.ts"
import { algorithmText } from "../tpm/algorithms.ts"
import { parseAttest, ST_ATTEST_QUOTE, TPM_GENERATED } from "../tpm/attest.ts"
import { selectedPcrs } from "../tpm/pcr-selection.ts"
import { hexNumber, type ShownRecord } from "./shown.ts"

/** TPMS_ATTEST of a quote, each field decoded. @throws ParseError as parseAttest */
export function describeAttest(bytes: Uint8Array): ShownRecord {
  const attest = parseAttest(bytes)
  return {
    magic: hexNumber(TPM_GENERATED),
    type: `${hexNumber(ST_ATTEST_QUOTE)} (quote)`,
    qualified_signer: toHex(attest.qualifiedSigner),
    extra_data: toHex(attest.extraData),
    clock: `${attest.clock}`,
    reset_count: attest.resetCount,
    restart_count: attest.restartCount,
    safe: attest.safe,
    firmware_version: hexNumber(attest.firmwareVersion),
    pcr_select: attest.pcrSelect.map((selection) => ({
      hash: algorithmText(selection.hash),
      pcrs: selectedPcrs(selection),
    })),
    pcr_digest: toHex(attest.pcrDigest),
  }
}
