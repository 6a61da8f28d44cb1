import { randomBytes } from "node:crypto"
import { AgentClient } from "../client/agent-client.ts"
import { probeApplication } from "../client/application-probe.ts"
import { endpointText, parseAgentUrl, parseApplication } from "../client/endpoint.ts"
import type { CollateralSource } from "../endorsements/collateral.ts"
import { CodedError, UsageError } from "../errors.ts"
import type { Evidence } from "../formats/evidence.ts"
import { fromHex } from "../formats/hex.ts"
import { MAX_IMA_POLICY } from "../formats/ima/policy.ts"
import type { SavedEvidence } from "../formats/saved-evidence.ts"
import { type AttestationPolicy, policyOfMeasurement } from "../policy/attestation-policy.ts"
import { type KnownImaPolicy, knownImaPolicy } from "../policy/ima-coverage.ts"
import type { Snapshot } from "../policy/snapshot.ts"
import { CHECKS, type Check } from "../policy/verdict.ts"
import { type Judgement, judge } from "../policy/verify-vm.ts"
import { EMPTY_WHITELIST, MAX_WHITELIST_BYTES, parseWhitelist, type Whitelist } from "../policy/whitelist.ts"
import { type ImaKey, parseImaKeys } from "../verify/ima-signature.ts"
import type { TpmAuthorities } from "../verify/tpm-certificate.ts"
import { parseEndorsementKey } from "../verify/tpm-endorsement-key.ts"
import type { ConnectionOptions, CredentialFiles, TrustOptions } from "./agent-options.ts"
import { challengeTpm } from "./challenge.ts"
import { type CollateralChoice, collateralSourceOf } from "./collateral-source.ts"
import { NO_CREDENTIALS, readCredentials } from "./credentials.ts"
import { type Endorsed, endorse } from "./endorse.ts"
import { parseFile, readInput } from "./input-files.ts"
import { readPolicyFile } from "./policy-file.ts"
import type { ProgressLine } from "./progress.ts"
import { requireRatls } from "./require-ratls.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { readTpmAuthorities } from "./tpm-authorities.ts"
import { type Anchors, anchorsOf } from "./trust-roots.ts"

/** SHA-384. */
const MEASUREMENT_BYTES = 48
/** Cap of a file of `--ima-key`. */
const MAX_KEY_BYTES = 256 * 1024

/** What the evidence is judged by, read and checked before anything goes over the network. */
export interface Appraisal {
  readonly reference: Snapshot | null
  readonly whitelist: Whitelist
  /** Keys that files may be signed with instead of being in the snapshot. */
  readonly imaKeys: readonly ImaKey[]
  readonly anchors: Anchors
  /** Null: certificates about TPMs say nothing. */
  readonly tpmAuthorities: TpmAuthorities | null
  /** DER SubjectPublicKeyInfo of the endorsement key that the TPM has to have; null: any. */
  readonly endorsementKey: Uint8Array | null
  /** `host[:port]` as given. */
  readonly applications: readonly string[]
  readonly skip: ReadonlySet<Check>
  readonly collateral: CollateralChoice
  /** Restarts of a machine that is otherwise the snapshot's are no failure. */
  readonly acceptReboot: boolean
  /** Requirements beside those of the snapshot; null: none. */
  readonly policy: AttestationPolicy | null
  /** Whether violations fail, whatever the policy says; absent: as it says. */
  readonly violations?: "fail" | "report"
  /** Texts of IMA policies, to know one by when the measurement list shows it. */
  readonly imaPolicies: readonly KnownImaPolicy[]
}

