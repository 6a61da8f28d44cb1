import { describe, expect, test } from "bun:test"
import { advisePcrs, pcrHelp } from "./pcr-advice.ts"

const measured = new Uint8Array(32).fill(7)
const weights = (pcrs: number[], value = measured) =>
  advisePcrs(
    pcrs,
    pcrs.map(() => value),
  ).map(({ weight }) => weight)

describe("advice before sealing to PCRs", () => {
  test("PCRs that ordinary updates change are warned of, firmware's are noted", () => {
    expect(weights([0, 7, 4, 8, 9, 11])).toEqual(["note", "note", "warning", "warning", "warning", "warning"])
  })

  test("a PCR that changes with every program, and those that anybody resets, are refused", () => {
    expect(weights([10, 16, 17, 23])).toEqual(["refuse", "refuse", "refuse", "refuse"])
  })

  test("a PCR that holds nothing is warned of, whatever it is for", () => {
    expect(weights([0, 7], new Uint8Array(32))).toEqual(["warning", "warning"])
    expect(weights([7], new Uint8Array(32).fill(0xff))).toEqual(["warning"])
  })

  test("the help names every PCR that can be chosen, and no other", () => {
    expect(pcrHelp().map((line) => Number.parseInt(line, 10))).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15,
    ])
  })
})
