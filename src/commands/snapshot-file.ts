import { noFTL } from "bun:jsc"
import { readPlainPairs } from "../policy/file-hash-pairs.ts"
import { MAX_SNAPSHOT_BYTES, parseSnapshot, type Snapshot } from "../policy/snapshot.ts"
import { parsePlainFile, plainContent } from "./compressed-file.ts"
import { readInput } from "./input-files.ts"

// It runs once over a file. The engine's last and slowest compiler would take longer than its code then saves.
noFTL(readPlainPairs)

/**
 * Reads a snapshot file, plain or compressed; `-` is standard input. What is wrong in it is told with its name.
 * @throws CodedError ERR_IO, ERR_TOO_LARGE; ParseError ERR_COMPRESSION, ERR_UNSUPPORTED and those of `parseSnapshot`.
 */
export function readSnapshotFile(path: string): Snapshot {
  return parsePlainFile(path, MAX_SNAPSHOT_BYTES, parseSnapshot)
}

/** The JSON text in a snapshot file, not looked at. @throws as `readSnapshotFile`, save `parseSnapshot`'s. */
export function readSnapshotJson(path: string): Uint8Array {
  return plainContent(path, readInput(path, MAX_SNAPSHOT_BYTES), MAX_SNAPSHOT_BYTES)
}
