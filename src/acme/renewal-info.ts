import { z } from "zod"
import { AcmeError } from "../errors.ts"
import { type AcmeNetwork, exchange } from "./network.ts"

/** When a certificate had better be renewed. */
export interface RenewalWindow {
  readonly start: Date
  readonly end: Date
}

const DAY = 24 * 3600 * 1000
/** How long a window is believed; servers say, within these bounds. Source: RFC 9773, section 4.3. */
const SHORTEST_CHECK = 60 * 1000
const LONGEST_CHECK = DAY
const DEFAULT_CHECK = 6 * 3600 * 1000

const time = z
  .string()
  .max(64)
  .transform((value, context) => {
    const date = new Date(value)
    if (!Number.isNaN(date.getTime())) return date
    context.addIssue("a time")
    return z.NEVER
  })
const schema = z.object({ suggestedWindow: z.object({ start: time, end: time }) })

/**
 * Asks the authority when a certificate is to be renewed. It may say "now" for certificates that it has to revoke.
 * @param base address from the directory. @param id see `renewalIdOf`.
 * @throws AcmeError ERR_ACME_ANSWER and those of {@link exchange}
 */
export async function fetchRenewalWindow(
  network: AcmeNetwork,
  base: string,
  id: string,
): Promise<{ readonly window: RenewalWindow; readonly checkAfter: Date }> {
  const url = `${base.replace(/\/+$/, "")}/${id}`
  const { text, retryAfterMs } = await exchange(network, { method: "GET", url, headers: {}, body: null })
  const result = schema.safeParse(jsonOf(text))
  const window = result.data?.suggestedWindow
  if (window === undefined || window.end <= window.start)
    throw new AcmeError("ERR_ACME_ANSWER", {
      at: url,
      expected: "a suggestedWindow",
      found: "something else",
    })
  const wait = Math.min(LONGEST_CHECK, Math.max(SHORTEST_CHECK, retryAfterMs ?? DEFAULT_CHECK))
  return { window, checkAfter: new Date(network.now().getTime() + wait) }
}

/** A time inside the window, so that not all clients come at once. @param random from 0 up to 1. */
export function timeWithin({ start, end }: RenewalWindow, random: number): Date {
  return new Date(start.getTime() + Math.floor(random * (end.getTime() - start.getTime())))
}

/**
 * When to renew by the dates alone: when a third of the lifetime is left, half of it where it is shorter than ten days.
 */
export function renewalTime(notBefore: Date, notAfter: Date): Date {
  const lifetime = notAfter.getTime() - notBefore.getTime()
  return new Date(notAfter.getTime() - lifetime / (lifetime < 10 * DAY ? 2 : 3))
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Refused by the schema.
    return null
  }
}
