import type { Context } from "hono"
import { AgentError } from "../../errors.ts"
import { fromBase64 } from "../../formats/hex.ts"
import { parseSealedContent } from "../../formats/sealed-content.ts"
import type { AgentApp, AgentEnv, RouteContext } from "../app.ts"
import type { Applications } from "../applications.ts"
import { countOf, parsed, refused } from "../request.ts"

/** Seconds a service may take to stop, start and settle. */
const SERVICE_SECONDS = 240
/** Lines of a log that are given unless asked for otherwise, and at most. */
const LOG_LINES = [20, 1000] as const
/** What the configuration is sealed for. */
const SEALED_FOR = "app-init"

/**
 * `POST /v1/app/init` gives the application its configuration, sealed to the agent's key, and starts it; `restart` and `stop` do as
 * they say; `status` and `logs` tell how it does. `POST /app/init` and `/app/restart` are those of Cosmian VM 1.3: there the
 * configuration is protected by TLS alone.
 */
export function applicationRoutes(app: AgentApp, context: RouteContext): void {
  /** The application, for somebody who may change it. */
  const allowed = async (c: Context<AgentEnv>): Promise<Applications> => {
    const apps = requireApplications(context.apps)
    await context.guard.requireWriter(c)
    c.env?.allowSeconds?.(SERVICE_SECONDS)
    return apps
  }

  app.post("/app/init", async (c) => {
    const apps = await allowed(c)
    await apps.init(contentOf(await c.req.text()))
    return c.json(null)
  })

  app.post("/v1/app/init", async (c) => {
    const apps = await allowed(c)
    const body = new Uint8Array(await c.req.arrayBuffer())
    const sealed = parsed(() => parseSealedContent(body, context.config.limits.bodyBytes))
    await apps.init(await context.sealing.open(sealed, SEALED_FOR, context.identity.spki))
    return c.json(null)
  })

  for (const path of ["/app/restart", "/v1/app/restart"])
    app.post(path, async (c) => {
      await (await allowed(c)).restart()
      return c.json(null)
    })

  app.post("/v1/app/stop", async (c) => {
    await (await allowed(c)).stop()
    return c.json(null)
  })

  app.get("/v1/app/status", async (c) => c.json(await (await allowed(c)).status()))

  app.get("/v1/app/logs", async (c) => {
    const apps = await allowed(c)
    const lines = countOf(c, "lines") || LOG_LINES[0]
    return c.json({ lines: await apps.logs(Math.min(lines, LOG_LINES[1])) })
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
