import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import { parseImaKeys } from "../../src/verify/ima-signature.ts"

/**
 * Certificates and signatures over the line "hello" made with openssl 3.0 and evmctl 1.4 (`evmctl ima_sign --sigfile -a sha256
 * --key KEY FILE`); base64 of DER and of `security.ima`. The private keys are gone.
 */
export const EVMCTL_SAMPLES = {
  rsa: {
    certificate:
      "MIIC6jCCAdKgAwIBAgIUQb2wwT8iormeZOVorbOAPzBl9EwwDQYJKoZIhvcNAQELBQAwEDEOMAwGA1UEAwwFZmlsZXMwHhcNMjYxMTIyMjM0NzM1WhcNMzYxMTE5MjM0NzM1WjAQMQ4wDAYDVQQDDAVmaWxlczCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBAL79a6iut5iIMnjo1AR9/LLoJg3ZXrj4GHOBPT4kSeAc3eMHatmiCWylyeHPiSILe3e2qsAi1V6jFK0aS2W1hfxfwOsS21BoXFmqR4MkpM0MrvfvBn7jTUS1ti/NuvyRwAnHAI9ybb3cj9Rn47+GSZyraC7On82pQoVVFQw5cLn8j9DQNoKg+7BgKt6G9s3jGr6Jt0M2e0o62xcaKHoNZP/vIMU0NpUDxrO9upkIA0Q5RTiEL3jIV98m74vq6/bSpQllYQVtRXPMii1mfsS1MREmw5SGTVr1YRyNjAYSmFfcATxoDYt4MfSAxVbJgBQjsmKx3LiHYDu7pulwBnTAm+0CAwEAAaM8MDowDAYDVR0TAQH/BAIwADALBgNVHQ8EBAMCB4AwHQYDVR0OBBYEFJAwf6Gz0TjIpsvwRaK13S71zxIhMA0GCSqGSIb3DQEBCwUAA4IBAQBulCzd8yo+4LD05YOn+rn2NHnANDF6x/clpJF36xmBbLLRGjsmpPSVyX6vIB6P2VTUGEWSzWlFJJXOhSCmEUcJ1JjEVc9f6oei2VMB8X5jbKHtVuhg1cKI32SNYGmIBbYsztknqjR5rFAY9czCY+vcX8Cgm1PKumcvasNd7Hly/259AeH+tb54szn+Hl40RZx9VdlGupwPRnhHAkIprlMrfzLqoqJH7/Yijxc+OzG1IhOqqGj2SBKnNYxEEx/njcF9ZY7ZMj49Gg023/kYovpajKfP/ygqDp++8zQ5QiLhNuC0/UVuIzkVoIRfKctc3WrUuEOaojiWyV9vIWnU40iN",
    sha256:
      "AwIE9c8SIQEASbfd1lDBZ5BbbrHYCvdOk0aq/hK/O5gn7QyK+rh13A4Zx8jSMVjTMurne0/Jj1Swa0w5C/THQGQzA9n6uAI2TjOYGTXlP2bLzvDpHmULNGddTZ2ZpirZg0JJ3kYwrWNw/VyvlXVvEQZ/SDaAKRrgbrdYhsfnorAxegf3xNFXH/FShde36iE2qu4tC1zW0DFeOzWz2SW8hhMTON9wk7nKoeLmqiycdNxW1skexekgnuHLQiWKLPnwBtC/9Rq+ot0azxxs+I67xsnWb8Pzf/xhE7M+NNDYyTF4FVuNvMdGP/b0TQqmEwg/EOqKGuNGoIijiuSdTOWCJY7AVB7PjzSH5w==",
  },
  p256: {
    certificate:
      "MIIBXjCCAQSgAwIBAgIUDaQgfwU9BJozW7uJo4PDC0JHa+8wCgYIKoZIzj0EAwIwEDEOMAwGA1UEAwwFZmlsZXMwHhcNMjYxMTIyMjM0NzM1WhcNMzYxMTE5MjM0NzM1WjAQMQ4wDAYDVQQDDAVmaWxlczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLLyIErb7jbJBGArcujXV9XIeycINbBRNu39iefmkOjUgNUFqpfHP2yhvL+qEPDZV2B2HCa1cAgSGzwaFHBSsFajPDA6MAwGA1UdEwEB/wQCMAAwCwYDVR0PBAQDAgeAMB0GA1UdDgQWBBS+Yp0zfV4GlP54PUBM2VKeaKEbmDAKBggqhkjOPQQDAgNIADBFAiEA47t/TmdEhw9jY0Qw/wCkTgn1POZvrpYVF3TFT4O86fgCIAgqknga/veL5lfK/2DT5E3kMtdWWsaRMo4okiJqKIPf",
    sha256:
      "AwIEaKEbmABHMEUCIQCTpZ2VlI3zJGFkxSgC31ppClXxVikM3CGbq6ZWM8J8lwIgETO046jPhPlS3EWAnw3Ye97yuJJni/cGqp/qOjhUgZg=",
    sha512:
      "AwIGaKEbmABGMEQCIBhDzPP3n6pWInXKi1vfPCfCszAt1w2FiPQNcJG2N1nrAiBURzV/qNOyXKtshYXNGaqoELRtfrOzOF6sRTmpCadEgw==",
  },
  p384: {
    certificate:
      "MIIBmzCCASGgAwIBAgIUJrJa9jPpFpbXa/O7h72oClgeAv4wCgYIKoZIzj0EAwIwEDEOMAwGA1UEAwwFZmlsZXMwHhcNMjYxMTIyMjM0NzM1WhcNMzYxMTE5MjM0NzM1WjAQMQ4wDAYDVQQDDAVmaWxlczB2MBAGByqGSM49AgEGBSuBBAAiA2IABHzq7K0VhcikewLm3Gtb+oATkk4qlFnJ0LoIdPYZE3fgANTOfMbnXPJEoMW0mdRfqxLWbKLVpjF19OY1UjDPp0UvraCasYg0G3Ri031t76HmHOH8Lsa+ezEYC3/sqCpEVaM8MDowDAYDVR0TAQH/BAIwADALBgNVHQ8EBAMCB4AwHQYDVR0OBBYEFIHPr+OqcO+D393TgDHy6vjHiHjUMAoGCCqGSM49BAMCA2gAMGUCMHm+geyQaMYp9ipAXhoOrWIDrA2t9nQrlTS0NNpfHTa7yDLeWpUqZGyKJWyJi+xEKwIxAL5mVfekgsF/YKU85mvv/FBdYjjg+DEDGxQZNGmNEGZKPU+eUhSMUN4YqTZTpYAtag==",
    sha256:
      "AwIEx4h41ABmMGQCMGtKaRZEFXSBH7xV1asuqdn1juoDiXu1gEVcnpBzapW1BzgkwOH+/xDR5/8MpahHbQIwUERyT2h57KBEUDAo+mhElQebYe7zIBYQpDqv+5qVOQTizmN1iiA3DZHRNoSNYqHr",
    sha512:
      "AwIGx4h41ABnMGUCMQDHmMjfsd0Dsx+iksDjoO8pO4XU6yJQALpI+do8dO5Cc/VINQfiDwEmuygPVkENB4MCMEIdNW7L23vto5KyKDXeCttcmNE3v20Fdd0CDsTm8h0Ptc/PlQU0V+OwThLlZPlbkg==",
  },
} as const

