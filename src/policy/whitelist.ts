import { UsageError } from "../errors.ts"
import { hashAlgorithmOfSize } from "../formats/hash-algorithms.ts"
import { fromHex } from "../formats/hex.ts"
import { pathToText, printable } from "../formats/path-text.ts"
import { FileHashIndex, FileHashIndexBuilder } from "./file-hashes.ts"

/** Files that are accepted beside those of the snapshot. A bare digest is SHA-1 or SHA-2, by its length. */
export type Whitelist = FileHashIndex

/** Nothing is accepted beside the snapshot. */
export const EMPTY_WHITELIST: Whitelist = FileHashIndex.EMPTY

/** Cap of a whitelist file. */
export const MAX_WHITELIST_BYTES = 64 * 1024 * 1024

const NEWLINE = 0x0a
const CARRIAGE_RETURN = 0x0d
const SPACE = 0x20
const TAB = 0x09
const HASH_SIGN = 0x23

/**
 * Reads lines `path hexdigest`. The digest is what follows the last space or tab, so a path may hold spaces; a path is
 * bytes and need not be UTF-8. Empty lines and lines that begin with `#` are skipped. Every other line must parse.
 * @param name the file, for messages.
 * @throws UsageError ERR_WHITELIST_LINE with the line number; ERR_TOO_LARGE.
 */
export function parseWhitelist(bytes: Uint8Array, name = "whitelist"): Whitelist {
  if (bytes.length > MAX_WHITELIST_BYTES)
    throw new UsageError("ERR_TOO_LARGE", {
      at: name,
      expected: `at most ${MAX_WHITELIST_BYTES} bytes`,
      found: `${bytes.length}`,
    })
  const builder = new FileHashIndexBuilder()
  for (let start = 0, line = 1; start < bytes.length; line++) {
    const newline = bytes.indexOf(NEWLINE, start)
    const end = newline < 0 ? bytes.length : newline
    addLine(builder, trimmed(bytes.subarray(start, end)), `${name}, line ${line}`)
    start = end + 1
  }
  return builder.build()
}

function addLine(builder: FileHashIndexBuilder, line: Uint8Array, at: string): void {
  if (line.length === 0 || line[0] === HASH_SIGN) return
  const separator = Math.max(line.lastIndexOf(SPACE), line.lastIndexOf(TAB))
  const path = separator < 0 ? line.subarray(0, 0) : trimmed(line.subarray(0, separator))
  const digest = fromHex(pathToText(line.subarray(separator + 1)))
  if (path.length === 0 || path.includes(0) || digest === null || hashAlgorithmOfSize(digest.length) === null)
    throw new UsageError("ERR_WHITELIST_LINE", {
      at,
      expected: "a path, a space, a SHA-1 or SHA-2 digest in hex",
      found: printable(pathToText(line.subarray(0, 120))),
      hint: "sha256sum prints the digest first: here it comes last",
    })
  builder.add(path, digest)
}

/** Without white space at its end (a carriage return among it: files edited on Windows). */
function trimmed(line: Uint8Array): Uint8Array {
  let end = line.length
  while (end > 0) {
    const byte = line[end - 1]
    if (byte !== SPACE && byte !== TAB && byte !== CARRIAGE_RETURN) break
    end -= 1
  }
  return line.subarray(0, end)
}
