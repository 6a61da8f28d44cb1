import { endpointText, parseApplication } from "../client/endpoint.ts"
import { EndorsementError } from "../errors.ts"
import type { Evidence } from "../formats/evidence.ts"
import {
  encodeSavedEvidence,
  MAX_SAVED_BYTES,
  parseSavedEvidence,
  type SavedEvidence,
} from "../formats/saved-evidence.ts"
import type { ApplicationProbe } from "../policy/application.ts"
import { type Judgement, judge } from "../policy/verify-vm.ts"
import type { Appraisal } from "./appraisal.ts"
import { contentFor, parsePlainFile } from "./compressed-file.ts"

/** Bytes of the file for evidence: zstd where its name ends in `.zst`. */
export function savedEvidenceFile(saved: SavedEvidence, path: string): Uint8Array {
  return contentFor(path, new TextEncoder().encode(encodeSavedEvidence(saved)))
}

/**
 * Reads such a file; whether it is compressed is told by its first bytes.
 * @throws ParseError as parseSavedEvidence; CodedError ERR_COMPRESSION, ERR_IO
 */
export function readSavedEvidence(path: string): SavedEvidence {
  return parsePlainFile(path, MAX_SAVED_BYTES, (bytes) =>
    parseSavedEvidence(bytes, { collect: () => Bun.gc(true) }),
  )
}

/**
 * Judges saved evidence by the verifier's own snapshot, roots and time. Nothing is fetched: the vendors' documents are those in the
 * file, which carry their signatures and dates with them.
 * @param at the time as of which certificates and revocation lists have to hold.
 */
export function judgeSaved(
  saved: SavedEvidence,
  appraisal: Appraisal,
  { at, insecureAllowed }: { readonly at: Date; readonly insecureAllowed: boolean },
): Judgement {
  const { whitelist, imaKeys, anchors, skip, reference, acceptReboot, policy } = appraisal
  const { tpmAuthorities, violations, imaPolicies } = appraisal
  const { intel } = saved.documents
  return judge({
    target: saved.target,
    at,
    nonce: saved.nonce,
    evidence: withDocuments(saved),
    // In with the certificates, as a list that somebody else chose: it counts where it is signed and in date.
    crl: null,
    crlAbsence: "none in the saved evidence",
    intel: { anchors: anchors.intel, collateral: intel, problems: intel === null ? [notSaved()] : [] },
    channel: { ...saved.channel, insecureAllowed, savedAt: saved.collectedAt },
    whitelist,
    imaKeys,
    reference,
    anchors: anchors.amd,
    nitroAnchors: anchors.nitro,
    applications: probesOf(saved, appraisal.applications),
    skip,
    acceptReboot,
    policy,
    tpmAuthorities,
    ...(violations === undefined ? {} : { violations }),
    imaPolicies,
  })
}

function withDocuments({ evidence, documents }: SavedEvidence): Evidence {
  const { tee } = evidence
  if (tee === null || !("certificates" in tee)) return evidence
  const { certificates, crl } = documents
  const all = [...tee.certificates, ...certificates, ...(crl === null ? [] : [crl])]
  return { ...evidence, tee: { ...tee, certificates: all } }
}

/** What the file holds, and each application that is asked for now and was not asked then. */
function probesOf(saved: SavedEvidence, wanted: readonly string[]): ApplicationProbe[] {
  const known = new Set(saved.applications.map(({ target }) => target))
  const missing = wanted
    .map((name) => endpointText(parseApplication(name)))
    .filter((name) => !known.has(name))
  const failure = "not asked when the evidence was saved"
  return [...saved.applications, ...missing.map((target) => ({ target, spki: null, failure }))]
}

function notSaved(): EndorsementError {
  return new EndorsementError("ERR_COLLATERAL_OFFLINE", {
    at: "Intel's documents",
    expected: "documents in the saved evidence",
    found: "none",
    hint: "save the evidence again where Intel's service can be reached",
  })
}
