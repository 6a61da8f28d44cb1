import { ParseError } from "../../errors.ts"
import { printable } from "../path-text.ts"

/**
 * The text of an IMA policy: a rule on each line, `action [condition=value]…`, `#` before a comment. The first rule that fits
 * decides. The kernel takes a policy whole or not at all, so one word that it does not know is an error here, too.
 * Source: Linux 6.12, security/integrity/ima/ima_policy.c (ima_parse_rule) and Documentation/ABI/testing/ima_policy.
 */

const ACTIONS = [
  "measure",
  "dont_measure",
  "appraise",
  "dont_appraise",
  "audit",
  "dont_audit",
  "hash",
  "dont_hash",
] as const
export type ImaAction = (typeof ACTIONS)[number]

/** Where in the kernel a rule is asked. */
export const IMA_HOOKS = [
  "FILE_CHECK",
  "MMAP_CHECK",
  "MMAP_CHECK_REQPROT",
  "BPRM_CHECK",
  "CREDS_CHECK",
  "MODULE_CHECK",
  "FIRMWARE_CHECK",
  "KEXEC_KERNEL_CHECK",
  "KEXEC_INITRAMFS_CHECK",
  "POLICY_CHECK",
  "KEXEC_CMDLINE",
  "KEY_CHECK",
  "CRITICAL_DATA",
  "SETXATTR_CHECK",
] as const
export type ImaHook = (typeof IMA_HOOKS)[number]

/** Names of earlier kernels. */
const OLD_HOOKS: Readonly<Record<string, ImaHook>> = { PATH_CHECK: "FILE_CHECK", FILE_MMAP: "MMAP_CHECK" }

export type ImaMask = "MAY_EXEC" | "MAY_WRITE" | "MAY_READ" | "MAY_APPEND"
const MASKS: readonly ImaMask[] = ["MAY_EXEC", "MAY_WRITE", "MAY_READ", "MAY_APPEND"]

/** What a rule may ask for besides hook and mask, each with the form of its value. */
const CONDITIONS: Readonly<Record<string, RegExp>> = {
  "fsmagic=": /^(?:0x)?[0-9a-fA-F]{1,16}$/,
  "fsname=": /^\S+$/,
  "fs_subtype=": /^\S+$/,
  "fsuuid=": /^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/,
  ...Object.fromEntries(
    ["uid", "euid", "gid", "egid", "fowner", "fgroup"].flatMap((name) =>
      ["=", "<", ">"].map((operator) => [`${name}${operator}`, /^[0-9]{1,10}$/]),
    ),
  ),
  ...Object.fromEntries(
    ["obj_user", "obj_role", "obj_type", "subj_user", "subj_role", "subj_type"].map((name) => [
      `${name}=`,
      /^\S+$/,
    ]),
  ),
  "keyrings=": /^[^\s|]+(?:\|[^\s|]+)*$/,
  "label=": /^[^\s|]+(?:\|[^\s|]+)*$/,
}

/** What a rule may say besides, which is no condition. */
const OPTIONS: Readonly<Record<string, RegExp>> = {
  "digest_type=": /^verity$/,
  "appraise_type=": /^(?:imasig|imasig\|modsig|sigv3)$/,
  "appraise_flag=": /^\S*$/,
  "appraise_algos=": /^\S+$/,
  "pcr=": /^(?:[0-9]|1[0-9]|2[0-3])$/,
  "template=": /^\S+$/,
}

export interface ImaRule {
  readonly action: ImaAction
  /** Null: every hook that is about a file. */
  readonly hook: ImaHook | null
  /** Access that is asked for: exactly this, or this among others. Null: any. */
  readonly mask: { readonly name: ImaMask; readonly among: boolean } | null
  /** Other conditions as they stand there, all of which have to fit: `fsmagic=0x9fa0`. */
  readonly conditions: readonly string[]
  /** Words that change how it is measured or appraised, and not when. */
  readonly options: readonly string[]
  /** Number of the line. */
  readonly line: number
}

/** Cap of a policy, in characters. */
export const MAX_IMA_POLICY = 1024 * 1024

