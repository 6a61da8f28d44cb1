import type { JsonRecord } from "../formats/strict-json.ts"
import { hex } from "./snapshot-tee.ts"

/** What AWS signed about the NitroTPM of the VM when the snapshot was taken. */
export interface NitroReference {
  /** Instance ID, `i-…`. */
  readonly instance: string
  /** SHA-256 of the root's certificate, hex. */
  readonly root: string
  /** SHA-384 bank, by PCR number: "0" to "9" and "11" to "15"; hex. */
  readonly pcrs: Readonly<Record<string, string>>
}

/** @throws ParseError ERR_MALFORMED */
export function parseNitroReference(record: JsonRecord): NitroReference {
  const instance = record.string("instance")
  if (instance === "" || instance.length > 256) throw record.wrong("instance", "an instance ID", instance)
  const root = hex(record, "root", 32)
  const values = record.record("pcrs")
  const pcrs = values.names().map((name) => {
    if (!/^(?:[0-9]|1[0-5])$/.test(name)) throw values.wrong(name.slice(0, 20), "a PCR number", name)
    return [name, hex(values, name, 48)] as const
  })
  values.finish()
  record.finish()
  return { instance, root, pcrs: Object.fromEntries(pcrs) }
}
