import { NativeError } from "../errors.ts"
import { GUEST_REQUEST, type SevGuestIoctl } from "./sev-guest.ts"

/** C libraries by name, glibc first; musl names its own by architecture. */
const LIBRARIES = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]

/**
 * The sev-guest ioctls on an open file. Loads bun:ffi, which needs a process that may make executable memory.
 * @throws NativeError ERR_SNP_DEVICE
 */
export async function sevGuestIoctl(fd: number): Promise<SevGuestIoctl> {
  const { ptr, read } = await import("bun:ffi")
  const { symbols } = await loadLibrary()
  return {
    addressOf: (buffer) => BigInt(ptr(buffer)),
    call(command, request, response) {
      const argument = new Uint8Array(GUEST_REQUEST.size)
      const view = new DataView(argument.buffer)
      view.setUint8(GUEST_REQUEST.version, 1)
      view.setBigUint64(GUEST_REQUEST.request, BigInt(ptr(request)), true)
      view.setBigUint64(GUEST_REQUEST.response, BigInt(ptr(response)), true)
      const result = symbols.ioctl(fd, BigInt(command), ptr(argument))
      // Directly after the call: anything else may change it.
      const location = result < 0 ? symbols.__errno_location() : null
      const errno = location === null ? 0 : read.i32(location, 0)
      return { errno, exitInfo2: view.getBigUint64(GUEST_REQUEST.exitInfo2, true) }
    },
  }
}

async function loadLibrary() {
  const { dlopen } = await import("bun:ffi")
  let cause: unknown = null
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, {
        ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
        __errno_location: { args: [], returns: "ptr" },
      })
    } catch (error) {
      cause ??= error
    }
  }
  throw new NativeError("ERR_SNP_DEVICE", {
    at: "C library",
    found: cause instanceof Error ? cause.message : String(cause),
    hint: "under systemd's MemoryDenyWriteExecute no native call is possible: use a kernel with configfs-tsm",
    cause,
  })
}
