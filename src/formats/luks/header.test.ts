import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import {
  luksHeader,
  metadataOf,
  resign,
  set,
  withMetadata,
  withMetadataText,
} from "../../../test/fakes/luks.ts"
import { CodedError } from "../../errors.ts"
import { MAX_LUKS_IMAGE, parseLuksHeader } from "./header.ts"
import { parseLuksMetadata } from "./metadata.ts"

const HEADER = luksHeader()
const SECONDARY = 16384
const SEGMENT = metadataOf(HEADER)["segments"]["0"]

/** The header with some bytes overwritten, both checksums right again. */
function patched(offset: number, bytes: readonly number[], copies = [0, SECONDARY]): Uint8Array {
  const image = HEADER.slice()
  for (const copy of copies) {
    image.set(bytes, copy + offset)
    resign(image, copy)
  }
  return image
}

describe("a header of cryptsetup's", () => {
  test("is read", () => {
    const { uuid, headerSize, imageSize, label, subsystem, metadata } = parseLuksHeader(HEADER)
    expect(uuid).toMatch(/^[0-9a-f-]{36}$/)
    expect([headerSize, imageSize, label, subsystem]).toEqual([16384, 16 << 20, "", ""])
    expect(metadata.segments).toEqual([
      {
        known: true,
        id: 0,
        offset: 0n,
        size: "dynamic",
        ivTweak: 0n,
        encryption: "aes-xts-plain64",
        sectorSize: expect.any(Number),
        integrity: null,
        flags: [],
      },
    ])
    expect(metadata.keyslots).toMatchObject([
      {
        known: true,
        keySize: 64,
        kdf: { type: "argon2id", memory: 65536, time: 4, cpus: 1 },
        area: { offset: 32768n, size: 258048n, encryption: "aes-xts-plain64", keySize: 64 },
        af: { type: "luks1", stripes: 4000 },
        priority: null,
      },
    ])
    expect(metadata.config).toEqual({
      jsonSize: 12288n,
      keyslotsSize: 16744448n,
      flags: [],
      requirements: [],
    })
  })

  test("is read the same with metadata written anew", () => {
    expect(parseLuksHeader(withMetadata(HEADER, () => {})).metadata).toEqual(parseLuksHeader(HEADER).metadata)
  })

  test("is read from its front alone, as it lies on a device", () => {
    expect(parseLuksHeader(HEADER.subarray(0, 32768)).imageSize).toBe(32768)
  })

  test("is refused at every length below that", () => {
    for (const size of [0, 1, 6, 4095, 4096, 16383, 16384, 20480, 32767])
      expect(() => parseLuksHeader(HEADER.subarray(0, size))).toThrowCode("ERR_TRUNCATED")
  })

  test("is refused over the limit", () => {
    expect(() => parseLuksHeader(new Uint8Array(MAX_LUKS_IMAGE + 1))).toThrowCode("ERR_TOO_LARGE")
  })
})

describe("a changed header", () => {
  test("with any byte of the binary part flipped is refused", () => {
    for (let at = 0; at < 4096; at += 7) {
      const image = HEADER.slice(0, 2 * SECONDARY)
      image[at] = (image[at] ?? 0) ^ 1
      expect(() => parseLuksHeader(image)).toThrow(CodedError)
    }
  })

  test("has a wrong checksum, in either copy", () => {
    for (const at of [4096 + 20, SECONDARY + 4096 + 20, SECONDARY - 1]) {
      const image = HEADER.slice()
      image[at] = (image[at] ?? 0) ^ 1
      expect(() => parseLuksHeader(image)).toThrowCode("ERR_LUKS_CHECKSUM")
    }
  })

  test("that is whole in itself but unlike its other copy is refused", () => {
    for (const copies of [[0], [SECONDARY]])
      expect(() => parseLuksHeader(patched(23, [99], copies))).toThrowCode("ERR_LUKS_COPIES")
    const [other, mixed] = [withMetadata(HEADER, set("tokens", {})), HEADER.slice()]
    mixed.set(withMetadata(HEADER, set("config.flags", ["allow-discards"])).subarray(0, SECONDARY))
    expect(parseLuksHeader(other).uuid).not.toBe("")
    expect(() => parseLuksHeader(mixed)).toThrowCode("ERR_LUKS_COPIES")
  })

  test("of another version, checksum or kind is refused by name", () => {
    expect(() => parseLuksHeader(patched(7, [1]))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseLuksHeader(patched(72, [...Buffer.from("crc32\0\0")]))).toThrowCode("ERR_UNSUPPORTED")
    expect(() => parseLuksHeader(new Uint8Array(65536))).toThrowCode("ERR_MALFORMED")
  })

  test("with another size or offset of itself is refused", () => {
    for (const [offset, bytes] of [
      [8, [0, 0, 0, 0, 0, 0, 0x30, 0]],
      [8, [0, 0, 0, 0, 0, 0x80, 0, 0]],
      [8, [255, 255, 255, 255, 255, 255, 255, 255]],
      [256, [0, 0, 0, 0, 0, 0, 0x10, 0]],
    ] as const) {
      const image = HEADER.slice()
      image.set(bytes, offset)
      expect(() => parseLuksHeader(image)).toThrowCode("ERR_MALFORMED")
    }
  })

  test("that hides bytes behind the text or in the padding is refused", () => {
    expect(() => parseLuksHeader(patched(16383, [1]))).toThrowCode("ERR_RESERVED_NOT_ZERO")
    expect(() => parseLuksHeader(patched(300, [1]))).toThrowCode("ERR_RESERVED_NOT_ZERO")
    expect(() => parseLuksHeader(patched(24, [0x41, 0, 0x42]))).toThrowCode("ERR_MALFORMED")
  })
})

