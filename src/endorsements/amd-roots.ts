import { CodedError, UsageError } from "../errors.ts"
import { bytesEqual } from "../formats/hex.ts"
import { parsePem } from "../formats/pem.ts"
import { SNP_PRODUCTS, type SnpProduct } from "../formats/snp/tcb.ts"
import { parseCertificate } from "../formats/x509/certificate.ts"
import { verifyAuthorityItself } from "../verify/certificate-chain.ts"
import type { TrustAnchor } from "../verify/snp.ts"
import { decodePinnedKey, type PinnedKey } from "./pinned-key.ts"

/**
 * AMD's root keys (ARK). Source: the last certificate of
 * https://kdsintf.amd.com/vcek/v1/{Milan,Genoa,Turin}/cert_chain. To compare:
 * `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | sha256sum`.
 */
const ARK: Readonly<Record<SnpProduct, PinnedKey>> = {
  Milan: {
    fingerprint: "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    spki:
      "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEA0Ld52RJOdeiJlqK2JdsVmD7FktuotWwX1fNgW41XY9Xz1HEhSUmh" +
      "Lz9Cu9DHRlvgJSNxbeYYsnJfvyjx1MfU0V5tkKiU1EesNFta1kTA0szNisdYc9isqk7mXT5+KfGRbfc4V/9zRIcE8jlHN61S" +
      "1ju8X93+6dxDUrG2SzxqJ4BhqyYmUDruPXJSX4vUc01P7j98MpqOS95rORdGHeI52Naz5m2B+O+vjsC060d37jY9LFeuOP4M" +
      "eri8qgfi2S5kKqg/aF6aPtuAZQVR7u3KFYXP59XmJgtcog05gmI0T/OitLhuzVvpZcLph0odh/1IPXqx3+MnjD97A7fXpqGd" +
      "/y8KxX7jksTEzAOgbKAeam3lm+3yKIcTYMlsRMXPcjNbIvmsBykD//xSniusuHBkgnlENEWx1UcbQQrs+gVDkuVPhsnzIRNg" +
      "YvM48Y+7LGiJYnrmE8xcrexekBxrva2V9TJQqnN3Q53kt5viQi3+gCfmkwC0F0tirIZbLkXPrPwzZ0M9eNxhIySb2npJfgnq" +
      "z55I0u33wh4r0ZNQeTGfw03MBUtyuzGesGkcw+loqMaq1qR4tjGbPYxCvpCq7+OgpCCoMNit2uLo9M18fHz10lOMT8nWAUvR" +
      "ZFzteXCm+7PHdYPlmQwUw3LvenJ/ILXoQPHfbkH0CyPfhl1jWhJFZasCAwEAAQ",
  },
  Genoa: {
    fingerprint: "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    spki:
      "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEA3Cd95S/uFOuRIskW9vz9VDBF69NDQF79oRhL/L2PVQGhK3YdfEBg" +
      "pF/JiwWFBsT/fXDhzA01p3LkcT/7LdjcRfKXjHl+0Qq/M4dZkh6QDoUeKzNBLDcBKDDGWo3v35NyrxbA1DnkYwUKU5AAk4P9" +
      "4tKXLp80oxt84ahyHoLmc/LqsGsp+oq1Bz4PPsYLwTG4iMKVaaT90/oZ4I8oibSru92vJhlqWO27d/Rxc3iUMyhNeGToOvgx" +
      "/iUo4gGpG61NDpkEUvIzuKcaMx8IdTpWg2DF6SwF0IgVMffnvtJmA68BwJNWo1E4PLJdaPfBifcJpuBFwNVQIPQEVX3aP89H" +
      "JSp8YbY9lySS6PlVEqTBBtaQmi4ATGmMR+n2K/e+JAhU2Gj7jIpJhOkdH9firQDnmlA2SFfJ/Cc0mGNzW9RmIhyOUnNFoclm" +
      "kRhl3/AQU5Ys9Qsan1jT/EiyT+pCpmnA+y9edvhDCbOG8F2oxHGRdTBkylungrkXJGYiwGrR8kaiqv7NN8QhOBMqYjcbrkEr" +
      "0f8QMKklIS5ruOfqlLMCBw8JLB3LkjpWgtD7OpxkzSsohN47Uom86RY6lp72g8eXHP1qYrnvhzaG1S70vw6OkbaaC9EjiH/u" +
      "HgAJQGxon7u0Q7xgoREWA/e7JcBQwLg80Hq/sbRuqesxz7wBWSY254cCAwEAAQ",
  },
  Turin: {
    fingerprint: "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    spki:
      "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAwaAriB7EIuVc4ZB1wD3YfDxL+9eyS7+izm0Jj3W772NINCWl8Bj3" +
      "w/JD2ZjmbRxWdIq/4d9iarCKorXloJUB1jRdgxqccTx1aOoig4+2w1XhVVJT7K457wT5ZLNJgQaxqa9Etkwjd6+9sOhlCDE9" +
      "l43kQ0R2BikVJa/uyyVOSwEk5w5tXKOuG9jvq6QtAMJasW38wlqRDaKEGtZ9VUgGon27ZuL4sTJuC/azz9/iQBw8kEilzOl9" +
      "5AiTkeY5jSEBDWbAqnZk5qlM7kISKG20kgQm14mhNKDI2p2oua+zuAG7i52epoRF2GfU0TYk/yf+vCNB2tnechFQuP2e8bLk" +
      "95ZdqPi9/UWw4JXjtdEA4u2JYplSSUPQVAXKt6LVqujtJcM59JKr2u0XQ75KwxcMp15gSXhBfInvPAwuAY4dEwwGqT8oIg4e" +
      "sPHwEsmChhYeDIxPG9R4fx9O0q6p8Gb+HXlTiS47P9YNeOpidOUKzDl/S1OvyhDtSL8LJc24QATFydo/iD/KUdvFTRlD0crk" +
      "AMkZLoWQ8hLDGc6BZJXsdd7Zf2e4UW3tI/1oh/2t23Ot3zyhTcv5gDbABu0LjVe98uRnS15SMwK//lJt9e5BqKvgABkSoABf" +
      "+B4VFtPVEX0ygrYaFaI9i5ABrxnVBmzXpRb21iI1NlNCfOGUPIhVpWECAwEAAQ",
  },
}

