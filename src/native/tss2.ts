import { NativeError, UsageError } from "../errors.ts"
import { rcText } from "./tss2-rc.ts"

/** A connection to a TPM: a command's bytes in, its response's bytes out. Blocks. */
export interface TpmTransport {
  transceive(command: Uint8Array): Uint8Array
  close(): void
}

/** Ways to reach a TPM, with the packages (Debian's names) that hold their libraries. */
const TCTI_PACKAGES: Readonly<Record<string, string>> = {
  device: "libtss2-tcti-device0",
  swtpm: "libtss2-tcti-swtpm0",
  mssim: "libtss2-tcti-mssim0",
  tabrmd: "libtss2-tcti-tabrmd0",
}

/** Largest response of a TPM: MAX_RESPONSE_SIZE of the PC client profile. */
const RESPONSE_LIMIT = 4096
/** Offsets of function pointers in TSS2_TCTI_CONTEXT_COMMON_V1. Source: TCG TSS 2.0 TCTI 1.0, section "Context". */
const TRANSMIT_OFFSET = 16
const RECEIVE_OFFSET = 24
const BLOCK = -1

/**
 * Checks a TPM address such as `device:/dev/tpmrm0` or `swtpm:host=127.0.0.1,port=2321`. Only known transports: the loader
 * would take any name as a library to load.
 * @throws UsageError ERR_TPM_TCTI
 */
export function checkTcti(tcti: string): string {
  const name = /^([a-z]+):[^\0]*$/.exec(tcti)?.[1]
  if (name !== undefined && Object.hasOwn(TCTI_PACKAGES, name)) return name
  throw new UsageError("ERR_TPM_TCTI", {
    expected: `one of ${Object.keys(TCTI_PACKAGES)
      .map((known) => `${known}:…`)
      .join(", ")}`,
    found: JSON.stringify(tcti),
    hint: "for the kernel's TPM: device:/dev/tpmrm0",
  })
}

/** Opens connections through libtss2-tctildr. */
export type TransportOpener = (tcti: string) => TpmTransport

/**
 * Loads libtss2-tctildr. Loaded on first use, because a verifier needs no native library.
 * @throws NativeError ERR_TPM_LIBRARY
 */
export async function loadTss2(soname = "libtss2-tctildr.so.0"): Promise<TransportOpener> {
  const ffi = await import("bun:ffi")
  silenceLibrary(ffi)
  const library = open(ffi, soname)
  const { Tss2_TctiLdr_Initialize: initialize, Tss2_TctiLdr_Finalize: finalize } = library.symbols
  const callables = new Map<number, ReturnType<typeof ffi.CFunction>>()

  return (tcti) => {
    const name = checkTcti(tcti)
    const conf = Buffer.from(`${tcti}\0`)
    const slot = new BigUint64Array(1)
    const rc = initialize(conf, slot)
    if (rc !== 0) throw unreachable(tcti, name, rc)
    const context = Number(slot[0])
    if (context === 0) throw unreachable(tcti, name, 0xa0001)
    const transmit = callable(ffi.read.ptr(pointer(context), TRANSMIT_OFFSET), ["usize", "usize", "ptr"])
    const receive = callable(ffi.read.ptr(pointer(context), RECEIVE_OFFSET), ["usize", "ptr", "ptr", "i32"])
    const size = new BigUint64Array(1)
    const response = new Uint8Array(RESPONSE_LIMIT)
    return {
      transceive(command) {
        check(tcti, "transmit", transmit(context, command.length, command))
        size[0] = BigInt(response.length)
        check(tcti, "receive", receive(context, size, response, BLOCK))
        return response.slice(0, Number(size[0]))
      },
      close() {
        finalize(slot)
      },
    }
  }

  /** Each is machine code made for one address: made once, or thousands of connections would fill the memory. */
  function callable(address: number, args: readonly ("usize" | "ptr" | "i32")[]) {
    const known = callables.get(address)
    if (known !== undefined) return known
    const made = ffi.CFunction({ args, returns: "u32", ptr: pointer(address) })
    callables.set(address, made)
    return made
  }

  function pointer(address: number): import("bun:ffi").Pointer {
    return address as import("bun:ffi").Pointer
  }
}

function open(ffi: typeof import("bun:ffi"), soname: string) {
  try {
    return ffi.dlopen(soname, {
      Tss2_TctiLdr_Initialize: { args: ["ptr", "ptr"], returns: "u32" },
      Tss2_TctiLdr_Finalize: { args: ["ptr"], returns: "void" },
    })
  } catch (cause) {
    throw new NativeError("ERR_TPM_LIBRARY", {
      at: soname,
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "install the package libtss2-tctildr0 (Fedora, RHEL: tpm2-tss)",
      cause,
    })
  }
}

/** The library writes its own errors on stderr unless told otherwise, and reads that wish from the C environment only. */
function silenceLibrary(ffi: typeof import("bun:ffi")): void {
  for (const libc of ["libc.so.6", `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`])
    try {
      const { symbols } = ffi.dlopen(libc, { setenv: { args: ["ptr", "ptr", "i32"], returns: "i32" } })
      symbols.setenv(Buffer.from("TSS2_LOG\0"), Buffer.from("all+none\0"), 1)
      return
    } catch (cause) {
      // The other C library may be the one here. With neither, the only loss is a quiet stderr.
      if (!(cause instanceof Error)) throw cause
    }
}

function check(tcti: string, step: string, rc: number): void {
  if (rc !== 0)
    throw new NativeError("ERR_TPM_DEVICE", {
      at: `${tcti}, ${step}`,
      found: rcText(rc),
      hint: "see the kernel log, or whether the TPM emulator still runs",
    })
}

/** Why a connection failed is one code for many causes, so the hint names them: no driver library, no device, no right. */
function unreachable(tcti: string, name: string, rc: number): NativeError {
  return new NativeError("ERR_TPM_DEVICE", {
    at: tcti,
    found: rcText(rc),
    hint: `check that it exists, that you may open it (root, or group tss), and that the package ${TCTI_PACKAGES[name]} is installed`,
  })
}
