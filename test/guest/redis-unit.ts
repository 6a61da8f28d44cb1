/** The unit of the guest's Redis: the packages' example for a key management server, with a real program in it. */
import { readFileSync } from "node:fs"
import { join } from "node:path"

const EXAMPLE = "../../deb/root/usr/share/doc/cosmian-vm/examples/key-management-server/example-kms.service"
const CREDENTIALS = "$" + "{CREDENTIALS_DIRECTORY}"
const COMMAND =
  `/usr/bin/redis-server ${CREDENTIALS}/redis.conf --supervised systemd --daemonize no --dir /run/e2e-redis ` +
  `--tls-cert-file ${CREDENTIALS}/cert.pem --tls-key-file ${CREDENTIALS}/key.pem`

/** What another application has to change, and nothing else. */
const CHANGES: readonly (readonly [line: string, by: string])[] = [
  ["Type=exec", "Type=notify"],
  [
    "LoadCredential=kms.toml:/var/lib/cosmian_vm/tmp/bootstrap/kms.toml",
    "LoadCredential=redis.conf:/var/lib/cosmian_vm/tmp/bootstrap/redis.conf",
  ],
  ["LoadCredential=master.key:/var/lib/cosmian_vm/tmp/bootstrap/master.key\n", ""],
]

/** @throws Error where the example has no such line any more. */
export function redisUnit(): string {
  const example = readFileSync(join(import.meta.dir, EXAMPLE), "utf8")
  const changed = CHANGES.reduce((text, [line, by]) => {
    if (text.split(line).length !== 2) throw new Error(`the example has not one "${line}"`)
    return text.replace(line, () => by)
  }, example)
  return changed.replace(/^ExecStart=.*$/m, () => `ExecStart=${COMMAND}`)
}
