import type { KeyObject } from "node:crypto"
import { existsSync, linkSync, readFileSync, rmSync } from "node:fs"
import { dirname } from "node:path"
import { AgentError } from "../errors.ts"
import { keyIdOf, parseVerifyingKey } from "../verify/ed25519-key.ts"
import { flushDirectory, makePrivateDirectory, writeFileAtomically } from "./atomic-file.ts"

export interface OwnerOptions {
  /** Keys of the configuration. */
  readonly configured: readonly KeyObject[]
  /** File of the key that claimed the VM. */
  readonly file: string
  /** Whether the first to ask may become owner while there is none. */
  readonly firstOwner: boolean
}

/** The keys whose signature makes a request an owner's: those of the configuration, and the one that claimed this VM. */
export class Owners {
  readonly #options: OwnerOptions
  #claimed: KeyObject | null

  /** @throws UsageError ERR_SIGNING_KEY where the file of the claimed key is damaged: it never counts as absent. */
  constructor(options: OwnerOptions) {
    this.#options = options
    this.#claimed = existsSync(options.file) ? parseVerifyingKey(readFileSync(options.file, "utf8")) : null
  }

  get keys(): readonly KeyObject[] {
    return this.#claimed === null ? this.#options.configured : [...this.#options.configured, this.#claimed]
  }

  /** Whether the next one to ask becomes owner. */
  get claimable(): boolean {
    return this.#options.firstOwner && this.keys.length === 0
  }

  /**
   * Makes the holder of a key the owner, for good. The caller has established that the request was signed with it.
   * @returns the key's identifier.
   * @throws AgentError ERR_OWNER_EXISTS where there is one, or where claims are not allowed.
   */
  claim(key: KeyObject): string {
    if (!this.claimable) throw this.#taken()
    const { file } = this.#options
    makePrivateDirectory(dirname(file))
    // A link is made where there is no such file, or not at all: of two claims at the same time one wins.
    const candidate = `${file}.claim`
    writeFileAtomically(candidate, key.export({ type: "spki", format: "pem" }), 0o600)
    try {
      linkSync(candidate, file)
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "EEXIST") throw this.#taken()
      throw error
    } finally {
      rmSync(candidate, { force: true })
    }
    flushDirectory(dirname(file))
    this.#claimed = key
    return keyIdOf(key)
  }

  #taken(): AgentError<"ERR_OWNER_EXISTS"> {
    const none = this.keys.length === 0
    return new AgentError("ERR_OWNER_EXISTS", {
      expected: none ? "first_owner = true in [auth]" : "a VM without owner",
      found: none ? "claims are not allowed" : `owner ${this.keys.map(keyIdOf).join(", ")}`,
      hint: none
        ? "put the owner's public key into [auth] owner_keys when the image is built"
        : "if that key is not yours, somebody else has claimed the VM: do not use it, and make a new one",
    })
  }
}
