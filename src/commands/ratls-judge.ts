import { createHash, createPublicKey } from "node:crypto"
import { CodedError, UsageError } from "../errors.ts"
import { parseRatlsEvidence, type RatlsEvidence, type RatlsTee } from "../formats/ratls/evidence.ts"
import type { SnpProduct } from "../formats/snp/tcb.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { type AttestationPolicy, DEFAULT_SOURCE, type OneOf } from "../policy/attestation-policy.ts"
import type { SgxExpectations } from "../policy/sgx.ts"
import type { IntelJudgement } from "../policy/validate-intel.ts"
import { type RatlsVerdict, validateRatls } from "../policy/validate-ratls.ts"
import type { SnpInput } from "../policy/validate-snp.ts"
import type { Check } from "../policy/verdict.ts"
import { type CollateralChoice, collateralSourceOf } from "./collateral-source.ts"
import { readInput } from "./input-files.ts"
import type { Terminal } from "./terminal.ts"
import { type Anchors, anchorsOf } from "./trust-roots.ts"
import {
  type Fetched,
  fetchMissing,
  MAX_FILE_BYTES,
  NO_SNP,
  policyOf,
  type ReadFiles,
  readCollateral,
} from "./validate-evidence.ts"

/** What is expected of the TEE in a certificate, as the options say it. */
export interface RatlsExpectations {
  /** File with a policy or snapshot. */
  readonly policy: string | null
  /** SEV-SNP, 48 bytes. */
  readonly measurement: Uint8Array | null
  /** TDX, 48 bytes. */
  readonly mrTd: Uint8Array | null
  /** SGX, 32 bytes. */
  readonly mrEnclave: Uint8Array | null
  /** SGX, 32 bytes. */
  readonly mrSigner: Uint8Array | null
  /** 32 bytes; zeros where there are none. */
  readonly extraData: Uint8Array
  readonly allowDebug: boolean
}

/** Files with vendors' documents; null: from the cache, or fetched. */
export interface RatlsDocuments {
  readonly leaf: string | null
  readonly chain: string | null
  readonly crl: string | null
  readonly collateral: string | null
}

export interface RatlsJudgeOptions extends RatlsExpectations, RatlsDocuments {
  readonly trustRoots: readonly string[]
  readonly source: CollateralChoice
  readonly skip: ReadonlySet<Check>
  readonly product: SnpProduct | null
}

/** What a certificate is judged by, read and checked before anything goes over the network. */
export interface RatlsAppraisal
  extends Pick<RatlsJudgeOptions, "skip" | "product" | "extraData" | "allowDebug" | "source"> {
  /** Each has to accept the evidence. */
  readonly policies: readonly [AttestationPolicy, ...AttestationPolicy[]]
  readonly enclave: Enclave | null
  readonly anchors: Anchors
  /** Certificates and revocation list that the user names. */
  readonly files: Pick<SnpInput["endorsements"], "leaf" | "chain" | "crl">
  readonly collateral: IntelJudgement["collateral"]
}

type Enclave = Pick<SgxExpectations, "mrEnclaves" | "mrSigners">

/** A certificate, and how it came. */
export interface PresentedCertificate {
  /** DER. */
  readonly certificate: Uint8Array
  readonly target: string
  readonly at: Date
  /** TLS showed that the server has the certificate's key. */
  readonly live: boolean
}

const NO_FILES = {
  policy: null,
  collateral: null,
  vcek: null,
  vlek: null,
  ak: null,
  signature: null,
  pcrs: null,
  quote: null,
  "td-quote": null,
  "event-log": null,
} as const

/**
 * Reads the files that the options name.
 * @throws UsageError for policy, trust roots and expectations that exclude each other; CodedError ERR_IO, ERR_TOO_LARGE
 */
export function ratlsAppraisalOf(options: RatlsJudgeOptions): RatlsAppraisal {
  const { policy, enclave } = expected(options)
  const read = (path: string | null) => (path === null ? null : readInput(path, MAX_FILE_BYTES))
  const { skip, product, extraData, allowDebug, source } = options
  return {
    policies: [policy],
    enclave,
    anchors: anchorsOf(options.trustRoots),
    files: { leaf: read(options.leaf), chain: read(options.chain), crl: read(options.crl) },
    collateral: options.collateral === null ? null : readCollateral(options.collateral),
    ...{ skip, product, extraData, allowDebug },
    source: { ...source, offline: source.offline || policy.trust.offline },
  }
}

/**
 * Fetches what is missing, and judges. Of several policies the first that does not accept the evidence gives the verdict.
 * @throws CodedError ERR_INTERRUPTED, and nothing else for what the certificate holds.
 */
