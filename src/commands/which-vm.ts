import { UsageError } from "../errors.ts"
import type { ExpectationOptions } from "./agent-options.ts"
import type { Appraisal } from "./appraisal.ts"

/**
 * A genuine VM is not yet yours: whoever wants a secret can rent one.
 * @param options the options that the command has for it.
 * @throws UsageError ERR_MISSING_ARGUMENT where nothing says which VM is meant.
 */
export function requireExpectation(
  { snapshot = null, policy, measurement, anyVm }: ExpectationOptions & { readonly snapshot?: string | null },
  options: string,
): void {
  if (snapshot !== null || policy !== null || measurement !== null || anyVm) return
  throw new UsageError("ERR_MISSING_ARGUMENT", {
    at: options.split(" ", 1)[0] ?? options,
    expected: `${options}, to know your VM from anybody else's before a secret is sent to it`,
    hint: "see cosmian_vm policy measure; --any-vm does without, and then who runs the VM may read what is sent",
  })
}

/**
 * What is left out by name may not be all that ties the connection, and the key that content is sealed to, to the VM that is meant:
 * its TEE and the report that commits to both, or a quote by the TPM key that the user knows.
 * @throws UsageError ERR_BAD_VALUE
 */
export function requireProof({ skip, reference, policy }: Appraisal): void {
  const byTee = !skip.has("tee") && !skip.has("binding")
  const byTpm = !skip.has("tpm") && (reference !== null || policy?.tpm?.akNames != null)
  if (byTee || byTpm) return
  const check = skip.has("binding") ? "binding" : "tee"
  throw new UsageError("ERR_BAD_VALUE", {
    at: `--skip ${check}`,
    expected: "checks without which it is still proven that the VM which is meant answers",
    found: `${check}, and no TPM key that the snapshot or policy names`,
    hint: "leave the check in; --any-vm does without, and then anybody may read what is sent",
  })
}
