import { parseApplication } from "../client/endpoint.ts"
import { UsageError } from "../errors.ts"
import { fromHex } from "../formats/hex.ts"
import { MAX_IMA_POLICY } from "../formats/ima/policy.ts"
import { type AttestationPolicy, policyOfMeasurement } from "../policy/attestation-policy.ts"
import { type KnownImaPolicy, knownImaPolicy } from "../policy/ima-coverage.ts"
import type { Snapshot } from "../policy/snapshot.ts"
import { CHECKS, type Check } from "../policy/verdict.ts"
import { EMPTY_WHITELIST, MAX_WHITELIST_BYTES, parseWhitelist, type Whitelist } from "../policy/whitelist.ts"
import { type ImaKey, parseImaKeys } from "../verify/ima-signature.ts"
import type { TpmAuthorities } from "../verify/tpm-certificate.ts"
import { parseEndorsementKey } from "../verify/tpm-endorsement-key.ts"
import type { TrustOptions } from "./agent-options.ts"
import type { CollateralChoice } from "./collateral-source.ts"
import { parseFile, readInput } from "./input-files.ts"
import { readPolicyFile } from "./policy-file.ts"
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