/** Options to what they mean: reads the files that they name. */
export function appraisalOf(
  options: TrustOptions & {
    readonly snapshot?: string | null
    readonly whitelist?: string | null
    readonly imaKeys?: readonly string[]
    readonly evmKeys?: readonly string[]
    readonly applications?: readonly string[]
    readonly acceptReboot?: boolean
    readonly policy?: string | null
    /** Hex, as given. */
    readonly measurement?: string | null
    readonly violations?: "fail" | "report" | null
    readonly imaPolicies?: readonly string[]
    /** File with the public half of an endorsement key. */
    readonly ek?: string | null
  },
): Appraisal {
  const { snapshot = null, whitelist = null, imaKeys = [], evmKeys = [], applications = [] } = options
  for (const application of applications) parseApplication(application)
  const policy = policyOf(options.policy ?? null, options.measurement ?? null)
  return {
    reference: snapshot === null ? null : readSnapshotFile(snapshot),
    whitelist:
      whitelist === null
        ? EMPTY_WHITELIST
        : parseWhitelist(readInput(whitelist, MAX_WHITELIST_BYTES), whitelist),
    imaKeys: [
      ...imaKeys.flatMap((path) => parseFile(path, MAX_KEY_BYTES, (bytes) => parseImaKeys(bytes, "content"))),
      ...evmKeys.flatMap((path) =>
        parseFile(path, MAX_KEY_BYTES, (bytes) => parseImaKeys(bytes, "metadata")),
      ),
    ],
    anchors: anchorsOf(options.trustRoots),
    tpmAuthorities: options.tpmCa == null ? null : readTpmAuthorities(options.tpmCa),
    endorsementKey: options.ek == null ? null : parseFile(options.ek, MAX_KEY_BYTES, parseEndorsementKey),
    applications,
    skip: new Set(CHECKS.filter((check) => options.skip.includes(check))),
    collateral: {
      ...options.collateral,
      offline: options.collateral.offline || policy?.trust.offline === true,
    },
    acceptReboot: options.acceptReboot === true,
    policy,
    ...(options.violations == null ? {} : { violations: options.violations }),
    imaPolicies: (options.imaPolicies ?? []).map(readImaPolicy),
  }
}

/** An IMA policy that a user gives. @throws CodedError ERR_IO; ParseError ERR_IMA_POLICY, ERR_TOO_LARGE */
export function readImaPolicy(path: string): KnownImaPolicy {
  return knownImaPolicy(path, readInput(path, MAX_IMA_POLICY))
}

/** @throws UsageError ERR_BAD_VALUE; those of the policy file. */
function policyOf(file: string | null, measurement: string | null): AttestationPolicy | null {
  if (measurement === null) return file === null ? null : readPolicyFile(file).policy
  const value = fromHex(measurement)
  if (value?.length !== MEASUREMENT_BYTES || file !== null)
    throw new UsageError("ERR_BAD_VALUE", {
      at: "--measurement",
      expected: file === null ? `${MEASUREMENT_BYTES} bytes in hex` : "either --measurement or --policy",
      found: file === null ? measurement.slice(0, 120) : "both",
      hint: "cosmian_vm policy measure computes it for an image; a policy file can hold it, too",
    })
  return policyOfMeasurement(value, "--measurement")
}

/** Connects to the agent, does the work, and closes the connection whatever happens. */
export async function withAgent<T>(
  options: Omit<ConnectionOptions, "ratls"> & { readonly credentials?: CredentialFiles },
  signal: AbortSignal,
  work: (client: AgentClient) => Promise<T>,
): Promise<T> {
  const endpoint = parseAgentUrl(options.url)
  const timeoutMs = timeoutOf(options.timeout)
  const credentials = readCredentials(options.credentials ?? NO_CREDENTIALS)
  const client = await AgentClient.connect(endpoint, { timeoutMs, signal, ...credentials })
  try {
    return await work(client)
  } finally {
    client.close()
  }
}

/** A judgement, and the same evidence judged once more by other reference values. */
export interface Attested extends Judgement {
  readonly against: (reference: Snapshot) => Judgement
  /** All that was judged and is not the verifier's own, as it can be kept. */
  readonly collected: SavedEvidence
  /** 32 bytes: the key that content for the VM can be sealed to, proven if the verdict passed; null where not asked for. */
  readonly sealingKey: Uint8Array | null
}

/**
 * Draws a nonce, gets evidence for it over the client's connection, and judges it for that very connection.
 * @param also `sealing`: the evidence has to vouch for a key to seal content to, as well.
 */
