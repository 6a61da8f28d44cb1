import type { SnapshotProgress } from "../client/agent-client.ts"
import type { Terminal } from "./terminal.ts"

/** One line on a terminal that is rewritten while something takes long. Silent where there is no terminal. */
export class ProgressLine {
  readonly #terminal: Terminal
  readonly #enabled: boolean
  readonly #now: () => number
  readonly #started: number
  #shown = false

  constructor(terminal: Terminal, enabled: boolean, now: () => number = performance.now.bind(performance)) {
    this.#terminal = terminal
    this.#enabled = enabled && terminal.live
    this.#now = now
    this.#started = now()
  }

  /** A step without figures. */
  step(text: string): void {
    this.#show(text)
  }

  /** How far the agent's snapshot is; null where the agent does not tell. */
  snapshot(progress: SnapshotProgress | null): void {
    const seconds = (this.#now() - this.#started) / 1000
    this.#show(snapshotLine(progress, seconds))
  }

  /** Removes the line, so that what is printed next begins on a clean one. */
  clear(): void {
    if (!this.#shown) return
    this.#terminal.talk("\r\u001b[K")
    this.#shown = false
  }

  #show(text: string): void {
    if (!this.#enabled) return
    this.#terminal.talk(`\r\u001b[K${text.slice(0, Math.max(20, this.#terminal.columns - 1))}`)
    this.#shown = true
  }
}

/** `hashing: 12 345 of 120 000 files, 1.2 GB, 980 MB/s, 12 s left`. @param seconds since the start. */
export function snapshotLine(progress: SnapshotProgress | null, seconds: number): string {
  if (progress === null) return `the agent hashes the VM's files: ${duration(seconds)}`
  const { files, bytes, total } = progress
  const parts = [total === null ? `${count(files)} files` : `${count(files)} of ${count(total)} files`]
  parts.push(size(bytes))
  if (seconds > 0.5) parts.push(`${size(bytes / seconds)}/s`)
  // Few files say little about the rate: an early guess would jump about.
  if (total !== null && files > 500 && total >= files && seconds > 1)
    parts.push(`${duration(((total - files) * seconds) / files)} left`)
  return `hashing: ${parts.join(", ")}`
}

/** `1.2 GB`. */
export function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"]
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** `75 s`, `3 min`. */
export function duration(seconds: number): string {
  return seconds < 120 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`
}

/** Thousands set apart by spaces. */
export function count(value: number): string {
  return String(value).replace(/(?<=\d)(?=(\d{3})+$)/g, " ")
}
