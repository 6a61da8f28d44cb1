import { createHash } from "node:crypto"
import { AgentError } from "../../errors.ts"
import { parseHclEnvelope } from "../../formats/azure/hcl.ts"
import { toBase64 } from "../../formats/hex.ts"
import { encodeLegacySnpBlob } from "../../formats/snp/legacy-blob.ts"
import type { AnyReport } from "../../native/ports.ts"
import type { AgentApp, RouteContext } from "../app.ts"
import { quoteRequest, requireTpm } from "../attestation-key.ts"
import { tdQuoteOf } from "../evidence.ts"
import { nonceOf } from "../request.ts"

/** The PCR that a client of Cosmian VM 1.3 asks for without saying so. */
const IMA_PCR = 10

/** `GET /quote/tee` and `GET /quote/tpm`, as clients of Cosmian VM 1.3 expect them. */
export function quoteRoutes(app: AgentApp, context: RouteContext): void {
  const { devices, identity, key } = context

  app.get("/quote/tee", async (c) => {
    const nonce = nonceOf(c, 32, 32)
    const tee = devices.tee
    if (tee === null) throw new AgentError("ERR_NO_TEE", { hint: "run the agent in a confidential VM" })
    const leafDigest = createHash("sha256").update(identity.leafDer).digest()
    const reportData = new Uint8Array([...nonce, ...leafDigest])
    const given = await context.inTurn(c.env, c.req.raw.signal, () => tee.getReport(reportData))
    return c.json([...legacyBytes(given)])
  })

  app.get("/quote/tpm", async (c) => {
    const qualifyingData = nonceOf(c, 0, 64)
    const tpm = requireTpm(devices.tpm)
    const answer = await context.inTurn(c.env, c.req.raw.signal, async () => {
      const info = await key?.info()
      const request =
        info === undefined
          ? { pcrs: [IMA_PCR], qualifyingData }
          : quoteRequest(info, [IMA_PCR], qualifyingData)
      const { attest, signature } = await tpm.quote(request)
      return { attest, signature, akPublic: info?.akPublic ?? new Uint8Array(0) }
    })
    return c.json({
      pcr_value_hash_method: "Sha256",
      quote: toBase64(answer.attest),
      signature: toBase64(answer.signature),
      public_key: toBase64(answer.akPublic),
    })
  })
}

/** A report as Cosmian VM 1.3 sent it. On Azure it is the one below the paravisor, whose report data are not the caller's. */
function legacyBytes(given: AnyReport): Uint8Array {
  switch (given.kind) {
    case "sev-snp":
      return encodeLegacySnpBlob(given.report, given.certificates)
    case "tdx":
      return given.quote
    case "azure-snp":
      return encodeLegacySnpBlob(parseHclEnvelope(given.hclReport).hardwareReport, given.certificates)
    case "azure-tdx":
      return tdQuoteOf(given)
  }
}
