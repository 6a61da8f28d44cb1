import { createPrivateKey } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import { dirname } from "node:path"
import { AgentError, CodedError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { parsePem } from "../formats/pem.ts"
import { type Certificate, parseCertificate } from "../formats/x509/certificate.ts"
import type { AnyReport, ReportDevice } from "../native/ports.ts"
import { makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"
import { makeP256Key } from "./certificate.ts"
import { type IdentityFiles, readIdentity, type TlsIdentity } from "./identity.ts"
import { errorFields, type Log } from "./log.ts"
import { makeRatlsCertificate } from "./ratls.ts"

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE
/** A certificate is good for so long, unless what vouches for its evidence ends earlier. */
const VALIDITY = 30 * DAY
/** Part of its time after which it is renewed: a TEE that does not answer for days is no outage. */
const RENEW_AFTER = 1 / 3
const RETRY = 10 * MINUTE
/** Timers of the runtime count no further. */
const LONGEST_TIMER = 24 * 3600 * 1000

/**
 * Makes a certificate with new evidence for the key in its file; makes the key where there is none. The key stays over renewals, so
 * that applications which share it, and verifiers which know it, need nothing new. A certificate that somebody else issued is never
 * overwritten.
 * @param names host names and addresses. @param now clock.
 * @throws AgentError ERR_IDENTITY, ERR_NO_TEE; NativeError of the device
 */
export async function makeRatlsIdentity(
  files: IdentityFiles,
  names: readonly string[],
  tee: ReportDevice<AnyReport>,
  now: Date,
): Promise<TlsIdentity> {
  refuseForeign(files)
  if (!existsSync(files.privateKey)) {
    makePrivateDirectory(dirname(files.privateKey))
    writeFileAtomically(files.privateKey, await makeP256Key(), 0o600)
  }
  const privateKey = p256KeyIn(files.privateKey)
  const made = await makeRatlsCertificate({
    tee,
    names,
    extraData: new Uint8Array(0),
    // Clocks of those who verify may be a little behind.
    notBefore: new Date(now.getTime() - 5 * MINUTE),
    notAfter: new Date(now.getTime() + VALIDITY),
    privateKey,
  })
  makePrivateDirectory(dirname(files.certificate))
  writeFileAtomically(files.certificate, made.certificate, 0o644)
  return readIdentity(files)
}

/** @throws AgentError ERR_IDENTITY */
function p256KeyIn(path: string): string {
  const pem = readFileSync(path, "utf8")
  try {
    if (createPrivateKey(pem).asymmetricKeyDetails?.namedCurve === "prime256v1") return pem
  } catch (cause) {
    throw new AgentError("ERR_IDENTITY", {
      at: path,
      expected: "a PEM private key without passphrase",
      cause,
    })
  }
  throw new AgentError("ERR_IDENTITY", {
    at: path,
    expected: "a P-256 key, as RA-TLS certificates have",
    found: "another",
    hint: "move the key away to have a new one made",
  })
}

/** @throws AgentError ERR_IDENTITY where the file holds a certificate that is not signed by its own key. */
function refuseForeign({ certificate }: IdentityFiles): void {
  if (!existsSync(certificate)) return
  const leaf = leafIn(certificate)
  if (leaf !== null && bytesEqual(leaf.issuer.der, leaf.subject.der)) return
  throw new AgentError("ERR_IDENTITY", {
    at: certificate,
    expected: "no certificate, or one that the agent made",
    found: leaf === null ? "something else" : "a certificate of an authority",
    hint: 'name another file as ssl_certificate, or leave tls = "ratls" out',
  })
}

function leafIn(path: string): Certificate | null {
  try {
    const [first] = parsePem(readFileSync(path, "latin1"))
    return first === undefined ? null : parseCertificate(first.der)
  } catch (error) {
    if (error instanceof CodedError) return null
    throw error
  }
}

export interface RenewalOptions {
  readonly files: IdentityFiles
  readonly names: readonly string[]
  readonly tee: ReportDevice<AnyReport>
  readonly now: () => Date
  readonly log: Log
  /** Has the server take the new certificate. */
  readonly reload: () => Promise<unknown>
}

/** Renews the certificate in good time, for as long as it is not stopped. */
export class RatlsRenewal {
  readonly #options: RenewalOptions
  #timer: ReturnType<typeof setTimeout> | null = null
  #stopped = false

  /** @param notAfter of the present certificate. */
  constructor(options: RenewalOptions, notAfter: Date) {
    this.#options = options
    this.#plan(renewalAt(options.now(), notAfter))
  }

  stop(): void {
    this.#stopped = true
    if (this.#timer !== null) clearTimeout(this.#timer)
  }

  #plan(at: Date): void {
    if (this.#stopped) return
    const wait = at.getTime() - this.#options.now().getTime()
    const act = () => (wait > LONGEST_TIMER ? this.#plan(at) : void this.renew())
    this.#timer = setTimeout(act, Math.min(Math.max(wait, 0), LONGEST_TIMER))
    this.#timer.unref()
  }

  /** One renewal; where it fails the present certificate stays, and it is tried again. */
  async renew(): Promise<void> {
    const { files, names, tee, now, log, reload } = this.#options
    try {
      const { notAfter } = await makeRatlsIdentity(files, names, tee, now())
      await reload()
      log.info("RA-TLS certificate renewed", {
        file: files.certificate,
        not_after: notAfter.toISOString(),
      })
      this.#plan(renewalAt(now(), notAfter))
    } catch (error) {
      log.error("RA-TLS certificate not renewed: the present one stays", errorFields(error))
      this.#plan(new Date(now().getTime() + RETRY))
    }
  }
}

/** When a certificate that is made now is to be renewed. */
export function renewalAt(now: Date, notAfter: Date): Date {
  const left = notAfter.getTime() - now.getTime()
  return new Date(now.getTime() + Math.max(left * RENEW_AFTER, MINUTE))
}
