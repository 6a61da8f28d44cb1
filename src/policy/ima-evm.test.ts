import { describe, expect, test } from "bun:test"
import { createHash, sign } from "node:crypto"
import { EVMCTL_PORTABLE, fileSigner, metadataFields, signFile } from "../../test/fakes/file-signatures.ts"
import { bootAggregate, file, PCRS, quoted } from "../../test/fakes/measurement-list.ts"
import "../../test/setup.ts"
import { BUILT_IN_TEMPLATES } from "../formats/ima/template.ts"
import { type ImaKey, parseImaKeys } from "../verify/ima-signature.ts"
import { appraiseIma } from "./ima.ts"
import type { Snapshot } from "./snapshot.ts"
import { EMPTY_WHITELIST } from "./whitelist.ts"

type Name = keyof typeof EVMCTL_PORTABLE
type Fields = ReturnType<typeof metadataFields> & { readonly evmsig: Uint8Array }
interface Change {
  readonly content?: string
  readonly algorithm?: string
  readonly template?: string
}

const decoded = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"))
const digestOf = (content: string, algorithm: string) =>
  new Uint8Array(createHash(algorithm).update(content).digest())

function attributesOf(name: Name): [string, Uint8Array][] {
  return EVMCTL_PORTABLE[name].attributes.map(([attribute, value]) => [attribute, decoded(value)])
}

function fieldsOf(name: Name, attributes = attributesOf(name)): Fields {
  const { evm, uid, gid, mode } = EVMCTL_PORTABLE[name]
  return { ...metadataFields({ attributes, uid, gid, mode }), evmsig: decoded(evm) }
}

/** The file that evmctl signed, as a kernel with template evm-sig measures it, or with changes. */
function entry(name: Name, fields: Partial<Fields> = fieldsOf(name), change: Change = {}) {
  const { content = "hello\n", algorithm = EVMCTL_PORTABLE[name].algorithm, template = "evm-sig" } = change
  return file("/usr/bin/hello", content, {
    template,
    algorithm,
    digest: digestOf(content, algorithm),
    fields,
  })
}

const keysOf = (name: Name, signs: ImaKey["signs"] = "metadata") =>
  parseImaKeys(decoded(EVMCTL_PORTABLE[name].spki), signs)

function judged(entries: ReturnType<typeof file>[], imaKeys: readonly ImaKey[]) {
  const { facts, findings } = appraiseIma(quoted(bootAggregate(), ...entries), REFERENCE, {
    whitelist: EMPTY_WHITELIST,
    pcrs: PCRS,
    at: new Date(0),
    imaKeys,
  })
  return { signed: facts["signed"], codes: findings.map(({ code }) => code), found: findings[0]?.found }
}

const SIGNED = { signed: 1, codes: [] }
const UNSIGNED = { signed: 0, codes: ["ERR_IMA_UNKNOWN_FILE"] }

