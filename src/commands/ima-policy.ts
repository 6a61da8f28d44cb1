import { EXIT } from "../errors.ts"
import { printable } from "../formats/path-text.ts"
import { type DescribedPoint, describeCoverage } from "../policy/ima-points.ts"
import { readImaPolicy } from "./appraisal.ts"
import { jsonText } from "./json-text.ts"
import { openTerminal, type Style, type Terminal } from "./terminal.ts"

/** `ima policy`: prints what a policy measures. Returns the exit code. */
export function showImaPolicy(file: string, json: boolean, terminal: Terminal = openTerminal()): number {
  const points = describeCoverage(readImaPolicy(file).coverage)
  const complete = points.every(({ measured, needed }) => measured === "yes" || !needed)
  terminal.out(
    json ? jsonText({ complete, points }) : points.map((point) => linesOf(point, terminal.outStyle)).join(""),
  )
  return complete ? EXIT.ok : EXIT.ima
}

function linesOf({ point, measured, except, about, rule, needed }: DescribedPoint, style: Style): string {
  const mark =
    measured === "yes" ? style.green("[ OK ]") : needed ? style.red("[ FAIL ]") : style.yellow("[ WARNING ]")
  const how = measured === "yes" ? "measured" : measured === "no" ? "not measured" : except.join("; ")
  const remedy = measured === "yes" ? "" : `         ${style.dim("rule:")} ${rule}\n`
  return `${mark} ${style.bold(point)}: ${printable(how)} (${about})\n${remedy}`
}
