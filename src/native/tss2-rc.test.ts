import { expect, test } from "bun:test"
import { isNoSuchHandle, isRetry, rcText } from "./tss2-rc.ts"

test.each([
  [0x100, "TPM_RC_INITIALIZE"],
  [0x14a, "TPM_RC_NV_UNINITIALIZED"],
  [0x902, "TPM_RC_OBJECT_MEMORY"],
  [0x921, "TPM_RC_LOCKOUT"],
  [0x922, "TPM_RC_RETRY"],
  [0x18b, "TPM_RC_HANDLE: there is no such object, handle 1"],
  [0x2d2, "TPM_RC_SCHEME, parameter 2"],
  [0x98e, "TPM_RC_AUTH_FAIL: wrong authorization, counted by the lockout, session 1"],
  [0xb0902, "TPM_RC_OBJECT_MEMORY"],
  [0xa000a, "tcti: IO_ERROR"],
  [0xa000c, "tcti: NO_CONNECTION"],
  [0x7000b, "esys: BAD_VALUE"],
  [0xff0001, "unknown layer: GENERAL_FAILURE"],
  [0x1ff, "unknown error"],
])("0x%s is explained", (rc, text) => {
  expect(rcText(rc)).toStartWith(`0x${rc.toString(16)} (`)
  expect(rcText(rc)).toContain(text)
})

test("a lockout is not tried again: that would prolong it", () => {
  expect([0x908, 0x90a, 0x920, 0x922].every(isRetry)).toBeTrue()
  expect([0, 0x921, 0x101, 0x18b].some(isRetry)).toBeFalse()
})

test("a free handle is told from a wrong parameter", () => {
  expect(isNoSuchHandle(0x18b)).toBeTrue()
  expect(isNoSuchHandle(0x1cb)).toBeFalse()
})
