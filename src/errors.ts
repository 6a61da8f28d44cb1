/** Error codes and classes. Codes and exit codes are public: they are added to, never changed. */

/** Exit codes of the executable. One per failure class; see docs/exit-codes.md. */
export const EXIT = {
  ok: 0,
  operational: 1,
  usage: 2,
  channel: 10,
  tee: 11,
  tcb: 12,
  binding: 13,
  tpm: 14,
  boot: 15,
  ima: 16,
  reboot: 17,
  application: 18,
  volume: 19,
} as const

/** What a failure says about the VM (or `operational`/`usage`: it says nothing about the VM). */
export type FailureClass = Exclude<keyof typeof EXIT, "ok">

interface CatalogueEntry {
  readonly title: string
  readonly exit: FailureClass
}

/** Every error code, with its title and its failure class. */
export const CATALOGUE = {
  // Command line, configuration, operation
  ERR_INTERNAL: { title: "internal error", exit: "operational" },
  ERR_IO: { title: "a file or device could not be read or written", exit: "operational" },

  // Command line
  ERR_UNKNOWN_COMMAND: { title: "there is no such command", exit: "usage" },
  ERR_MISSING_COMMAND: { title: "a command is missing", exit: "usage" },
  ERR_UNKNOWN_OPTION: { title: "there is no such option here", exit: "usage" },
  ERR_OPTION_REPEATED: { title: "the option is given more than once", exit: "usage" },
  ERR_MISSING_VALUE: { title: "the option needs a value", exit: "usage" },
  ERR_MISSING_ARGUMENT: { title: "something required is missing", exit: "usage" },
  ERR_UNEXPECTED_ARGUMENT: { title: "there is one argument too many", exit: "usage" },
  ERR_BAD_VALUE: { title: "the value is not accepted", exit: "usage" },
  ERR_INTERRUPTED: { title: "interrupted before the end", exit: "operational" },

  // Client
  ERR_CONNECT: { title: "no connection came about", exit: "operational" },
  ERR_CONNECTION_LOST: { title: "the connection ended too early", exit: "operational" },
  ERR_TIMEOUT: { title: "no answer in time", exit: "operational" },
  ERR_AGENT_REFUSED: { title: "the agent refused the request", exit: "operational" },
  ERR_CHANNEL_KEY_CHANGED: {
    title: "the server's TLS key changed during the verification",
    exit: "channel",
  },

  // Structure of bytes
  ERR_TRUNCATED: { title: "the data ends too early", exit: "operational" },
  ERR_TRAILING_BYTES: { title: "bytes follow after the end of the structure", exit: "operational" },
  ERR_RESERVED_NOT_ZERO: { title: "reserved bytes are not zero", exit: "operational" },
  ERR_MALFORMED: { title: "the data does not have the expected form", exit: "operational" },
  ERR_UNSUPPORTED: { title: "the data is of a kind or version that is not supported", exit: "operational" },
  ERR_TOO_LARGE: { title: "a size or count is over its limit", exit: "operational" },

  // Verdict: checks that could not be made, channel, binding, applications
  ERR_NOT_JUDGED: { title: "the check rests on another that did not pass", exit: "operational" },
  ERR_CHANNEL_UNTRUSTED: {
    title: "no certificate authority vouches for the TLS certificate",
    exit: "channel",
  },
  ERR_TEE_ABSENT: { title: "the evidence holds no TEE report", exit: "tee" },
  ERR_BINDING_REPORT_DATA: { title: "the TEE report was not made for this connection", exit: "binding" },
  ERR_TPM_ABSENT: { title: "the evidence holds no TPM quote", exit: "tpm" },
  ERR_IMA_ABSENT: { title: "the evidence holds no IMA measurement list", exit: "ima" },
  ERR_APPLICATION_KEY: { title: "the application presents another TLS key", exit: "application" },
  ERR_APPLICATION_UNREACHABLE: { title: "the application does not answer", exit: "application" },

  // Agent: configuration, requests, snapshot, application
  ERR_CONFIG: { title: "the configuration is not understood", exit: "usage" },
  ERR_IDENTITY: { title: "the agent's TLS certificate and key cannot be used", exit: "operational" },
  ERR_PORT_IN_USE: { title: "the address is in use", exit: "operational" },
  ERR_REQUEST: { title: "the request is not understood", exit: "operational" },
  ERR_NOT_FOUND: { title: "there is no such route", exit: "operational" },
  ERR_UNAUTHORIZED: { title: "the request needs a valid token", exit: "operational" },
  ERR_OWNER_SIGNATURE: { title: "the request is not signed by an owner", exit: "operational" },
  ERR_OWNER_EXISTS: { title: "the VM cannot be claimed", exit: "operational" },
  ERR_BOOTSTRAP: { title: "the application cannot be given these values now", exit: "operational" },
  ERR_SEALED: { title: "the sealed content cannot be opened", exit: "operational" },
  ERR_WRITES_DISABLED: { title: "the agent accepts no writes", exit: "operational" },
  ERR_CROSS_ORIGIN: { title: "requests from a web page are refused", exit: "operational" },
  ERR_BUSY: { title: "too many requests are waiting", exit: "operational" },
  ERR_CLIENT_GONE: { title: "the client closed the connection", exit: "operational" },
  ERR_NO_TEE: { title: "this machine has no TEE that the agent can use", exit: "operational" },
  ERR_NO_TPM: { title: "this machine has no TPM that the agent can use", exit: "operational" },
  ERR_NO_IMA: { title: "this machine has no IMA measurement list", exit: "operational" },
  ERR_SNAPSHOT_RUNNING: { title: "a snapshot is being taken", exit: "operational" },
  ERR_SNAPSHOT_CANCELLED: { title: "the snapshot was cancelled", exit: "operational" },
  ERR_NO_APPLICATION: { title: "no application is configured", exit: "operational" },
  ERR_APPLICATION_BUSY: { title: "the application is being changed", exit: "operational" },
  ERR_APPLICATION_STORAGE: {
    title: "the application's storage is not safe to write to",
    exit: "operational",
  },
  ERR_SERVICE: { title: "the application's service did not do what it was told", exit: "operational" },

  // TPM: structures, quotes, appraisal
  ERR_TPM_MAGIC: { title: "the structure was not made inside a TPM", exit: "tpm" },
  ERR_TPM_ATTEST_TYPE: { title: "the TPM's statement is not a quote", exit: "tpm" },
  ERR_TPM_AK_ATTRIBUTES: {
    title: "the attestation key may sign what did not come from its TPM",
    exit: "tpm",
  },
  ERR_TPM_AK_KEY: { title: "the attestation key is not usable", exit: "tpm" },
  ERR_TPM_SCHEME: { title: "the signature is of another scheme than the attestation key's", exit: "tpm" },
  ERR_TPM_SIGNATURE: { title: "the quote's signature does not verify", exit: "tpm" },
  ERR_TPM_QUALIFYING_DATA: { title: "the quote was not made for this verification", exit: "tpm" },
  ERR_TPM_PCR_SELECTION: { title: "the quote covers other PCRs than asked for", exit: "tpm" },
  ERR_TPM_PCR_DIGEST: { title: "the PCR values are not those that the TPM signed", exit: "tpm" },
  ERR_TPM_AK_UNPROVEN: { title: "nothing proves that the attestation key is held by a TPM", exit: "tpm" },
  ERR_TPM_AK_CERTIFICATE: { title: "the certificate is not that of the attestation key", exit: "tpm" },
  ERR_NITRO_SIGNATURE: { title: "the NitroTPM document's signature does not verify", exit: "tpm" },
  ERR_NITRO_ABSENT: { title: "the VM shows no NitroTPM document, and had one at the snapshot", exit: "tpm" },
  ERR_NITRO_INSTANCE: {
    title: "the NitroTPM document is of another instance than the snapshot",
    exit: "tpm",
  },
  ERR_NITRO_PCR: { title: "AWS signed other values of PCRs", exit: "boot" },
  ERR_NITRO_NONCE: { title: "the NitroTPM document was not made for this request", exit: "tpm" },
  ERR_TPM_EK_KEY: { title: "the endorsement key is of a kind that no template is for", exit: "tpm" },
  ERR_TPM_NO_EK: { title: "the TPM does not have this endorsement key", exit: "operational" },
  ERR_TPM_EK_OTHER: { title: "the TPM is not the one of the endorsement key that was given", exit: "tpm" },
  ERR_TPM_CREDENTIAL: {
    title: "the attestation key is not in the TPM of the endorsement key",
    exit: "tpm",
  },
  ERR_TPM_CA: { title: "the directory holds no usable root certificate of a TPM's maker", exit: "usage" },
  ERR_TPM_AK_CHANGED: { title: "the quote is by another TPM key than the snapshot's", exit: "tpm" },
  ERR_TPM_INCOMPLETE: { title: "a part of the TPM's evidence is missing", exit: "tpm" },
  ERR_TPM_ROLLED_BACK: { title: "the TPM's boot counter is lower than the snapshot's", exit: "tpm" },
  ERR_TPM_CLOCK_UNSAFE: { title: "the TPM was not shut down in order before this boot", exit: "reboot" },
  ERR_TPM_REFERENCE_ABSENT: { title: "the snapshot holds no reference values for this check", exit: "tpm" },
  ERR_REBOOTED: { title: "the machine was rebooted since the snapshot", exit: "reboot" },
  ERR_RESUMED: { title: "the machine was suspended since the snapshot", exit: "reboot" },
  ERR_BOOT_PCR: { title: "a PCR differs from the snapshot's", exit: "boot" },
  ERR_BOOT_NOT_MEASURED: { title: "the firmware measured nothing into the TPM", exit: "boot" },

  // Devices: TPM, libraries, workers, simulated machine
  ERR_TPM_TCTI: { title: "the TPM's address is not understood", exit: "usage" },
  ERR_TPM_LIBRARY: { title: "the TPM library is not installed", exit: "operational" },
  ERR_TPM_DEVICE: { title: "the TPM does not answer", exit: "operational" },
  ERR_TPM_COMMAND: { title: "the TPM refused a command", exit: "operational" },
  ERR_TPM_RESPONSE: { title: "the TPM's response is malformed", exit: "operational" },
  ERR_TPM_HANDLE_TAKEN: { title: "a TPM handle is taken by a key of another kind", exit: "operational" },
  ERR_TPM_PCR_MOVING: { title: "the PCRs change faster than they can be quoted", exit: "operational" },
  ERR_DEVICE_TIMEOUT: { title: "a device does not answer in time", exit: "operational" },
  ERR_DEVICE_BUSY: { title: "too many requests wait for a device", exit: "operational" },
  ERR_SIMULATOR_START: { title: "the simulated machine does not start", exit: "operational" },
  ERR_SIMULATOR_BUSY: { title: "the simulated machine is running already", exit: "operational" },
  ERR_SIMULATOR_OFF: { title: "the simulated machine is not running", exit: "operational" },

  // IMA measurement list, snapshot, whitelist
  ERR_DUPLICATE_KEY: { title: "an object names a member twice", exit: "operational" },
  ERR_SNAPSHOT_FORMAT: {
    title: "the snapshot is of a format version that is not supported",
    exit: "operational",
  },
  ERR_SNAPSHOT_MERGE: {
    title: "the snapshots are not of one VM in one state of its boot",
    exit: "operational",
  },
  ERR_SNAPSHOT_SIGNATURE: { title: "the snapshot's signature does not verify", exit: "operational" },
  ERR_SIGNING_KEY: { title: "the file is not a key for snapshot signatures", exit: "usage" },
  ERR_COMPRESSION: { title: "the compressed data is damaged", exit: "operational" },
  ERR_WHITELIST_LINE: { title: "a line of the whitelist is not understood", exit: "usage" },
  ERR_IMA_TEMPLATE: { title: "the measurement list has a template that is not supported", exit: "ima" },
  ERR_IMA_ALGORITHM: { title: "a file digest is of an algorithm that is not accepted", exit: "ima" },
  ERR_IMA_PCR: { title: "a measurement list entry belongs to another PCR", exit: "ima" },
  ERR_IMA_TEMPLATE_DIGEST: { title: "an entry's template digest is not that of its data", exit: "ima" },
  ERR_IMA_REPLAY: { title: "no prefix of the measurement list gives the quoted PCR 10", exit: "ima" },
  ERR_IMA_COVERAGE: { title: "the kernel does not measure what it has to, or nobody knows", exit: "ima" },
  ERR_IMA_POLICY: { title: "the IMA policy is not understood", exit: "usage" },
  ERR_IMA_OFF: { title: "the kernel measures no files", exit: "ima" },
  ERR_IMA_BOOT_AGGREGATE: { title: "boot_aggregate is not the expected one", exit: "ima" },
  ERR_IMA_REFERENCE: { title: "the snapshot holds no reference for the measurement list", exit: "ima" },
  ERR_IMA_TEMPLATE_CHANGED: {
    title: "the measurement list has another template than the snapshot's",
    exit: "ima",
  },
  ERR_IMA_UNKNOWN_FILE: { title: "a file ran that is not in the snapshot", exit: "ima" },
  ERR_IMA_CHANGED_FILE: { title: "a file ran with other content than in the snapshot", exit: "ima" },
  ERR_IMA_OLD_VERSION: { title: "a file ran in a version that an update replaced", exit: "ima" },
  ERR_IMA_NO_DIGEST: { title: "a file ran whose content the kernel could not hash", exit: "ima" },
  ERR_IMA_VIOLATION: { title: "a file was written while it was measured or in use", exit: "ima" },
  ERR_IMA_SIGNATURE: { title: "a file's signature does not verify", exit: "ima" },
  ERR_IMA_SIGNATURE_KEY: { title: "a file is signed by a key that was not given", exit: "ima" },
  ERR_IMA_KEY: { title: "the file holds no key that file signatures can be checked with", exit: "usage" },

  // Packages that a snapshot is updated with
  ERR_PACKAGE_UNAUTHENTICATED: { title: "nothing vouches for the package", exit: "operational" },
  ERR_PACKAGE_SIGNATURE: { title: "the OpenPGP signature does not verify", exit: "operational" },
  ERR_PACKAGE_KEY: { title: "no given OpenPGP key made the signature", exit: "operational" },
  ERR_PACKAGE_DIGEST: { title: "the package is not one of those that are vouched for", exit: "operational" },
  ERR_PACKAGE_ALGORITHM: {
    title: "the package's file digests are of another algorithm than the snapshot's",
    exit: "operational",
  },
  ERR_PACKAGE_DOWNGRADE: { title: "the package is older than the one in the snapshot", exit: "operational" },
  ERR_REPOSITORY_INDEX: {
    title: "the list of packages is not one that the Release file names",
    exit: "operational",
  },
  ERR_REPOSITORY_EXPIRED: { title: "the Release file does not hold any more", exit: "operational" },
  ERR_REPOSITORY_NOT_YET_VALID: { title: "the Release file is not valid yet", exit: "operational" },
  ERR_PROGRAM_ABSENT: { title: "a program that is needed is not installed", exit: "operational" },

  // SEV-SNP: certificates, report, appraisal
  ERR_CERT_EXPIRED: { title: "the certificate has expired", exit: "tee" },
  ERR_CERT_NOT_YET_VALID: { title: "the certificate is not valid yet", exit: "tee" },
  ERR_CERT_NAME: { title: "the certificate's names do not fit its place in the chain", exit: "tee" },
  ERR_CERT_SIGNATURE: { title: "the certificate's signature does not verify", exit: "tee" },
  ERR_CERT_ALGORITHM: { title: "the certificate's key or signature is of another kind", exit: "tee" },
  ERR_CERT_NOT_CA: { title: "the certificate may not sign certificates", exit: "tee" },
  ERR_CERT_IS_CA: {
    title: "a certificate authority stands where a device's certificate belongs",
    exit: "tee",
  },
  ERR_CERT_PATH_LENGTH: { title: "the certificate chain is longer than its authority allows", exit: "tee" },
  ERR_CERT_KEY_USAGE: { title: "the certificate's key may not be used for this", exit: "tee" },
  ERR_CERT_EXTENSION: { title: "a critical certificate extension is not understood", exit: "tee" },
  ERR_CERT_UNTRUSTED: { title: "the certificate chain does not end at a trusted root key", exit: "tee" },
  ERR_SNP_ENDORSEMENT_MISSING: { title: "a certificate that vouches for the report is missing", exit: "tee" },
  ERR_SNP_NOT_SIGNED: { title: "the report is not signed", exit: "tee" },
  ERR_SNP_SIGNING_KEY: { title: "the report names another kind of signing key", exit: "tee" },
  ERR_SNP_SIGNATURE: { title: "the report's signature does not verify", exit: "tee" },
  ERR_SNP_PRODUCT: { title: "report and certificates belong to different processor families", exit: "tee" },
  ERR_SNP_CHIP_ID: { title: "the report comes from another chip than its certificate", exit: "tee" },
  ERR_SNP_CERTIFICATE_TCB: { title: "the certificate is for another TCB than the report's", exit: "tee" },
  ERR_TRUST_ROOT: { title: "the file is not a root certificate of a known kind", exit: "usage" },
  ERR_TEE_REFERENCE: { title: "the snapshot holds no value to compare with", exit: "tee" },
  ERR_TEE_DEBUG: { title: "the host may debug the VM", exit: "tee" },
  ERR_TEE_MIGRATION: { title: "a migration agent may move the VM", exit: "tee" },
  ERR_TEE_VMPL: { title: "the report was asked for at another privilege level", exit: "tee" },
  ERR_TEE_POLICY: { title: "the guest policy differs", exit: "tee" },
  ERR_TEE_PLATFORM: { title: "the platform is protected less", exit: "tee" },
  ERR_TEE_PRODUCT: { title: "the processor family differs", exit: "tee" },
  ERR_TEE_MEASUREMENT: { title: "the launch measurement differs", exit: "tee" },
  ERR_TEE_HOST_DATA: { title: "the host data differs", exit: "tee" },
  ERR_TEE_ID_KEY: { title: "the launch was signed by another ID key", exit: "tee" },
  ERR_TEE_AUTHOR_KEY: { title: "the launch was signed by another author key", exit: "tee" },
  ERR_TEE_IMAGE: { title: "the guest's family or image identifier differs", exit: "tee" },
  ERR_TEE_GUEST_SVN: { title: "the guest's security version is lower", exit: "tee" },
  ERR_TCB_BELOW: { title: "a TCB component is below the reference", exit: "tcb" },
  ERR_TCB_REFERENCE: { title: "the snapshot holds no TCB to compare with", exit: "tcb" },

  // Revocation lists
  ERR_CRL_ISSUER: { title: "the revocation list is another authority's", exit: "tee" },
  ERR_CRL_SIGNATURE: { title: "the revocation list's signature does not verify", exit: "tee" },
  ERR_CRL_ALGORITHM: { title: "the revocation list's key or signature is of another kind", exit: "tee" },
  ERR_CRL_EXTENSION: { title: "the revocation list is not complete, or not understood", exit: "tee" },
  ERR_CRL_EXPIRED: { title: "the revocation list has expired", exit: "tee" },
  ERR_CRL_NOT_YET_VALID: { title: "the revocation list is not valid yet", exit: "tee" },
  ERR_CERT_REVOKED: { title: "the certificate is revoked", exit: "tee" },
  ERR_REVOCATION_NOT_CHECKED: { title: "there is no revocation list to check against", exit: "tee" },

  // Intel TDX and SGX: quotes, collateral, event log, appraisal
  ERR_QUOTE_VENDOR: { title: "the quote is not by Intel's quoting enclave", exit: "tee" },
  ERR_QUOTE_SIGNATURE: { title: "the quote's signature does not verify", exit: "tee" },
  ERR_QE_REPORT_SIGNATURE: {
    title: "the quoting enclave's report is not signed by the platform's key",
    exit: "tee",
  },
  ERR_QE_BINDING: {
    title: "the quoting enclave does not vouch for the key that signed the quote",
    exit: "tee",
  },
  ERR_QE_IDENTITY: { title: "the quoting enclave is not the one that Intel names", exit: "tee" },
  ERR_PCK_MISSING: { title: "the quote does not hold the platform's certificate", exit: "tee" },
  ERR_INTEL_TRUST_ROOT: { title: "the file is not an Intel SGX root certificate", exit: "usage" },
  ERR_COLLATERAL_MISSING: { title: "a document of Intel's that the check needs is missing", exit: "tee" },
  ERR_COLLATERAL_SIGNATURE: { title: "the signature of a document of Intel's does not verify", exit: "tee" },
  ERR_COLLATERAL_EXPIRED: { title: "a document of Intel's has expired", exit: "tee" },
  ERR_COLLATERAL_NOT_YET_VALID: { title: "a document of Intel's is not valid yet", exit: "tee" },
  ERR_COLLATERAL_PLATFORM: { title: "a document of Intel's is for another kind of platform", exit: "tee" },
  ERR_TDX_MODULE: { title: "the TDX module is not one that Intel names", exit: "tee" },
  ERR_TCB_NO_LEVEL: { title: "the TCB is below every level that Intel names", exit: "tcb" },
  ERR_TCB_STATUS: { title: "the TCB status is not accepted", exit: "tcb" },
  ERR_TCB_NOT_EVALUATED: { title: "the TCB status is not known", exit: "tcb" },
  ERR_TCB_EVALUATION: { title: "the TCB was judged by documents that are too old", exit: "tcb" },
  ERR_TDX_ATTRIBUTES: { title: "the TD's attributes differ", exit: "tee" },
  ERR_TDX_XFAM: { title: "the TD may use other processor features", exit: "tee" },
  ERR_TDX_SEAM: { title: "the TDX module differs", exit: "tee" },
  ERR_TDX_CONFIGURATION: { title: "the TD's configuration or owner differs", exit: "tee" },
  ERR_TDX_RTMR: { title: "a runtime measurement register differs", exit: "tee" },
  ERR_SGX_SIGNER: { title: "the enclave is another signer's or another product", exit: "tee" },
  ERR_EVENT_DIGEST: { title: "an event's digest is not that of its data", exit: "boot" },
  ERR_EVENT_REGISTER: { title: "an event names a register that does not exist", exit: "boot" },
  ERR_EVENT_LOG_ABSENT: { title: "there is no event log that shows what is asked for", exit: "boot" },
  ERR_EVENT_LOG_REPLAY: { title: "the event log does not give the quoted PCRs", exit: "boot" },
  ERR_BOOT_SECURE_BOOT: { title: "Secure Boot is not shown to be on", exit: "boot" },
  ERR_BOOT_AUTHORITY: { title: "something was started that no allowed signer vouches for", exit: "boot" },
  ERR_BOOT_DB: { title: "the firmware accepts signers that are not allowed", exit: "boot" },
  ERR_BOOT_COMMAND_LINE: { title: "the kernel command line is not an allowed one", exit: "boot" },
  ERR_BOOT_COMMAND_LINE_UNKNOWN: { title: "the kernel command line is not known", exit: "boot" },
  ERR_RTMR_REPLAY: { title: "the event log does not give the measurement registers", exit: "boot" },

  // Azure: HCL report, runtime claims, metadata service
  ERR_HCL_SIGNATURE: { title: "the data is not an HCL report", exit: "tee" },
  ERR_HCL_REPORT_TYPE: { title: "the HCL report holds a hardware report of another type", exit: "tee" },
  ERR_AZURE_HARDWARE_REPORT: {
    title: "the verified hardware report is not the one of the HCL report",
    exit: "binding",
  },
  ERR_AZURE_RUNTIME_DATA: {
    title: "the hardware report does not vouch for the runtime claims",
    exit: "binding",
  },
  ERR_AZURE_USER_DATA: { title: "the runtime claims were not made for this verification", exit: "binding" },
  ERR_AZURE_AK: { title: "the attestation key is not the one of the runtime claims", exit: "binding" },
  ERR_AZURE_DEVICE: { title: "Azure's virtual TPM did not give an HCL report", exit: "operational" },
  ERR_IMDS: { title: "the metadata service did not answer as expected", exit: "operational" },

  // Attestation policies, expected launch measurement
  ERR_POLICY: { title: "the policy is not understood", exit: "usage" },
  ERR_POLICY_PLATFORM: { title: "the policy says nothing about this kind of evidence", exit: "tee" },
  ERR_POLICY_PCRS: { title: "the quote does not cover what the policy expects of the PCRs", exit: "boot" },
  ERR_TEE_REPORT_DATA: { title: "the report data differ", exit: "tee" },
  ERR_TEE_REPORT_ID: { title: "the report's identifier differs", exit: "tee" },
  ERR_TEE_CHIP: { title: "the processor is not one of those that the policy allows", exit: "tee" },
  ERR_TCB_FIRMWARE: { title: "the platform's firmware is older than the policy allows", exit: "tcb" },
  ERR_TCB_PROVISIONAL: { title: "the platform's firmware is not committed", exit: "tcb" },
  ERR_KERNEL_HASHES: { title: "the firmware has no place for the kernel's hashes", exit: "usage" },

  // Collateral: vendors' services, cache
  ERR_COLLATERAL_UNREACHABLE: { title: "the vendor's service does not answer", exit: "operational" },
  ERR_COLLATERAL_RATE_LIMITED: { title: "the vendor's service wants fewer requests", exit: "operational" },
  ERR_COLLATERAL_NOT_FOUND: { title: "the vendor's service has no such document", exit: "operational" },
  ERR_COLLATERAL_REFUSED: { title: "the vendor's service refused the request", exit: "operational" },
  ERR_COLLATERAL_CONTENT: { title: "the document is not the one that was asked for", exit: "operational" },
  ERR_COLLATERAL_OFFLINE: { title: "a document is not at hand, and may not be fetched", exit: "operational" },
  ERR_COLLATERAL_UNKNOWN: { title: "it cannot be told which documents are needed", exit: "operational" },

  // RA-TLS certificates
  ERR_RATLS_ABSENT: { title: "the certificate holds no evidence of a TEE", exit: "tee" },
  ERR_RATLS_VALIDITY: { title: "the RA-TLS certificate is not in date", exit: "channel" },
  ERR_RATLS_SIGNATURE: { title: "the RA-TLS certificate's signature is not by its own key", exit: "channel" },
  ERR_RATLS_KEY: { title: "the evidence was not made for the certificate's key", exit: "binding" },
  ERR_SEALED_KEY: { title: "the sealed key is not the one that the TPM remembers", exit: "tpm" },
  ERR_RATLS_EXTRA_DATA: { title: "the evidence holds extra data that are not expected", exit: "binding" },

  // SEV-SNP: devices
  ERR_SNP_DEVICE: {
    title: "the device for attestation reports did not answer as expected",
    exit: "operational",
  },
  ERR_SNP_FIRMWARE: { title: "the firmware refused to make a report", exit: "operational" },
  ERR_SNP_REPORT_RACE: { title: "another process disturbed the request for a report", exit: "operational" },
  ERR_SIMULATED_TEE: { title: "the simulated TEE's directory cannot be used", exit: "operational" },

  // Encrypted volumes: LUKS header, secrets sealed in the TPM, passphrases
  ERR_LUKS_CHECKSUM: { title: "the LUKS header's checksum is not that of its content", exit: "volume" },
  ERR_LUKS_COPIES: { title: "the two copies of the LUKS header differ", exit: "volume" },
  ERR_LUKS_CIPHER: { title: "the volume's encryption is not one that is accepted", exit: "volume" },
  ERR_LUKS_INTEGRITY: {
    title: "the volume's integrity protection is not one that is accepted",
    exit: "volume",
  },
  ERR_LUKS_SEGMENT: { title: "the LUKS header does not encrypt exactly the whole device", exit: "volume" },
  ERR_LUKS_KEYSLOT: { title: "a keyslot is not of a kind that is accepted", exit: "volume" },
  ERR_LUKS_KDF: { title: "a keyslot's key derivation is too weak or unknown", exit: "volume" },
  ERR_LUKS_AREA: { title: "keyslot areas overlap, or lie outside of the header", exit: "volume" },
  ERR_LUKS_DIGEST: {
    title: "the key digests do not cover each keyslot and the segment once",
    exit: "volume",
  },
  ERR_LUKS_TOKEN: { title: "the LUKS header has a token that is not accepted", exit: "volume" },
  ERR_LUKS_REQUIREMENT: { title: "the LUKS header asks for something unknown", exit: "volume" },
  ERR_HEADER_CHANGED: { title: "the LUKS header is not the one that the TPM remembers", exit: "volume" },
  ERR_HEADER_REFERENCE_ABSENT: { title: "the TPM remembers no header of this volume", exit: "volume" },
  ERR_HEADER_REFERENCE: { title: "the TPM's memory of the LUKS header is not usable", exit: "volume" },
  ERR_SEALED_ELSEWHERE: { title: "the secret was sealed by another TPM", exit: "volume" },
  ERR_SEALED_PCRS: {
    title: "the machine booted something else than when the secret was sealed",
    exit: "volume",
  },
  ERR_SEALED_PIN: { title: "the PIN is wrong or missing", exit: "volume" },
  ERR_TPM_LOCKOUT: { title: "the TPM refuses more attempts for a while", exit: "operational" },
  ERR_TPM_SESSION: { title: "the TPM's answer was changed on its way", exit: "operational" },
  ERR_PASSPHRASE: { title: "there is no usable passphrase", exit: "usage" },

  // Certificates by ACME
  ERR_ACME_UNREACHABLE: { title: "the certificate authority does not answer", exit: "operational" },
  ERR_ACME_ANSWER: { title: "the certificate authority's answer is not understood", exit: "operational" },
  ERR_ACME_REFUSED: { title: "the certificate authority refused the request", exit: "operational" },
  ERR_ACME_RATE_LIMITED: { title: "the certificate authority wants fewer requests", exit: "operational" },
  ERR_ACME_ACCOUNT: {
    title: "the certificate authority does not accept the account's key",
    exit: "operational",
  },
  ERR_ACME_ACCOUNT_BINDING: {
    title: "the certificate authority wants the account bound to one of its customers",
    exit: "operational",
  },
  ERR_ACME_PROFILE: { title: "the certificate authority has no such profile", exit: "usage" },
  ERR_ACME_CHALLENGE: { title: "the certificate authority could not verify a name", exit: "operational" },
  ERR_ACME_CERTIFICATE: {
    title: "the issued certificate is not the one that was asked for",
    exit: "operational",
  },
  ERR_ACME_WORKSPACE: {
    title: "the files of a certificate in the workspace do not fit",
    exit: "operational",
  },
  ERR_ACME_BUSY: { title: "another process is at work on this certificate", exit: "operational" },
  ERR_ACME_HOOK: { title: "a hook did not do its work", exit: "operational" },
  ERR_ACME_UNKNOWN: { title: "the workspace holds no such certificate", exit: "usage" },

  // Encrypted volumes: fstool
  ERR_PROGRAM_MISSING: { title: "a program that is needed is not installed", exit: "operational" },
  ERR_PROGRAM_FAILED: { title: "a program did not do what it was told", exit: "operational" },
  ERR_NO_SPACE: { title: "there is not enough room on the disk", exit: "operational" },
  ERR_MOUNT_POINT: { title: "the mount point is in use", exit: "operational" },
  ERR_VOLUME_UNKNOWN: { title: "there is no such volume", exit: "usage" },
  ERR_VOLUME_EXISTS: { title: "something is there already", exit: "operational" },
  ERR_VOLUME_BUSY: { title: "the volume is in use", exit: "operational" },
  ERR_STORAGE_UNAVAILABLE: { title: "this machine cannot have encrypted volumes", exit: "operational" },
  ERR_STORAGE_PLAIN: { title: "the agent's files would not be encrypted", exit: "operational" },
  ERR_PASSPHRASE_WRONG: { title: "the passphrase does not open the volume", exit: "volume" },
  ERR_VOLUME_NO_KEY: { title: "there is nothing to open the volume with", exit: "volume" },
  ERR_LAST_KEY: { title: "the volume would be left without a key that a person can keep", exit: "usage" },
} as const satisfies Record<string, CatalogueEntry>

