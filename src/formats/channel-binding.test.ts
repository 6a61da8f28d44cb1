import { expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { exporterNonce } from "./channel-binding.ts"

test("covers context, nonce and exporter in this order", () => {
  const [nonce, exporter] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)]
  const whole = Buffer.concat([Buffer.from("cosmian-vm/tls-exporter/v1\0"), nonce, exporter])
  expect(Buffer.from(exporterNonce(nonce, exporter))).toEqual(createHash("sha512").update(whole).digest())
})
