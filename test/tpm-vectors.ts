import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { HAVE_VECTORS, VECTORS } from "./setup.ts"

/** Quote of a real TPM, as far as the vector holds it. */
export interface TpmVector {
  readonly name: string
  readonly quote: Uint8Array
  readonly signature: Uint8Array | null
  /** TPMT_PUBLIC; null where the vector has the key in another form. */
  readonly akPublic: Uint8Array | null
  /** Values by bank and PCR number, in hex. */
  readonly pcrs: Readonly<Record<string, Readonly<Record<string, string>>>>
}

const FOLDERS = ["tpm-quote", "ima-quote", "gcp", "cocos"]

/** All vectors with a quote. None where the vectors are absent. */
export function tpmVectors(): TpmVector[] {
  if (!HAVE_VECTORS) return []
  return FOLDERS.flatMap((folder) => quotesUnder(folder))
}

function quotesUnder(folder: string): TpmVector[] {
  const entries = readdirSync(join(VECTORS, folder), { withFileTypes: true })
  const here = entries.some((entry) => entry.name === "quote.msg") ? [readVector(folder)] : []
  const below = entries.filter((entry) => entry.isDirectory())
  return [...here, ...below.flatMap((entry) => quotesUnder(join(folder, entry.name)))]
}

function readVector(folder: string): TpmVector {
  const names = new Set(readdirSync(join(VECTORS, folder)))
  const read = (name: string) =>
    names.has(name) ? new Uint8Array(readFileSync(join(VECTORS, folder, name))) : null
  const quote = read("quote.msg")
  if (quote === null) throw new Error(`${folder} has no quote`)
  const pcrs = read("pcrs.json")
  return {
    name: folder,
    quote,
    signature: read("quote.sig"),
    // A TPM2B_PUBLIC is a TPMT_PUBLIC with two bytes of size before it.
    akPublic: read("ak.tpmt") ?? read("ak.tpm2b")?.subarray(2) ?? null,
    pcrs: pcrs === null ? {} : JSON.parse(Buffer.from(pcrs).toString("utf8")),
  }
}
