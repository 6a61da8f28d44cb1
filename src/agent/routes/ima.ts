import { AgentError } from "../../errors.ts"
import type { MeasurementListSource } from "../../native/ports.ts"
import type { AgentApp, RouteContext } from "../app.ts"

/** `GET /ima/ascii` and `GET /ima/binary`: the kernel's measurement list as it is. */
export function imaRoutes(app: AgentApp, context: RouteContext): void {
  app.get("/ima/ascii", async (c) => {
    const ima = requireIma(context.devices.ima)
    const text = await context.inTurn(c.env, c.req.raw.signal, () => ima.readAscii())
    return context.deliver(c, "application/json", new TextEncoder().encode(JSON.stringify(text)))
  })

  app.get("/ima/binary", async (c) => {
    const ima = requireIma(context.devices.ima)
    const list = await context.inTurn(c.env, c.req.raw.signal, () => ima.readBinary())
    if (acceptsBytes(c.req.header("accept"))) return context.deliver(c, "application/octet-stream", list)
    return context.deliver(c, "application/json", list, jsonNumbers)
  })
}

function requireIma(ima: MeasurementListSource | null): MeasurementListSource {
  if (ima !== null) return ima
  throw new AgentError("ERR_NO_IMA", {
    hint: "boot with an IMA policy, and mount securityfs on /sys/kernel/security",
  })
}

function acceptsBytes(accept: string | undefined): boolean {
  return (accept ?? "").split(",").some((range) => range.split(";")[0]?.trim() === "application/octet-stream")
}

/** A part of a JSON array of byte values, made as it is read: the text is about four times as long as the bytes. */
function jsonNumbers(
  chunk: Uint8Array,
  { first, last }: { readonly first: boolean; readonly last: boolean },
): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${first ? "[" : ","}${chunk.join(",")}${last ? "]" : ""}`)
}
