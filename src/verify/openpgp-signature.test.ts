import { describe, expect, test } from "bun:test"
import "../../test/setup.ts"
import { verifyOpenPgpStatus } from "./openpgp-signature.ts"

const status = (...lines: string[]) => lines.map((line) => `[GNUPG:] ${line}\n`).join("")
const good = (fingerprint: string) => [
  "NEWSIG",
  "GOODSIG 0123456789ABCDEF Some Archive <archive@example.org>",
  `VALIDSIG SUBKEY 2025-05-17 1747473094 0 4 0 1 8 00 ${fingerprint}`,
]

describe("what gpgv says", () => {
  test("of a good signature is its key", () => {
    expect(verifyOpenPgpStatus("x", status(...good("PRIMARY")))).toBe("PRIMARY")
  })

  test("of several signatures, one by a known key is enough", () => {
    const unknown = ["NEWSIG", "ERRSIG FEDCBA9876543210 1 8 00 1747473094 9 -", "NO_PUBKEY FEDCBA9876543210"]
    expect(verifyOpenPgpStatus("x", status(...unknown, ...good("PRIMARY"), ...unknown))).toBe("PRIMARY")
    expect(() => verifyOpenPgpStatus("x", status(...unknown))).toThrowCode("ERR_PACKAGE_KEY")
  })

  test("of a wrong signature is an end, whatever else holds", () => {
    const wrong = ["NEWSIG", "BADSIG 0123456789ABCDEF Some Archive"]
    expect(() => verifyOpenPgpStatus("x", status(...good("PRIMARY"), ...wrong))).toThrowCode(
      "ERR_PACKAGE_SIGNATURE",
    )
  })

  for (const keyword of ["EXPKEYSIG", "REVKEYSIG", "EXPSIG"])
    test(`${keyword}: a signature that counts for nothing, although it is valid in itself`, () => {
      const [begin = "", , valid = ""] = good("PRIMARY")
      const lines = [begin, `${keyword} 0123456789ABCDEF Some Archive`, valid]
      expect(() => verifyOpenPgpStatus("x", status(...lines))).toThrowCode("ERR_PACKAGE_KEY")
      // Nor does it borrow from a good one before it.
      const both = [...good("PRIMARY"), ...lines]
      expect(verifyOpenPgpStatus("x", status(...both))).toBe("PRIMARY")
    })

  test("nothing, or in a user's name, is no signature", () => {
    for (const text of ["", "VALIDSIG X\n", status("NEWSIG", "ERRSIG A VALIDSIG [GNUPG:] GOODSIG")])
      expect(() => verifyOpenPgpStatus("x", text)).toThrowCode("ERR_PACKAGE_KEY")
  })
})
