import { VerifyError } from "../errors.ts"

/**
 * What gpgv found out about a detached signature.
 * Source: GnuPG 2.2, doc/DETAILS, "Format of the --status-fd output".
 * @param at what was signed, for messages.
 * @param status lines of gpgv's status output.
 * @returns fingerprint of the primary key that made a signature which holds; several may have signed, one is enough.
 * @throws VerifyError ERR_PACKAGE_SIGNATURE where a signature is wrong; ERR_PACKAGE_KEY where none is by a given key that is good.
 */
export function verifyOpenPgpStatus(at: string, status: string): string {
  let good = false
  const fingerprints: string[] = []
  const problems: string[] = []
  for (const line of status.split("\n")) {
    const [mark, keyword = "", ...fields] = line.split(" ")
    if (mark !== "[GNUPG:]") continue
    if (keyword === "NEWSIG") good = false
    else if (keyword === "GOODSIG") good = true
    else if (keyword === "VALIDSIG" && good) fingerprints.push(fields[9] ?? fields[0] ?? "")
    else if (keyword === "BADSIG")
      throw new VerifyError("ERR_PACKAGE_SIGNATURE", {
        at,
        expected: "a signature over these very bytes",
        found: `a wrong one of key ${fields[0] ?? ""}`,
        hint: "the file was changed after it was signed: get it again, from its origin",
      })
    else if (keyword in PROBLEMS) problems.push(`${PROBLEMS[keyword]} (${fields[0] ?? ""})`)
  }
  const [first] = fingerprints
  if (first !== undefined) return first
  throw new VerifyError("ERR_PACKAGE_KEY", {
    at,
    expected: "a signature by a key of --keyring",
    found: problems.length === 0 ? "no signature" : problems.slice(0, 8).join(", "),
    hint: "give the keyring of the distribution that made it",
  })
}

const PROBLEMS: Readonly<Record<string, string>> = {
  NO_PUBKEY: "an unknown key",
  EXPKEYSIG: "a key that has expired",
  REVKEYSIG: "a key that was revoked",
  EXPSIG: "a signature that has expired",
  ERRSIG: "a signature that cannot be checked",
}
