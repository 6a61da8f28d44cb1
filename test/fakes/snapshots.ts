import { parseSnapshot, type TdxPolicy } from "../../src/policy/snapshot.ts"

/** A policy for trust domains that fixes nothing, as a file of the predecessor may have it. */
export function emptyTdxPolicy(): TdxPolicy {
  const { tee_policy } = parseSnapshot(Buffer.from('{"tee_policy":{"Tdx":{"header":{},"body":{}}}}'))
  if (tee_policy === null || !("Tdx" in tee_policy)) throw new Error("no policy")
  return tee_policy.Tdx
}
