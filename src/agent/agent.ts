import { hostname } from "node:os"
import { join } from "node:path"
import { AgentError } from "../errors.ts"
import type { Devices } from "../native/ports.ts"
import { type AgentDependencies, createAgentApp, createBootstrapApp, memoryOf, ownersOf } from "./app.ts"
import { type Applications, createApplications } from "./applications.ts"
import { AttestationKey } from "./attestation-key.ts"
import { Bootstrap, type ObtainCertificate, provisionedEnvironment } from "./bootstrap.ts"
import { detectCloud } from "./cloud.ts"
import type { AgentConfig } from "./config.ts"
import { FairQueue } from "./fair-queue.ts"
import { certificateNames, isKeyExposed, loadOrMakeIdentity } from "./identity.ts"
import { errorFields, type Log } from "./log.ts"
import { makeRatlsIdentity, RatlsRenewal } from "./ratls-identity.ts"
import { RequestNonces } from "./request-nonces.ts"
import { runCommand } from "./run-command.ts"
import { SealingKey } from "./sealing.ts"
import { type AgentServer, listenBound, serveAgent } from "./serve.ts"
import { serviceOf } from "./services.ts"
import { createSnapshots } from "./snapshot.ts"
import { describeMachine } from "./snapshot-reference.ts"
import { StandaloneProcess } from "./standalone.ts"
import { placeDerivedKey } from "./tls-key.ts"

export interface AgentOptions {
  readonly config: AgentConfig
  readonly devices: Devices
  readonly version: string
  readonly now: () => Date
  readonly log: Log
  readonly obtainCertificate: ObtainCertificate
  /** A P-256 key, PEM, that this VM's TEE (or TPM, where the TEE has no such call) gives this system again and again. */
  readonly deriveTlsKey: () => Promise<string>
  /** Called with the path of each file with a secret before it is written; throws where it would not be encrypted. Null: anywhere. */
  readonly guard: ((path: string) => void) | null
}

const DMI = "/sys/class/dmi/id"

/**
 * Starts an agent: TLS identity (made on the first start), TPM keys, the application's recovery, the server.
 * @throws AgentError ERR_IDENTITY, ERR_PORT_IN_USE. A device that fails is logged: what does not need it still works.
 */
export async function startAgent(options: AgentOptions): Promise<AgentServer> {
  const { config, devices, log, now, version, guard } = options
  for (const warning of config.warnings) log.warn("configuration", { warning })
  const host = hostname()
  const names = certificateNames(host, config.host)
  if (config.tlsKey === "derived" && placeDerivedKey(config, await options.deriveTlsKey()))
    log.info("TLS key derived", { file: config.privateKey })
  const ratlsTee = config.tls === "ratls" ? teeFor(devices) : null
  const { identity, made } =
    ratlsTee === null
      ? await loadOrMakeIdentity(config, names, now())
      : { identity: await makeRatlsIdentity(config, names, ratlsTee, now()), made: true }
  log.info(made ? "TLS certificate made" : "TLS certificate read", {
    file: config.certificate,
    not_after: identity.notAfter.toISOString(),
  })
  if (isKeyExposed(config)) log.warn("others may read the TLS key", { file: config.privateKey })
  if (identity.notAfter < now()) log.warn("the TLS certificate has expired", { file: config.certificate })
  const key = devices.tpm === null ? null : new AttestationKey(devices.tpm, devices.akHandle ?? null)
  await prepareKeys(key, log)
  const apps = applicationsOf(config, log, guard)
  await recover(apps, log)
  const describe = () => describeMachine(devices, key, detectCloud(DMI))
  const snapshots = createSnapshots({ config, describe, version, host, now, log })
  const shared = {
    queue: new FairQueue(config.limits),
    memory: memoryOf(config),
    nonces: new RequestNonces(now),
    owners: ownersOf(config),
    sealing: new SealingKey(),
  }
  const dependencies = { devices, identity, config, version, now, snapshots, apps, log, ...shared }
  const server = await serveAgent({
    config,
    identity,
    log,
    createApp: (current) => createAgentApp({ ...dependencies, identity: current }),
  })
  const bootstrap = await startBootstrap(dependencies, options)
  const renewal =
    ratlsTee === null
      ? null
      : new RatlsRenewal(
          { files: config, names, tee: ratlsTee, now, log, reload: () => server.reload() },
          identity.notAfter,
        )
  log.info("listening", {
    host: server.host,
    port: server.port,
    ...(server.clientPort === null ? {} : { client_port: server.clientPort }),
    ...(bootstrap === null ? {} : { bootstrap_port: bootstrap.port }),
    version,
  })
  return {
    host: server.host,
    port: server.port,
    clientPort: server.clientPort,
    reload: () => server.reload(),
    stop: async () => {
      renewal?.stop()
      await snapshots.cancel()
      await Promise.all([server.stop(), bootstrap?.stop()])
    },
  }
}

interface BootstrapServer {
  readonly port: number
  stop(): Promise<void>
}

/**
 * Where the application waits for its secrets, opens the port that takes them in; it closes when they are there and the application
 * runs. Null where nothing is waited for.
 */
async function startBootstrap(
  dependencies: AgentDependencies,
  { guard, obtainCertificate }: AgentOptions,
): Promise<BootstrapServer | null> {
  const { config, apps, log, identity } = dependencies
  if (config.bootstrap === null || apps === null) return null
  const { bodyBytes: maxBytes } = config.limits
  const bootstrap = new Bootstrap({ config: config.bootstrap, apps, log, guard, maxBytes, obtainCertificate })
  if (bootstrap.status().state === "done") {
    await bootstrap.resume()
    return null
  }
  const app = createBootstrapApp(dependencies, bootstrap)
  const server = await listenBound(config, identity, app, config.bootstrap.port, null)
  const stop = () => {
    bootstrap.stop()
    return server.stop(false)
  }
  void bootstrap.done.then(async () => {
    await stop()
    log.info("the port for the application's values is closed", { port: server.port })
  })
  return { port: server.port, stop }
}

/** @throws AgentError ERR_NO_TEE */
function teeFor({ tee }: Devices): NonNullable<Devices["tee"]> {
  if (tee !== null) return tee
  throw new AgentError("ERR_NO_TEE", {
    at: 'tls = "ratls"',
    expected: "a TEE to make evidence for the certificate",
    found: "none",
    hint: "leave the setting out on this machine",
  })
}

/** Makes EK and AK on the first start, so that the first verifier does not wait for them. */
async function prepareKeys(key: AttestationKey | null, log: Log): Promise<void> {
  if (key === null) return
  try {
    await key.info()
  } catch (error) {
    log.error("the TPM's keys are not available", errorFields(error))
  }
}

function applicationsOf(config: AgentConfig, log: Log, guard: AgentOptions["guard"]): Applications | null {
  const { bootstrap } = config
  if (config.application === null) return null
  const standalone = new StandaloneProcess({
    markFile: join(config.temporary, "standalone.json"),
    logFile: join(config.temporary, "standalone.log"),
    ...(bootstrap === null ? {} : { environment: () => provisionedEnvironment(bootstrap) }),
    log,
  })
  const { serviceType, serviceName, restart } = config.application
  if (serviceType === "standalone") standalone.watch(serviceName, restart === "always")
  const service = serviceOf(config.application, runCommand, standalone)
  return createApplications({ storage: config.application.storage, service, log, guard })
}

/** A recovery that fails does not keep the agent from attesting. */
async function recover(apps: Applications | null, log: Log): Promise<void> {
  try {
    await apps?.recover()
  } catch (error) {
    log.error("the application's configuration could not be taken back", errorFields(error))
  }
}
