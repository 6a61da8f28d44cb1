import type { FileHashIndex } from "./file-hashes.ts"

/** Files that are accepted beside the snapshot: an index of (path, digest). */
export type Whitelist = FileHashIndex
