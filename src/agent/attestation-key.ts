import { AgentError, NativeError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { parsePublic, tpmName } from "../formats/tpm/public.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import type { Tpm } from "../native/ports.ts"
import { spkiOf } from "../verify/tpm-signature.ts"

/**
 * NV indexes of certificates of endorsement keys, in the order in which they are taken: the keys that cost least come first.
 * Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, section 2.2.1.4 "Low Range" (L-2, L-1) and 2.2.1.5 "High
 * Range" (H-2, H-3, H-1, H-6, H-7).
 */
export const EK_CERTIFICATES = [
  0x01c0_000a, 0x01c0_0002, 0x01c0_0014, 0x01c0_0016, 0x01c0_0012, 0x01c0_001c, 0x01c0_001e,
] as const
/** Where makers put the certificates above, one after the other. Source: the same, section 2.2.1.5.2 "EK Certificate Chains". */
const EK_CHAIN = { first: 0x01c0_0100, last: 0x01c0_010f } as const
/**
 * Where Google's virtual TPMs hold an attestation key's certificate and template, ECC and RSA.
 * Source: google/go-tpm-tools, client/handles.go.
 */
const GOOGLE_KEYS = [
  { certificate: 0x01c1_0002, template: 0x01c1_0003 },
  { certificate: 0x01c1_0000, template: 0x01c1_0001 },
] as const
/** Persistent handle of a key made from such a template: next to our own. */
const PLATFORM_AK_HANDLE = 0x8100_0052
/** Where an attestation key may be that the agent signs with: a platform's, its own. */
export const AK_HANDLES = [PLATFORM_AK_HANDLE, 0x8100_0051] as const
/** More certificates than this are no chain. */
const MAX_CHAIN = 8

export interface AttestationKeyInfo {
  /** TPMT_PUBLIC of the AK. */
  readonly akPublic: Uint8Array
  /** TPM Name of the AK. */
  readonly akName: Uint8Array
  /** Where the platform's key is; null for the key that the agent made. */
  readonly akHandle: number | null
  /** DER; null where the TPM holds none for this key. */
  readonly akCertificate: Uint8Array | null
  /** DER; null where the TPM holds none. */
  readonly ekCertificate: Uint8Array | null
  /** DER of the authorities that the TPM holds beside them. */
  readonly certificates: readonly Uint8Array[]
}

/** The TPM's keys, made on first use and remembered: they do not change while the machine runs. */
export class AttestationKey {
  readonly #tpm: Tpm
  readonly #handle: number | null
  #known: Promise<AttestationKeyInfo> | null = null

  /** @param handle of a key that the platform put into the TPM; null: Google's where there is one, else the agent's own. */
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
    const { akPublic, akHandle, akCertificate } = await this.#key()
    const ekCertificate = await this.#ekCertificate()
    return {
      akPublic,
      akName: tpmName(parsePublic(akPublic)),
      akHandle,
      akCertificate,
      ekCertificate,
      certificates: ekCertificate === null ? [] : await this.#chain(),
    }
  }

  async #key(): Promise<Pick<AttestationKeyInfo, "akPublic" | "akHandle" | "akCertificate">> {
    const own = { akHandle: this.#handle, akCertificate: null }
    if (this.#handle === null)
      return (await this.#googleKey()) ?? { ...own, akPublic: (await this.#tpm.ensureKeys()).akPublic }
    const akPublic = await this.#tpm.readPublic(this.#handle)
    if (akPublic !== null) return { ...own, akPublic }
    throw new AgentError("ERR_NO_TPM", {
      at: `TPM handle 0x${this.#handle.toString(16)}`,
      expected: "the platform's attestation key",
      found: "no key",
    })
  }

  /** A key that its certificate is not for is nobody's: then the agent's own key does as well. */
  async #googleKey(): Promise<Pick<AttestationKeyInfo, "akPublic" | "akHandle" | "akCertificate"> | null> {
    for (const { certificate, template } of GOOGLE_KEYS) {
      const akCertificate = certificateIn(await this.#nv(certificate))
      const made = akCertificate === null ? null : await this.#nv(template)
      if (akCertificate === null || made === null) continue
      const akPublic = await this.#tpm.ensureKey(PLATFORM_AK_HANDLE, made)
      if (bytesEqual(spkiOf(parsePublic(akPublic)), parseCertificate(akCertificate).spki))
        return { akPublic, akHandle: PLATFORM_AK_HANDLE, akCertificate }
    }
    return null
  }

  async #ekCertificate(): Promise<Uint8Array | null> {
    for (const index of EK_CERTIFICATES) {
      const certificate = certificateIn(await this.#nv(index))
      if (certificate !== null) return certificate
    }
    return null
  }

  async #chain(): Promise<Uint8Array[]> {
    const parts: Uint8Array[] = []
    for (let index: number = EK_CHAIN.first; index <= EK_CHAIN.last; index++) {
      const part = await this.#nv(index)
      if (part === null) break
      parts.push(part)
    }
    return certificatesIn(new Uint8Array(Buffer.concat(parts)))
  }

  /** An index that may not be read holds nothing for us: a verifier will say that it misses a certificate. */
  async #nv(index: number): Promise<Uint8Array | null> {
    try {
      return await this.#tpm.readNv(index)
    } catch (error) {
      if (error instanceof NativeError && error.code === "ERR_TPM_COMMAND") return null
      throw error
    }
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

/** DER certificates that stand one after the other; what follows the last is filling. */
function certificatesIn(bytes: Uint8Array): Uint8Array[] {
  const found: Uint8Array[] = []
  for (let rest = bytes; found.length < MAX_CHAIN; ) {
    const next = certificateIn(rest)
    if (next === null) break
    found.push(next)
    rest = rest.subarray(next.length)
  }
  return found
}

/** The DER certificate at the beginning of an NV index: makers fill the rest of the index. Null where there is none. */
function certificateIn(nv: Uint8Array | null): Uint8Array | null {
  if (nv === null || nv[0] !== 0x30 || nv[1] !== 0x82) return null
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
