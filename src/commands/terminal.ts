/** Colours for one stream; each function returns the text unchanged where colour is off. */
export interface Style {
  bold(text: string): string
  dim(text: string): string
  red(text: string): string
  green(text: string): string
  yellow(text: string): string
}

/** Where a command talks. Data goes to `out`, everything else to `talk`. */
export interface Terminal {
  /** Writes to standard output as it is. */
  out(text: string): void
  /** Writes to standard error as it is. */
  talk(text: string): void
  readonly outStyle: Style
  readonly talkStyle: Style
  /** Whether standard error is a terminal on which a line may be rewritten. */
  readonly live: boolean
  /** Width of standard error in columns; 80 where it is not known. */
  readonly columns: number
  /** Width of standard output in columns; null where it is no terminal. */
  readonly outColumns: number | null
}

/** Style of a stream that is no terminal. */
export const PLAIN: Style = styleOf(false)

/** Colours or none. */
export function styleOf(colours: boolean): Style {
  const paint = (on: number, off: number) => (text: string) =>
    colours ? `\u001b[${on}m${text}\u001b[${off}m` : text
  return {
    bold: paint(1, 22),
    dim: paint(2, 22),
    red: paint(31, 39),
    green: paint(32, 39),
    yellow: paint(33, 39),
  }
}

/**
 * Terminal of this process. Colour only on a terminal, and not where NO_COLOR is set (https://no-color.org) or TERM is dumb.
 */
export function openTerminal(): Terminal {
  const { stdout, stderr, env } = process
  const mayColour = (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb"
  // A reader that went away (`| head`) is no fault; the exit code still says what was found.
  for (const stream of [stdout, stderr])
    if (!stream.listeners("error").includes(ignoreBrokenPipe)) stream.on("error", ignoreBrokenPipe)
  return {
    out: (text) => void stdout.write(text),
    talk: (text) => void stderr.write(text),
    outStyle: styleOf(mayColour && stdout.isTTY === true),
    talkStyle: styleOf(mayColour && stderr.isTTY === true),
    live: stderr.isTTY === true && env["TERM"] !== "dumb",
    columns: stderr.columns > 0 ? stderr.columns : 80,
    outColumns: stdout.isTTY === true && stdout.columns > 0 ? stdout.columns : null,
  }
}

/** Settles when what was written to standard output has left this process: whoever writes without end waits for the reader. */
export function outWritten(): Promise<void> {
  return new Promise((resolve) => void process.stdout.write("", () => resolve()))
}

function ignoreBrokenPipe(error: Error & { code?: string }): void {
  if (error.code !== "EPIPE") throw error
}
