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

/** `security.ima` of version 2, or of version 3 for fs-verity, by a key made for the test. */
export function signFile(
  signer: { readonly privateKey: KeyObject; readonly keyId: string },
  content: string | Uint8Array,
  more: { readonly algorithm?: "sha256" | "sha384" | "sha512" | "sha1"; readonly verity?: boolean } = {},
): Uint8Array {
  const { algorithm = "sha256", verity = false } = more
  const number = { sha1: 2, sha256: 4, sha384: 5, sha512: 6 }[algorithm]
  const digest = createHash(algorithm).update(content).digest()
  const signed = verity ? Buffer.concat([Buffer.of(6, number), digest]) : Buffer.from(content)
  const signature = sign(algorithm, signed, signer.privateKey)
  return new Uint8Array([
    ...[verity ? 6 : 3, verity ? 3 : 2, number],
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
