import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AgentError } from "../errors.ts"
import { type Applications, createApplications } from "./applications.ts"
import { createLog } from "./log.ts"
import type { Service, ServiceState } from "./services.ts"

const QUICK = { steadyMs: 2, deadlineMs: 200, pollMs: 1 }
const bytes = (text: string) => new TextEncoder().encode(text)

let storage: string
let file: string
beforeEach(() => {
  storage = mkdtempSync(join(tmpdir(), "storage-"))
  file = join(storage, "app.conf")
})
afterEach(() => rmSync(storage, { recursive: true, force: true }))

interface Made {
  readonly apps: Applications
  /** Content of app.conf at each restart. */
  readonly restarts: string[]
  readonly log: string[]
}

/** A service that comes up where `works` accepts the configuration. */
function make(
  works: (configuration: string) => boolean,
  at = storage,
  guard: ((path: string) => void) | null = null,
): Made {
  const restarts: string[] = []
  const log: string[] = []
  let state: ServiceState = "down"
  const service: Service = {
    name: "app",
    restart: async () => {
      const content = existsSync(file) ? readFileSync(file, "utf8") : ""
      restarts.push(content)
      state = works(content) ? "up" : "down"
    },
    stop: async () => {
      state = "down"
    },
    state: async () => state,
    logs: async () => [],
  }
  const apps = createApplications({
    storage: at,
    service,
    guard,
    settle: QUICK,
    log: createLog(
      "json",
      (line) => log.push(line),
      () => new Date(0),
    ),
  })
  return { apps, restarts, log }
}

describe("init", () => {
  test("writes nothing where the place is not encrypted any more", async () => {
    const asked: string[] = []
    const { apps, restarts } = make(
      () => true,
      storage,
      (path) => {
        asked.push(path)
        throw new AgentError("ERR_STORAGE_PLAIN")
      },
    )
    await expect(apps.init(bytes("top secret"))).rejects.toMatchObject({ code: "ERR_STORAGE_PLAIN" })
    expect(asked).toEqual([file])
    expect(existsSync(file)).toBe(false)
    expect(restarts).toEqual([])
  })

  test("writes the configuration for its owner only, and restarts the service with it", async () => {
    const { apps, restarts, log } = make(() => true)
    await apps.init(bytes("top secret"))
    expect(readFileSync(file, "utf8")).toBe("top secret")
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(restarts).toEqual(["top secret"])
    expect(readdirSync(storage)).toEqual(["app.conf"])
    expect(log.join("")).not.toContain("secret")
  })

  test("makes the storage directory where there is none", async () => {
    const { apps } = make(() => true, join(storage, "new/app"))
    await apps.init(bytes("x"))
    expect(statSync(join(storage, "new/app")).mode & 0o777).toBe(0o700)
  })

  test("puts the former configuration back where the service does not come up", async () => {
    const { apps, restarts } = make((content) => content === "good")
    await apps.init(bytes("good"))
    await expect(apps.init(bytes("bad"))).rejects.toMatchObject({ code: "ERR_SERVICE" })
    expect(readFileSync(file, "utf8")).toBe("good")
    expect(restarts).toEqual(["good", "bad", "good"])
    expect(readdirSync(storage)).toEqual(["app.conf"])
  })

  test("leaves nothing where the first configuration does not work", async () => {
    const { apps } = make(() => false)
    await expect(apps.init(bytes("bad"))).rejects.toMatchObject({ code: "ERR_SERVICE" })
    expect(readdirSync(storage)).toEqual([])
  })

  test("is not done twice at the same time", async () => {
    const { apps } = make(() => true)
    const first = apps.init(bytes("one"))
    await expect(apps.init(bytes("two"))).rejects.toMatchObject({ code: "ERR_APPLICATION_BUSY" })
    await first
    expect(readFileSync(file, "utf8")).toBe("one")
  })

  test("refuses a symbolic link in place of the file, and writes nothing through it", async () => {
    const target = join(storage, "target")
    writeFileSync(target, "untouched")
    symlinkSync(target, file)
    await expect(make(() => true).apps.init(bytes("x"))).rejects.toMatchObject({
      code: "ERR_APPLICATION_STORAGE",
    })
    expect(readFileSync(target, "utf8")).toBe("untouched")
  })

  test("writes nothing through a symbolic link at the temporary name", async () => {
    const target = join(storage, "target")
    writeFileSync(target, "untouched")
    symlinkSync(target, `${file}.new`)
    await make(() => true).apps.init(bytes("x"))
    expect(readFileSync(target, "utf8")).toBe("untouched")
    expect(readFileSync(file, "utf8")).toBe("x")
  })

  for (const [what, prepare] of [
    ["that is a symbolic link", (place: string) => symlinkSync("/etc", place)],
    ["that is a file", (place: string) => writeFileSync(place, "")],
    [
      "that others may write to",
      (place: string) => {
        mkdirSync(place)
        chmodSync(place, 0o777)
      },
    ],
  ] as const)
    test(`refuses a storage ${what}`, async () => {
      const place = join(storage, "place")
      prepare(place)
      const { apps, restarts } = make(() => true, place)
      await expect(apps.init(bytes("x"))).rejects.toMatchObject({ code: "ERR_APPLICATION_STORAGE" })
      expect(restarts).toEqual([])
    })

  test("whose storage cannot be made says what the system said", async () => {
    writeFileSync(join(storage, "file"), "")
    const { apps } = make(() => true, join(storage, "file/app"))
    await expect(apps.init(bytes("x"))).rejects.toMatchObject({ code: "ERR_IO", found: "ENOTDIR" })
  })

  test("refuses a storage below a directory that others may write to", async () => {
    const open = join(storage, "open")
    mkdirSync(join(open, "app"), { recursive: true })
    chmodSync(open, 0o777)
    const { apps } = make(() => true, join(open, "app"))
    await expect(apps.init(bytes("x"))).rejects.toMatchObject({ code: "ERR_APPLICATION_STORAGE" })
  })
})

