import { AgentError } from "../../errors.ts"
import type { MeasurementListSource } from "../../native/ports.ts"
import type { AgentApp, RouteContext } from "../app.ts"

/** Bytes turned into JSON numbers at a time: the text is about four times as long. */
const CHUNK = 64 * 1024

/** `GET /ima/ascii` and `GET /ima/binary`: the kernel's measurement list as it is. */
export function imaRoutes(app: AgentApp, context: RouteContext): void {
  app.get("/ima/ascii", async (c) => {
    const ima = requireIma(context.devices.ima)
    return c.json(await context.inTurn(c.env, c.req.raw.signal, () => ima.readAscii()))
  })

  app.get("/ima/binary", async (c) => {
    const ima = requireIma(context.devices.ima)
    const list = await context.inTurn(c.env, c.req.raw.signal, () => ima.readBinary())
    if (acceptsBytes(c.req.header("accept")))
      return c.body(new Uint8Array(list), 200, { "Content-Type": "application/octet-stream" })
    return c.body(jsonNumbers(list), 200, { "Content-Type": "application/json" })
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

/** A JSON array of byte values, made as it is read: a long list would else need many times its size. */
function jsonNumbers(bytes: Uint8Array): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  let offset = 0
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const start = offset === 0 ? "[" : ","
      const part = bytes.subarray(offset, offset + CHUNK)
      offset += part.length
      const last = offset >= bytes.length
      controller.enqueue(encoder.encode(`${start}${part.join(",")}${last ? "]" : ""}`))
      if (last) controller.close()
    },
  })
}
