import { UsageError } from "../errors.ts"
import type { AttestationPolicy } from "./attestation-policy.ts"
import { parseCocosPolicy } from "./cocos-policy.ts"
import { parseSnapshot } from "./snapshot.ts"
import { policyOfSnapshot } from "./snapshot-policy.ts"
import { parseTomlPolicy } from "./toml-policy.ts"

/** What a policy file is written in. */
export type PolicyFormat = "toml" | "cocos" | "snapshot"

export interface ReadPolicy {
  readonly format: PolicyFormat
  readonly policy: AttestationPolicy
}

/** Members that only snapshots have. */
const SNAPSHOT_MEMBERS = /"(?:tee_policy|filehashes|tpm_policy)"\s*:/

/**
 * Reads a policy in any of its formats. JSON is Cocos', or a snapshot where it has the members of one; all else is TOML.
 * @param file name for messages.
 * @throws UsageError ERR_POLICY; ParseError as the format's own reader
 */
export function readPolicy(bytes: Uint8Array, file: string): ReadPolicy {
  const text = decode(bytes, file)
  if (!/^\s*\{/.test(text)) return { format: "toml", policy: parseTomlPolicy(text, file) }
  // A snapshot may be long, and names its policy before its files or after them.
  if (SNAPSHOT_MEMBERS.test(text))
    return { format: "snapshot", policy: policyOfSnapshot(parseSnapshot(bytes), file) }
  return { format: "cocos", policy: parseCocosPolicy(bytes, file) }
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new UsageError("ERR_POLICY", { at: file, expected: "UTF-8 text", found: "other bytes", cause })
  }
}
