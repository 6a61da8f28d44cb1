import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import "../../../test/setup.ts"
import { CodedError } from "../../errors.ts"
import { parseImaPolicy } from "./policy.ts"

describe("text of an IMA policy", () => {
  test("rules with their conditions, comments and empty lines", () => {
    const rules = parseImaPolicy(
      "# mine\n\nmeasure func=FILE_CHECK mask=^MAY_READ euid=0\n\tdont_measure  fsmagic=0x9fa0\nmeasure func=FILE_MMAP pcr=11 template=ima-sig\n",
    )
    expect(rules).toEqual([
      {
        action: "measure",
        hook: "FILE_CHECK",
        mask: { name: "MAY_READ", among: true },
        conditions: ["euid=0"],
        options: [],
        line: 3,
      },
      {
        action: "dont_measure",
        hook: null,
        mask: null,
        conditions: ["fsmagic=0x9fa0"],
        options: [],
        line: 4,
      },
      {
        action: "measure",
        hook: "MMAP_CHECK",
        mask: null,
        conditions: [],
        options: ["pcr=11", "template=ima-sig"],
        line: 5,
      },
    ])
  })

  test.each([
    ["no action", "func=BPRM_CHECK"],
    ["two actions", "measure dont_measure"],
    ["a hook that does not exist", "measure func=EXEC_CHECK"],
    ["a hook in small letters", "measure func=bprm_check"],
    ["a mask that does not exist", "measure mask=MAY_RUN"],
    ["a condition twice", "measure uid=0 uid=1"],
    ["a word that is not known", "measure everything"],
    ["a user by name", "measure uid=root"],
    ["a file system by name where its number belongs", "measure fsmagic=tmpfs"],
    ["a comment behind a rule", "measure func=BPRM_CHECK # programs"],
    ["keyrings of what is no key", "measure func=BPRM_CHECK keyrings=.ima"],
    ["a label of any file", "measure label=selinux"],
    ["a mask of data", "measure func=KEXEC_CMDLINE mask=MAY_READ"],
    ["a file system of critical data", "dont_measure func=CRITICAL_DATA fsmagic=0x9fa0"],
    ["keyrings of critical data", "measure func=CRITICAL_DATA keyrings=.ima"],
    ["an effective user of a key", "measure func=KEY_CHECK euid=0"],
    ["data that are appraised", "appraise func=KEY_CHECK"],
    ["a digest of fs-verity of data", "measure func=KEXEC_CMDLINE digest_type=verity"],
    ["a PCR of what is not measured", "dont_measure func=BPRM_CHECK pcr=11"],
    ["a template of what is not measured", "dont_measure template=ima-sig"],
    ["a signature of what is not appraised", "measure func=BPRM_CHECK appraise_type=imasig"],
  ])("%s is an error that names the line", (_, line) => {
    expect(() => parseImaPolicy(`measure func=BPRM_CHECK\n${line}\n`)).toThrowCode("ERR_IMA_POLICY")
    expect(() => parseImaPolicy(`measure func=BPRM_CHECK\n${line}\n`, "p")).toThrow("p, line 2")
  })

  test("what the kernel takes together is none", () => {
    for (const line of [
      "measure func=KEY_CHECK uid=0 keyrings=.ima|.evm pcr=10",
      "measure func=CRITICAL_DATA gid>10 label=selinux template=ima-buf",
      "measure func=KEXEC_CMDLINE fsmagic=0x9fa0 uid=0 obj_type=bin_t",
      "dont_measure func=KEXEC_CMDLINE",
      "appraise func=MODULE_CHECK appraise_type=imasig|modsig",
      "measure func=BPRM_CHECK digest_type=verity",
    ])
      expect(parseImaPolicy(line)).toHaveLength(1)
  })

  test("more than a policy can be is refused", () => {
    expect(() => parseImaPolicy("#".repeat(1024 * 1024 + 1))).toThrowCode("ERR_TOO_LARGE")
  })

  test("whatever the text, only coded errors escape", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 100 }), (text) => {
        try {
          parseImaPolicy(text)
        } catch (error) {
          expect(error).toBeInstanceOf(CodedError)
        }
      }),
    )
  })
})
