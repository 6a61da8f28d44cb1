/** Family, model and stepping of QEMU's processor models for AMD EPYC. Source: QEMU, target/i386/cpu.c, `builtin_x86_defs`. */
const GENERATIONS = {
  EPYC: [23, 1, 2],
  "EPYC-Rome": [23, 49, 0],
  "EPYC-Milan": [25, 1, 1],
  "EPYC-Genoa": [25, 17, 0],
  "EPYC-Turin": [26, 0, 0],
} as const

/** Versions differ in features that the first register values do not show. */
const VERSIONS: Readonly<Record<keyof typeof GENERATIONS, readonly string[]>> = {
  EPYC: ["", "-v1", "-v2", "-IBPB", "-v3", "-v4", "-v5"],
  "EPYC-Rome": ["", "-v1", "-v2", "-v3", "-v4", "-v5"],
  "EPYC-Milan": ["", "-v1", "-v2", "-v3"],
  "EPYC-Genoa": ["", "-v1", "-v2"],
  "EPYC-Turin": ["", "-v1"],
}

/** Names of processor models (`--vcpu-type`) with their signatures. */
export const VCPU_TYPES: ReadonlyMap<string, number> = new Map(
  Object.entries(GENERATIONS).flatMap(([name, [family, model, stepping]]) =>
    Object.entries(VERSIONS)
      .filter(([generation]) => generation === name)
      .flatMap(([, versions]) =>
        versions.map((version) => [`${name}${version}`, vcpuSignature(family, model, stepping)] as const),
      ),
  ),
)

/**
 * The 32-bit signature of a processor, as CPUID gives it in EAX of function 1.
 * Source: AMD 25481 rev. 2.34 "CPUID Specification", function 0000_0001h.
 */
export function vcpuSignature(family: number, model: number, stepping: number): number {
  const base = Math.min(family, 0xf)
  const extended = family - base
  return (
    (extended & 0xff) * 2 ** 20 +
    ((model >> 4) & 0xf) * 2 ** 16 +
    base * 2 ** 8 +
    (model & 0xf) * 2 ** 4 +
    (stepping & 0xf)
  )
}
