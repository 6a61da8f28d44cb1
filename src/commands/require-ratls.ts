import type { AgentClient } from "../client/agent-client.ts"
import { endpointText, parseAgentUrl } from "../client/endpoint.ts"
import { AgentError, type ErrorCode, type FailureClass } from "../errors.ts"
import { type AttestationPolicy, defaultPolicy } from "../policy/attestation-policy.ts"
import type { Snapshot } from "../policy/snapshot.ts"
import { policyOfSnapshot } from "../policy/snapshot-policy.ts"
import { RATLS_SKIPPABLE } from "../policy/validate-ratls.ts"
import { type Check, decidingClaim } from "../policy/verdict.ts"
import type { CollateralChoice } from "./collateral-source.ts"
import { judgeRatls } from "./ratls-judge.ts"
import type { Anchors } from "./trust-roots.ts"

/** What the TEE behind the connection has to be. */
export interface RatlsRequirements {
  readonly anchors: Anchors
  readonly collateral: CollateralChoice
  readonly skip: ReadonlySet<Check>
  /** Its reference values of the TEE hold for the certificate's evidence as well; null: none are known. */
  readonly reference: Snapshot | null
  readonly policy: AttestationPolicy | null
}

/**
 * Verifies the certificate of a connection by the evidence in it. For the time before the first request: nothing may have been
 * sent on the connection yet.
 * @throws AgentError with the code and exit code of the check that failed; ERR_INTERRUPTED
 */
export async function requireRatls(
  { leafDer }: Pick<AgentClient["channel"], "leafDer">,
  url: string,
  requirements: RatlsRequirements,
  signal: AbortSignal,
): Promise<void> {
  const { anchors, collateral, skip, reference, policy } = requirements
  const target = endpointText(parseAgentUrl(url))
  const [first = defaultPolicy({ allowDebug: false }), ...others] = [
    ...(reference === null ? [] : [policyOfSnapshot(reference)]),
    ...(policy === null ? [] : [policy]),
  ]
  const verdict = await judgeRatls(
    {
      policies: [first, ...others],
      enclave: null,
      anchors,
      files: { leaf: null, chain: null, crl: null },
      collateral: null,
      skip: new Set(RATLS_SKIPPABLE.filter((check) => skip.has(check))),
      product: null,
      extraData: new Uint8Array(32),
      allowDebug: false,
      source: collateral,
    },
    { certificate: leafDer, target, at: new Date(), live: true },
    { talk: () => undefined },
    signal,
  )
  const failed = verdict.passed ? null : decidingClaim(verdict.claims)
  if (failed === null) return
  const [finding] = failed.findings
  throw new RatlsRefused(finding?.code ?? "ERR_INTERNAL", failed.failureClass ?? "operational", {
    at: `TLS certificate of ${target}, ${finding?.subject ?? failed.check}`,
    ...(finding?.expected === undefined ? {} : { expected: finding.expected }),
    ...(finding?.found === undefined ? {} : { found: finding.found }),
    hint: `nothing was sent. ${finding?.remedy ?? failed.summary}`,
  })
}

/** Bytes that are malformed say nothing about a VM elsewhere; here they are a check that failed. */
class RatlsRefused extends AgentError {
  readonly #class: FailureClass

  constructor(
    code: ErrorCode,
    failureClass: FailureClass,
    detail: ConstructorParameters<typeof AgentError>[1],
  ) {
    super(code, detail)
    this.#class = failureClass
  }

  override get failureClass(): FailureClass {
    return this.#class
  }
}
