import type { Context } from "hono"
import { HTTPException } from "hono/http-exception"
import { AcmeError, CATALOGUE, CodedError, type ErrorCode } from "../errors.ts"
import { errorFields, type Log } from "./log.ts"

type Status = 400 | 401 | 403 | 404 | 409 | 413 | 500 | 502 | 503

/** HTTP status of an error code; 500 for all others. */
const STATUS: Partial<Record<ErrorCode, Status>> = {
  ERR_REQUEST: 400,
  ERR_TPM_AK_KEY: 400,
  ERR_TPM_NO_EK: 400,
  ERR_NO_APPLICATION: 400,
  ERR_SIGNING_KEY: 400,
  ERR_SEALED: 400,
  ERR_UNAUTHORIZED: 401,
  ERR_OWNER_SIGNATURE: 401,
  ERR_WRITES_DISABLED: 403,
  ERR_CROSS_ORIGIN: 403,
  ERR_NOT_FOUND: 404,
  ERR_BOOTSTRAP: 409,
  ERR_OWNER_EXISTS: 409,
  ERR_SNAPSHOT_RUNNING: 409,
  ERR_APPLICATION_BUSY: 409,
  ERR_TOO_LARGE: 413,
  ERR_BUSY: 503,
  ERR_DEVICE_TIMEOUT: 503,
  ERR_DEVICE_BUSY: 503,
  ERR_CLIENT_GONE: 503,
}

/** The answer to a request that failed: status, and `{code, message}`. Faults that are not coded are told to the log only. */
export function errorResponse(error: Error, c: Context, log: Log): Response {
  const { code, message } = codeAndMessage(error)
  const status = isTooLarge(error) ? 413 : error instanceof AcmeError ? 502 : (STATUS[code] ?? 500)
  if (status === 500) log.error("request failed", { path: c.req.path, ...errorFields(error) })
  if (status === 503) c.header("Retry-After", "2")
  if (status === 401) c.header("WWW-Authenticate", 'Bearer realm="cosmian_vm_agent"')
  return c.json({ code, message }, status)
}

function codeAndMessage(error: Error): { code: ErrorCode; message: string } {
  if (error instanceof CodedError) return { code: error.code, message: error.message }
  if (isTooLarge(error))
    return { code: "ERR_TOO_LARGE", message: `request body: ${CATALOGUE.ERR_TOO_LARGE.title}` }
  return { code: "ERR_INTERNAL", message: CATALOGUE.ERR_INTERNAL.title }
}

/** What the body limit of Hono throws. */
function isTooLarge(error: Error): boolean {
  return error instanceof HTTPException && error.status === 413
}
