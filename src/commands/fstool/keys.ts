import { randomBytes } from "node:crypto"
import { CodedError } from "../../errors.ts"
import type { LuksHeader } from "../../formats/luks/header.ts"
import { encodeSystemdTpm2Token, sealedPassphrase } from "../../formats/luks/systemd-tpm2-token.ts"
import type { MemoryFile } from "../../native/memory-file.ts"
import type { VolumeTools } from "../../native/volume-tools.ts"
import { wipe } from "../passphrase.ts"
import type { TrustedHeader } from "../trusted-header.ts"
import { changeHeader } from "./change-header.ts"
import type { FstoolMachine } from "./machine.ts"
import { tpmTokens, type Unlocking, withKey } from "./open-volume.ts"
import type { Volume } from "./volume-config.ts"

/** libcryptsetup has as many. */
const KEYSLOTS = 32
export const SYSTEMD_RECOVERY = "systemd-recovery"

export interface KeyWork {
  readonly volume: Volume
  readonly machine: FstoolMachine
  readonly tools: VolumeTools
}

/** Adds a passphrase. Returns its keyslot. */
export async function addPassphrase(
  { volume, machine, tools }: KeyWork,
  unlocking: Unlocking,
  passphrase: Uint8Array,
): Promise<number> {
  return changeHeader(volume, machine, async (header, trusted) => {
    const keyslot = freeKeyslot(trusted.header)
    await withKey(volume, trusted, machine, unlocking, (key) =>
      tools.cryptsetup.addKey({ header, key, passphrase, kdf: machine.passphraseCost, keyslot }),
    )
    return keyslot
  })
}

/** Replaces the passphrase `former` by another. Returns the new keyslot; the former one is destroyed. */
export async function changePassphrase(
  { volume, machine, tools }: KeyWork,
  former: Uint8Array,
  passphrase: Uint8Array,
): Promise<number> {
  return changeHeader(volume, machine, async (header, trusted) => {
    const old = await passphraseSlot(tools, header, trusted, former)
    const keyslot = freeKeyslot(trusted.header)
    const key = { kind: "passphrase", secret: former } as const
    await tools.cryptsetup.addKey({ header, key, passphrase, kdf: machine.passphraseCost, keyslot })
    await tools.cryptsetup.killSlot(header, old)
    return keyslot
  })
}

/**
 * Removes the passphrase. @throws CodedError ERR_LAST_KEY where nothing that a person can keep would be left: a TPM can
 * break, and its PCRs change.
 */
export async function removePassphrase(
  { volume, machine, tools }: KeyWork,
  passphrase: Uint8Array,
): Promise<number> {
  return changeHeader(volume, machine, async (header, trusted) => {
    const keyslot = await passphraseSlot(tools, header, trusted, passphrase)
    const sealed = tpmTokens(trusted.header).map((each) => each.keyslot)
    const left = usedKeyslots(trusted.header).filter((slot) => slot !== keyslot && !sealed.includes(slot))
    if (left.length === 0)
      throw new CodedError("ERR_LAST_KEY", {
        at: volume.name,
        expected: "another password or a recovery key besides this one",
        found: sealed.length === 0 ? "none" : "only the TPM",
        hint: `make one first: cosmian_vm fstool recovery-key ${volume.name}`,
      })
    await tools.cryptsetup.killSlot(header, keyslot)
    return keyslot
  })
}

export interface Enrolment {
  readonly pcrs: readonly number[]
  readonly pin: Uint8Array | null
  /** As SealRequest has it. */
  readonly storageKey?: "srk" | "systemd-252"
}

/** Has this TPM open the volume, under these conditions, in place of all enrolments that the header has. */
export async function enrolTpm(
  { volume, machine, tools }: KeyWork,
  unlocking: Unlocking,
  enrolment: Enrolment,
): Promise<number> {
  const { tpm } = machine
  if (tpm === null) throw new CodedError("ERR_NO_TPM", { at: "TPM", found: machine.tpmAbsence ?? "none" })
  return changeHeader(volume, machine, async (header, trusted) => {
    const keyslot = freeKeyslot(trusted.header)
    const secret = new Uint8Array(randomBytes(32))
    try {
      const sealed = await tpm.seal({ secret, ...enrolment })
      await addRandom(
        { volume, machine, tools },
        unlocking,
        header,
        trusted,
        sealedPassphrase(secret),
        keyslot,
      )
      await tools.cryptsetup.importToken(header, encodeSystemdTpm2Token(sealed, keyslot))
      // What is sealed must also come out, before the former enrolment goes.
      wipe(await tpm.unseal(sealed, enrolment.pin))
    } finally {
      wipe(secret)
    }
    await removeTokens(header, tools, tpmTokens(trusted.header))
    return keyslot
  })
}

