import { encodeEvidence } from "../../formats/evidence.ts"
import { toBase64 } from "../../formats/hex.ts"
import { SEALING_KEY_HEADER, sealingNonce } from "../../formats/sealed-content.ts"
import type { AgentApp, RouteContext } from "../app.ts"
import { collectEvidence } from "../evidence.ts"
import { countOf, nonceOf } from "../request.ts"

/**
 * `GET /v1/evidence?nonce=…[&ima_from=N][&sealing=1]`: everything for one verification; with `sealing=1` for the nonce and the key
 * that content can be sealed to, which stands in a header.
 */
export function evidenceRoutes(app: AgentApp, context: RouteContext): void {
  app.get("/v1/evidence", async (c) => {
    const nonce = nonceOf(c, 32, 32)
    const imaFrom = countOf(c, "ima_from")
    const key = countOf(c, "sealing") === 1 ? await context.sealing.publicKey() : null
    const madeFor = key === null ? nonce : sealingNonce(nonce, key)
    const evidence = await context.inTurn(c.env, c.req.raw.signal, () =>
      collectEvidence(context, madeFor, imaFrom),
    )
    if (key !== null) c.header(SEALING_KEY_HEADER, toBase64(key))
    return context.deliver(c, "application/json", new TextEncoder().encode(encodeEvidence(evidence)))
  })
}