export async function judgeRatls(
  appraisal: RatlsAppraisal,
  presented: PresentedCertificate,
  terminal: Pick<Terminal, "talk">,
  signal: AbortSignal,
): Promise<RatlsVerdict> {
  const { files, collateral, anchors, product, skip, extraData, allowDebug, enclave } = appraisal
  const { at } = presented
  const source = collateralSourceOf(appraisal.source, anchors.amd, terminal, signal)
  const fetched = new Map<string, Fetched>()
  for (const { oid, content, tee } of piecesOf(presented.certificate)) {
    const read = { ...NO_FILES, vcek: files.leaf, chain: files.chain, crl: files.crl }
    const evidence: ReadFiles = { evidence: content, files: read, collateral }
    fetched.set(
      keyOf({ oid, content }),
      await fetchMissing(evidence, { mode: tee, product, skip }, at, anchors, source),
    )
  }
  const by = (policy: AttestationPolicy) =>
    validateRatls({
      ...presented,
      extraData,
      skip,
      judgementOf: (piece) => {
        const got = fetched.get(keyOf(piece))
        return {
          snp: {
            endorsements: { ...files, fetched: got?.snp ?? NO_SNP },
            anchors: anchors.amd,
            at,
            policy,
            product,
          },
          intel: {
            collateral: collateral ?? got?.intel ?? null,
            problems: got?.problems ?? [],
            anchors: anchors.intel,
            ...{ at, policy, allowDebug, skip },
            ...(enclave === null ? {} : { enclave }),
          },
        }
      },
    })
  const [first, ...others] = appraisal.policies
  let verdict = by(first)
  for (const policy of others) if (verdict.passed) verdict = by(policy)
  return verdict
}

/** None where the certificate cannot be read: judging tells why. */
function piecesOf(certificate: Uint8Array): readonly RatlsEvidence[] {
  try {
    return parseRatlsEvidence(parseCertificate(certificate))
  } catch (error) {
    if (error instanceof CodedError) return []
    throw error
  }
}

/** Pieces are read again when they are judged: equal ones need the same documents. */
function keyOf({ oid, content }: Pick<RatlsEvidence, "oid" | "content">): string {
  return `${oid} ${createHash("sha256").update(content).digest("hex")}`
}

/**
 * A value of one TEE's is an expectation that evidence of another cannot meet: it is refused, and never passed over.
 * @throws UsageError ERR_BAD_VALUE where values of two TEEs are given, or one that the policy excludes
 */
function expected(options: RatlsExpectations): {
  policy: AttestationPolicy
  enclave: Enclave | null
} {
  const { measurement, mrTd, mrEnclave, mrSigner } = options
  const policy = policyOf(options.policy, options.allowDebug)
  const named: (readonly [option: string, tee: RatlsTee])[] = []
  if (measurement !== null) named.push(["--measurement", "snp"])
  if (mrTd !== null) named.push(["--mrtd", "tdx"])
  if (mrEnclave !== null) named.push(["--mrenclave", "sgx"])
  if (mrSigner !== null) named.push(["--mrsigner", "sgx"])
  const [first, ...others] = named
  if (first === undefined) return { policy, enclave: null }
  const stranger = others.find(([, tee]) => tee !== first[1])
  if (stranger !== undefined)
    throw new UsageError("ERR_BAD_VALUE", {
      at: stranger[0],
      expected: "values of one TEE",
      found: `${first[0]} and ${stranger[0]}`,
    })
  const source = policy.source === DEFAULT_SOURCE ? named.map(([option]) => option).join(", ") : policy.source
  const { snp, tdx } = policy
  const only = { ...policy, source, snp: null, tdx: null }
  if (measurement !== null) {
    if (snp === null) return { policy: only, enclave: null }
    const measurements = both(snp.measurements, measurement, "--measurement")
    return { policy: { ...only, snp: { ...snp, measurements } }, enclave: null }
  }
  if (mrTd !== null) {
    if (tdx === null) return { policy: only, enclave: null }
    return { policy: { ...only, tdx: { ...tdx, mrTds: both(tdx.mrTds, mrTd, "--mrtd") } }, enclave: null }
  }
  return {
    policy: only,
    enclave: {
      mrEnclaves: mrEnclave === null ? null : [mrEnclave],
      mrSigners: mrSigner === null ? null : [mrSigner],
    },
  }
}

function both(policy: OneOf, value: Uint8Array, option: string): OneOf {
  if (policy === null || policy.some((one) => Buffer.compare(one, value) === 0)) return [value]
  throw new UsageError("ERR_BAD_VALUE", {
    at: option,
    expected: "a value that the policy accepts",
    found: "another one",
    hint: `leave ${option} or --policy out`,
  })
}

/**
 * MRSIGNER of the key that signs an enclave: SHA-256 of its modulus, little-endian.
 * Source: Intel SDM vol. 3D, section "SIGSTRUCT", MODULUS; the key is RSA-3072.
 * @param pem public key, or a certificate of it. @throws UsageError ERR_BAD_VALUE
 */
export function mrSignerOf(pem: Uint8Array, place: string): Uint8Array {
  try {
    const { n = "" } = createPublicKey(Buffer.from(pem)).export({ format: "jwk" })
    const modulus = Buffer.from(n, "base64url")
    if (modulus.length === 384) return createHash("sha256").update(modulus.reverse()).digest()
  } catch (cause) {
    throw new UsageError("ERR_BAD_VALUE", { at: place, expected: "a public key in PEM", cause })
  }
  throw new UsageError("ERR_BAD_VALUE", { at: place, expected: "an RSA key of 3072 bits", found: "another" })
}
