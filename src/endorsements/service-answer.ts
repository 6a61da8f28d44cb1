import { EndorsementError } from "../errors.ts"

/** For content that is kept as it came. */
export function asIs(body: Uint8Array): Uint8Array {
  return body
}

/** A service that gave something else than what it was asked for. */
export function unexpected(
  at: string,
  expected: string,
  found = "something else",
): EndorsementError<"ERR_COLLATERAL_CONTENT"> {
  return new EndorsementError("ERR_COLLATERAL_CONTENT", {
    at,
    expected,
    found,
    hint: "check the address of the service, and what stands between it and this machine",
  })
}