describe("metadata", () => {
  const text = (change: (metadata: ReturnType<typeof metadataOf>) => void) => {
    const metadata = metadataOf(HEADER)
    change(metadata)
    return Buffer.from(JSON.stringify(metadata))
  }

  test("of a type that is not known is kept by its name, for the policy to refuse", () => {
    const { segments, keyslots, digests } = parseLuksMetadata(
      text((metadata) => {
        metadata["segments"] = { "0": { type: "linear", offset: "0", size: "dynamic" } }
        metadata["keyslots"]["1"] = { type: "reencrypt", mode: "encrypt" }
        metadata["digests"]["1"] = { type: "sha1" }
        metadata["keyslots"]["0"].kdf = { type: "none" }
      }),
    )
    expect(segments).toEqual([{ known: false, id: 0, type: "linear" }])
    expect(keyslots[1]).toEqual({ known: false, id: 1, type: "reencrypt" })
    expect(digests[1]).toEqual({ known: false, id: 1, type: "sha1" })
    expect(keyslots[0]).toMatchObject({ kdf: { type: "other", name: "none" } })
  })

  test("with members that are not known, or of the wrong kind, is refused", () => {
    for (const change of [
      set("extra", {}),
      set("segments.0.extra", 1),
      set("segments.0.offset", 0),
      set("segments.0.offset", "00"),
      set("segments.0.size", "18446744073709551616"),
      set("segments.00", SEGMENT),
      set("segments.x", SEGMENT),
      set("keyslots.0.priority", 3),
      set("keyslots.0.kdf.salt", "!"),
      set("config.requirements", ["online-reencrypt"]),
      set("digests.0.keyslots", "0"),
      set("config", undefined),
    ] as ((metadata: ReturnType<typeof metadataOf>) => void)[])
      expect(() => parseLuksMetadata(text(change))).toThrowCode("ERR_MALFORMED")
  })

  test("with a member twice is refused", () => {
    const twice = JSON.stringify(metadataOf(HEADER)).replace('"segments":', '"segments":{},"segments":')
    expect(() => parseLuksHeader(withMetadataText(HEADER, twice))).toThrowCode("ERR_DUPLICATE_KEY")
  })

  test("with more than 32 of a kind is refused", () => {
    const many = Object.fromEntries(Array.from({ length: 33 }, (_, id) => [id, { type: "x", keyslots: [] }]))
    expect(() => parseLuksMetadata(text(set("tokens", many)))).toThrowCode("ERR_TOO_LARGE")
  })

  test("of any kind only ends in coded errors", () => {
    const known = JSON.stringify(metadataOf(HEADER))
    fc.assert(
      fc.property(fc.nat(known.length), fc.nat(40), fc.string({ maxLength: 8 }), (at, size, put) => {
        const changed = known.slice(0, at) + put + known.slice(at + size)
        try {
          parseLuksMetadata(Buffer.from(changed))
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test("and any bytes in place of a header, too", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(32768 - 64), fc.boolean(), (bytes, at, sign) => {
        const image = HEADER.slice(0, 32768)
        image.set(bytes, at)
        try {
          if (sign) resign(image, 0)
          parseLuksHeader(image)
        } catch (error) {
          if (!(error instanceof RangeError && sign)) expect(error).toBeInstanceOf(CodedError)
        }
      }),
      { numRuns: 300 },
    )
  })
})