/**
 * Portable signatures of the line "hello" made with evmctl 1.4 (`evmctl sign --portable --imahash -a ALGORITHM --key KEY FILE`):
 * the attributes as they were on the disk, in the kernel's order, base64. The private keys are gone.
 */
export const EVMCTL_PORTABLE = {
  bare: {
    spki: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0GiZmEf76cA0t6g0mSg4Ih7OLt4u0d2VhA39zq2GnXJ5gdUIWHhbJXY6uUbfdL4RmYwqOXGoIT94oLxBaibUcQ==",
    algorithm: "sha256",
    evm: "BQIEIjf2LQBHMEUCICRROrFEsLiSgFx9VzD5Hzh9wZROfVxjX4UJKvjQ2Hl8AiEA/IIbv9J0xJDYP3BANy4GYsvNXg8hzuyj/PVg3lZrjpg=",
    attributes: [["security.ima", "BARYkbW1ItXfCG0P8LEQ+9nSG7T8cWOvNNCChqLoRva+Aw=="]],
    uid: 0,
    gid: 0,
    mode: 0o100755,
  },
  labelled: {
    spki: "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlxvw4Ouvb/tjn5KKqQ4gfhfDPxM5XSsNeFt/iNwcBABkUoANUMSqnjExaywQgb+/2wv8swm2B4Z099gWczpj6BsFDp3Y4xx6AxbktvfvGC9VoBDcoNjFgm3q0XVqlwdkxnnhkMRZ0Fc9FqMuKGa8KCNkzV4x6K0fYdnrPLuprSO6SPaoHosBKdpFuaZXgjdefYTih5VQxl1rCXC9bsWPg1hhUATupbaSDNdDKquX2PSXcYUQZ14J2vIqGyxSg7pmguybLMR6fYFkHdE4qbblOCb8LZwVsknZUbT73Krk31KQYFBbotQ2ziH3HqM6ZOyswSerYHBc2WMjmpHx/jgHmQIDAQAB",
    algorithm: "sha512",
    evm: "BQIGX2F9pwEAA4akwpnk64RCtllPo0H3j1o4T0wo9uBWstEkdIpWXzg09EnimbRBU+N0JHmOBYF3Jio2eOcV0hqUVR1DUZQnAZLIGFEfftwoPRnierFnxfFTQgnwAJxZz826jyiTQC3vCUAwEftLDlL8HXKSuMgAxHYRVZLTWQeQ6+vagVvMfuBZbpag9mOtx6MuLAXLtxtiz0O8M3Rz7u6pbIffp8cUV4rY45MGED2n+C0tNWy6/+1BYR6Fl0ONu4wEKJGS/Tu5doWr28xyhiwVIiQRb45hTPZnxEw1R2NOwOfAAFIgfenfw8kR+ZvpOJGCAtbcW9Q7fRnAY/09AaVmVV7Js5hgNw==",
    attributes: [
      ["security.selinux", "c3lzdGVtX3U6b2JqZWN0X3I6YmluX3Q6czAA"],
      [
        "security.ima",
        "BAbnwiuZTFnZzytI5Umx4kZmY2BFkw09p8GsspnRw7f5MflKrkHt2iwrIHo24Q+Ly41FIj5Uh49bMW5847a8AZYp",
      ],
      ["security.capability", "AQAAAgAEAAAAAAAAAAAAAAAAAAA="],
    ],
    uid: 1000,
    gid: 33,
    mode: 0o104750,
  },
} as const

