import { expect, test } from "bun:test"
import { fileSigner, signFile } from "../../test/fakes/file-signatures.ts"
import { judged, NONCE, TLS_KEY } from "../../test/fakes/machines.ts"
import {
  bootAggregate,
  extendedPcr,
  file,
  hexOf,
  listOf,
  PCRS,
  sha256,
} from "../../test/fakes/measurement-list.ts"
import { fakeChip } from "../../test/fakes/snp.ts"
import { makeSoftwareAk, quoteAttest, softwareQuote } from "../../test/fakes/software-ak.ts"
import { EVIDENCE_PCRS, evidenceQualifyingData } from "../formats/evidence.ts"
import type { NewEntry } from "../formats/ima/encode.ts"
import { parseSnapshot } from "./snapshot.ts"

/** Evidence of a TPM that measured these entries. */
function evidenceOf(entries: readonly NewEntry[]) {
  const ak = makeSoftwareAk("ecdsa-p256")
  const pcrs = EVIDENCE_PCRS.map((pcr) =>
    pcr === 10 ? extendedPcr(...entries) : (PCRS[pcr] ?? new Uint8Array(32)),
  )
  const extraData = evidenceQualifyingData(NONCE, TLS_KEY, null)
  const { quote, signature } = softwareQuote(
    ak,
    quoteAttest(EVIDENCE_PCRS, sha256(Buffer.concat(pcrs)), { extraData }),
  )
  const tpm = { quote, signature, akPublic: ak.akPublic, pcrs, akCertificate: null, ekCertificate: null }
  return { tee: null, tpm, ima: { from: 0, list: listOf(...entries) } }
}

test("a file that a given key signed is accepted in the verdict, and only with that key", async () => {
  const vendor = fileSigner("rsa")
  const entries = [
    bootAggregate(),
    file("/usr/bin/a", "a"),
    file(".ima", "key", { template: "ima-buf", fields: { buf: new TextEncoder().encode("key") } }),
    file("/usr/bin/new", "n", { template: "ima-sig", signature: signFile(vendor, "n") }),
  ]
  const members = {
    format: 2,
    filehashes: [["/usr/bin/a", hexOf("a")]],
    hash_algorithm: "sha256",
    ima_reference: {
      template: "ima-ng",
      boot_aggregate: `sha256:${Buffer.from(bootAggregate().digest).toString("hex")}`,
    },
  }
  const reference = parseSnapshot(Buffer.from(JSON.stringify(members)))
  const chip = await fakeChip()
  const claim = async (imaKeys: typeof vendor.keys) => {
    const { verdict } = await judged(evidenceOf(entries), chip, { reference, imaKeys, skip: new Set() })
    return verdict.claims.find(({ check }) => check === "ima")
  }
  expect(await claim(vendor.keys)).toMatchObject({
    status: "passed",
    facts: { files: 1, signed: 1, measuredData: 1, measuredDataNames: ".ima" },
  })
  expect(await claim([])).toMatchObject({ status: "failed", findings: [{ code: "ERR_IMA_UNKNOWN_FILE" }] })
  // Keys of RSA 4096 are made for the chip, which takes as long as it takes.
}, 60_000)