export type ErrorCode = keyof typeof CATALOGUE

/** What an error tells beyond its code. All parts are for people; only the code is for programs. */
export interface ErrorDetail {
  /** Where: a file with line, an offset, a field, a URL. */
  readonly at?: string
  readonly expected?: string
  readonly found?: string
  /** What to do next. */
  readonly hint?: string
  readonly cause?: unknown
}

/** Base of all errors that this product throws on purpose. */
export class CodedError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name: string = "CodedError"
  readonly code: C
  readonly at: string | undefined
  readonly expected: string | undefined
  readonly found: string | undefined
  readonly hint: string | undefined

  constructor(code: C, detail: ErrorDetail = {}) {
    super(sentence(code, detail), detail.cause === undefined ? undefined : { cause: detail.cause })
    this.code = code
    this.at = detail.at
    this.expected = detail.expected
    this.found = detail.found
    this.hint = detail.hint
  }

  get failureClass(): FailureClass {
    return CATALOGUE[this.code].exit
  }

  get exitCode(): number {
    return EXIT[this.failureClass]
  }

  /** The object printed under `--json` and sent by the agent. */
  toJSON(): Record<string, string> {
    const out: Record<string, string> = { code: this.code, message: this.message }
    for (const key of ["at", "expected", "found", "hint"] as const) {
      const value = this[key]
      if (value !== undefined) out[key] = value
    }
    return out
  }
}