/** The pinned roots of all products: what a verification rests on unless the user names another root. */
export const AMD_ANCHORS: readonly TrustAnchor[] = SNP_PRODUCTS.map((product) => ({
  product,
  name: `ARK-${product}`,
  spki: decodePinnedKey(`ARK-${product}`, ARK[product]),
  simulated: false,
}))

/**
 * The anchor of `--trust-root FILE`: one self-signed certificate in PEM, named `ARK-<product>` or `<word> ARK-<product>`.
 * Whatever it says, what rests on it counts as simulated, unless its key is AMD's own.
 * @throws UsageError ERR_TRUST_ROOT
 */
export function trustAnchorFromPem(pem: string): TrustAnchor {
  try {
    const certificates = parsePem(pem).filter(({ label }) => label === "CERTIFICATE")
    const [only] = certificates
    if (only === undefined || certificates.length !== 1)
      throw refused("one PEM certificate", `${certificates.length}`)
    const root = parseCertificate(only.der)
    const { commonName } = root.subject
    const product = SNP_PRODUCTS.find(
      (name) => commonName === `ARK-${name}` || commonName?.endsWith(` ARK-${name}`),
    )
    if (commonName === null || product === undefined)
      throw refused(`a name ending in ARK- and one of ${SNP_PRODUCTS.join(", ")}`, JSON.stringify(commonName))
    verifyAuthorityItself(root)
    const genuine = AMD_ANCHORS.find(({ spki }) => bytesEqual(spki, root.spki))
    return genuine ?? { product, name: commonName, spki: root.spki, simulated: true }
  } catch (cause) {
    if (cause instanceof UsageError || !(cause instanceof CodedError)) throw cause
    throw refused("the certificate of an ARK", cause.message, cause)
  }
}

function refused(expected: string, found: string, cause?: unknown): UsageError {
  return new UsageError("ERR_TRUST_ROOT", {
    at: "trust root",
    expected,
    found,
    hint: "a simulated TEE writes its root to trust-root.pem in its directory",
    ...(cause === undefined ? {} : { cause }),
  })
}
