/** Verification of TEE evidence with collateral at hand, in a warm process, beside the bare cryptography that it needs. */
import { constants, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto"
import { INTEL_ANCHORS } from "../src/endorsements/intel-roots.ts"
import { parseCollateralBundle } from "../src/formats/intel/collateral.ts"
import { verifySnp } from "../src/verify/snp.ts"
import { verifySnpRevocation } from "../src/verify/snp-revocation.ts"
import { verifyTdx } from "../src/verify/tdx.ts"
import { fakeChip, fakeCrl, fakeReport, JUDGED } from "../test/fakes/snp.ts"
import { vector } from "../test/fakes/vectors.ts"
import { HAVE_VECTORS } from "../test/setup.ts"
import { type BenchResult, median } from "./result.ts"

const ROUNDS = 15
const CALLS = 40
/** What a TDX quote and its collateral carry: quote, QE report, PCK, its CA, TCB signing, TCB info, QE identity, two CRLs. */
const TDX_SIGNATURES = 9

/** Figures of SNP, and of TDX where the vectors are. */
export async function run(): Promise<BenchResult[]> {
  const results = [await snp()]
  if (HAVE_VECTORS) results.push(tdx())
  return results
}

async function snp(): Promise<BenchResult> {
  const chip = await fakeChip()
  const crl = await fakeCrl()
  const input = { certificates: chip.certificates, anchors: [chip.anchor], crl: null, at: JUDGED }
  const report = fakeReport(chip)
  const ours = () => void verifySnpRevocation(verifySnp({ ...input, report }), crl, JUDGED)
  const p384 = ecdsa("P-384", "sha384")
  const rsa = rsaPss()
  const bare = () => {
    p384()
    for (let count = 0; count < 3; count++) rsa()
  }
  return compared("SNP report, chain and CRL verified", ours, "1 P-384, 3 RSA-4096", bare)
}

function tdx(): BenchResult {
  const quote = vector("tdx/v4-phala-uptodate/quote.bin")
  const collateral = parseCollateralBundle(vector("tdx/v4-phala-uptodate/collateral-202506.json"))
  const at = new Date("2025-07-04T10:16:31Z")
  const ours = () => void verifyTdx({ quote, collateral, anchors: INTEL_ANCHORS, at })
  const p256 = ecdsa("P-256", "sha256")
  const bare = () => {
    for (let count = 0; count < TDX_SIGNATURES; count++) p256()
  }
  return compared("TDX quote and collateral verified", ours, `${TDX_SIGNATURES} P-256`, bare)
}

/** Both in turn, so that whatever else the machine does falls on both. */
function compared(name: string, ours: () => void, peer: string, bare: () => void): BenchResult {
  for (let count = 0; count < CALLS; count++) {
    ours()
    bare()
  }
  const times = Array.from({ length: ROUNDS }, () => [timed(ours), timed(bare)] as const)
  const value = median(times.map(([first]) => first))
  const raw = median(times.map(([, second]) => second))
  const ratio = value / raw
  return {
    name,
    value,
    unit: "ms",
    peer: { name: peer, value: raw },
    ratio,
    target: "ratio <= 1.5",
    met: ratio <= 1.5,
  }
}

/** Milliseconds a call. */
function timed(call: () => void): number {
  const start = performance.now()
  for (let count = 0; count < CALLS; count++) call()
  return (performance.now() - start) / CALLS
}

function ecdsa(namedCurve: string, hash: string): () => void {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve })
  const message = Buffer.alloc(672, 1)
  const signature = sign(hash, message, { key: privateKey, dsaEncoding: "ieee-p1363" })
  return () => insist(verify(hash, message, { key: publicKey, dsaEncoding: "ieee-p1363" }, signature))
}

function rsaPss(): () => void {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 4096 })
  const message = Buffer.alloc(1300, 1)
  const options = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 48 }
  const signature = sign("sha384", message, { key: privateKey, ...options })
  const key: KeyObject = createPublicKey(publicKey.export({ type: "spki", format: "pem" }))
  return () => insist(verify("sha384", message, { key, ...options }, signature))
}

function insist(valid: boolean): void {
  if (!valid) throw new Error("a signature of the benchmark's own does not verify")
}
