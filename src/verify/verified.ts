declare const verified: unique symbol

/** A value whose cryptography was checked. Only functions of `verify/` make one; appraisal accepts nothing else. */
export type Verified<T> = T & { readonly [verified]: true }

/** For the last line of a verify function, and nowhere else. */
export function markVerified<T>(value: T): Verified<T> {
  return value as Verified<T>
}
