import { AgentError } from "../errors.ts"
import type { AgentConfig } from "./config.ts"
import { Counters, type UnreadablePath } from "./hash-protocol.ts"
import { errorFields, type Log } from "./log.ts"
import { type PackageBlocks, readPackages } from "./packages.ts"
import type { SnapshotDescription } from "./snapshot-reference.ts"
import { SnapshotSpool } from "./snapshot-spool.ts"
import { hashTree } from "./tree-hasher.ts"

/** How far a snapshot is: the body of `GET /v1/snapshot/progress`. */
export interface SnapshotProgress {
  readonly state: "none" | "running" | "done" | "failed"
  /** Files hashed so far, and their bytes. */
  readonly files: number
  readonly bytes: number
  /** Files there are in all; null while they are being counted. */
  readonly total_files: number | null
  /** Paths that could not be read; known at the end. */
  readonly unreadable: number
  /** Seconds since the start, or from start to end. */
  readonly seconds: number
}

/** The one snapshot of an agent. */
export interface Snapshots {
  readonly running: boolean
  progress(): SnapshotProgress
  /** Starts one, unless one runs or too many were started of late. */
  start(): void
  /** The finished snapshot, as JSON; null where there is none. */
  result(): ReadableStream<Uint8Array> | null
  /** Why the last one failed; told once, then forgotten, so that the next request starts anew. */
  takeFailure(): Error | null
  /** Stops a running one and waits until it has stopped. */
  cancel(): Promise<void>
  /** Forgets a finished or failed one. */
  clear(): void
}

export interface SnapshotOptions {
  readonly config: AgentConfig
  /** Describes the machine at the start of each snapshot. */
  readonly describe: () => Promise<SnapshotDescription>
  readonly version: string
  readonly host: string
  readonly now: () => Date
  readonly log: Log
}

interface Run {
  readonly counters: Counters
  readonly spool: SnapshotSpool
  readonly startedAt: number
  endedAt: number | null
  unreadable: number
  state: "running" | "done" | "failed"
  failure: Error | null
  finished: Promise<void>
}

/** The agent's snapshots: one at a time, kept until deleted or replaced. */
export function createSnapshots(options: SnapshotOptions): Snapshots {
  return new SnapshotRunner(options)
}

class SnapshotRunner implements Snapshots {
  readonly #options: SnapshotOptions
  #run: Run | null = null
  #allowance: number
  #allowanceAt: number

  constructor(options: SnapshotOptions) {
    this.#options = options
    this.#allowance = options.config.limits.snapshotBurst
    this.#allowanceAt = options.now().getTime()
  }

  get running(): boolean {
    return this.#run?.state === "running"
  }

  progress(): SnapshotProgress {
    const run = this.#run
    if (run === null)
      return { state: "none", files: 0, bytes: 0, total_files: null, unreadable: 0, seconds: 0 }
    const { files, bytes, total } = run.counters
    const end = run.endedAt ?? this.#options.now().getTime()
    const seconds = (end - run.startedAt) / 1000
    return {
      state: run.state,
      files,
      bytes,
      total_files: total < 0 ? null : total,
      unreadable: run.unreadable,
      seconds,
    }
  }

