import { describe, expect, test } from "bun:test"
import { fakeDevices } from "../../test/fakes/devices.ts"
import { makeSoftwareAk } from "../../test/fakes/software-ak.ts"
import { parseAgentConfig } from "../agent/config.ts"
import { CodedError, EXIT, NativeError } from "../errors.ts"
import { OBJECT } from "../formats/tpm/public.ts"
import type { Tpm } from "../native/ports.ts"
import { reportHealth } from "./doctor.ts"
import { type ExaminedMachine, examine } from "./doctor-checks.ts"
import { PLAIN, type Terminal } from "./terminal.ts"

const AK_HANDLE = 0x8100_0051
const NOW = new Date("2026-06-01T00:00:00Z")
const TOKENS = `[auth]\ntokens = ["${"0".repeat(64)}"]\n`
const HEALTHY_FILES: Readonly<Record<string, string>> = {
  "/proc/cmdline": "root=/dev/vda1 ima_policy=tcb ima_hash=sha256",
  "/proc/mounts":
    "securityfs /sys/kernel/security securityfs rw 0 0\n/dev/mapper/data /var/lib/cosmian_vm/data ext4 rw 0 0\n",
  "/etc/crypttab": "# name device\ndata UUID=0123 none luks\n",
}
const HEADER = JSON.stringify({ tokens: { 0: { type: "systemd-tpm2" } } })

function tpmWith(change: Partial<Tpm> = {}): Tpm {
  const { tpm } = fakeDevices()
  if (tpm === null) throw new Error("no TPM")
  const ak = makeSoftwareAk("ecdsa-p256")
  return {
    ...tpm,
    readPublic: async (handle) => (handle === AK_HANDLE ? ak.akPublic : null),
    readNv: async () => Uint8Array.of(0x30, 0x82),
    ...change,
  }
}

function machine(change: Partial<ExaminedMachine> = {}, files = HEALTHY_FILES): ExaminedMachine {
  return {
    simulated: false,
    tee: async () => "configfs-tsm",
    tpm: async () => tpmWith(),
    ima: fakeDevices().ima,
    config: () => parseAgentConfig(TOKENS, "agent.toml"),
    readText: (path) => files[path] ?? null,
    output: async () => HEADER,
    reach: async () => 400,
    certificate: () => ({ notAfter: new Date("2027-01-01T00:00:00Z"), keyExposed: false }),
    now: NOW,
    metadata: "http://127.0.0.1:1",
    cloud: null,
    ...change,
  }
}

/** Checks that are not OK, with their status. */
async function problems(change: Partial<ExaminedMachine> = {}, files = HEALTHY_FILES) {
  const found = await examine(machine(change, files))
  for (const { status, advice } of found) expect(advice !== undefined).toBe(status !== "ok")
  return Object.fromEntries(
    found.filter(({ status }) => status !== "ok").map(({ check, status }) => [check, status]),
  )
}

test("a machine on which all is well", async () => {
  expect(await problems()).toEqual({})
})

