import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { scenario } from "../../test/fakes/intel.ts"
import { bundle, NO_COLLATERAL } from "../../test/fakes/intel-vectors.ts"
import { vector } from "../../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../../test/setup.ts"
import { INTEL_ANCHORS } from "../endorsements/intel-roots.ts"
import { CodedError } from "../errors.ts"
import type { IntelInput } from "./intel-quote.ts"
import { verifySgx } from "./sgx.ts"
import { verifyTdx } from "./tdx.ts"

/** Real quotes of each form, with what they are judged by. */
const QUOTES = [
  ["tdx/v4-phala-uptodate", "collateral-202506", "2025-07-04T10:16:31Z"],
  ["tdx/v5-google", "collateral-202602", "2026-02-25T00:45:50Z"],
  ["sgx/v3-sgx-phala-confswhardening", "collateral-202506", "2025-07-04T10:28:44Z"],
] as const

function judgeAs(folder: string): (input: IntelInput & { readonly quote: Uint8Array }) => unknown {
  return folder.startsWith("sgx/") ? verifySgx : verifyTdx
}

/** The code of the refusal, or `accepted`. Anything but a coded error fails the test. */
function outcome(act: () => unknown): string {
  try {
    act()
    return "accepted"
  } catch (error) {
    if (error instanceof CodedError && error.code !== "ERR_INTERNAL") return error.code
    throw error
  }
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const changed = bytes.slice()
  changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
  return changed
}

describe.skipIf(!HAVE_VECTORS)("real quotes, changed", () => {
  for (const [folder, file, iso] of QUOTES) {
    const judge = judgeAs(folder)
    const load = () => ({
      quote: vector(`${folder}/quote.bin`),
      collateral: bundle(`${folder}/${file}.json`),
      anchors: INTEL_ANCHORS,
      at: new Date(iso),
    })

    test(`${folder}: every truncation is refused as one`, () => {
      const input = load()
      for (let size = 0; size < input.quote.length; size++)
        expect(outcome(() => judge({ ...input, quote: input.quote.subarray(0, size) }))).toBe("ERR_TRUNCATED")
    })

    test(`${folder}: each byte of the signed part changed is refused for its structure or signature`, () => {
      const input = load()
      const allowed = new Set([
        "ERR_QUOTE_SIGNATURE",
        "ERR_QUOTE_VENDOR",
        "ERR_UNSUPPORTED",
        "ERR_MALFORMED",
        "ERR_RESERVED_NOT_ZERO",
        "ERR_TRUNCATED",
      ])
      const signed = folder.includes("v5") ? 48 + 6 + 648 : folder.includes("v4") ? 48 + 584 : 48 + 384
      for (let at = 0; at < signed; at++)
        expect(allowed).toContain(outcome(() => judge({ ...input, quote: flipped(input.quote, at) })))
    })

    test(`${folder}: each byte of the rest changed is refused, save in what is not looked at`, () => {
      const input = load()
      const text = Buffer.from(input.quote).toString("latin1")
      const root = text.lastIndexOf("-----BEGIN CERTIFICATE-----")
      for (let at = 600; at < input.quote.length; at += 3) {
        const found = outcome(() => judge({ ...input, quote: flipped(input.quote, at) }))
        // The root's certificate at the end is not read, and some bytes of PEM are white space.
        if (at < root && !/\s/.test(text[at] ?? "")) expect(`${at} ${found}`).not.toEndWith("accepted")
      }
    })

    test(`${folder}: each byte of the documents changed is refused for its signature`, () => {
      const input = load()
      for (const name of ["tcbInfo", "qeIdentity"] as const)
        for (let at = 0; at < input.collateral[name].length; at += 3) {
          const collateral = { ...input.collateral, [name]: flipped(input.collateral[name], at) }
          expect(outcome(() => judge({ ...input, collateral }))).toBe("ERR_COLLATERAL_SIGNATURE")
        }
    })

    test(`${folder}: each byte of signatures, chains and lists changed is refused`, () => {
      const input = load()
      const { collateral } = input
      for (const name of ["tcbInfoSignature", "qeIdentitySignature", "pckCrl", "rootCaCrl"] as const) {
        const bytes = collateral[name] ?? new Uint8Array()
        for (let at = 0; at < bytes.length; at += 7) {
          const changed = { ...collateral, [name]: flipped(bytes, at) }
          expect(outcome(() => judge({ ...input, collateral: changed }))).not.toBe("accepted")
        }
      }
      const [signer = new Uint8Array(), ...rest] = collateral.tcbInfoIssuerChain
      for (let at = 0; at < signer.length; at += 3) {
        const changed = { ...collateral, tcbInfoIssuerChain: [flipped(signer, at), ...rest] }
        expect(outcome(() => judge({ ...input, collateral: changed }))).not.toBe("accepted")
      }
    })

    test(`${folder}: several bytes at once`, () => {
      const input = load()
      const place = fc.record({ at: fc.nat(input.quote.length - 1), value: fc.nat(255) })
      fc.assert(
        fc.property(fc.array(place, { minLength: 1, maxLength: 12 }), (places) => {
          const quote = input.quote.slice()
          for (const { at, value } of places) quote[at] = value
          outcome(() => judge({ ...input, quote }))
        }),
        { numRuns: 500 },
      )
    })
  }
})

describe("random bytes", () => {
  test("are no quote", () => {
    const input = scenario()
    const any = fc.uint8Array({ maxLength: 3000 })
    fc.assert(
      fc.property(any, (bytes) => {
        for (const version of [3, 4, 5]) {
          const quote = Uint8Array.of(version, 0, 2, 0, version === 3 ? 0 : 0x81, 0, 0, 0, ...bytes)
          const judge = version === 3 ? verifySgx : verifyTdx
          expect(outcome(() => judge({ ...input, quote, skip: NO_COLLATERAL }))).not.toBe("accepted")
        }
      }),
    )
  })

  test("a quote that is too large is refused before it is read", () => {
    const quote = Buffer.concat([scenario().quote, new Uint8Array(128 * 1024)])
    expect(outcome(() => verifyTdx({ ...scenario(), quote }))).toBe("ERR_TOO_LARGE")
  })

  test("are no collateral", () => {
    const input = scenario()
    const names = ["tcbInfo", "qeIdentity", "pckCrl", "rootCaCrl"] as const
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.uint8Array({ maxLength: 300 }), (name, bytes) => {
        const collateral = { ...input.collateral, [name]: bytes }
        expect(outcome(() => verifyTdx({ ...input, collateral }))).not.toBe("accepted")
      }),
    )
  })
})
