import { closeSync, constants, lstatSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import { AcmeError } from "../errors.ts"
import type { ChallengeAnswer, Solver } from "./solver.ts"

/** Source: RFC 8555, section 8.3. */
const PREFIX = "/.well-known/acme-challenge/"
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants

/** Answers `http-01` on a port of its own, and nothing else there, for as long as the authority looks. */
export class HttpListener implements Solver {
  readonly type = "http-01"
  /** Null: all addresses of this machine. */
  readonly #host: string | null
  readonly #port: number
  #server: ReturnType<typeof Bun.serve> | null = null

  /** @param port authorities come to port 80; another one is for a forwarder in front. */
  constructor(host: string | null, port: number) {
    this.#host = host
    this.#port = port
  }

  async present(answers: readonly ChallengeAnswer[]): Promise<void> {
    const contents = new Map(answers.map(({ token, content }) => [`${PREFIX}${token}`, content]))
    try {
      this.#server = Bun.serve({
        ...(this.#host === null ? {} : { hostname: this.#host }),
        port: this.#port,
        development: false,
        idleTimeout: 10,
        maxRequestBodySize: 0,
        fetch: (request) => {
          const content = contents.get(new URL(request.url).pathname)
          if (content === undefined) return new Response(null, { status: 404 })
          return new Response(content, { headers: { "content-type": "application/octet-stream" } })
        },
      })
    } catch (cause) {
      throw notListening(this.#host, this.#port, cause, "give --webroot DIR of the web server that has it")
    }
  }

  async remove(): Promise<void> {
    await this.#server?.stop(true)
    this.#server = null
  }
}

/** Answers `http-01` through a web server that is there: by files in its directory. */
export class Webroot implements Solver {
  readonly type = "http-01"
  readonly #directory: string
  readonly #written: string[] = []

  constructor(directory: string) {
    this.#directory = directory
  }

  async present(answers: readonly ChallengeAnswer[]): Promise<void> {
    let directory = this.#directory
    requireDirectory(directory)
    for (const part of PREFIX.split("/").filter(Boolean)) {
      directory = join(directory, part)
      if (lstatSync(directory, { throwIfNoEntry: false }) === undefined) mkdirSync(directory, { mode: 0o755 })
      // The web server's user may own the place: a link of its would have us write elsewhere.
      requireDirectory(directory)
    }
    for (const { token, content } of answers) {
      const path = join(directory, token)
      rmSync(path, { force: true })
      const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)
      this.#written.push(path)
      try {
        writeSync(fd, content)
      } finally {
        closeSync(fd)
      }
    }
  }

  async remove(): Promise<void> {
    for (const path of this.#written.splice(0)) rmSync(path, { force: true })
  }
}

function requireDirectory(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return
  throw new AcmeError("ERR_IO", {
    at: path,
    expected: "a directory that is no symbolic link",
    found: "something else, or nothing",
    hint: "give the directory that the web server serves as --webroot",
  })
}

/** Why a port cannot be listened on. @param instead what to do where somebody else has it. */
export function notListening(host: string | null, port: number, cause: unknown, instead: string): AcmeError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "an error"
  const inUse = code === "EADDRINUSE"
  return new AcmeError(inUse ? "ERR_PORT_IN_USE" : "ERR_IO", {
    at: `${host ?? "port"} ${port}`,
    expected: "a port to answer the authority on",
    found: code,
    hint: inUse ? instead : "run as root, or give --listen HOST:PORT that the port is forwarded to",
    cause,
  })
}
