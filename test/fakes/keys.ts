/** OpenPGP keys and what is signed with them, by gpg itself. */
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { succeed } from "./packages.ts"

export interface SigningKey {
  readonly home: string
  readonly user: string
  /** Public key, binary. */
  readonly keyring: string
  /** The same in ASCII armour. */
  readonly armoured: string
}

/** Makes a key in a new directory below `parent`. */
export async function makeSigningKey(parent: string, user: string, expires = "0"): Promise<SigningKey> {
  const home = mkdtempSync(join(parent, "gpg-"))
  const gpg = [
    "gpg",
    "--homedir",
    home,
    "--batch",
    "--quiet",
    "--yes",
    "--pinentry-mode",
    "loopback",
    "--passphrase",
    "",
  ]
  await succeed([...gpg, "--quick-generate-key", user, "rsa2048", "sign", expires])
  const keyring = join(home, "public.gpg")
  const armoured = join(home, "public.asc")
  await succeed([...gpg, "--output", keyring, "--export", user])
  await succeed([...gpg, "--armor", "--output", armoured, "--export", user])
  return { home, user, keyring, armoured }
}

/** Ends the agent that gpg started for a key. */
export async function forgetKey({ home }: SigningKey): Promise<void> {
  await succeed(["gpgconf", "--homedir", home, "--kill", "all"])
}

/** @param how `--clearsign`, or `--detach-sign`. */
export async function sign(key: SigningKey, how: string, file: string, output: string): Promise<void> {
  await succeed([
    ...["gpg", "--homedir", key.home, "--batch", "--quiet", "--yes", "--local-user", key.user],
    ...["--output", output, how, file],
  ])
}

/** Adds a signature to a .rpm, in place. */
export async function signRpm(key: SigningKey, rpm: string): Promise<void> {
  const macros = [`_gpg_name ${key.user}`, `_gpg_path ${key.home}`, "__gpg /usr/bin/gpg"]
  await succeed(["rpmsign", ...macros.flatMap((macro) => ["--define", macro]), "--addsign", rpm])
}

export interface Repository {
  readonly release: string
  readonly inRelease: string
  readonly packages: string
}

/** A Debian repository's metadata about packages, in a new directory below `parent`. */
export async function makeRepository(
  parent: string,
  key: SigningKey,
  debs: readonly string[],
  { date = new Date(), validUntil }: { date?: Date; validUntil?: Date } = {},
): Promise<Repository> {
  const dir = mkdtempSync(join(parent, "repository-"))
  const entries: string[] = []
  for (const deb of debs) {
    const fields = await succeed(["dpkg-deb", "--field", deb])
    entries.push(`${fields}Filename: pool/x.deb\nSHA256: ${sha256(deb)}\nSize: 1\n`)
  }
  const packages = join(dir, "Packages")
  writeFileSync(packages, entries.join("\n"))
  await succeed(["xz", "--keep", packages])
  const lines = ["Packages", "Packages.xz"].map((name) => {
    const bytes = readFileSync(join(dir, name))
    return ` ${sha256(join(dir, name))} ${bytes.length} main/binary-amd64/${name}`
  })
  const utc = (time: Date) => time.toUTCString().replace("GMT", "UTC")
  const release = join(dir, "Release")
  writeFileSync(
    release,
    [
      "Origin: Example",
      "Suite: stable",
      `Date: ${utc(date)}`,
      ...(validUntil === undefined ? [] : [`Valid-Until: ${utc(validUntil)}`]),
      "SHA256:",
      ...lines,
      "",
    ].join("\n"),
  )
  const inRelease = join(dir, "InRelease")
  await sign(key, "--clearsign", release, inRelease)
  await sign(key, "--detach-sign", release, `${release}.gpg`)
  return { release, inRelease, packages: `${packages}.xz` }
}

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex")
}