/** Attributes, owner and mode as fields of template evm-sig. */
export function metadataFields(metadata: {
  readonly attributes: readonly (readonly [name: string, value: Uint8Array])[]
  readonly uid: number
  readonly gid: number
  readonly mode: number
}) {
  const number = (value: number, size: 2 | 4) => {
    const out = Buffer.alloc(size)
    out.writeUIntLE(value, 0, size)
    return new Uint8Array(out)
  }
  const { attributes, uid, gid, mode } = metadata
  return {
    xattrnames: new Uint8Array(Buffer.from(`${attributes.map(([name]) => name).join("|")}\0`)),
    xattrlengths: new Uint8Array(Buffer.concat(attributes.map(([, value]) => number(value.length, 4)))),
    xattrvalues: new Uint8Array(Buffer.concat(attributes.map(([, value]) => value))),
    iuid: number(uid, 4),
    igid: number(gid, 4),
    imode: number(mode, 2),
  }
}

/** `security.ima` of version 2, or of version 3 (always for fs-verity), by a key made for the test. */
export function signFile(
  signer: { readonly privateKey: KeyObject; readonly keyId: string },
  content: string | Uint8Array,
  more: {
    readonly algorithm?: "sha256" | "sha384" | "sha512" | "sha1"
    readonly verity?: boolean
    readonly version?: 2 | 3
  } = {},
): Uint8Array {
  const { algorithm = "sha256", verity = false } = more
  const { version = verity ? 3 : 2 } = more
  const number = { sha1: 2, sha256: 4, sha384: 5, sha512: 6 }[algorithm]
  const digest = createHash(algorithm).update(content).digest()
  const kind = verity ? 6 : 3
  const signed = version === 3 ? Buffer.concat([Buffer.of(kind, number), digest]) : Buffer.from(content)
  const signature = sign(algorithm, signed, signer.privateKey)
  return new Uint8Array([
    ...[kind, version, number],
    ...Buffer.from(signer.keyId, "hex"),
    ...[signature.length >> 8, signature.length & 0xff],
    ...signature,
  ])
}

/** A key that signs files, and its public half as `--ima-key` takes it. */
export function fileSigner(kind: "rsa" | "P-256" | "P-384" | "P-521") {
  const { privateKey, publicKey } =
    kind === "rsa"
      ? generateKeyPairSync("rsa", { modulusLength: 2048 })
      : generateKeyPairSync("ec", { namedCurve: kind })
  const spki = new Uint8Array(publicKey.export({ type: "spki", format: "der" }))
  const keys = parseImaKeys(spki)
  return { privateKey, spki, keys, keyId: keys[0]?.keyIds[0] ?? "" }
}
