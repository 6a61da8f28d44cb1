import type { Certificate } from "./certificate.ts"
import { inside, single, stringValue, TAG, uint64Value } from "./der.ts"

/** Extension of Google's certificates for keys of virtual TPMs: which virtual machine's they are. */
export const OID_GCE_INSTANCE = "1.3.6.1.4.1.11129.2.1.21"

/** The virtual machine whose TPM a certificate is about. */
export interface GceInstance {
  readonly zone: string
  readonly project: string
  /** Decimal. */
  readonly instanceId: string
  readonly instanceName: string
}

/**
 * Reads Google's extension; null where the certificate has none. What follows the name (security properties) is not read.
 * Source: google/go-tpm-tools, "GCEInstanceInfo" of server/instance_info.go: zone, project number, project, instance number, name.
 * @throws ParseError ERR_MALFORMED, ERR_TRUNCATED, ERR_TRAILING_BYTES
 */
export function gceInstance({ extensions }: Pick<Certificate, "extensions">): GceInstance | null {
  const extension = extensions.get(OID_GCE_INSTANCE)
  if (extension === undefined) return null
  const reader = inside(single(extension.value, TAG.sequence, "certificate, GCE instance"))
  const zone = stringValue(reader.next(TAG.utf8String, "zone"))
  uint64Value(reader.next(TAG.integer, "project number"))
  const project = stringValue(reader.next(TAG.utf8String, "project"))
  const instanceId = `${uint64Value(reader.next(TAG.integer, "instance number"))}`
  const instanceName = stringValue(reader.next(TAG.utf8String, "instance name"))
  return { zone, project, instanceId, instanceName }
}
