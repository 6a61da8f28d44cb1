import type { ErrorCode } from "../errors.ts"
import type { LuksHeader } from "../formats/luks/header.ts"
import type {
  LuksCryptSegment,
  LuksDigest,
  LuksKeyslot,
  LuksToken,
  UnknownObject,
} from "../formats/luks/metadata.ts"
import type { Finding } from "./verdict.ts"

/** What a LUKS header may ask for. Everything that is not named here is refused. */
export interface LuksPolicy {
  /** Whether tampering with the data has to be noticed. Off only for volumes that were made without, by choice. */
  readonly integrity: "required" | "optional"
  /** Least cost of a keyslot whose passphrase a person may have chosen. `memory` in KiB. */
  readonly argon2id: { readonly time: number; readonly memory: number }
  readonly pbkdf2Iterations: number
  /** Least iterations where the passphrase is a random one of 256 bits: keyslots of a TPM or recovery token. */
  readonly randomPbkdf2Iterations: number
}

/**
 * Costs are floors against a header that was made weak on purpose: below what cryptsetup chooses on a slow machine with
 * little memory. Argon2id: second recommended option of RFC 9106, section 4, with 64 MiB. PBKDF2: as OWASP's Password
 * Storage Cheat Sheet wants for HMAC-SHA-256.
 */
export const DEFAULT_LUKS_POLICY: LuksPolicy = {
  integrity: "required",
  argon2id: { time: 3, memory: 64 * 1024 },
  pbkdf2Iterations: 600_000,
  randomPbkdf2Iterations: 1000,
}

/** Ciphers of the data and of keyslots, with the bytes of key that each needs (XTS: two AES-256 keys). */
const CIPHERS: Readonly<Record<string, number>> = { "aes-xts-plain64": 64 }
/** Integrity types with the bytes of key that they add to the cipher's. */
const INTEGRITY: Readonly<Record<string, number>> = { "hmac(sha256)": 32, "hmac(sha512)": 64 }
const HASHES = ["sha256", "sha512"]
const AF_STRIPES = 4000
const SECTOR_SIZES = [512, 1024, 2048, 4096]
/** Key slots of systemd's recovery keys: 256 random bits. */
const RANDOM_TOKENS = ["systemd-tpm2", "systemd-recovery"]
const CONFIG_FLAGS = [
  "allow-discards",
  "same-cpu-crypt",
  "submit-from-crypt-cpus",
  "no-read-workqueue",
  "no-write-workqueue",
]

/**
 * Appraises a LUKS header that a hostile host may have written: every mismatch is a finding, none means that the header is
 * safe to attach. It says nothing about *whose* header it is: for that see the TPM's header reference.
 */
export function appraiseLuksHeader(header: LuksHeader, policy: LuksPolicy = DEFAULT_LUKS_POLICY): Finding[] {
  return [
    ...segmentFindings(header, policy),
    ...keyslotFindings(header, policy),
    ...areaFindings(header),
    ...digestFindings(header),
    ...tokenFindings(header),
    ...configFindings(header),
  ]
}

/** Exactly one crypt segment, from the start of the data device to its end. */
function segmentFindings({ metadata }: LuksHeader, policy: LuksPolicy): Finding[] {
  const { segments } = metadata
  const [segment] = segments
  if (segment === undefined || segments.length !== 1)
    return [finding("ERR_LUKS_SEGMENT", "segments", "one crypt segment", `${segments.length} segments`)]
  if (!segment.known)
    return [finding("ERR_LUKS_SEGMENT", `segment ${segment.id}`, "type crypt", shown(segment.type))]
  const subject = `segment ${segment.id}`
  return [
    ...expect("ERR_LUKS_SEGMENT", `${subject} offset`, segment.offset === 0n, "0", `${segment.offset}`),
    ...expect(
      "ERR_LUKS_SEGMENT",
      `${subject} size`,
      segment.size === "dynamic",
      "dynamic",
      `${segment.size}`,
    ),
    ...expect("ERR_LUKS_SEGMENT", `${subject} iv_tweak`, segment.ivTweak === 0n, "0", `${segment.ivTweak}`),
    ...expect(
      "ERR_LUKS_SEGMENT",
      `${subject} sector_size`,
      SECTOR_SIZES.includes(segment.sectorSize),
      `one of ${SECTOR_SIZES.join(", ")}`,
      `${segment.sectorSize}`,
    ),
    ...expect(
      "ERR_LUKS_SEGMENT",
      `${subject} flags`,
      segment.flags.length === 0,
      "none",
      segment.flags.map(shown).join(" "),
    ),
    ...expect(
      "ERR_LUKS_CIPHER",
      `${subject} encryption`,
      isCipher(segment.encryption),
      cipherNames(),
      shown(segment.encryption),
    ),
    ...integrityFindings(segment, policy),
  ]
}

