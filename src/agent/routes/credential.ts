import { fromBase64, toBase64 } from "../../formats/hex.ts"
import { credentialProof, MAX_ENCRYPTED_SECRET, MAX_ID_OBJECT } from "../../formats/tpm/credential.ts"
import type { AgentApp, RouteContext } from "../app.ts"
import { requireTpm } from "../attestation-key.ts"
import { ekKeyOf } from "../ek-key.ts"
import { refused } from "../request.ts"

/** DER SubjectPublicKeyInfo of an RSA-4096 key. */
const MAX_SPKI = 600
const EXPECTED = '{"ek": base64, "id_object": base64, "encrypted_secret": base64}'

/**
 * `POST /v1/tpm/activate-credential`: opens a credential with the TPM's endorsement key for the agent's own attestation key, and for
 * no other. Open to everybody like the evidence, for it changes nothing and gives nothing away: what is answered is a digest over the
 * secret and this server's TLS key, of use to nobody but the one who made the credential.
 */
export function credentialRoutes(app: AgentApp, context: RouteContext): void {
  const { devices, identity, key } = context

  app.post("/v1/tpm/activate-credential", async (c) => {
    const tpm = requireTpm(devices.tpm)
    const request = requestOf(await c.req.text())
    const proof = await context.inTurn(c.env, c.req.raw.signal, async () => {
      const ak = await key?.info()
      const keyHandle = ak?.akHandle ?? null
      const secret = await tpm.activateCredential({
        ...request,
        ...(keyHandle === null ? {} : { keyHandle }),
      })
      return credentialProof(secret, identity.spki)
    })
    return c.json({ proof: toBase64(proof) })
  })
}

function requestOf(body: string): Parameters<ReturnType<typeof requireTpm>["activateCredential"]>[0] {
  const value = parseJson(body)
  if (typeof value !== "object" || value === null) throw refused("body", EXPECTED, "something else")
  const bytes = (name: string, max: number) => {
    const text: unknown = Object.getOwnPropertyDescriptor(value, name)?.value
    // Checked before decoding.
    if (typeof text !== "string" || text.length > Math.ceil((max * 4) / 3))
      throw refused(
        "body",
        EXPECTED,
        typeof text === "string" ? `more than ${max} bytes of ${name}` : `no ${name}`,
      )
    const decoded = fromBase64(text)
    if (decoded === null) throw refused("body", EXPECTED, `${name} that is not base64`)
    return decoded
  }
  return {
    ek: ekKeyOf(bytes("ek", MAX_SPKI)),
    idObject: bytes("id_object", MAX_ID_OBJECT),
    encryptedSecret: bytes("encrypted_secret", MAX_ENCRYPTED_SECRET),
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw refused("body", "JSON", "something else")
  }
}
