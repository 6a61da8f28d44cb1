import { AgentError } from "../../errors.ts"
import { fromBase64 } from "../../formats/hex.ts"
import type { AgentApp, RouteContext } from "../app.ts"
import type { Applications } from "../applications.ts"
import { requireWriter } from "../auth.ts"
import { refused } from "../request.ts"

/** Seconds a service may take to stop, start and settle. */
const SERVICE_SECONDS = 240

/** `POST /app/init` gives the application its configuration and starts it; `POST /app/restart` starts it again. */
export function applicationRoutes(app: AgentApp, context: RouteContext): void {
  const { config } = context

  app.post("/app/init", async (c) => {
    const apps = requireApplications(context.apps)
    requireWriter(c.req.raw.headers, config.auth)
    c.env?.allowSeconds?.(SERVICE_SECONDS)
    await apps.init(contentOf(await c.req.text()))
    return c.json(null)
  })

  app.post("/app/restart", async (c) => {
    const apps = requireApplications(context.apps)
    requireWriter(c.req.raw.headers, config.auth)
    c.env?.allowSeconds?.(SERVICE_SECONDS)
    await apps.restart()
    return c.json(null)
  })
}

/** Asked first, as clients of Cosmian VM 1.3 expect; `/v1/info` tells everybody the same. */
function requireApplications(apps: Applications | null): Applications {
  if (apps !== null) return apps
  throw new AgentError("ERR_NO_APPLICATION", {
    hint: "describe it in the table [app] of the agent's configuration",
  })
}

/** The configuration in a request's body. What was sent is not repeated in any error: it may hold secrets. */
function contentOf(body: string): Uint8Array {
  const expected = '{"content": base64 without padding}'
  const value = parseJson(body)
  const content =
    typeof value === "object" && value !== null && "content" in value ? value.content : undefined
  if (typeof content !== "string") throw refused("body", expected, "something else")
  const bytes = fromBase64(content)
  if (bytes === null) throw refused("body", expected, "content that is not base64")
  return bytes
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw refused("body", "JSON", "something else")
  }
}
