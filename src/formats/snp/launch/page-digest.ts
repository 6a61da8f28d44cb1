import { createHash } from "node:crypto"
import { ParseError } from "../../../errors.ts"
import { bytes, layout, u8, u16, u64, zero } from "../../layout.ts"

/** Bytes of a page. */
export const PAGE_SIZE = 4096
/** Bytes of a launch digest: SHA-384. */
export const LAUNCH_DIGEST_SIZE = 48

/**
 * What the firmware hashes for each page that the host adds at launch.
 * Source: AMD 56860 rev. 1.58, section "SNP_LAUNCH_UPDATE", Table "Layout of the PAGE_INFO Structure".
 */
const PAGE_INFO = layout("page-info", 0x70, {
  digestCurrent: bytes(0x00, LAUNCH_DIGEST_SIZE),
  contents: bytes(0x30, LAUNCH_DIGEST_SIZE), // SHA-384 of the page, or zeros where its content is not measured
  length: u16(0x60), // of this structure
  pageType: u8(0x62),
  imiPage: u8(0x63),
  vmpl3Permissions: u8(0x64),
  vmpl2Permissions: u8(0x65),
  vmpl1Permissions: u8(0x66),
  _reserved: zero(0x67, 1),
  gpa: u64(0x68),
})

/** Page types of SNP_LAUNCH_UPDATE. Source: AMD 56860 rev. 1.58, same section, Table "Encodings for the PAGE_TYPE Field". */
const PAGE_TYPE = { normal: 1, vmsa: 2, zero: 3, unmeasured: 4, secrets: 5, cpuid: 6 } as const

/** Types of pages whose content does not count; their place in memory does. */
export type BlankPageType = Exclude<keyof typeof PAGE_TYPE, "normal" | "vmsa">

/** Guest-physical address that the firmware takes for every VMSA page: the last page below 2^48. */
const VMSA_GPA = 0xffff_ffff_f000n

const NOTHING = new Uint8Array(LAUNCH_DIGEST_SIZE)

/** The digest as it grows, page by page, in the order in which the host adds them. */
export class LaunchDigest {
  #value: Uint8Array

  /** @param start digest to go on from; at launch it is zero. */
  constructor(start: Uint8Array = NOTHING) {
    if (start.length !== LAUNCH_DIGEST_SIZE)
      throw new ParseError("ERR_MALFORMED", {
        at: "launch digest to start from",
        expected: `${LAUNCH_DIGEST_SIZE} bytes`,
        found: `${start.length}`,
      })
    this.#value = start
  }

  get value(): Uint8Array {
    return this.#value
  }

  /** Adds whole pages of content. @throws ParseError ERR_MALFORMED where `content` is not a number of pages */
  addNormal(gpa: bigint, content: Uint8Array): void {
    checkPages("measured content", content.length)
    for (let at = 0; at < content.length; at += PAGE_SIZE)
      this.#add("normal", gpa + BigInt(at), sha384(content.subarray(at, at + PAGE_SIZE)))
  }

  /** Adds the page with the first register values of a virtual processor. */
  addVmsa(page: Uint8Array): void {
    this.#add("vmsa", VMSA_GPA, sha384(page))
  }

  /** Adds `size` bytes whose content is not measured. @throws ParseError ERR_MALFORMED where it is not a number of pages */
  addBlank(type: BlankPageType, gpa: bigint, size: number = PAGE_SIZE): void {
    checkPages(`${type} pages`, size)
    for (let at = 0; at < size; at += PAGE_SIZE) this.#add(type, gpa + BigInt(at), NOTHING)
  }

  #add(type: keyof typeof PAGE_TYPE, gpa: bigint, contents: Uint8Array): void {
    const info = PAGE_INFO.encode({
      digestCurrent: this.#value,
      contents,
      length: PAGE_INFO.size,
      pageType: PAGE_TYPE[type],
      imiPage: 0,
      vmpl3Permissions: 0,
      vmpl2Permissions: 0,
      vmpl1Permissions: 0,
      gpa,
    })
    this.#value = sha384(info)
  }
}

function sha384(content: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha384").update(content).digest())
}

function checkPages(what: string, size: number): void {
  if (size % PAGE_SIZE === 0) return
  throw new ParseError("ERR_MALFORMED", {
    at: what,
    expected: `a multiple of ${PAGE_SIZE} bytes`,
    found: `${size}`,
  })
}
