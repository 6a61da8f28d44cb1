import { stripAnsi } from "consola/utils"

/** Below this a line is left to the terminal: wrapped words would hardly fit. */
const NARROWEST = 40

/**
 * Breaks a line between words so that it fits a terminal.
 * @param line may hold colours. @param columns width; null: the line is for a file or a program and stays as it is.
 * @param indent spaces before the lines that follow the first.
 */
export function wrapLine(line: string, columns: number | null, indent: number): string[] {
  if (columns === null || columns < NARROWEST || stripAnsi(line).length <= columns) return [line]
  const lines: string[] = []
  let current = ""
  for (const word of line.split(/(?<=\S) /)) {
    const longer = current === "" ? word : `${current} ${word}`
    if (current.trim() !== "" && stripAnsi(longer).length > columns) {
      lines.push(current)
      current = `${" ".repeat(indent)}${word}`
    } else current = longer
  }
  return [...lines, current]
}
