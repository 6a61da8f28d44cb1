import { bytesEqual } from "../formats/hex.ts"

/** Larger inputs are read each time: what is kept has to stay small. */
const MAX_REMEMBERED_BYTES = 64 * 1024

/**
 * The same function, that remembers what it made of the last inputs. For reading documents that many verifications have in
 * common: one after the other, the VMs of a fleet come with the same collateral, and reading it costs as much as checking
 * some of its signatures. Nothing is remembered about signatures or dates: those are checked each time.
 *
 * An input is the same when its bytes are; they are compared with a copy, so that a caller who changes an array gets what
 * the changed bytes say. Results are shared between calls, and are not to be changed.
 * @param parse depends on its argument alone; what it throws is not remembered.
 * @param count of inputs that are kept.
 */
export function remembered<T>(parse: (bytes: Uint8Array) => T, count = 8): (bytes: Uint8Array) => T {
  const entries: { readonly bytes: Uint8Array; readonly value: T }[] = []
  let oldest = 0
  return (bytes) => {
    const known = entries.find((entry) => bytesEqual(entry.bytes, bytes))
    if (known !== undefined) return known.value
    if (bytes.length > MAX_REMEMBERED_BYTES) return parse(bytes)
    const copy = bytes.slice()
    const value = parse(copy)
    entries[oldest] = { bytes: copy, value }
    oldest = (oldest + 1) % count
    return value
  }
}
