import type { BootExpectations } from "./boot-expectations.ts"
import { mismatch } from "./policy-findings.ts"
import type { Finding } from "./verdict.ts"

/** What a policy does not accept of the events of the boot. A requirement that no log can show is not met. */
export function bootEventFindings(boot: BootExpectations | null): Finding[] {
  if (boot === null) return []
  return [
    mismatch(
      "ERR_EVENT_LOG_ABSENT",
      "event log",
      "the log of what firmware and boot loader measured",
      "none",
      {
        meaning: "the policy asks for events of the boot, and nothing shows which there were",
        remedy: "leave [boot] out of the policy, or boot the VM by firmware that keeps an event log",
      },
    ),
  ]
}