  start(): void {
    if (this.running || !this.#takeAllowance()) return
    this.clear()
    const { config, now, log } = this.#options
    const run: Run = {
      counters: new Counters(),
      spool: new SnapshotSpool(config.temporary),
      startedAt: now().getTime(),
      endedAt: null,
      unreadable: 0,
      state: "running",
      failure: null,
      finished: Promise.resolve(),
    }
    run.counters.setTotal(-1)
    this.#run = run
    log.info("snapshot started", { root: config.snapshot.root })
    run.finished = this.#take(run)
  }

  result(): ReadableStream<Uint8Array> | null {
    return this.#run?.state === "done" ? this.#run.spool.stream() : null
  }

  takeFailure(): Error | null {
    const failure = this.#run?.failure ?? null
    if (failure !== null) this.clear()
    return failure
  }

  async cancel(): Promise<void> {
    const run = this.#run
    if (run?.state !== "running") return
    run.counters.cancel()
    await run.finished
    if (this.#run === run) this.clear()
  }

  clear(): void {
    if (this.running) return
    this.#run?.spool.close()
    this.#run = null
  }

  /** Takes the snapshot; settles when it is done or has failed, and never rejects. */
  async #take(run: Run): Promise<void> {
    const { now, log } = this.#options
    try {
      const unreadable = await this.#fill(run)
      run.unreadable = unreadable.length
      run.state = "done"
    } catch (error) {
      run.spool.close()
      run.state = "failed"
      run.failure = error instanceof Error ? error : new AgentError("ERR_INTERNAL", { cause: error })
    }
    run.endedAt = now().getTime()
    const { files, bytes, seconds, unreadable } = this.progress()
    const fields = { files, bytes, seconds, unreadable }
    if (run.failure === null) log.info("snapshot done", fields)
    else log.warn("snapshot not taken", { ...fields, ...errorFields(run.failure) })
  }

  /** Writes the snapshot's members in the order of Cosmian VM 1.3, ours after them. */
  async #fill({ counters, spool, startedAt }: Run): Promise<UnreadablePath[]> {
    const { config, version, host } = this.#options
    const machine = await this.#options.describe()
    const { cloud_type, tee_policy, tpm_policy, tpm_reference, ima_reference, hash_algorithm } = machine
    spool.addText(`${membersOf({ cloud_type, tee_policy, tpm_policy }).slice(0, -1)},"filehashes":`)
    // A thread of its own reads them while the files are hashed.
    const packages = machine.measured === null ? null : this.#readPackages(hash_algorithm)
    const unreadable =
      machine.measured === null || packages === null
        ? noFiles(counters, spool)
        : await this.#addFiles(machine.measured, machine, counters, spool, packages)
    const rest = {
      format: 2,
      taken_at: new Date(startedAt).toISOString(),
      agent_version: version,
      host,
      hash_algorithm,
      // Product and TCB need the certificate chain: whoever verifies the evidence fills this in.
      tee_reference: null,
      tpm_reference,
      ima_reference,
      unreadable,
    }
    spool.addText(`,${membersOf(rest).slice(1, -1)}`)
    addPackages((await packages)?.blocks ?? [], spool)
    spool.addText("}")
    if (counters.cancelled) throw new AgentError("ERR_SNAPSHOT_CANCELLED", { at: config.snapshot.root })
    return unreadable
  }

  async #addFiles(
    measured: readonly (readonly [string, string])[],
    { hash_algorithm }: SnapshotDescription,
    counters: Counters,
    spool: SnapshotSpool,
    packages: Promise<PackageBlocks>,
  ): Promise<UnreadablePath[]> {
    const { root, exclude } = this.#options.config.snapshot
    let empty = measured.length === 0
    spool.addText(`[${pairsOf(measured)}`)
    const unreadable = await hashTree({
      root,
      exclude,
      algorithm: hash_algorithm,
      known: measured.map(([path, digest]) => `${path}\0${digest}`),
      counters,
      onBlock: (block) => {
        if (!empty) spool.addBlock(COMMA)
        empty = false
        spool.addBlock(block)
      },
    })
    const { read } = await packages
    if (read.length > 0) spool.addText(`${empty ? "" : ","}${pairsOf(read)}`)
    spool.addText("]")
    return unreadable
  }

  async #readPackages(algorithm: string): Promise<PackageBlocks> {
    const { config, log } = this.#options
    const { root, exclude, packages } = config.snapshot
    if (!packages) return { blocks: [], read: [], fault: null }
    const result = await readPackages({ root, exclude, algorithm })
    if (result.fault !== null) log.warn("packages are missing in the snapshot", { fault: result.fault })
    return result
  }

  #takeAllowance(): boolean {
    const { snapshotBurst, snapshotSeconds } = this.#options.config.limits
    const now = this.#options.now().getTime()
    const earned = Math.max(0, now - this.#allowanceAt) / (1000 * snapshotSeconds)
    this.#allowance = Math.min(snapshotBurst, this.#allowance + earned)
    this.#allowanceAt = now
    if (this.#allowance < 1) return false
    this.#allowance -= 1
    return true
  }
}

const COMMA = Bun.zstdCompressSync(",")

function noFiles(counters: Counters, spool: SnapshotSpool): UnreadablePath[] {
  counters.setTotal(0)
  spool.addText("null")
  return []
}

function pairsOf(pairs: readonly (readonly [string, string])[]): string {
  return pairs.map((pair) => JSON.stringify(pair)).join(",")
}

/** Nothing where no package is known: then the member is absent. */
function addPackages(blocks: readonly Uint8Array[], spool: SnapshotSpool): void {
  blocks.forEach((block, index) => {
    if (index === 0) spool.addText(',"packages":[')
    else spool.addBlock(COMMA)
    spool.addBlock(block)
  })
  if (blocks.length > 0) spool.addText("]")
}

function membersOf(members: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(members)
}
