import { AgentError } from "../errors.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import type { Tpm } from "../native/ports.ts"

/**
 * NV index of the certificate of the ECC P-256 endorsement key.
 * Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, section 2.2.1.4 "Low Range" (L-2).
 */
const EK_CERTIFICATE_P256 = 0x01c0_000a

export interface AttestationKeyInfo {
  /** TPMT_PUBLIC of the AK. */
  readonly akPublic: Uint8Array
  /** TPM Name of the AK. */
  readonly akName: Uint8Array
  /** Where the platform put it; null for the key that the agent made. */
  readonly akHandle: number | null
  /** DER; null where the TPM holds none. */
  readonly ekCertificate: Uint8Array | null
}

/** The TPM's keys, made on first use and remembered: they do not change while the machine runs. */
export class AttestationKey {
  readonly #tpm: Tpm
  readonly #handle: number | null
  #known: Promise<AttestationKeyInfo> | null = null

  /** @param handle of a key that the platform put into the TPM; null: the agent's own is used, and made where there is none. */
  constructor(tpm: Tpm, handle: number | null = null) {
    this.#tpm = tpm
    this.#handle = handle
  }

  /** @throws NativeError from the TPM; the next call tries again. */
  async info(): Promise<AttestationKeyInfo> {
    this.#known ??= this.#read()
    try {
      return await this.#known
    } catch (error) {
      this.#known = null
      throw error
    }
  }

  async #read(): Promise<AttestationKeyInfo> {
    const akPublic = await this.#akPublic()
    const nv = await this.#tpm.readNv(EK_CERTIFICATE_P256)
    return {
      akPublic,
      akName: tpmName(parsePublic(akPublic)),
      akHandle: this.#handle,
      ekCertificate: nv === null ? null : certificateIn(nv),
    }
  }

  async #akPublic(): Promise<Uint8Array> {
    if (this.#handle === null) return (await this.#tpm.ensureKeys()).akPublic
    const akPublic = await this.#tpm.readPublic(this.#handle)
    if (akPublic !== null) return akPublic
    throw new AgentError("ERR_NO_TPM", {
      at: `TPM handle 0x${this.#handle.toString(16)}`,
      expected: "the platform's attestation key",
      found: "no key",
    })
  }
}

/** The request of a quote by this key. */
export function quoteRequest(
  ak: AttestationKeyInfo,
  pcrs: readonly number[],
  qualifyingData: Uint8Array,
): Parameters<Tpm["quote"]>[0] {
  return { pcrs, qualifyingData, ...(ak.akHandle === null ? {} : { keyHandle: ak.akHandle }) }
}

/** The DER certificate at the beginning of an NV index: makers fill the rest of the index. Null where there is none. */
function certificateIn(nv: Uint8Array): Uint8Array | null {
  if (nv[0] !== 0x30 || nv[1] !== 0x82) return null
  const length = 4 + (nv[2] ?? 0) * 256 + (nv[3] ?? 0)
  return length <= nv.length ? nv.subarray(0, length) : null
}

/** The TPM, or an error that says that there is none. @throws AgentError ERR_NO_TPM. */
export function requireTpm(tpm: Tpm | null): Tpm {
  if (tpm !== null) return tpm
  throw new AgentError("ERR_NO_TPM", {
    hint: "give the VM a (v)TPM, or name its device as tpm_device in the table [agent] of the configuration",
  })
}
