import { CodedError, UsageError } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { encodeSnapshotBytes, MAX_SNAPSHOT_BYTES } from "../policy/snapshot.ts"
import { mergeSnapshots } from "../policy/snapshot-merge.ts"
import { contentFor } from "./compressed-file.ts"
import { count } from "./progress.ts"
import { readSnapshotFile } from "./snapshot-file.ts"
import { openTerminal, type Terminal } from "./terminal.ts"
import { beginFile } from "./write-file.ts"

/**
 * `snapshot merge`: writes one snapshot with the files of all of them. Returns the exit code.
 * @throws UsageError ERR_MISSING_ARGUMENT; CodedError ERR_SNAPSHOT_MERGE, ERR_TOO_LARGE, and what reading and writing throw.
 */
export function mergeSnapshotFiles(
  files: readonly string[],
  output: string,
  terminal: Terminal = openTerminal(),
): number {
  if (files.length < 2)
    throw new UsageError("ERR_MISSING_ARGUMENT", {
      at: "snapshot merge",
      expected: "two snapshots or more",
      found: `${files.length}`,
      hint: `see "cosmian_vm snapshot merge --help"`,
    })
  const merged = mergeSnapshots(files.map((name) => ({ name, snapshot: readSnapshotFile(name) })))
  const json = encodeSnapshotBytes(merged)
  if (json.length > MAX_SNAPSHOT_BYTES)
    throw new CodedError("ERR_TOO_LARGE", {
      at: output,
      expected: `at most ${MAX_SNAPSHOT_BYTES} bytes`,
      found: `${json.length}`,
      hint: "merge fewer snapshots: no program would read this one",
    })
  const pending = beginFile(output, 0o644)
  try {
    pending.commit(contentFor(output, json))
  } finally {
    pending.abandon()
  }
  terminal.out(
    `[ OK ] ${files.length} snapshots with ${count(merged.filehashes?.length ?? 0)} file digests merged into ${printable(output)}\n`,
  )
  return 0
}
