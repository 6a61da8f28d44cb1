import type { Context } from "hono"
import { exporterNonce } from "../../formats/channel-binding.ts"
import { encodeEvidence } from "../../formats/evidence.ts"
import { toBase64 } from "../../formats/hex.ts"
import { SEALING_KEY_HEADER, sealingNonce } from "../../formats/sealed-content.ts"
import type { AgentApp, AgentEnv, RouteContext } from "../app.ts"
import { collectEvidence } from "../evidence.ts"
import { countOf, nonceOf, refused, textOf } from "../request.ts"

/**
 * `GET /v1/evidence?nonce=…[&ima_from=N][&sealing=1][&binding=exporter]`: everything for one verification; with `sealing=1` for the nonce
 * and the key that content can be sealed to, which stands in a header; with `binding=exporter` for this very TLS connection.
 */
export function evidenceRoutes(app: AgentApp, context: RouteContext): void {
  app.get("/v1/evidence", async (c) => {
    const nonce = nonceOf(c, 32, 32)
    const imaFrom = countOf(c, "ima_from")
    const key = countOf(c, "sealing") === 1 ? await context.sealing.publicKey() : null
    const exporter = exporterOf(c)
    const asked = key === null ? nonce : sealingNonce(nonce, key)
    const madeFor = exporter === null ? asked : exporterNonce(asked, exporter)
    const evidence = await context.inTurn(c.env, c.req.raw.signal, () =>
      collectEvidence(context, madeFor, imaFrom),
    )
    if (key !== null) c.header(SEALING_KEY_HEADER, toBase64(key))
    return context.deliver(c, "application/json", new TextEncoder().encode(encodeEvidence(evidence)))
  })
}

/** That of the connection where the client asks for it. @throws AgentError ERR_REQUEST where there is none: nothing weaker is given. */
function exporterOf(c: Context<AgentEnv>): Uint8Array | null {
  const binding = textOf(c, "binding")
  if (binding === undefined) return null
  if (binding !== "exporter")
    throw refused("query", "binding: exporter", JSON.stringify(binding.slice(0, 20)))
  const exporter = c.env?.exporter ?? null
  if (exporter !== null) return exporter
  throw refused(
    "binding",
    "a port for client certificates or bootstrap, over TLS 1.3",
    "a connection without exporter",
  )
}