function integrityFindings(segment: LuksCryptSegment, policy: LuksPolicy): Finding[] {
  const { integrity } = segment
  const subject = `segment ${segment.id} integrity`
  const known = Object.keys(INTEGRITY).join(", ")
  if (integrity === null)
    return expect("ERR_LUKS_INTEGRITY", subject, policy.integrity === "optional", known, "none")
  const { type, journalEncryption, journalIntegrity } = integrity
  const journal = journalEncryption === "none" && journalIntegrity === "none"
  return [
    ...expect("ERR_LUKS_INTEGRITY", subject, Object.hasOwn(INTEGRITY, type), known, shown(type)),
    ...expect(
      "ERR_LUKS_INTEGRITY",
      `${subject} journal`,
      journal,
      "no encryption or integrity of its own",
      shown(`${journalEncryption}, ${journalIntegrity}`),
    ),
  ]
}

function keyslotFindings(header: LuksHeader, policy: LuksPolicy): Finding[] {
  const { keyslots } = header.metadata
  if (keyslots.length === 0) return [finding("ERR_LUKS_KEYSLOT", "keyslots", "one at least", "none")]
  const random = randomKeyslots(header.metadata.tokens)
  const keySize = volumeKeySize(header)
  return keyslots.flatMap((slot) =>
    slot.known
      ? [
          ...oneKeyslot(slot, keySize),
          ...kdfFindings(
            slot,
            random.has(slot.id) ? policy.randomPbkdf2Iterations : policy.pbkdf2Iterations,
            policy,
          ),
        ]
      : [finding("ERR_LUKS_KEYSLOT", `keyslot ${slot.id}`, "type luks2", shown(slot.type))],
  )
}

function oneKeyslot(slot: LuksKeyslot, keySize: number | null): Finding[] {
  const subject = `keyslot ${slot.id}`
  const { af, area } = slot
  return [
    ...expect(
      "ERR_LUKS_KEYSLOT",
      `${subject} key_size`,
      slot.keySize === keySize,
      keySize === null ? "that of a known cipher" : `${keySize} bytes`,
      `${slot.keySize}`,
    ),
    ...expect(
      "ERR_LUKS_KEYSLOT",
      `${subject} af`,
      af.type === "luks1" && af.stripes === AF_STRIPES && HASHES.includes(af.hash),
      `luks1, ${AF_STRIPES} stripes, ${HASHES.join(" or ")}`,
      shown(`${af.type}, ${af.stripes} stripes, ${af.hash}`),
    ),
    ...expect(
      "ERR_LUKS_CIPHER",
      `${subject} area encryption`,
      area.type === "raw" && CIPHERS[area.encryption] === area.keySize && isCipher(area.encryption),
      `raw, ${cipherNames()}`,
      shown(`${area.type}, ${area.encryption}, ${area.keySize} bytes`),
    ),
  ]
}

