import { parseProvision } from "../../formats/provision.ts"
import { parseSealedContent } from "../../formats/sealed-content.ts"
import type { AgentApp, RouteContext } from "../app.ts"
import type { Bootstrap } from "../bootstrap.ts"
import { parsed } from "../request.ts"

/** What the values are sealed for. */
const SEALED_FOR = "bootstrap"
/** Seconds a service may take to start and settle, after an authority took its time for the certificate. */
const SERVICE_SECONDS = 240
const CERTIFICATE_SECONDS = 660

/** Takes the secrets of an application in, sealed to the agent's key, and starts it with them. */
export function bootstrapRoutes(app: AgentApp, context: RouteContext, bootstrap: Bootstrap): void {
  const { config, guard, sealing, identity } = context

  app.get("/v1/bootstrap", async (c) => {
    await guard.requireWriter(c)
    return c.json(bootstrap.status())
  })

  app.post("/v1/bootstrap", async (c) => {
    await guard.requireWriter(c)
    const body = new Uint8Array(await c.req.arrayBuffer())
    const sealed = parsed(() => parseSealedContent(body, config.limits.bodyBytes))
    const content = await sealing.open(sealed, SEALED_FOR, identity.spki)
    try {
      bootstrap.receive(parsed(() => parseProvision(content, config.limits.bodyBytes)))
    } finally {
      content.fill(0)
    }
    return c.json(bootstrap.status())
  })

  app.post("/v1/bootstrap/start", async (c) => {
    await guard.requireWriter(c)
    const waits = bootstrap.status().certificate !== null
    c.env?.allowSeconds?.(waits ? CERTIFICATE_SECONDS + SERVICE_SECONDS : SERVICE_SECONDS)
    await bootstrap.start()
    return c.json(bootstrap.status())
  })
}
