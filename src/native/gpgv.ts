import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { CHILD_ENVIRONMENT } from "../programs.ts"
import { findInstalled } from "./program.ts"

export interface DetachedSignature {
  readonly data: Uint8Array
  /** OpenPGP signatures, binary or armoured. */
  readonly signature: Uint8Array
  /** Public keys in binary form. */
  readonly keyrings: readonly Uint8Array[]
}

/**
 * Has gpgv check a detached signature with the given keys and no others; what it says is to be judged by `verify/openpgp-signature.ts`.
 * Whether keys have expired is told by this machine's clock. SHA-1 and MD5 do not count.
 * @returns lines of its status output.
 * @throws NativeError ERR_PROGRAM_ABSENT; system errors
 */
export async function checkDetached({ data, signature, keyrings }: DetachedSignature): Promise<string> {
  const gpgv = findInstalled("gpgv", "apt-get install gpgv, or dnf install gnupg2")
  const dir = mkdtempSync(join(tmpdir(), "cosmian-vm-gpgv-"))
  try {
    const put = (name: string, content: Uint8Array) => {
      writeFileSync(join(dir, name), content, { mode: 0o600, flag: "wx" })
      return join(dir, name)
    }
    const keys = keyrings.flatMap((keyring, index) => ["--keyring", put(`keys-${index}.gpg`, keyring)])
    const child = Bun.spawn(
      [
        gpgv,
        ...["--homedir", dir, "--status-fd", "1", "--weak-digest", "SHA1", "--weak-digest", "RIPEMD160"],
        ...keys,
        ...[put("signature", signature), put("data", data)],
      ],
      { cwd: dir, env: { ...CHILD_ENVIRONMENT }, stdin: "ignore", stdout: "pipe", stderr: "ignore" },
    )
    // Its exit code says less: it fails as soon as one of several signatures is by an unknown key.
    const [status] = await Promise.all([new Response(child.stdout).text(), child.exited])
    return status
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
