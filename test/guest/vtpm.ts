/** The guest's TPM: swtpm, made with EK and platform certificates under a certificate authority of its own. */
import { copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { mustRun, waitFor } from "./command.ts"

export interface VirtualTpm {
  /** QEMU connects its `tpmdev` to this socket. */
  readonly controlSocket: string
  readonly pid: number
  stop(): Promise<void>
}

/**
 * Makes a TPM in `directory` where there is none yet and starts it.
 * @param socketDirectory short path: a Unix socket's name holds at most 107 bytes.
 */
export async function startVirtualTpm(directory: string, socketDirectory: string): Promise<VirtualTpm> {
  const state = join(directory, "state")
  if (!existsSync(state)) await manufacture(directory, state)
  const controlSocket = join(socketDirectory, "tpm")
  rmSync(controlSocket, { force: true })
  const child = Bun.spawn(
    [
      "setpriv",
      "--pdeathsig=KILL",
      "swtpm",
      "socket",
      "--tpm2",
      `--tpmstate=dir=${state}`,
      `--ctrl=type=unixio,path=${controlSocket}`,
      `--log=file=${join(directory, "swtpm.log")},level=1`,
    ],
    { stdin: "ignore", stdout: "ignore", stderr: "ignore" },
  )
  await waitFor("swtpm opens its control socket", 10_000, async () =>
    existsSync(controlSocket) ? true : null,
  )
  return {
    controlSocket,
    pid: child.pid,
    stop: async () => {
      child.kill("SIGTERM")
      await child.exited
    },
  }
}

/** A directory with the certificates of a TPM's authority, as `--tpm-ca` takes it. */
export function authorityCertificates(directory: string): string {
  const target = join(directory, "tpm-ca")
  mkdirSync(target, { recursive: true })
  for (const name of ["issuer.pem", "swtpm-localca-rootca-cert.pem"])
    copyFileSync(join(directory, "authority", name), join(target, name))
  return target
}

/**
 * Makes a TPM's state with certificates for its keys, by swtpm's own tools and an authority in `directory`/authority:
 * issuer.pem is the one that signs, and swtpm-localca-rootca-cert.pem the root above it.
 */
export async function manufacture(directory: string, state: string): Promise<void> {
  const authority = join(directory, "authority")
  for (const path of [state, authority]) mkdirSync(path, { recursive: true, mode: 0o700 })
  const localConfig = join(authority, "localca.conf")
  const setupConfig = join(authority, "setup.conf")
  writeFileSync(
    localConfig,
    [
      `statedir = ${authority}`,
      `signingkey = ${join(authority, "key.pem")}`,
      `issuercert = ${join(authority, "issuer.pem")}`,
      `certserial = ${join(authority, "serial")}`,
      "",
    ].join("\n"),
  )
  const options = join(authority, "localca.options")
  writeFileSync(
    options,
    [
      "--platform-manufacturer guest",
      "--platform-version 1",
      "--platform-model test",
      "--tpm-manufacturer IBM",
      "--tpm-model swtpm-libtpms",
      "--tpm-version 2",
      "",
    ].join("\n"),
  )
  writeFileSync(
    setupConfig,
    [
      "create_certs_tool = swtpm_localca",
      `create_certs_tool_config = ${localConfig}`,
      `create_certs_tool_options = ${options}`,
      "",
    ].join("\n"),
  )
  await mustRun([
    "swtpm_setup",
    "--tpm2",
    "--create-ek-cert",
    "--create-platform-cert",
    "--lock-nvram",
    "--pcr-banks=sha1,sha256",
    `--tpm-state=${state}`,
    `--config=${setupConfig}`,
    `--logfile=${join(directory, "swtpm-setup.log")}`,
  ])
}
