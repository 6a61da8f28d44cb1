/** `snapshot` and `verify` against an agent on loopback, for each kind of TEE: everything from the connection to the exit code. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { CERTIFICATES } from "../../test/fakes/intel.ts"
import { fakeCertificate } from "../../test/fakes/intel-certificates.ts"
import {
  azureSnpMachine,
  azureTdxMachine,
  evidenceOf,
  type Machine,
  snpMachine,
  tdxMachine,
} from "../../test/fakes/machines.ts"
import { fakeAuthorities, fakeChip, fakeCrl } from "../../test/fakes/snp.ts"
import { httpsServer, serverKey, type TlsServer } from "../../test/fakes/tls-server.ts"
import { EXIT } from "../errors.ts"
import { encodeEvidence } from "../formats/evidence.ts"
import { fromBase64 } from "../formats/hex.ts"
import { encodePem } from "../formats/pem.ts"
import { parseSnapshot } from "../policy/snapshot.ts"
import { NO_CREDENTIALS } from "./credentials.ts"
import { takeSnapshot } from "./snapshot.ts"
import { PLAIN, type Terminal } from "./terminal.ts"
import { verifyAgainstSnapshot } from "./verify.ts"

const made = await fakeChip()
// A list that came with the report serves, where the root has no service.
const chip = { ...made, certificates: [...made.certificates, await lastingCrl()] }
const MACHINES = [
  ["sev-snp", snpMachine(chip)],
  ["tdx", tdxMachine()],
  ["azure-snp", azureSnpMachine(chip)],
  ["azure-tdx", azureTdxMachine()],
] as const

let server: TlsServer
let dir = ""
let machine: Machine = MACHINES[0][1]
let said = ""
const say = (text: string) => {
  said += text
}
const terminal: Terminal = {
  out: say,
  talk: () => undefined,
  outStyle: PLAIN,
  talkStyle: PLAIN,
  outColumns: null,
  live: false,
  columns: 80,
}

async function lastingCrl(): Promise<Uint8Array> {
  return fakeCrl("Milan", { nextUpdate: new Date("2049-01-01T00:00:00Z") })
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "cosmian-vm-verify-tee-"))
  const { ark } = await fakeAuthorities("Milan")
  writeFileSync(join(dir, "amd.pem"), encodePem("CERTIFICATE", ark.der))
  writeFileSync(join(dir, "intel.pem"), encodePem("CERTIFICATE", fakeCertificate(CERTIFICATES.root)))
  const key = await serverKey()
  const spki = Uint8Array.from(
    new X509Certificate(key.cert).publicKey.export({ type: "spki", format: "der" }),
  )
  server = await httpsServer(key, (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "", "https://x")
    const nonce = fromBase64(searchParams.get("nonce") ?? "") ?? new Uint8Array()
    if (pathname === "/v1/evidence")
      response.end(encodeEvidence(evidenceOf(machine, Uint8Array.from(nonce), spki)))
    else
      response.end(
        pathname === "/snapshot" && request.method === "GET" ? '{"format":2,"filehashes":[]}' : "null",
      )
  })
})
afterAll(async () => {
  await server.close()
  rmSync(dir, { recursive: true, force: true })
})

/** What a simulated root of Intel's has no service for. */
const DOCUMENTS = ["revocation", "tcb"]

function options(skip: readonly string[]) {
  return {
    url: `https://127.0.0.1:${server.port}`,
    insecureAllowed: true,
    timeout: "5",
    json: true,
    quiet: true,
    trustRoots: [join(dir, "amd.pem"), join(dir, "intel.pem")],
    skip: ["ima", ...skip],
    collateral: {
      kdsUrl: "https://kds.invalid",
      pcsUrl: "https://pcs.invalid",
      cacheDir: join(dir, "cache"),
      offline: true,
    },
    credentials: NO_CREDENTIALS,
    policy: null,
    measurement: null,
    anyVm: false,
    whitelist: null,
    applications: [],
  }
}

/** `verify`: exit code, and the codes of what failed. */
async function verified(snapshot: string, skip: readonly string[]) {
  said = ""
  const exit = await verifyAgainstSnapshot({ ...options(skip), snapshot }, terminal)
  const { claims }: { claims: { status: string; findings: { code: string }[] }[] } = JSON.parse(said)
  const failed = claims.filter(({ status }) => status === "failed")
  return [exit, failed.flatMap(({ findings }) => findings.map(({ code }) => code))] as const
}

describe.each(MACHINES)("%s", (kind, own) => {
  const file = () => join(dir, `${kind}.snapshot`)
  const skip = kind.endsWith("tdx") ? DOCUMENTS : []

  test("a snapshot is taken, and the VM verifies against it", async () => {
    machine = own
    expect(await takeSnapshot({ ...options(skip), output: file() }, terminal)).toBe(EXIT.ok)
    const { tee_policy, tee_reference, tpm_reference } = parseSnapshot(readFileSync(file()))
    expect([tee_policy, tee_reference, tpm_reference].includes(null)).toBeFalse()
    expect(await verified(file(), skip)).toEqual([EXIT.ok, []])
  })

  test("VMs of other kinds do not", async () => {
    for (const [other, another] of MACHINES) {
      machine = another
      const [exit] = await verified(file(), DOCUMENTS)
      expect([other, exit]).toEqual([other, other === kind ? EXIT.ok : EXIT.tee])
    }
  })

  if (skip.length > 0)
    test("without Intel's documents it fails, and no snapshot is taken", async () => {
      machine = own
      expect(await verified(file(), [])).toEqual([
        EXIT.tee,
        ["ERR_REVOCATION_NOT_CHECKED", "ERR_COLLATERAL_MISSING"],
      ])
      const output = join(dir, "none.snapshot")
      expect(await takeSnapshot({ ...options([]), output }, terminal)).toBe(EXIT.tee)
      expect(existsSync(output)).toBeFalse()
    })
})
