/** Programs of the host that prepare and run the guest. Every call has a deadline and keeps its output. */

export interface CommandResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface CommandOptions {
  /** Milliseconds until the program is killed; 60 s where absent. */
  readonly timeoutMs?: number
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string | Uint8Array
  readonly cwd?: string
}

/** Runs a program to its end, whatever its exit code. A program killed at its deadline gives code 124. */
export async function run(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const timeoutMs = options.timeoutMs ?? 60_000
  const child = Bun.spawn([...argv], {
    stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, LC_ALL: "C.UTF-8", ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  })
  let late = false
  const deadline = setTimeout(() => {
    late = true
    child.kill("SIGKILL")
  }, timeoutMs)
  try {
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    return late
      ? { code: 124, stdout, stderr: `${stderr}\n(killed after ${timeoutMs} ms)` }
      : { code, stdout, stderr }
  } finally {
    clearTimeout(deadline)
  }
}

/** Runs a program that has to succeed, and returns its standard output. */
export async function mustRun(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const result = await run(argv, options)
  if (result.code !== 0) {
    throw new Error(
      `${argv.join(" ")}: exit code ${result.code}\n${tail(result.stderr)}${tail(result.stdout)}`,
    )
  }
  return result.stdout
}

/** Calls `probe` until it returns something else than null. Throws `what` at the deadline. */
export async function waitFor<T>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | null>,
  pauseMs = 250,
): Promise<T> {
  const end = performance.now() + timeoutMs
  for (;;) {
    const found = await probe()
    if (found !== null) return found
    if (performance.now() > end) throw new Error(`waited ${timeoutMs / 1000} s in vain: ${what}`)
    await Bun.sleep(pauseMs)
  }
}

/** The last lines of a program's output. */
export function tail(text: string, lines = 20): string {
  const kept = text.trimEnd().split("\n").slice(-lines).join("\n")
  return kept === "" ? "" : `${kept}\n`
}