function kdfFindings(slot: LuksKeyslot, iterations: number, policy: LuksPolicy): Finding[] {
  const subject = `keyslot ${slot.id} kdf`
  const { kdf } = slot
  const saltFindings =
    kdf.type === "other"
      ? []
      : expect("ERR_LUKS_KDF", `${subject} salt`, kdf.salt.length >= 32, "32 bytes", `${kdf.salt.length}`)
  if (kdf.type === "pbkdf2")
    return [
      ...saltFindings,
      ...expect(
        "ERR_LUKS_KDF",
        subject,
        HASHES.includes(kdf.hash) && kdf.iterations >= iterations,
        `pbkdf2, ${HASHES.join(" or ")}, ${iterations} iterations or more`,
        shown(`pbkdf2, ${kdf.hash}, ${kdf.iterations} iterations`),
      ),
    ]
  if (kdf.type === "argon2id") {
    const { time, memory } = policy.argon2id
    return [
      ...saltFindings,
      ...expect(
        "ERR_LUKS_KDF",
        subject,
        kdf.time >= time && kdf.memory >= memory && kdf.cpus >= 1,
        `argon2id, time ${time} and memory ${memory} KiB or more`,
        `argon2id, time ${kdf.time}, memory ${kdf.memory} KiB, ${kdf.cpus} cpus`,
      ),
    ]
  }
  return [
    finding("ERR_LUKS_KDF", subject, "argon2id or pbkdf2", shown(kdf.type === "other" ? kdf.name : kdf.type)),
  ]
}

/** Areas lie behind both copies of the header and within the image, large enough for the split key, and apart. */
function areaFindings(header: LuksHeader): Finding[] {
  const { keyslots, config } = header.metadata
  const first = BigInt(header.headerSize) * 2n
  const end = first + config.keyslotsSize
  const areas = keyslots
    .filter((slot) => slot.known)
    .map(({ id, area, keySize }) => ({ id, ...area, keySize }))
  const outside = areas.flatMap((area) =>
    expect(
      "ERR_LUKS_AREA",
      `keyslot ${area.id} area`,
      area.offset >= first &&
        area.offset + area.size <= end &&
        area.size >= BigInt(area.keySize * AF_STRIPES),
      `within ${first} to ${end}, ${area.keySize * AF_STRIPES} bytes or more`,
      `${area.offset} to ${area.offset + area.size}`,
    ),
  )
  const ordered = [...areas].sort((a, b) => (a.offset < b.offset ? -1 : 1))
  const overlaps = ordered.flatMap((area, index) => {
    const before = ordered[index - 1]
    if (before === undefined || before.offset + before.size <= area.offset) return []
    const found = `keyslot ${before.id} reaches into it`
    return [finding("ERR_LUKS_AREA", `keyslot ${area.id} area`, "apart from the others", found)]
  })
  return [...outside, ...overlaps]
}

/** One digest, of all keyslots and the one segment: no keyslot opens anything else, and none is left out. */
function digestFindings({ metadata }: LuksHeader): Finding[] {
  const { digests, keyslots, segments } = metadata
  const [digest] = digests
  if (digest === undefined || digests.length !== 1)
    return [finding("ERR_LUKS_DIGEST", "digests", "one", `${digests.length}`)]
  const subject = `digest ${digest.id}`
  if (!digest.known) return [finding("ERR_LUKS_DIGEST", subject, "type pbkdf2", shown(digest.type))]
  return [
    ...expect(
      "ERR_LUKS_DIGEST",
      `${subject} keyslots`,
      sameIds(digest.keyslots, keyslots),
      idsText(keyslots.map(({ id }) => id)),
      idsText(digest.keyslots),
    ),
    ...expect(
      "ERR_LUKS_DIGEST",
      `${subject} segments`,
      sameIds(digest.segments, segments),
      idsText(segments.map(({ id }) => id)),
      idsText(digest.segments),
    ),
    ...digestStrength(digest),
  ]
}

/** The volume key is random, so the iterations do not matter; the digest has to tell keys apart. */
function digestStrength(digest: LuksDigest): Finding[] {
  const bytes = digest.hash === "sha512" ? 64 : 32
  return expect(
    "ERR_LUKS_DIGEST",
    `digest ${digest.id}`,
    HASHES.includes(digest.hash) &&
      digest.salt.length >= 32 &&
      digest.digest.length === bytes &&
      digest.iterations >= 1000,
    `pbkdf2, ${HASHES.join(" or ")}, 1000 iterations or more, a salt of 32 bytes`,
    shown(
      `${digest.hash}, ${digest.iterations} iterations, salt of ${digest.salt.length}, digest of ${digest.digest.length} bytes`,
    ),
  )
}

