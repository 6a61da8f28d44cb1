/** Pairs of path (as `formats/path-text.ts` makes text of it) and hex digest. A plain array of pairs is one. */
export interface FileHashes extends Iterable<readonly [path: string, digest: string]> {
  /** Number of pairs. */
  readonly length: number
}