describe.each(["bare", "labelled"] as const)("a portable signature by evmctl, %s", (name) => {
  const { evmsig, ...fields } = fieldsOf(name)

  test("accepts the file, under its template's name and as ima_template_fmt=", () => {
    expect(judged([entry(name)], keysOf(name))).toMatchObject(SIGNED)
    const template = BUILT_IN_TEMPLATES["evm-sig"]
    expect(judged([entry(name, fieldsOf(name), { template })], keysOf(name))).toMatchObject(SIGNED)
  })

  test("says nothing of another content, though the metadata are the signed ones", () => {
    expect(judged([entry(name, fieldsOf(name), { content: "evil\n" })], keysOf(name))).toMatchObject(UNSIGNED)
  })

  test("says nothing where the content's digest was put into security.ima after signing", () => {
    const { algorithm } = EVMCTL_PORTABLE[name]
    const forged = attributesOf(name).map(([attribute, value]): [string, Uint8Array] =>
      attribute === "security.ima"
        ? [attribute, new Uint8Array([...value.subarray(0, 2), ...digestOf("evil\n", algorithm)])]
        : [attribute, value],
    )
    const evil = entry(name, fieldsOf(name, forged), { content: "evil\n" })
    expect(judged([evil], keysOf(name))).toMatchObject(UNSIGNED)
  })

  test.each(["iuid", "igid", "imode", "xattrvalues", "evmsig"] as const)(
    "no bit of %s can change, also after the right one was seen",
    (field) => {
      const right = fieldsOf(name)
      for (let bit = 0; bit < right[field].length * 8; bit += 5) {
        const bytes = right[field]
        const changed = bytes.with(bit >> 3, (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7)))
        const both = [entry(name), entry(name, { ...right, [field]: changed })]
        expect(judged(both, keysOf(name))).toMatchObject({ ...UNSIGNED, signed: 1 })
      }
    },
  )

  test.each(["iuid", "igid", "imode", "xattrnames", "xattrlengths", "xattrvalues"] as const)(
    "nothing is taken for granted where %s is empty, or not in the template",
    (field) => {
      expect(
        judged([entry(name, { ...fieldsOf(name), [field]: new Uint8Array(0) })], keysOf(name)),
      ).toMatchObject(UNSIGNED)
      const template = BUILT_IN_TEMPLATES["evm-sig"].replace(`|${field}`, "")
      expect(judged([entry(name, { ...fields, evmsig }, { template })], keysOf(name))).toMatchObject(UNSIGNED)
    },
  )

  test("names, lengths and values have to fit each other, with security.ima there once", () => {
    const right = fieldsOf(name)
    const text = (names: string) => ({ ...right, xattrnames: new Uint8Array(Buffer.from(names)) })
    const names = Buffer.from(right.xattrnames).toString().replace("\0", "")
    expect(judged([entry(name, text(names))], keysOf(name))).toMatchObject(SIGNED)
    for (const other of [
      `${names}|security.evm`,
      names.replace("security.ima", "security.imb"),
      names.replace(/security\.(?:selinux|ima)/, "x").replace("security.capability", "security.ima"),
      names.replaceAll(/[^|]+/g, "security.ima|security.ima"),
    ])
      expect(judged([entry(name, text(other))], keysOf(name))).toMatchObject(UNSIGNED)
    const longer = { ...right, xattrvalues: new Uint8Array([...right.xattrvalues, 0]) }
    expect(judged([entry(name, longer)], keysOf(name))).toMatchObject(UNSIGNED)
  })

  test("counts by a key for metadata alone", () => {
    expect(judged([entry(name)], [])).toMatchObject(UNSIGNED)
    expect(judged([entry(name)], keysOf(name, "content"))).toMatchObject(UNSIGNED)
    expect(judged([entry(name)], fileSigner("rsa").keys)).toMatchObject(UNSIGNED)
    expect(judged([entry(name)], [...keysOf(name, "content"), ...keysOf(name)])).toMatchObject(SIGNED)
  })

  test("the finding says why", () => {
    const { found } = judged([entry(name, { ...fieldsOf(name), iuid: new Uint8Array(0) })], keysOf(name))
    expect(found).toContain("its signature:")
  })
})

