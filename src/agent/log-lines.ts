const MAX_LINE = 400

/** The last lines of a log, each cut to what fits a screen. */
export function lastLines(text: string, count: number): string[] {
  const lines = text.split("\n").filter((line) => line !== "")
  return lines.slice(-count).map((line) => line.slice(0, MAX_LINE))
}