describe("after a crash", () => {
  test("between writing and seeing it work, the former configuration is put back", async () => {
    writeFileSync(file, "never seen to work")
    writeFileSync(join(storage, "app.conf.previous"), "good")
    const { apps, restarts } = make((content) => content === "good")
    await apps.recover()
    expect(readFileSync(file, "utf8")).toBe("good")
    expect(restarts).toEqual(["good"])
    expect(readdirSync(storage)).toEqual(["app.conf"])
  })

  test("between the second name for the former configuration and the new one, the second name goes", async () => {
    writeFileSync(file, "good")
    linkSync(file, join(storage, "app.conf.previous"))
    await make(() => true).apps.recover()
    expect(readdirSync(storage)).toEqual(["app.conf"])
  })

  test("a configuration that cannot be written leaves the former one and nothing beside it", async () => {
    writeFileSync(file, "good")
    mkdirSync(`${file}.new`)
    const { apps, restarts } = make(() => true)
    await expect(apps.init(bytes("next"))).rejects.toMatchObject({ code: "ERR_IO" })
    expect(readFileSync(file, "utf8")).toBe("good")
    expect(existsSync(join(storage, "app.conf.previous"))).toBe(false)
    expect(restarts).toEqual([])
  })

  test("while writing, the half-written file is not used and goes with the next one", async () => {
    writeFileSync(file, "good")
    writeFileSync(`${file}.new`, "half a conf")
    const { apps, restarts } = make(() => true)
    await apps.recover()
    expect(restarts).toEqual([])
    expect(readFileSync(file, "utf8")).toBe("good")
    await apps.init(bytes("next"))
    expect(readdirSync(storage)).toEqual(["app.conf"])
  })
})

test("restart restarts, and says where the service does not come up", async () => {
  let works = true
  const { apps, restarts } = make(() => works)
  await apps.restart()
  works = false
  await expect(apps.restart()).rejects.toMatchObject({ code: "ERR_SERVICE" })
  expect(restarts).toHaveLength(2)
})
