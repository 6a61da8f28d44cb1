import { CodedError } from "../errors.ts"
import type { ApplicationProbe } from "../policy/application.ts"
import { endpointText, parseApplication } from "./endpoint.ts"
import { openTls } from "./tls-channel.ts"

/**
 * Connects to an application as a client would, and says at which TLS key the connection ends. Never throws for what the network
 * does: an application that cannot be asked is a failed check, for `judge` to say.
 * @param target `host[:port]` as the user wrote it.
 * @throws UsageError ERR_BAD_VALUE where that is not one.
 */
export async function probeApplication(
  target: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<ApplicationProbe> {
  const endpoint = parseApplication(target)
  try {
    const channel = await openTls(endpoint, timeoutMs, { signal })
    channel.socket.destroy()
    return { target: endpointText(endpoint), spki: channel.spki, failure: null }
  } catch (error) {
    if (!(error instanceof CodedError) || error.code === "ERR_INTERRUPTED") throw error
    return { target: endpointText(endpoint), spki: null, failure: error.found ?? error.message }
  }
}