/** @throws ParseError ERR_IMA_POLICY with the line, ERR_TOO_LARGE. @param name for messages. */
export function parseImaPolicy(text: string, name = "IMA policy"): ImaRule[] {
  if (text.length > MAX_IMA_POLICY)
    throw new ParseError("ERR_TOO_LARGE", { at: name, expected: `at most ${MAX_IMA_POLICY} characters` })
  return text.split("\n").flatMap((line, index) => {
    const words = line.split(/[ \t]+/).filter((word) => word !== "")
    if (words.length === 0 || words[0]?.startsWith("#")) return []
    return [parseRule(words, index + 1, `${name}, line ${index + 1}`)]
  })
}

function parseRule(words: readonly string[], line: number, at: string): ImaRule {
  const wrong = (expected: string, found: string) =>
    new ParseError("ERR_IMA_POLICY", {
      at,
      expected,
      found: printable(found.slice(0, 120)),
      hint: "the kernel refuses the whole policy because of one such line",
    })
  const seen = new Set<string>()
  const rule: { -readonly [K in "action" | "hook" | "mask"]: ImaRule[K] | null } = {
    action: null,
    hook: null,
    mask: null,
  }
  const conditions: string[] = []
  const options: string[] = []
  for (const word of words) {
    const key = /^[a-z_]+[=<>]?/.exec(word)?.[0] ?? ""
    const value = word.slice(key.length)
    if (seen.has(key)) throw wrong("each word once", word)
    seen.add(key)
    const action = ACTIONS.find((name) => name === word)
    if (action !== undefined) {
      if (rule.action !== null) throw wrong("one action", word)
      rule.action = action
    } else if (key === "func=")
      rule.hook = hookOf(value) ?? fail(wrong(`func= and one of ${IMA_HOOKS.join(", ")}`, word))
    else if (key === "mask=")
      rule.mask = maskOf(value) ?? fail(wrong(`mask= and one of ${MASKS.join(", ")}`, word))
    else if (CONDITIONS[key]?.test(value) === true) conditions.push(word)
    else if (OPTIONS[key]?.test(value) === true || word === "permit_directio") options.push(word)
    else throw wrong("an action or a condition of an IMA policy", word)
  }
  if (rule.action === null) throw wrong(`one of ${ACTIONS.join(", ")}`, words.join(" "))
  const parsed = { ...rule, action: rule.action, conditions, options, line }
  const misplaced = misplacedWord(parsed)
  if (misplaced !== null) throw wrong("words that the kernel takes together", misplaced)
  return parsed
}

/** Hooks that are about data, with the conditions that they take beside users and groups; null: those of files. */
const DATA_HOOKS: Readonly<Partial<Record<ImaHook, RegExp | null>>> = {
  KEXEC_CMDLINE: null,
  KEY_CHECK: /^(?:[ug]id[=<>]|keyrings=)/,
  CRITICAL_DATA: /^(?:[ug]id[=<>]|label=)/,
}

/**
 * The word of a rule that does not go with the others. Source: Linux 6.12, security/integrity/ima/ima_policy.c (ima_validate_rule,
 * and ima_parse_rule for templates).
 */
function misplacedWord({ action, hook, mask, conditions, options }: ImaRule): string | null {
  const taken = hook === null ? undefined : DATA_HOOKS[hook]
  if (taken !== undefined) {
    if (action !== "measure" && action !== "dont_measure") return action
    if (mask !== null) return `mask=${mask.name}`
  }
  const allowed = taken ?? /^(?!keyrings=|label=)/
  return (
    conditions.find((condition) => !allowed.test(condition)) ??
    options.find(
      (option) =>
        (/^(?:pcr|template)=/.test(option) && action !== "measure") ||
        (option.startsWith("appraise_") && action !== "appraise") ||
        (taken !== undefined && !/^(?:pcr|template)=/.test(option)),
    ) ??
    null
  )
}

function fail(error: Error): never {
  throw error
}

function hookOf(name: string): ImaHook | null {
  return IMA_HOOKS.find((hook) => hook === name) ?? OLD_HOOKS[name] ?? null
}

function maskOf(text: string): ImaRule["mask"] {
  const among = text.startsWith("^")
  const name = MASKS.find((mask) => mask === (among ? text.slice(1) : text))
  return name === undefined ? null : { name, among }
}
