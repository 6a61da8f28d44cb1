import { randomBytes } from "node:crypto"
import { AgentClient } from "../client/agent-client.ts"
import { probeApplication } from "../client/application-probe.ts"
import { endpointText, parseAgentUrl } from "../client/endpoint.ts"
import type { CollateralSource } from "../endorsements/collateral.ts"
import { CodedError, UsageError } from "../errors.ts"
import type { Evidence } from "../formats/evidence.ts"
import type { SavedEvidence } from "../formats/saved-evidence.ts"
import type { Snapshot } from "../policy/snapshot.ts"
import { type Judgement, judge } from "../policy/verify-vm.ts"
import type { ConnectionOptions, CredentialFiles } from "./agent-options.ts"
import type { Appraisal } from "./appraisal.ts"
import { challengeTpm } from "./challenge.ts"
import { collateralSourceOf } from "./collateral-source.ts"
import { NO_CREDENTIALS, readCredentials } from "./credentials.ts"
import { type Endorsed, endorse } from "./endorse.ts"
import type { ProgressLine } from "./progress.ts"
import { requireRatls } from "./require-ratls.ts"

/** Connects to the agent, does the work, and closes the connection whatever happens. */
export async function withAgent<T>(
  options: Omit<ConnectionOptions, "ratls"> & {
    readonly credentials?: CredentialFiles
    /** Evidence has to be bound to the very connection; always so where the client shows a certificate. */
    readonly boundToConnection?: boolean
  },
  signal: AbortSignal,
  work: (client: AgentClient) => Promise<T>,
): Promise<T> {
  const endpoint = parseAgentUrl(options.url)
  const timeoutMs = timeoutOf(options.timeout)
  const credentials = readCredentials(options.credentials ?? NO_CREDENTIALS)
  const boundToConnection = options.boundToConnection === true || credentials.clientCertificate !== undefined
  const client = await AgentClient.connect(endpoint, { timeoutMs, signal, ...credentials, boundToConnection })
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
  const exporter = client.exporter === null ? {} : { exporter: client.exporter }
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
      ...exporter,
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
      channel: { spki, authorized, reason, ...exporter },
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
