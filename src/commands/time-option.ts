import { UsageError } from "../errors.ts"

/**
 * The value of `--at`.
 * @throws UsageError ERR_BAD_VALUE. Source: RFC 3339, section 5.6 "Internet Date/Time Format".
 */
export function timeOf(text: string): Date {
  const form = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/
  const time = new Date(form.test(text) ? text.toUpperCase().replace(" ", "T") : Number.NaN)
  const [, day = ""] = /^\d{4}-\d\d-(\d\d)/.exec(text) ?? []
  const inZone = new Date(`${text.slice(0, 10)}T00:00:00Z`)
  // The parser takes 31 February for a day in March.
  if (!Number.isNaN(time.getTime()) && inZone.getUTCDate() === Number(day)) return time
  throw new UsageError("ERR_BAD_VALUE", {
    at: "--at",
    expected: "a time as in RFC 3339",
    found: text.slice(0, 80),
    hint: "write for example --at 2025-07-04T10:16:31Z",
  })
}