function tokenFindings({ metadata }: LuksHeader): Finding[] {
  const slots = new Set(metadata.keyslots.map(({ id }) => id))
  return metadata.tokens.flatMap((token) => [
    ...expect(
      "ERR_LUKS_TOKEN",
      `token ${token.id}`,
      RANDOM_TOKENS.includes(token.type),
      RANDOM_TOKENS.join(" or "),
      shown(token.type),
    ),
    ...expect(
      "ERR_LUKS_TOKEN",
      `token ${token.id} keyslots`,
      token.keyslots.length === 1 && token.keyslots.every((id) => slots.has(id)),
      "one keyslot, which exists",
      idsText(token.keyslots),
    ),
  ])
}

function configFindings(header: LuksHeader): Finding[] {
  const { config } = header.metadata
  const unknown = config.flags.filter((flag) => !CONFIG_FLAGS.includes(flag))
  const end = BigInt(header.headerSize) * 2n + config.keyslotsSize
  return [
    ...expect(
      "ERR_LUKS_REQUIREMENT",
      "config requirements",
      config.requirements.length === 0,
      "none",
      config.requirements.map(shown).join(" "),
    ),
    ...expect(
      "ERR_LUKS_REQUIREMENT",
      "config flags",
      unknown.length === 0,
      CONFIG_FLAGS.join(", "),
      unknown.map(shown).join(" "),
    ),
    ...expect(
      "ERR_LUKS_AREA",
      "config json_size",
      config.jsonSize === BigInt(header.headerSize - 4096),
      `${header.headerSize - 4096}`,
      `${config.jsonSize}`,
    ),
    ...expect(
      "ERR_LUKS_AREA",
      "config keyslots_size",
      end <= BigInt(header.imageSize),
      `within the ${header.imageSize} bytes of the header`,
      `${config.keyslotsSize}, which ends at ${end}`,
    ),
  ]
}

/** Bytes of volume key that the segment's cipher and integrity need; null where either is unknown. */
function volumeKeySize({ metadata }: LuksHeader): number | null {
  const [segment] = metadata.segments
  if (!segment?.known) return null
  const cipher = isCipher(segment.encryption) ? CIPHERS[segment.encryption] : undefined
  const type = segment.integrity?.type
  const integrity = type === undefined ? 0 : Object.hasOwn(INTEGRITY, type) ? INTEGRITY[type] : undefined
  return cipher === undefined || integrity === undefined ? null : cipher + integrity
}

function randomKeyslots(tokens: readonly LuksToken[]): Set<number> {
  return new Set(
    tokens.filter(({ type }) => RANDOM_TOKENS.includes(type)).flatMap(({ keyslots }) => keyslots),
  )
}

function isCipher(name: string): boolean {
  return Object.hasOwn(CIPHERS, name)
}

function cipherNames(): string {
  return Object.entries(CIPHERS)
    .map(([name, bytes]) => `${name} with ${bytes * 8}-bit key`)
    .join(", ")
}

function sameIds(
  found: readonly number[],
  objects: readonly (UnknownObject | { readonly id: number })[],
): boolean {
  return idsText(found) === idsText(objects.map(({ id }) => id))
}

/** In ascending order; one that is named twice stays twice. */
function idsText(ids: readonly number[]): string {
  return [...ids].sort((a, b) => a - b).join(", ") || "none"
}

function expect(
  code: ErrorCode,
  subject: string,
  holds: boolean,
  expected: string,
  found: string,
): Finding[] {
  return holds ? [] : [finding(code, subject, expected, found)]
}

const MEANING =
  "whoever can write the disk may have exchanged the header to have the volume opened without protection"
const REMEDY = "restore a backup of the header, or make the volume anew; do not open it as it is"

function finding(code: ErrorCode, subject: string, expected: string, found: string): Finding {
  return { code, subject, expected, found, meaning: MEANING, remedy: REMEDY }
}

/** Text of the header, which may be hostile: escaped and cut. */
function shown(text: string): string {
  return JSON.stringify(text.slice(0, 80)).slice(1, -1)
}
