import { expect, test } from "bun:test"
import { parseSnapshot } from "../policy/snapshot.ts"
import { severalVersions } from "./snapshot.ts"

test("files that a snapshot accepts in more than one version are named", () => {
  const [a, b] = ["0a".repeat(32), "0b".repeat(32)]
  const filehashes = [
    ["/usr/bin/a", a],
    ["/usr/bin/a", b],
    ["/usr/bin/b", b],
    ["/usr/bin/c", a],
    ["/usr/bin/c", a],
    ["/usr/bin/d e", a],
    ["/usr/bin/d_e", b],
  ]
  const snapshot = parseSnapshot(new TextEncoder().encode(JSON.stringify({ format: 2, filehashes })))
  expect(severalVersions(snapshot)).toEqual(["/usr/bin/a"])
})
