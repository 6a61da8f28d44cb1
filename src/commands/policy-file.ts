import { type ReadPolicy, readPolicy } from "../policy/read-policy.ts"
import { readSnapshotJson } from "./snapshot-file.ts"

/** Reads a policy file in any of its formats. @throws UsageError ERR_POLICY; CodedError ERR_IO, ERR_TOO_LARGE; ParseError */
export function readPolicyFile(path: string): ReadPolicy {
  return readPolicy(readSnapshotJson(path), path === "-" ? "standard input" : path)
}
