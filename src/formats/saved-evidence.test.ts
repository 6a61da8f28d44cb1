import { describe, expect, test } from "bun:test"
import { ParseError } from "../errors.ts"
import { encodeSavedEvidence, parseSavedEvidence, type SavedEvidence } from "./saved-evidence.ts"

const filled = (size: number, byte: number) => new Uint8Array(size).fill(byte)

const SAVED: SavedEvidence = {
  target: "vm.example:5555",
  collectedAt: new Date("2026-06-01T10:20:30.400Z"),
  nonce: filled(32, 7),
  channel: { spki: filled(91, 1), authorized: false, reason: "self-signed" },
  evidence: {
    tee: { kind: "sev-snp", report: filled(1184, 2), certificates: [filled(700, 3)] },
    tpm: null,
    ima: { from: 0, list: filled(50, 4) },
  },
  documents: { certificates: [filled(800, 5)], crl: filled(400, 6), intel: null },
  applications: [
    { target: "vm.example:443", spki: filled(91, 1), failure: null },
    { target: "vm.example:444", spki: null, failure: "ECONNREFUSED" },
  ],
}
const bytesOf = (text: string) => new TextEncoder().encode(text)
const TEXT = encodeSavedEvidence(SAVED)
const refused = (from: string, to: string) => {
  expect(TEXT).toContain(from)
  return expect(() => parseSavedEvidence(bytesOf(TEXT.replace(from, to))))
}

describe("saved evidence", () => {
  test("reads back as it was", () => expect(parseSavedEvidence(bytesOf(TEXT))).toEqual(SAVED))

  test("keeps Intel's documents byte by byte", () => {
    const intel = {
      tcbInfo: bytesOf('{"id": "TDX",  "version":3}'),
      tcbInfoSignature: filled(64, 1),
      tcbInfoIssuerChain: [filled(60, 2), filled(61, 3)],
      qeIdentity: bytesOf("{ }"),
      qeIdentitySignature: filled(64, 4),
      qeIdentityIssuerChain: [filled(62, 5)],
      pckCrl: Uint8Array.from([0x30, 0x01, 0x00]),
      pckCrlIssuerChain: [filled(63, 6)],
      rootCaCrl: null,
    }
    const saved = { ...SAVED, documents: { certificates: [], crl: null, intel } }
    expect(parseSavedEvidence(bytesOf(encodeSavedEvidence(saved)))).toEqual(saved)
  })

  test("keeps what the evidence is bound to", () => {
    const saved = { ...SAVED, channel: { ...SAVED.channel, exporter: filled(32, 8) } }
    const text = encodeSavedEvidence(saved)
    expect(parseSavedEvidence(bytesOf(text))).toEqual(saved)
    expect(() => parseSavedEvidence(bytesOf(text.replace('"exporter":"CAgI', '"exporter":"')))).toThrowCode(
      "ERR_MALFORMED",
    )
  })

  test("cut off anywhere is refused", () => {
    const bytes = bytesOf(TEXT.trimEnd())
    for (let size = 0; size < bytes.length; size += 7)
      expect(() => parseSavedEvidence(bytes.slice(0, size))).toThrow(ParseError)
  })

  test("a name that stands twice is refused, at every level", () => {
    refused('"target"', '"nonce":"AA","target"').toThrowCode("ERR_DUPLICATE_KEY")
    refused('"authorized":', '"authorized":true,"authorized":').toThrowCode("ERR_DUPLICATE_KEY")
    refused('"ima":', '"ima":null,"ima":').toThrowCode("ERR_DUPLICATE_KEY")
  })

  test("a name that nobody knows is refused, at every level", () => {
    for (const name of ['"target"', '"spki"', '"crl"', '"tee"', '"failure"'])
      refused(name, `"trusted":true,${name}`).toThrowCode("ERR_MALFORMED")
  })

  test("other kinds and versions, times, nonces and texts are refused", () => {
    refused("cosmian-vm-evidence", "something-else").toThrowCode("ERR_UNSUPPORTED")
    refused('"version":1,"target"', '"version":2,"target"').toThrowCode("ERR_UNSUPPORTED")
    for (const time of ["2026-06-01T10:20:30Z", "2026-02-31T10:20:30.400Z", "yesterday"])
      refused("2026-06-01T10:20:30.400Z", time).toThrowCode("ERR_MALFORMED")
    refused('"nonce":"BwcH', '"nonce":"').toThrowCode("ERR_MALFORMED")
    refused('"nonce":"BwcH', '"nonce":"BwcHBwcH').toThrowCode("ERR_TOO_LARGE")
    refused('"authorized":false', '"authorized":"false"').toThrowCode("ERR_MALFORMED")
    refused("self-signed", "x".repeat(1025)).toThrowCode("ERR_TOO_LARGE")
    refused('"certificates":["BQUF', '"certificates":["=').toThrowCode("ERR_MALFORMED")
    refused("\n", "{}").toThrowCode("ERR_TRAILING_BYTES")
  })

  test("a long reason is kept in part, so that the file can be read", () => {
    const saved = { ...SAVED, channel: { ...SAVED.channel, reason: "x".repeat(5000) } }
    expect(parseSavedEvidence(bytesOf(encodeSavedEvidence(saved))).channel.reason).toHaveLength(1024)
  })
})
