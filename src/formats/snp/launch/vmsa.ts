import { bytes, layout, u16, u32, u64, zero } from "../../layout.ts"
import { PAGE_SIZE } from "./page-digest.ts"

/** Hosts whose first register values are known. `QEMU`: also other uses of KVM that set them in the same way. */
export const VMM_TYPES = ["QEMU", "ec2", "gce"] as const
export type VmmType = (typeof VMM_TYPES)[number]

/** Segment register. Source: AMD 24593 (APM volume 2) rev. 3.42, Appendix B, Table B-2. */
const SEGMENT = layout("vmsa-segment", 16, {
  selector: u16(0),
  attributes: u16(2),
  limit: u32(4),
  base: u64(8),
})

/**
 * Save area of a virtual processor. Only the fields that are not zero at launch have names.
 * Source: AMD 24593 (APM volume 2) rev. 3.42, Appendix B, Table B-4 "VMSA Layout, State Save Area for SEV-ES".
 */
const VMSA = layout("vmsa", PAGE_SIZE, {
  es: bytes(0x000, 16),
  cs: bytes(0x010, 16),
  ss: bytes(0x020, 16),
  ds: bytes(0x030, 16),
  fs: bytes(0x040, 16),
  gs: bytes(0x050, 16),
  gdtr: bytes(0x060, 16),
  ldtr: bytes(0x070, 16),
  idtr: bytes(0x080, 16),
  tr: bytes(0x090, 16),
  _zero0: zero(0x0a0, 0x30),
  efer: u64(0x0d0),
  _zero1: zero(0x0d8, 0x70),
  cr4: u64(0x148),
  _zero2: zero(0x150, 8),
  cr0: u64(0x158),
  dr7: u64(0x160),
  dr6: u64(0x168),
  rflags: u64(0x170),
  rip: u64(0x178),
  _zero3: zero(0x180, 0xe8),
  gPat: u64(0x268),
  _zero4: zero(0x270, 0xa0),
  rdx: u64(0x310),
  _zero5: zero(0x318, 0x98),
  sevFeatures: u64(0x3b0),
  _zero6: zero(0x3b8, 0x30),
  xcr0: u64(0x3e8),
  _zero7: zero(0x3f0, 0x18),
  mxcsr: u32(0x408),
  _zero8: zero(0x40c, 4),
  x87Fcw: u16(0x410),
  _zero9: zero(0x412, PAGE_SIZE - 0x412),
})

/** Where the first processor begins: the reset vector. */
export const RESET_VECTOR = 0xffff_fff0

/** What differs between hosts. */
interface HostState {
  readonly csAttributes: number
  readonly ssAttributes: number
  readonly trAttributes: number
  readonly gPat: bigint
  readonly rdx: bigint
  readonly mxcsr: number
  readonly x87Fcw: number
}

/** PAT after reset. Source: AMD 24593 rev. 3.42, section 7.8.1. */
const RESET_PAT = 0x0007_0406_0007_0406n

export interface VcpuState {
  readonly vmm: VmmType
  /** Address of the first instruction. */
  readonly eip: number
  /** SEV_FEATURES. Source: AMD 24593 rev. 3.42, Table B-4, offset 3B0h. Bit 0: SNP active. */
  readonly sevFeatures: bigint
  /** CPUID signature of the processor model; hosts other than QEMU do not show it. */
  readonly signature: number
}

/** The page with the register values at which a virtual processor begins. */
export function encodeVmsa({ vmm, eip, sevFeatures, signature }: VcpuState): Uint8Array {
  const host = hostState(vmm, eip, signature)
  const data = segment(0, 0x93)
  return VMSA.encode({
    es: data,
    cs: segment(0xf000, host.csAttributes, BigInt(eip) & 0xffff_0000n),
    ss: segment(0, host.ssAttributes),
    ds: data,
    fs: data,
    gs: data,
    gdtr: segment(0, 0),
    ldtr: segment(0, 0x82),
    idtr: segment(0, 0),
    tr: segment(0, host.trAttributes),
    efer: 0x1000n, // SVME, which KVM sets
    cr4: 0x40n, // MCE, which KVM sets
    cr0: 0x10n,
    dr7: 0x400n,
    dr6: 0xffff_0ff0n,
    rflags: 2n,
    rip: BigInt(eip) & 0xffffn,
    gPat: host.gPat,
    rdx: host.rdx,
    sevFeatures,
    xcr0: 1n,
    mxcsr: host.mxcsr,
    x87Fcw: host.x87Fcw,
  })
}

function hostState(vmm: VmmType, eip: number, signature: number): HostState {
  switch (vmm) {
    case "QEMU":
      return {
        csAttributes: 0x9b,
        ssAttributes: 0x93,
        trAttributes: 0x8b,
        gPat: RESET_PAT,
        rdx: BigInt(signature),
        mxcsr: 0x1f80,
        x87Fcw: 0x37f,
      }
    case "ec2":
      return {
        csAttributes: eip === RESET_VECTOR ? 0x9a : 0x9b,
        ssAttributes: 0x92,
        trAttributes: 0x83,
        gPat: RESET_PAT,
        rdx: 0x600n,
        mxcsr: 0,
        x87Fcw: 0,
      }
    case "gce":
      return {
        csAttributes: 0x9b,
        ssAttributes: 0x93,
        trAttributes: 0x8b,
        gPat: 0x0007_0106n, // its hypervisor writes this register itself
        rdx: 0x600n,
        mxcsr: 0,
        x87Fcw: 0,
      }
  }
}

function segment(selector: number, attributes: number, base = 0n): Uint8Array {
  return SEGMENT.encode({ selector, attributes, limit: 0xffff, base })
}