function sentence(code: ErrorCode, d: ErrorDetail): string {
  const place = d.at === undefined ? "" : `${d.at}: `
  const expected = d.expected === undefined ? "" : `; expected ${d.expected}`
  const found = d.found === undefined ? "" : `${d.expected === undefined ? ";" : ","} found ${d.found}`
  return `${place}${CATALOGUE[code].title}${expected}${found}`
}

/** Bytes or text that do not have the form they should have. Thrown by `formats/`. */
export class ParseError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "ParseError"
}

/** A signature, chain, digest or binding that does not hold. Thrown by `verify/`. */
export class VerifyError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "VerifyError"
}

/** Vendor collateral that is missing, stale or unusable. Thrown by `endorsements/`. */
export class EndorsementError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "EndorsementError"
}

/** A device, native library or child process that failed. Thrown by `native/`. */
export class NativeError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "NativeError"
}

/** A request that the agent refused or that could not be made. Thrown by `agent/` and `client/`. */
export class AgentError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "AgentError"
}

/** A certificate that could not be had, renewed or revoked. Thrown by `acme/`. */
export class AcmeError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "AcmeError"
  /** When the authority wants to hear from us again; null: not said. */
  readonly until: Date | null

  constructor(code: C, detail: ErrorDetail = {}, until: Date | null = null) {
    super(code, detail)
    this.until = until
  }
}

/** A command line or configuration that a person has to correct. */
export class UsageError<C extends ErrorCode = ErrorCode> extends CodedError<C> {
  override readonly name = "UsageError"
}