describe("each thing that is not well is told, and the rest is looked at all the same", () => {
  const absent = async () => null
  const certificate = (days: number, keyExposed = false) => ({
    certificate: () => ({ notAfter: new Date(NOW.getTime() + days * 86_400_000), keyExposed }),
  })
  const config = (toml: string) => ({ config: () => parseAgentConfig(toml, "agent.toml") })
  const unrestricted = makeSoftwareAk("ecdsa-p256", { attributes: OBJECT.fixedTPM | OBJECT.sign }).akPublic
  const refuse = () => {
    throw new CodedError("ERR_IO", { at: "agent.toml" })
  }

  test.each<[string, Partial<ExaminedMachine>, Record<string, "warn" | "fail">]>([
    ["no TEE", { tee: absent }, { TEE: "fail" }],
    ["a simulated one", { simulated: true }, { TEE: "warn" }],
    ["no TPM", { tpm: absent }, { TPM: "fail" }],
    ["a TPM that does not answer", { tpm: async () => refuse() }, { TPM: "fail" }],
    ["no key yet", { tpm: async () => tpmWith({ readPublic: absent }) }, { "attestation key": "warn" }],
    [
      "a key that signs anything",
      { tpm: async () => tpmWith({ readPublic: async () => unrestricted }) },
      { "attestation key": "fail" },
    ],
    [
      "a NitroTPM that gives no document",
      {
        tpm: async () =>
          tpmWith({
            nitroDocument: async () => {
              throw new NativeError("ERR_TPM_COMMAND", { at: "TPM2_nsmRequest" })
            },
          }),
      },
      { "NitroTPM document": "warn" },
    ],
    [
      "no certificate of the TPM",
      { tpm: async () => tpmWith({ readNv: absent }) },
      { "TPM certificate": "warn" },
    ],
    ["no IMA", { ima: null }, { "IMA list": "fail" }],
    [
      "a list that is none",
      { ima: { readBinary: async () => Uint8Array.of(1), readAscii: async () => "" } },
      { "IMA list": "fail" },
    ],
    [
      "IMA off",
      { ima: { readBinary: async () => new Uint8Array(0), readAscii: async () => "" } },
      { "IMA list": "fail" },
    ],
    ["a header without token", { output: async () => "{}" }, { "volume data": "warn" }],
    ["a header that is no JSON", { output: async () => "x" }, { "volume data": "warn" }],
    ["no header", { output: absent }, { "volume data": "warn" }],
    ["a configuration that cannot be read", { config: refuse }, { agent: "fail" }],
    ["no credentials", config(""), { writes: "warn" }],
    ["open writes", config("[auth]\nopen_writes = true\n"), { writes: "fail" }],
    ["a setting without effect", config(`${TOKENS}[agent]\nstrange = 1\n`), { configuration: "warn" }],
    ["an expired certificate", certificate(-1), { "TLS certificate": "fail" }],
    ["one that ends soon", certificate(3), { "TLS certificate": "warn" }],
    ["a key that others may read", certificate(300, true), { "TLS certificate": "fail" }],
    ["a clock that stands", { now: new Date(0) }, { clock: "fail" }],
    ["Azure without its metadata", { cloud: "Azure", reach: absent }, { "metadata service": "fail" }],
    ["no metadata elsewhere", { cloud: "GCP", reach: absent }, {}],
  ])("%s", async (_, change, expected) => {
    expect(await problems(change)).toEqual(expected)
  })

  test("what older software left: a volume that others open, units that hide those of the package", async () => {
    const units = "/etc/systemd/system"
    const files = {
      ...HEALTHY_FILES,
      "/etc/crypttab": "cosmian_vm_container /var/lib/cosmian_vm/container - tpm2-device=auto\n",
      [`${units}/mount_luks.service`]: "[Service]\nExecStart=/root/mount_luks.sh\n",
      // Masked, which is a link to /dev/null.
      [`${units}/cosmian_vm_agent.service`]: "",
    }
    expect(await problems({}, files)).toEqual({
      "volume cosmian_vm_container": "fail",
      "unit mount_luks.service": "fail",
    })
  })

  test("no IMA policy; a file in its place", async () => {
    const files = { ...HEALTHY_FILES, "/proc/cmdline": "quiet" }
    expect(await problems({}, files)).toEqual({ "IMA policy": "fail" })
    expect(await problems({}, { ...files, "/etc/ima/ima-policy": "measure func=BPRM_CHECK" })).toEqual({})
  })
})

test("the exit code is 0 only where nothing is FAIL, and escape sequences reach no terminal", () => {
  const said: string[] = []
  const terminal: Terminal = {
    out: (text) => void said.push(text),
    talk: () => undefined,
    outStyle: PLAIN,
    talkStyle: PLAIN,
    live: false,
    columns: 80,
    outColumns: null,
  }
  const line = (status: "ok" | "warn" | "fail") => ({ check: "x", status, found: "\u001b[31m", advice: "do" })
  expect(reportHealth([line("ok"), line("warn")], false, terminal)).toBe(EXIT.ok)
  expect(reportHealth([line("ok"), line("fail")], false, terminal)).toBe(EXIT.operational)
  expect(said.join("")).not.toContain("\u001b[31m")
  said.length = 0
  expect(reportHealth([line("fail")], true, terminal)).toBe(EXIT.operational)
  expect(JSON.parse(said.join(""))).toEqual({ healthy: false, checks: [line("fail")] })
})
