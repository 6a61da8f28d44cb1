import { NativeError } from "../errors.ts"
import { encodeNitroRequest, parseNitroResponse } from "../formats/nitro/request.ts"
import { ALG } from "../formats/tpm/algorithms.ts"
import * as commands from "./tpm-commands.ts"

/**
 * AWS's NitroTPM answers one command that other TPMs do not have: it takes the request out of an NV index and puts its answer in the
 * request's place. Source: aws/NitroTPM-Tools, nitro-tpm-attest. None of this was tried on AWS.
 */
const VENDOR_STRING = "NitroTPM"
/** Of the owner's range, where nothing else of ours is. */
export const NITRO_INDEX = 0x0180c05a
/** A document has about 5 KiB. */
export const NITRO_BUFFER_BYTES = 8192
/** The index itself, with empty authorization, may read and write it. */
const ATTRIBUTES = commands.NV.authRead + commands.NV.authWrite
const CHUNK = 512

/**
 * An attestation document with this nonce (up to 64 bytes); null where the TPM is no NitroTPM.
 * @throws NativeError ERR_TPM_COMMAND, ERR_TPM_RESPONSE, ERR_TPM_HANDLE_TAKEN; ParseError of an answer without a document
 */
export function nitroDocument(transceive: commands.Transceive, nonce: Uint8Array): Uint8Array | null {
  if (!commands.vendorString(transceive).startsWith(VENDOR_STRING)) return null
  removeLeftover(transceive)
  commands.defineNv(transceive, {
    nvIndex: NITRO_INDEX,
    nameAlg: ALG.sha256,
    attributes: ATTRIBUTES,
    authPolicy: new Uint8Array(0),
    dataSize: NITRO_BUFFER_BYTES,
  })
  try {
    commands.writeNv(transceive, NITRO_INDEX, NITRO_INDEX, encodeNitroRequest(nonce), 0)
    commands.nsmRequest(transceive, NITRO_INDEX)
    return parseNitroResponse(readBuffer(transceive))
  } finally {
    commands.undefineNv(transceive, NITRO_INDEX)
  }
}

/** A process that was killed in between leaves its index behind. */
function removeLeftover(transceive: commands.Transceive): void {
  const found = commands.readNvPublic(transceive, NITRO_INDEX)
  if (found === null) return
  const ours = (found.attributes & ~commands.NV.written) === ATTRIBUTES
  if (ours && found.dataSize === NITRO_BUFFER_BYTES) {
    commands.undefineNv(transceive, NITRO_INDEX)
    return
  }
  throw new NativeError("ERR_TPM_HANDLE_TAKEN", {
    at: `NV index 0x${NITRO_INDEX.toString(16)}`,
    expected: "a free index",
    found: `one of ${found.dataSize} bytes`,
    hint: `find out whose it is; if nobody's: tpm2_nvundefine 0x${NITRO_INDEX.toString(16)}`,
  })
}

function readBuffer(transceive: commands.Transceive): Uint8Array {
  const out = new Uint8Array(NITRO_BUFFER_BYTES)
  for (let offset = 0; offset < out.length; offset += CHUNK) {
    const some = commands.readNv(transceive, NITRO_INDEX, NITRO_INDEX, CHUNK, offset)
    if (some.length !== CHUNK)
      throw new NativeError("ERR_TPM_RESPONSE", {
        at: "NitroTPM response",
        expected: `${CHUNK} bytes`,
        found: `${some.length}`,
      })
    out.set(some, offset)
  }
  return out
}
