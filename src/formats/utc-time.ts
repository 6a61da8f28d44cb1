const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] as const

/** The UTC time of year, month (from 1), day, hour, minute and second; null where there is no such time. */
export function utcTime(
  year: number,
  month: number,
  day: number,
  hour: number,
  minute: number,
  second: number,
): Date | null {
  const leap = month === 2 && year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  const days = (DAYS[month - 1] ?? 0) + (leap ? 1 : 0)
  if (!(day >= 1 && day <= days && hour < 24 && minute < 60 && second < 60)) return null
  // Date.UTC takes years below 100 for years of the 20th century.
  if (!(year >= 100)) return null
  return new Date(Date.UTC(year, month - 1, day, hour, minute, second))
}

/** The number of two decimal digits in ASCII at an offset; NaN where they are none. */
export function twoDigits(bytes: Uint8Array, at: number): number {
  const tens = (bytes[at] ?? 0) - 0x30
  const ones = (bytes[at + 1] ?? 0) - 0x30
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN
}
