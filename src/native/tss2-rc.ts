/**
 * Response codes of the TPM and of the TSS2 libraries, as text.
 * Source: TPM 2.0 Part 2, rev. 1.59, table "TPM_RC"; TCG TSS 2.0 Overview and Common Structures 1.0, section "Return Codes".
 */

/** Format zero, errors (RC_VER1): 0x100 + index. */
const ERRORS: Readonly<Record<number, string>> = {
  0: "TPM_RC_INITIALIZE: the TPM has not been started",
  1: "TPM_RC_FAILURE: the TPM is in failure mode",
  32: "TPM_RC_DISABLED: the command is disabled",
  33: "TPM_RC_EXCLUSIVE",
  36: "TPM_RC_AUTH_TYPE",
  37: "TPM_RC_AUTH_MISSING: an authorization is missing",
  38: "TPM_RC_POLICY",
  39: "TPM_RC_PCR",
  40: "TPM_RC_PCR_CHANGED",
  45: "TPM_RC_UPGRADE",
  47: "TPM_RC_AUTH_UNAVAILABLE",
  48: "TPM_RC_REBOOT: the machine has to be rebooted first",
  66: "TPM_RC_COMMAND_SIZE",
  67: "TPM_RC_COMMAND_CODE: the TPM does not have this command",
  68: "TPM_RC_AUTHSIZE",
  69: "TPM_RC_AUTH_CONTEXT",
  70: "TPM_RC_NV_RANGE",
  71: "TPM_RC_NV_SIZE",
  72: "TPM_RC_NV_LOCKED",
  73: "TPM_RC_NV_AUTHORIZATION: the NV index does not allow this",
  74: "TPM_RC_NV_UNINITIALIZED: the NV index was never written",
  75: "TPM_RC_NV_SPACE: no room in the TPM's memory",
  76: "TPM_RC_NV_DEFINED",
}

/** Format zero, warnings (RC_WARN): 0x900 + index. */
const WARNINGS: Readonly<Record<number, string>> = {
  1: "TPM_RC_CONTEXT_GAP",
  2: "TPM_RC_OBJECT_MEMORY: no free slot for a key",
  3: "TPM_RC_SESSION_MEMORY: no free slot for a session",
  4: "TPM_RC_MEMORY",
  5: "TPM_RC_SESSION_HANDLES",
  6: "TPM_RC_OBJECT_HANDLES",
  7: "TPM_RC_LOCALITY",
  8: "TPM_RC_YIELDED",
  9: "TPM_RC_CANCELED",
  10: "TPM_RC_TESTING: self-test is running",
  32: "TPM_RC_NV_RATE: too many writes to the TPM's memory",
  33: "TPM_RC_LOCKOUT: locked because of failed authorizations",
  34: "TPM_RC_RETRY",
  35: "TPM_RC_NV_UNAVAILABLE",
}

/** Format one: 0x80 + index, with the handle, session or parameter that is meant. */
const FORMAT_ONE: Readonly<Record<number, string>> = {
  1: "TPM_RC_ASYMMETRIC",
  2: "TPM_RC_ATTRIBUTES",
  3: "TPM_RC_HASH",
  4: "TPM_RC_VALUE",
  5: "TPM_RC_HIERARCHY: the hierarchy is disabled",
  7: "TPM_RC_KEY_SIZE",
  8: "TPM_RC_MGF",
  9: "TPM_RC_MODE",
  10: "TPM_RC_TYPE",
  11: "TPM_RC_HANDLE: there is no such object",
  12: "TPM_RC_KDF",
  13: "TPM_RC_RANGE",
  14: "TPM_RC_AUTH_FAIL: wrong authorization, counted by the lockout",
  15: "TPM_RC_NONCE",
  16: "TPM_RC_PP",
  18: "TPM_RC_SCHEME",
  21: "TPM_RC_SIZE",
  22: "TPM_RC_SYMMETRIC",
  23: "TPM_RC_TAG",
  24: "TPM_RC_SELECTOR",
  26: "TPM_RC_INSUFFICIENT",
  27: "TPM_RC_SIGNATURE",
  28: "TPM_RC_KEY",
  29: "TPM_RC_POLICY_FAIL: the policy is not met",
  31: "TPM_RC_INTEGRITY",
  32: "TPM_RC_TICKET",
  33: "TPM_RC_RESERVED_BITS",
  34: "TPM_RC_BAD_AUTH: wrong authorization",
  35: "TPM_RC_EXPIRED",
  36: "TPM_RC_POLICY_CC",
  37: "TPM_RC_BINDING",
  38: "TPM_RC_CURVE: the TPM does not have this curve",
  39: "TPM_RC_ECC_POINT",
}