export async function attest(
  client: AgentClient,
  options: ConnectionOptions,
  appraisal: Appraisal,
  progress: ProgressLine,
  signal: AbortSignal,
  also: "sealing" | null = null,
): Promise<Attested> {
  if (options.ratls === true) {
    progress.step("verifying the TLS certificate's evidence")
    await requireRatls(client.channel, options.url, appraisal, signal)
  }
  progress.step("asking the VM for evidence")
  const drawn = randomBytes(32)
  const { evidence, nonce, sealingKey } =
    also === null
      ? { evidence: await client.evidence(drawn), nonce: drawn, sealingKey: null }
      : await client.sealingEvidence(drawn)
  if (appraisal.tpmAuthorities !== null || appraisal.endorsementKey !== null)
    progress.step("asking the TPM to show that it holds its key")
  const credential = await challengeTpm(client, evidence, appraisal)
  progress.step("looking for the vendor's certificates")
  const endorsed = await endorse(evidence, sourceOf(appraisal, signal), {
    revocation: !appraisal.skip.has("revocation"),
    at: new Date(),
  })
  const { intel, ...found } = endorsed
  progress.step("asking the applications")
  const timeoutMs = timeoutOf(options.timeout)
  const applications = await Promise.all(
    appraisal.applications.map((target) => probeApplication(target, timeoutMs, signal)),
  )
  const { spki, authorized, reason } = client.channel
  const { whitelist, imaKeys, anchors, skip } = appraisal
  const target = endpointText(parseAgentUrl(options.url))
  const at = new Date()
  const judged = {
    target,
    at,
    nonce,
    ...found,
    intel: { ...intel, anchors: anchors.intel },
    channel: {
      ...{ spki, authorized, reason },
      insecureAllowed: options.insecureAllowed,
      attested: options.ratls === true,
    },
    whitelist,
    imaKeys,
    anchors: anchors.amd,
    nitroAnchors: anchors.nitro,
    applications,
    skip,
    acceptReboot: appraisal.acceptReboot,
    policy: appraisal.policy,
    tpmAuthorities: appraisal.tpmAuthorities,
    endorsementKey: appraisal.endorsementKey,
    ...(appraisal.violations === undefined ? {} : { violations: appraisal.violations }),
    imaPolicies: appraisal.imaPolicies,
    credential,
  }
  const judgement = judge({ ...judged, reference: appraisal.reference })
  progress.clear()
  return {
    ...judgement,
    sealingKey,
    against: (reference) => judge({ ...judged, reference }),
    collected: {
      target,
      collectedAt: at,
      nonce,
      channel: { spki, authorized, reason },
      evidence,
      documents: documentsOf(evidence, endorsed),
      applications,
    },
  }
}

/** What came from vendors, apart from what came from the VM. */
function documentsOf(sent: Evidence, { evidence, crl, intel }: Endorsed): SavedEvidence["documents"] {
  const all = certificatesIn(evidence)
  const documents = intel.collateral instanceof CodedError ? null : intel.collateral
  return { certificates: all.slice(certificatesIn(sent).length), crl, intel: documents }
}

function certificatesIn({ tee }: Evidence): readonly Uint8Array[] {
  return tee !== null && "certificates" in tee ? tee.certificates : []
}

/** A cache that cannot be written to only costs time, so nothing is said about it. */
function sourceOf({ collateral, anchors }: Appraisal, signal: AbortSignal): CollateralSource {
  return collateralSourceOf(collateral, anchors.amd, { talk: () => undefined }, signal)
}

/** Milliseconds of `--timeout`. @throws UsageError ERR_BAD_VALUE. */
export function timeoutOf(text: string): number {
  const seconds = /^[0-9]{1,5}(\.[0-9]{1,3})?$/.test(text) ? Number(text) : 0
  if (seconds > 0) return seconds * 1000
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--timeout",
    expected: "seconds, more than 0",
    found: text,
    hint: "write for example --timeout 30",
  })
}
