import { fromBase64, toBase64 } from "../../formats/hex.ts"
import { parseJsonRecord } from "../../formats/strict-json.ts"
import type { AgentApp, RouteContext } from "../app.ts"
import { parsed, refused } from "../request.ts"

const MAX_BODY = 4096

/** `GET /v1/auth/nonce` gives a nonce for a signed request; `POST /v1/owner` makes the first to ask the owner. */
export function ownerRoutes(app: AgentApp, context: RouteContext): void {
  app.get("/v1/auth/nonce", (c) => c.json({ nonce: toBase64(context.nonces.issue()) }))

  app.post("/v1/owner", async (c) => {
    const body = new Uint8Array(await c.req.arrayBuffer())
    const spki = parsed(() => publicKeyOf(body))
    if (spki === null) throw refused("body", "public_key: a SubjectPublicKeyInfo in base64", "something else")
    return c.json({ key: await context.guard.claim(c, spki) })
  })
}

function publicKeyOf(body: Uint8Array): Uint8Array | null {
  const root = parseJsonRecord("body", body, MAX_BODY)
  const text = root.string("public_key")
  root.finish()
  return fromBase64(text)
}
