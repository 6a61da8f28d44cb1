import { isAbsolute } from "node:path"
import { z } from "zod"
import { AcmeError, CodedError } from "../errors.ts"
import { JsonCursor } from "../formats/strict-json.ts"
import { KEY_TYPES, type KeyType } from "./kinds.ts"

/** How the authority is shown that names are ours. */
export type ChallengeSettings =
  | { readonly type: "http-01"; readonly webroot: string }
  | { readonly type: "http-01" | "tls-alpn-01"; readonly host: string | null; readonly port: number }
  | { readonly type: "dns-01"; readonly hook: readonly string[]; readonly waitSeconds: number }

/** Where the private key comes from. */
export interface KeySettings {
  readonly type: KeyType
  /** The present key stays at a renewal. */
  readonly reuse: boolean
  /** Derived inside the TEE, so the same each time; null: it is not. */
  readonly derived: DerivedKeySettings | null
  /** The key in this PEM file, which others use too; null: a key of the certificate's own. */
  readonly file: string | null
}

export interface DerivedKeySettings {
  /** Hex; empty: none. */
  readonly salt: string
  /** Directory of a simulated TEE; null: this machine's. */
  readonly simulate: string | null
}

/** All that a renewal has to know: written once the certificate is there. */
export interface CertificateSettings {
  readonly names: readonly string[]
  readonly directory: string
  /** PEM file with the authorities that the ACME server's own certificate is checked by; null: the usual ones. */
  readonly caFile: string | null
  readonly email: string | null
  readonly challenge: ChallengeSettings
  readonly key: KeySettings
  /** Null: the server's default. */
  readonly profile: string | null
  /** Directory that `cert.pem` and `key.pem` are linked into; null: none. */
  readonly output: string | null
  /** Programs with their arguments. */
  readonly deployHooks: readonly (readonly string[])[]
}

/** What happened to the certificate since. */
export interface CertificateState {
  /** When to renew: chosen once inside the window that the authority suggests, or from the dates. */
  readonly renewAt: Date
  /** When to ask the authority for renewal information again; null: at the next occasion. */
  readonly checkAfter: Date | null
  /** The authority wants to see no order before; null: it did not say so. */
  readonly retryAfter: Date | null
  /** Serial number of the certificate that all deploy hooks were told of; null: none yet. */
  readonly deployed: string | null
  readonly revokedAt: Date | null
}

export const MAX_SETTINGS_BYTES = 64 * 1024

const words = z.array(z.string().min(1).max(4096)).min(1).max(64)
const path = z.string().max(4096).refine(isAbsolute, "an absolute path")
const time = z
  .string()
  .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  .transform((value) => new Date(value))
const schema = z.strictObject({
  version: z.literal(1),
  names: z.array(z.string().max(255)).min(1).max(100),
  directory: z.string().max(4096),
  ca_file: path.nullable(),
  email: z.string().max(320).nullable(),
  challenge: z.union([
    z.strictObject({ type: z.literal("http-01"), webroot: path }),
    z.strictObject({
      type: z.enum(["http-01", "tls-alpn-01"]),
      host: z.string().max(255).nullable(),
      port: z.int().min(0).max(65_535),
    }),
    z.strictObject({
      type: z.literal("dns-01"),
      hook: words,
      wait_seconds: z.int().min(0).max(3600),
    }),
  ]),
  key: z.strictObject({
    type: z.enum(KEY_TYPES),
    reuse: z.boolean(),
    derived: z
      .strictObject({ salt: z.string().regex(/^([0-9a-f]{2}){0,64}$/), simulate: path.nullable() })
      .nullable(),
    // Not there in what was written before there was a choice.
    file: path.nullable().default(null),
  }),
  profile: z.string().max(255).nullable(),
  output: path.nullable(),
  deploy_hooks: z.array(words).max(16),
  renew_at: time,
  check_after: time.nullable(),
  retry_after: time.nullable(),
  deployed: z.string().max(128).nullable(),
  revoked_at: time.nullable(),
})

/** The JSON text of `certificate.json`. */
export function encodeSettings(settings: CertificateSettings, state: CertificateState): string {
  const { challenge, key } = settings
  const object: z.input<typeof schema> = {
    version: 1,
    names: [...settings.names],
    directory: settings.directory,
    ca_file: settings.caFile,
    email: settings.email,
    challenge:
      challenge.type === "dns-01"
        ? { type: challenge.type, hook: [...challenge.hook], wait_seconds: challenge.waitSeconds }
        : challenge,
    key,
    profile: settings.profile,
    output: settings.output,
    deploy_hooks: settings.deployHooks.map((hook) => [...hook]),
    renew_at: state.renewAt.toISOString(),
    check_after: state.checkAfter?.toISOString() ?? null,
    retry_after: state.retryAfter?.toISOString() ?? null,
    deployed: state.deployed,
    revoked_at: state.revokedAt?.toISOString() ?? null,
  }
  return `${JSON.stringify(object, null, 2)}\n`
}

/**
 * Reads that text.
 * @param file for messages.
 * @throws AcmeError ERR_ACME_WORKSPACE with the place
 */
export function parseSettings(bytes: Uint8Array, file: string): [CertificateSettings, CertificateState] {
  const result = schema.safeParse(jsonOf(bytes, file))
  if (!result.success) {
    const [issue] = result.error.issues
    throw unreadable(file, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "another form"}`)
  }
  const found = result.data
  const { challenge, key } = found
  const settings: CertificateSettings = {
    names: found.names,
    directory: found.directory,
    caFile: found.ca_file,
    email: found.email,
    challenge:
      challenge.type === "dns-01"
        ? { type: challenge.type, hook: challenge.hook, waitSeconds: challenge.wait_seconds }
        : challenge,
    key,
    profile: found.profile,
    output: found.output,
    deployHooks: found.deploy_hooks,
  }
  const state: CertificateState = {
    renewAt: found.renew_at,
    checkAfter: found.check_after,
    retryAfter: found.retry_after,
    deployed: found.deployed,
    revokedAt: found.revoked_at,
  }
  return [settings, state]
}

/** Read strictly, so that nothing stands there twice; then as ordinary values, for the schema. */
function jsonOf(bytes: Uint8Array, file: string): unknown {
  try {
    const cursor = new JsonCursor(file, bytes, MAX_SETTINGS_BYTES)
    cursor.value()
    cursor.end()
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    throw unreadable(error.at ?? file, error.message)
  }
  return JSON.parse(Buffer.from(bytes).toString("utf8"))
}

function unreadable(at: string, found: string): AcmeError<"ERR_ACME_WORKSPACE"> {
  return new AcmeError("ERR_ACME_WORKSPACE", {
    at,
    expected: "the settings of a certificate, as certtool acme writes them",
    found,
    hint: "run certtool acme again with the options of this certificate",
  })
}
