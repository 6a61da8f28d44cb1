import { PCR_SELECTIONS, selectPcrs } from "../formats/tpm/pcr-selection.ts"
import { type TpmPublic, tpmName } from "../formats/tpm/public.ts"
import { encodeSealed, type SealedObject, sealedTemplate } from "../formats/tpm/sealed.ts"
import { sized, WireWriter } from "../formats/tpm/wire.ts"
import { flush, send, type Transceive } from "./tpm-commands.ts"
import { newSessionSecret, TpmSession, writeSessionAlgorithms } from "./tpm-session.ts"

/** Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_SE". */
const SE = { hmac: 0, policy: 1, trial: 3 } as const
/** Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_RH". */
const RH_NULL = 0x40000007
const NO_BYTES = new Uint8Array(0)

/** A key that is loaded, and what is known of it. */
export interface LoadedKey {
  readonly handle: number
  readonly publicArea: TpmPublic
}

/** What has to hold for an object to be used. */
export interface Policy {
  /** Hash algorithm of the PCR bank. */
  readonly bank: number
  /** Ascending; none: PCRs do not matter. */
  readonly pcrs: readonly number[]
  /** Whether the object's authorization value has to be known as well. */
  readonly authValue: boolean
}

/** Runs with a session whose key only the holder of `key` and this process know. */
export function withSession<T>(
  transceive: Transceive,
  key: LoadedKey,
  kind: keyof typeof SE,
  use: (session: TpmSession) => T,
): T {
  const secret = newSessionSecret(key.publicArea)
  const answer = send(transceive, "startAuthSession", {
    handles: [key.handle, RH_NULL],
    parameters(to) {
      sized(64).write(secret.nonceCaller, to)
      sized(512).write(secret.encryptedSalt, to)
      to.uint(1, SE[kind])
      writeSessionAlgorithms(to)
    },
  })
  const session = new TpmSession(answer.uint(4), sized(64).read(answer), secret)
  try {
    return use(session)
  } finally {
    session.wipe()
    flush(transceive, session.handle)
  }
}

/** Meets a policy as far as the machine's state allows, and returns the digest of what was met. */
export function meetPolicy(transceive: Transceive, session: TpmSession, policy: Policy): Uint8Array {
  const handles = [session.handle]
  if (policy.pcrs.length > 0)
    send(transceive, "policyPcr", {
      handles,
      parameters(to) {
        sized(64).write(NO_BYTES, to) // pcrDigest: whatever they are now
        PCR_SELECTIONS.write([selectPcrs(policy.bank, policy.pcrs)], to)
      },
    })
  if (policy.authValue) send(transceive, "policyAuthValue", { handles })
  return sized(64).read(send(transceive, "policyGetDigest", { handles }))
}

/** The digest of a policy that the machine meets in its present state. */
export function policyDigest(transceive: Transceive, key: LoadedKey, policy: Policy): Uint8Array {
  return withSession(transceive, key, "trial", (session) => meetPolicy(transceive, session, policy))
}

/** Makes a sealed object and returns its two parts. The secret is encrypted on its way to the TPM. */
export function createSealed(
  transceive: Transceive,
  parent: LoadedKey,
  sealed: { readonly secret: Uint8Array; readonly authValue: Uint8Array; readonly authPolicy: Uint8Array },
): Uint8Array {
  const sensitive = new WireWriter()
  sized(64).write(sealed.authValue, sensitive)
  sized(256).write(sealed.secret, sensitive)
  const plain = sensitive.bytes()
  const answer = withSession(transceive, parent, "hmac", (session) =>
    send(transceive, "create", {
      handles: [parent.handle],
      protection: {
        session,
        names: [tpmName(parent.publicArea)],
        authValue: NO_BYTES,
        proves: "authValue",
        encrypts: { command: true, response: false },
      },
      parameters(to) {
        sized(512).write(plain, to)
        sized(1024).write(sealedTemplate(sealed.authPolicy, sealed.authValue.length > 0), to)
        sized(64).write(NO_BYTES, to) // outsideInfo
        PCR_SELECTIONS.write([], to) // creationPCR
      },
    }),
  )
  plain.fill(0)
  const privateArea = sized(2048).read(answer)
  return encodeSealed(privateArea, sized(1024).read(answer))
}

/** Loads an object under its parent. Its handle is transient: flush it. */
export function load(
  transceive: Transceive,
  parent: LoadedKey,
  { privateArea, publicArea }: SealedObject,
): { handle: number; name: Uint8Array } {
  const answer = send(transceive, "load", {
    handles: [parent.handle],
    authorized: 1,
    handlesBack: 1,
    parameters(to) {
      sized(2048).write(privateArea, to)
      sized(1024).write(publicArea, to)
    },
  })
  return { handle: answer.uint(4), name: sized(66).read(answer) }
}

/** The secret of a loaded object, by a session that has met its policy. It is encrypted on its way from the TPM. */
export function unseal(
  transceive: Transceive,
  object: { readonly handle: number; readonly name: Uint8Array },
  session: TpmSession,
  authValue: Uint8Array | null,
): Uint8Array {
  const answer = send(transceive, "unseal", {
    handles: [object.handle],
    protection: {
      session,
      names: [object.name],
      authValue: authValue ?? NO_BYTES,
      proves: authValue === null ? "policy" : "authValue",
      encrypts: { command: false, response: true },
    },
  })
  return sized(256).read(answer)
}
