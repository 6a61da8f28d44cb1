import { readFileSync } from "node:fs"
import { join } from "node:path"
import { z } from "zod"
import { HAVE_VECTORS, VECTORS } from "../setup.ts"

/** One line of the vectors' index. */
const Entry = z.object({
  file: z.string(),
  kind: z.string(),
  role: z.string(),
  product: z.string().nullish(),
  expected: z.string(),
  related: z.record(z.string(), z.unknown()).nullish(),
  facts: z.record(z.string(), z.unknown()).default({}),
})
export type VectorEntry = z.infer<typeof Entry>

/** Bytes of a vector. */
export function vector(file: string): Uint8Array {
  return Uint8Array.from(readFileSync(join(VECTORS, file)))
}

/** Entries of the index under a folder; none where the vectors are absent. */
export function vectorsUnder(folder: string): VectorEntry[] {
  if (!HAVE_VECTORS) return []
  const index: unknown = JSON.parse(readFileSync(join(VECTORS, "INDEX.json"), "utf8"))
  const under = (item: unknown) =>
    typeof item === "object" && item !== null && "file" in item && `${item.file}`.startsWith(`${folder}/`)
  return z
    .array(z.unknown())
    .parse(index)
    .filter(under)
    .map((item) => Entry.parse(item))
}

/** The moment that an `expected` names: `valid at 2026-…Z: …`. */
export function validAt({ expected }: VectorEntry): Date | null {
  const iso = /valid at (\d{4}-\d\d-\d\dT[\d:]+Z)/.exec(expected)?.[1]
  return iso === undefined ? null : new Date(iso)
}