/** Removes all enrolments of a TPM. Returns how many there were. */
export async function unenrolTpm({ volume, machine, tools }: KeyWork, unlocking: Unlocking): Promise<number> {
  return changeHeader(volume, machine, async (header, trusted) => {
    // What the TPM will remember has to be a header that somebody could open.
    await withKey(volume, trusted, machine, unlocking, (key) =>
      tools.cryptsetup.keyslotOf(header, key.secret),
    )
    const tokens = tpmTokens(trusted.header)
    const sealed = tokens.map(({ keyslot }) => keyslot)
    if (usedKeyslots(trusted.header).every((slot) => sealed.includes(slot)))
      throw new CodedError("ERR_LAST_KEY", {
        at: volume.name,
        expected: "a password or recovery key besides the TPM",
        found: "none",
      })
    await removeTokens(header, tools, tokens)
    return tokens.length
  })
}

/** Adds a recovery key, in place of one that the header has. @param key as people write it down. */
export async function setRecoveryKey(
  { volume, machine, tools }: KeyWork,
  unlocking: Unlocking,
  key: Uint8Array,
): Promise<number> {
  return changeHeader(volume, machine, async (header, trusted) => {
    const keyslot = freeKeyslot(trusted.header)
    await addRandom({ volume, machine, tools }, unlocking, header, trusted, key.slice(), keyslot)
    const token = { type: SYSTEMD_RECOVERY, keyslots: [`${keyslot}`] }
    await tools.cryptsetup.importToken(header, Buffer.from(JSON.stringify(token)))
    const former = trusted.header.metadata.tokens.filter(({ type }) => type === SYSTEMD_RECOVERY)
    await removeTokens(
      header,
      tools,
      former.flatMap(({ id, keyslots }) => keyslots.map((slot) => ({ token: id, keyslot: slot }))),
    )
    return keyslot
  })
}

/** Adds a passphrase of 256 random bits, and wipes it. */
async function addRandom(
  { volume, machine, tools }: KeyWork,
  unlocking: Unlocking,
  header: MemoryFile,
  trusted: TrustedHeader,
  passphrase: Uint8Array,
  keyslot: number,
): Promise<void> {
  try {
    await withKey(volume, trusted, machine, unlocking, (key) =>
      tools.cryptsetup.addKey({ header, key, passphrase, kdf: "random-secret", keyslot }),
    )
  } finally {
    wipe(passphrase)
  }
}

async function removeTokens(
  header: MemoryFile,
  tools: VolumeTools,
  tokens: readonly { readonly token: number; readonly keyslot: number }[],
): Promise<void> {
  for (const token of new Set(tokens.map((each) => each.token)))
    await tools.cryptsetup.removeToken(header, token)
  for (const { keyslot } of tokens) await tools.cryptsetup.killSlot(header, keyslot)
}

/** The keyslot of a passphrase that a person gave. */
async function passphraseSlot(
  tools: VolumeTools,
  header: MemoryFile,
  trusted: TrustedHeader,
  passphrase: Uint8Array,
): Promise<number> {
  const keyslot = await tools.cryptsetup.keyslotOf(header, passphrase)
  const token = trusted.header.metadata.tokens.find(({ keyslots }) => keyslots.includes(keyslot))
  if (token === undefined) return keyslot
  throw new CodedError("ERR_BAD_VALUE", {
    at: `keyslot ${keyslot}`,
    expected: "a password",
    found: `the key of a token ${token.type}`,
    hint: "fstool enroll and fstool recovery-key replace those",
  })
}

function usedKeyslots(header: LuksHeader): number[] {
  return header.metadata.keyslots.map(({ id }) => id)
}

function freeKeyslot(header: LuksHeader): number {
  const used = usedKeyslots(header)
  for (let slot = 0; slot < KEYSLOTS; slot++) if (!used.includes(slot)) return slot
  throw new CodedError("ERR_TOO_LARGE", {
    at: "keyslots",
    expected: `at most ${KEYSLOTS}`,
    found: "all in use",
  })
}
