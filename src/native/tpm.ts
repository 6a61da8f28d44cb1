import { DeviceWorker } from "./device-worker.ts"
import type { Tpm, TpmStorage } from "./ports.ts"
import type { TpmOperations } from "./tpm-operations.ts"
import { checkTcti } from "./tss2.ts"

/**
 * Opens a TPM by its address: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=N`. Calls run in a thread of their own; the
 * connection is opened for each and closed again, so that several processes can use a TPM emulator.
 * @throws UsageError ERR_TPM_TCTI
 * @throws NativeError ERR_TPM_LIBRARY, ERR_TPM_DEVICE
 */
export async function openTpm(tcti: string): Promise<Tpm> {
  const worker = await openTpmWorker(tcti)
  return {
    random: (count) => worker.call("random", count),
    ensureKeys: () => worker.call("ensureKeys", null),
    quote: (request) => worker.call("quote", request),
    ensureKey: (handle, template) => worker.call("ensureKeyOf", { handle, template }),
    activateCredential: (request) => worker.call("activateCredential", request),
    readPublic: (handle) => worker.call("readPublic", handle),
    readNv: (index) => worker.call("readNv", index),
    writeNv: (index, data) => worker.call("writeNv", { index, data }),
    nitroDocument: (nonce) => worker.call("nitroDocument", nonce),
    close: () => worker.close(),
  }
}

/** Opens what the TPM at this address keeps for encrypted volumes. @throws as openTpm */
export async function openTpmStorage(tcti: string): Promise<TpmStorage> {
  const worker = await openTpmWorker(tcti)
  return {
    seal: (request) => worker.call("seal", request),
    unseal: (sealed, pin) => worker.call("unseal", { sealed, pin }),
    headers: {
      read: (name) => worker.call("readReference", name),
      write: (name, reference) => worker.call("writeReference", { name, reference }),
      remove: (volume) => worker.call("removeReference", volume),
      removeUnwritten: (volume) => worker.call("removeUnwrittenReference", volume),
    },
    pcrs: (wanted) => worker.call("pcrs", wanted),
    close: () => worker.close(),
  }
}

/** Runs with the TPM's thread, among whose operations are some that only a simulated machine needs. @throws as openTpm */
export async function withTpm<T>(
  tcti: string,
  use: (worker: DeviceWorker<TpmOperations>) => Promise<T>,
): Promise<T> {
  const worker = await openTpmWorker(tcti)
  try {
    return await use(worker)
  } finally {
    await worker.close()
  }
}

async function openTpmWorker(tcti: string): Promise<DeviceWorker<TpmOperations>> {
  checkTcti(tcti)
  const worker = new DeviceWorker<TpmOperations>("tpm", tcti)
  try {
    await worker.call("probe", null)
    return worker
  } catch (error) {
    await worker.close()
    throw error
  }
}
