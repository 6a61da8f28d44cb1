import { describe, expect, test } from "bun:test"
import { bootAggregate, file, hexOf, PCRS, quoted } from "../../test/fakes/measurement-list.ts"
import { HOSTILE, updatedVerdict } from "../../test/fakes/verdicts.ts"
import type { NewEntry } from "../formats/ima/encode.ts"
import { explain, withSnapshotNotes } from "./explain.ts"
import { appraiseIma } from "./ima.ts"
import { parseSnapshot } from "./snapshot.ts"
import type { Claim } from "./verdict.ts"
import { EMPTY_WHITELIST } from "./whitelist.ts"

const BOOT = bootAggregate()
const TOOL = { manager: "dpkg" as const, name: "tool", architecture: "amd64" }

/** The snapshot of a machine on which version 2 of a tool took the place of version 1. */
const UPDATED = parseSnapshot(
  Buffer.from(
    JSON.stringify({
      format: 2,
      hash_algorithm: "sha256",
      ima_reference: {
        template: "ima-ng",
        boot_aggregate: `sha256:${Buffer.from(BOOT.digest).toString("hex")}`,
      },
      packages: [
        { ...TOOL, version: "1", replaced: true, files: [], superseded: [[0, 1]] },
        { ...TOOL, version: "2", files: ["/usr/bin/tool", "/usr/bin/tool-too"] },
      ],
      superseded: [
        ["/usr/bin/tool", hexOf("tool 1")],
        ["/usr/bin/gone", hexOf("gone 1")],
      ],
      filehashes: [
        ["/usr/bin/tool", hexOf("tool 2")],
        ["/usr/bin/tool-too", hexOf("too 2")],
      ],
    }),
  ),
)
const OLD = file("/usr/bin/tool", "tool 1")
const NEW = file("/usr/bin/tool", "tool 2")

function appraise(...entries: NewEntry[]): Claim {
  return appraiseIma(quoted(BOOT, ...entries), UPDATED, {
    whitelist: EMPTY_WHITELIST,
    pcrs: PCRS,
    at: new Date(0),
  })
}

const filesOf = ({ findings }: Claim) => findings.map(({ code, file: about }) => [code, about?.state])

describe("a file of the version that an update replaced", () => {
  test("is never accepted, and the new one is", () => {
    expect(appraise(NEW).status).toBe("passed")
    const claim = appraise(OLD)
    expect([claim.status, claim.failureClass]).toEqual(["failed", "ima"])
    expect(claim.findings[0]?.file).toEqual({
      path: "/usr/bin/tool",
      position: 1,
      state: "old-version",
      package: { ...TOOL, version: "2" },
      older: { ...TOOL, version: "1" },
    })
  })

  test("was rolled back where it ran after the new one, and not where it ran before", () => {
    expect(filesOf(appraise(NEW, OLD))).toEqual([["ERR_IMA_OLD_VERSION", "rolled-back"]])
    expect(filesOf(appraise(OLD, NEW))).toEqual([["ERR_IMA_OLD_VERSION", "before-update"]])
    expect(filesOf(appraise(NEW, OLD, NEW))).toEqual([["ERR_IMA_OLD_VERSION", "rolled-back"]])
    // That it ran before as well hides nothing.
    expect(filesOf(appraise(OLD, NEW, OLD))).toEqual([["ERR_IMA_OLD_VERSION", "rolled-back"]])
    expect(appraise(OLD, NEW, OLD).findings[0]?.file?.position).toBe(3)
  })

  test("that the new version does not have any more is known too", () => {
    expect(filesOf(appraise(file("/usr/bin/gone", "gone 1")))).toEqual([
      ["ERR_IMA_OLD_VERSION", "old-version"],
    ])
  })

  test("is not meant by its digest alone: under another name it is unknown", () => {
    expect(filesOf(appraise(file("/tmp/tool", "tool 1")))).toEqual([["ERR_IMA_UNKNOWN_FILE", "unknown"]])
  })
})

describe("the explanation", () => {
  test("has a line for each package and its files, most alarming first", () => {
    const { explanation } = updatedVerdict()
    expect(explanation?.points.map(({ kind, subject }) => [kind, subject])).toEqual([
      ["alarm", "libssl3 3.0.16-1~deb12u1"],
      ["alarm", "no package"],
      ["change", "nginx 1.22.1-9+deb12u1"],
      ["change", "curl 7.88.1-10+deb12u12"],
      ["change", "libcurl4 7.88.1-10+deb12u12"],
    ])
  })

  test("of what ran before an update is no alarm; of what was put back it is", () => {
    const kinds = (claim: Claim) => explain([claim])?.points.map(({ kind }) => kind)
    expect(kinds(appraise(OLD, NEW))).toEqual(["change"])
    expect(kinds(appraise(NEW, OLD))).toEqual(["alarm"])
    expect(kinds(appraise(OLD))).toEqual(["alarm"])
    expect(kinds(appraise(file("/usr/bin/tool", "tool 3")))).toEqual(["change"])
    expect(kinds(appraise(file("/usr/bin/other")))).toEqual(["alarm"])
  })

  test("is made of failed checks alone, and absent where no file is concerned", () => {
    expect(explain([appraise(NEW)])).toBeUndefined()
    expect(explain([{ ...appraise(OLD), status: "skipped" }])).toBeUndefined()
  })

  test("holds names as they are: whoever shows them neutralises them", () => {
    const text = JSON.stringify(updatedVerdict(true).explanation)
    expect(text).toContain(JSON.stringify(HOSTILE.slice(0, 20)).slice(1, -1))
  })
})

describe("packages that nobody vouched for", () => {
  const told = (source: string | undefined) => {
    const packages = [{ ...TOOL, version: "2", source, files: [] }]
    const snapshot = parseSnapshot(Buffer.from(JSON.stringify({ format: 2, packages })))
    return withSnapshotNotes(appraise(NEW), snapshot)
  }

  test("are named in each verdict, and others are not", () => {
    expect(told("unauthenticated").facts["unauthenticatedPackages"]).toBe(1)
    expect(told("unauthenticated").summary).toContain("tool 2")
    for (const source of ["repository", "signature", "digest", undefined])
      expect(told(source)).toEqual(appraise(NEW))
  })
})
