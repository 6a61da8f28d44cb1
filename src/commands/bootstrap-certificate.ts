import { join, resolve } from "node:path"
import { keyTypeOf, readKey } from "../acme/keys.ts"
import { obtainCertificate } from "../acme/manage.ts"
import { directoryOf } from "../acme/names.ts"
import type { CertificateSettings } from "../acme/settings.ts"
import { makePrivateDirectory, writeFileAtomically } from "../agent/atomic-file.ts"
import type { IssuedFiles, ObtainCertificate } from "../agent/bootstrap.ts"
import type { AgentConfig, ApplicationConfig, BootstrapConfig } from "../agent/config.ts"
import { errorFields, type Log } from "../agent/log.ts"
import { runCommand } from "../agent/run-command.ts"
import type { CertificateOrder } from "../formats/provision.ts"
import { acmeDirectoryOf, emailOf } from "./acme-options.ts"
import { certificateTools } from "./acme-tools.ts"
import { orderedNames } from "./bootstrap-order.ts"

const TIMER = "cosmian_vm_certtool.timer"
const TIMER_SECONDS = 30

/**
 * How the agent gets a certificate for its own TLS key, which evidence vouches for: so whoever verifies the VM can verify that the
 * application answers from inside it. `certtool renew` renews it.
 * @param real this machine's timer is switched on; of a simulated machine nothing outside its directory is changed.
 */
export function certificateGetter(config: AgentConfig, log: Log, real: boolean): ObtainCertificate {
  return async (order, signal) => {
    const { bootstrap, application, privateKey } = config
    // Only a bootstrap of an application asks for one.
    if (bootstrap === null || application === null) throw new Error("no application is bootstrapped")
    const settings = settingsOf(order, { bootstrap, application, privateKey })
    const tools = certificateTools(bootstrap.acmeWorkspace, signal, {
      progress: (step) => log.info("certificate", { step }),
      warn: (error) => log.warn("certificate", errorFields(error)),
    })
    const name = directoryOf(settings.names[0] ?? "")
    const { notAfter } = await obtainCertificate(tools, name, settings, { force: false, binding: null })
    if (real) await startTimer(log)
    return filesIn(bootstrap.certificateDirectory, notAfter)
  }
}

interface Place {
  readonly bootstrap: BootstrapConfig
  readonly application: ApplicationConfig
  readonly privateKey: string
}

function settingsOf(
  order: CertificateOrder,
  { bootstrap, application, privateKey }: Place,
): CertificateSettings {
  const file = resolve(privateKey)
  return {
    names: orderedNames(order.names),
    directory: acmeDirectoryOf(order.directory, "certificate.directory"),
    caFile: order.authorities === null ? null : keepAuthorities(order.authorities, bootstrap.acmeWorkspace),
    email: order.email === null ? null : emailOf(order.email, "certificate.email"),
    challenge: { type: order.challenge, host: null, port: order.port },
    key: { type: keyTypeOf(readKey(file), file), reuse: true, derived: null, file },
    profile: null,
    output: bootstrap.certificateDirectory,
    deployHooks: hooksOf(application),
  }
}

/** Renewals need them, too. */
function keepAuthorities(pem: string, workspace: string): string {
  const file = join(workspace, "bootstrap-ca.pem")
  makePrivateDirectory(workspace)
  writeFileAtomically(file, pem, 0o600)
  return file
}

/** A service that runs takes a renewed certificate up; one that does not run yet is left alone. */
function hooksOf({ serviceType, serviceName }: ApplicationConfig): string[][] {
  return serviceType === "systemd" ? [["systemctl", "try-reload-or-restart", serviceName]] : []
}

/** Without it the certificate would run out unseen; with it failing, the application still works for now. */
async function startTimer(log: Log): Promise<void> {
  const { exitCode, output } = await runCommand("systemctl", ["enable", "--now", TIMER], TIMER_SECONDS)
  if (exitCode !== 0)
    log.warn("the certificate will not be renewed by itself", { timer: TIMER, found: output.slice(0, 300) })
}

function filesIn(directory: string, notAfter: Date): IssuedFiles {
  return {
    certificate: join(directory, "cert.pem"),
    key: join(directory, "key.pem"),
    not_after: notAfter.toISOString(),
  }
}
