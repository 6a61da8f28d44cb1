import { encodeEvidence } from "../../formats/evidence.ts"
import type { AgentApp, RouteContext } from "../app.ts"
import { collectEvidence } from "../evidence.ts"
import { countOf, nonceOf } from "../request.ts"

/** `GET /v1/evidence?nonce=…[&ima_from=N]`: everything for one verification. */
export function evidenceRoutes(app: AgentApp, context: RouteContext): void {
  app.get("/v1/evidence", async (c) => {
    const nonce = nonceOf(c, 32, 32)
    const imaFrom = countOf(c, "ima_from")
    const evidence = await context.inTurn(c.env, c.req.raw.signal, () =>
      collectEvidence(context, nonce, imaFrom),
    )
    return c.body(encodeEvidence(evidence), 200, { "Content-Type": "application/json" })
  })
}