describe("signatures of content and of metadata", () => {
  const signer = fileSigner("P-256")
  const forContent = parseImaKeys(signer.spki, "content")
  const forMetadata = parseImaKeys(signer.spki, "metadata")
  const owner = { uid: 0, gid: 0, mode: 0o100755 }
  const digest = digestOf("evil\n", "sha256")
  const ima = new Uint8Array([4, 4, ...digest])
  const misc = Buffer.alloc(24)
  misc.writeUInt16LE(owner.mode, 20)
  /** A file whose bytes are those that EVM hashes of a file with the content "evil". */
  const data = Buffer.concat([ima, misc])
  const relabelled = signFile(signer, data).with(0, 5)
  const fields = { ...metadataFields({ attributes: [["security.ima", ima]], ...owner }), evmsig: relabelled }
  const evil = file("/usr/bin/evil", "evil\n", { template: "evm-sig", fields })

  test("a signed file of somebody else's making vouches for no metadata, though the bytes are the same", () => {
    expect(judged([evil], forContent)).toMatchObject(UNSIGNED)
    // The same bytes by a key that is given for metadata: they are a signature of EVM.
    expect(judged([evil], forMetadata)).toMatchObject(SIGNED)
  })

  test("a signature of metadata vouches for no content", () => {
    const one = file("/x", "", {
      template: "ima-sig",
      digest: new Uint8Array(createHash("sha256").update(data).digest()),
      signature: signFile(signer, data),
    })
    expect(judged([one], forMetadata)).toMatchObject(UNSIGNED)
    expect(judged([one], forContent)).toMatchObject(SIGNED)
  })

  test("security.ima that is a signature counts as that, by a key for content", () => {
    const attributes: [string, Uint8Array][] = [["security.ima", signFile(signer, "n")]]
    const held = metadataFields({ attributes, ...owner })
    const one = file("/usr/bin/n", "n", { template: "evm-sig", fields: held })
    expect(judged([one], forContent)).toMatchObject(SIGNED)
    expect(judged([one], forMetadata)).toMatchObject(UNSIGNED)
    expect(
      judged([file("/usr/bin/n", "m", { template: "evm-sig", fields: held })], forContent),
    ).toMatchObject(UNSIGNED)
  })

  test("so does one of fs-verity, where the entry says that its digest is one", () => {
    const attributes: [string, Uint8Array][] = [["security.ima", signFile(signer, "n", { verity: true })]]
    const held = metadataFields({ attributes, ...owner })
    const template = BUILT_IN_TEMPLATES["evm-sig"].replace("d-ng|", "d-ngv2|")
    const made = (content: "verity" | "file", own: string) =>
      file("/usr/bin/n", own, { template, content, fields: held })
    expect(judged([made("verity", "n")], forContent)).toMatchObject(SIGNED)
    expect(judged([made("verity", "n")], forMetadata)).toMatchObject({ signed: 0 })
    expect(judged([made("verity", "m")], forContent)).toMatchObject({ signed: 0 })
    expect(judged([made("file", "n")], forContent)).toMatchObject(UNSIGNED)
  })

  test("a portable signature of version 3 is over the digest with its kind", () => {
    const value = new Uint8Array([4, 4, ...digestOf("n", "sha256")])
    const hashed = createHash("sha256")
      .update(Buffer.concat([value, misc]))
      .digest()
    const made = (kind: number, version: number) => {
      const signature = sign("sha256", Buffer.concat([Buffer.of(kind, 4), hashed]), signer.privateKey)
      const head = [5, version, 4, ...Buffer.from(signer.keyId, "hex"), 0, signature.length]
      const whole = {
        ...metadataFields({ attributes: [["security.ima", value]], ...owner }),
        evmsig: new Uint8Array([...head, ...signature]),
      }
      return file("/n", "n", { template: "evm-sig", fields: whole })
    }
    expect(judged([made(5, 3)], forMetadata)).toMatchObject(SIGNED)
    expect(judged([made(5, 3)], forContent)).toMatchObject(UNSIGNED)
    for (const other of [made(5, 2), made(3, 3), made(6, 3)])
      expect(judged([other], forMetadata)).toMatchObject(UNSIGNED)
  })

  test("a digest of SHA-1, or of another algorithm than the entry's, is none", () => {
    const made = (prefix: number[], algorithm: "sha1" | "sha256") => {
      const value = new Uint8Array([...prefix, ...digestOf("n", algorithm)])
      const signature = sign("sha256", Buffer.concat([value, misc]), signer.privateKey)
      const head = [5, 2, 4, ...Buffer.from(signer.keyId, "hex"), 0, signature.length]
      const evmsig = new Uint8Array([...head, ...signature])
      const whole = { ...metadataFields({ attributes: [["security.ima", value]], ...owner }), evmsig }
      return file("/n", "n", {
        template: "evm-sig",
        algorithm,
        digest: digestOf("n", algorithm),
        fields: whole,
      })
    }
    expect(judged([made([4, 4], "sha256")], forMetadata)).toMatchObject(SIGNED)
    expect(judged([made([4, 5], "sha256")], forMetadata)).toMatchObject(UNSIGNED)
    expect(judged([made([1, 4], "sha256")], forMetadata)).toMatchObject(UNSIGNED)
    expect(judged([made([4, 2], "sha1")], forMetadata).signed).toBe(0)
  })
})

const REFERENCE: Snapshot = {
  format: 2,
  cloud_type: null,
  tee_policy: null,
  tpm_policy: null,
  filehashes: [],
  taken_at: null,
  agent_version: null,
  host: null,
  hash_algorithm: "sha256",
  tee_reference: null,
  tpm_reference: null,
  ima_reference: {
    template: "ima-ng",
    boot_aggregate: `sha256:${Buffer.from(bootAggregate().digest).toString("hex")}`,
  },
  unreadable: [],
}