/** Library layers, in bits 16 to 23. */
const LAYERS: Readonly<Record<number, string>> = {
  0: "tpm",
  6: "fapi",
  7: "esys",
  8: "sys",
  9: "mu",
  10: "tcti",
  11: "resource manager (as tpm)",
  12: "resource manager",
}

/** Errors that the libraries themselves report, in the low 16 bits. */
const BASE: Readonly<Record<number, string>> = {
  1: "GENERAL_FAILURE",
  2: "NOT_IMPLEMENTED",
  4: "BAD_REFERENCE",
  5: "BAD_SEQUENCE",
  6: "BAD_CONTEXT",
  8: "ABI_MISMATCH: incompatible version of the library",
  9: "NOT_SUPPORTED",
  10: "IO_ERROR: the device is absent, or may not be opened",
  11: "BAD_VALUE",
  12: "NO_CONNECTION: nobody listens there",
  13: "TRY_AGAIN",
  14: "MALFORMED_RESPONSE",
  15: "INSUFFICIENT_BUFFER",
  17: "INSUFFICIENT_RESPONSE",
  19: "NOT_PERMITTED",
  25: "MEMORY",
}

/** The code as hex, with layer, name and what it means where known. */
export function rcText(rc: number): string {
  const code = `0x${rc.toString(16)}`
  const layer = rc >>> 16
  if (layer !== 0 && layer !== 11) {
    const name = BASE[rc & 0xffff] ?? "unknown error"
    return `${code} (${LAYERS[layer] ?? "unknown layer"}: ${name})`
  }
  return `${code} (${tpmText(rc & 0xffff)})`
}

function tpmText(rc: number): string {
  if ((rc & 0x80) !== 0) return `${FORMAT_ONE[rc & 0x3f] ?? "unknown error"}, ${subject(rc)}`
  const table = (rc & 0x800) === 0 ? ERRORS : WARNINGS
  return table[rc & 0x7f] ?? "unknown error"
}

function subject(rc: number): string {
  const number = (rc >> 8) & 0xf
  if ((rc & 0x40) !== 0) return `parameter ${number}`
  return number >= 8 ? `session ${number - 8}` : `handle ${number}`
}

/** Warnings after which the same command is to be sent again: YIELDED, TESTING, NV_RATE, RETRY. */
const AGAIN: ReadonlySet<number> = new Set([0x908, 0x90a, 0x920, 0x922])

/** Whether the TPM asks for the same command again. */
export function isRetry(rc: number): boolean {
  return AGAIN.has(rc)
}

/** No free slot for a transient key. */
export const RC_OBJECT_MEMORY = 0x902
/** Whether the object that a command's first handle names does not exist. */
export function isNoSuchHandle(rc: number): boolean {
  return (rc & 0xff) === 0x8b
}

/** No free slot for a session, or too many that others have open. */
export const RC_SESSION_MEMORY = 0x903
export const RC_SESSION_HANDLES = 0x905

/** Format-one errors by their number, whatever handle, session or parameter they are about. */
function isFormatOne(rc: number, number: number): boolean {
  return (rc & 0xf000) === 0 && (rc & 0x80) !== 0 && (rc & 0x3f) === number
}

/** Whether an object could not be loaded because another parent, of this or another TPM, encrypted it. */
export function isForeignObject(rc: number): boolean {
  return isFormatOne(rc, 31)
}

/** Whether the state of the machine is not the one that the policy wants. */
export function isPolicyFailure(rc: number): boolean {
  return isFormatOne(rc, 29)
}

/** Whether the authorization value was wrong. */
export function isAuthFailure(rc: number): boolean {
  return isFormatOne(rc, 14) || isFormatOne(rc, 34)
}

/** Whether wrong authorizations have locked the TPM for a while. */
export const RC_LOCKOUT = 0x921
