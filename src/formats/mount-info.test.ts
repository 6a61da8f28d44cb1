import { describe, expect, test } from "bun:test"
import { mountAt, parseMountInfo } from "./mount-info.ts"

const TEXT = `22 27 0:21 / /sys rw,nosuid - sysfs sysfs rw
27 1 259:0 / / rw,noatime shared:1 - ext4 /dev/nvme0n1 rw
40 27 254:1 / /var/lib/my\\040data rw,nosuid,nodev shared:2 master:1 - ext4 /dev/mapper/cosmian_vm_container rw
41 27 0:44 / /var/lib/my\\040data rw - tmpfs t\\303\\251 rw
`

describe("mountinfo", () => {
  test("lines with any number of optional fields are read, and octal escapes undone", () => {
    expect(
      parseMountInfo(TEXT).map(({ device, mountPoint, source }) => [device, mountPoint, source]),
    ).toEqual([
      ["0:21", "/sys", "sysfs"],
      ["259:0", "/", "/dev/nvme0n1"],
      ["254:1", "/var/lib/my data", "/dev/mapper/cosmian_vm_container"],
      ["0:44", "/var/lib/my data", "té"],
    ])
  })

  test("of two mounts at one place the later one counts", () => {
    expect(mountAt(parseMountInfo(TEXT), "/var/lib/my data")?.device).toBe("0:44")
    expect(mountAt(parseMountInfo(TEXT), "/var/lib")).toBeNull()
  })

  test("another form is refused", () => {
    for (const line of ["x", "1 2 3 / / rw - ext4 /dev/sda rw", "27 1 259:0 / / rw,noatime ext4 /dev/sda rw"])
      expect(() => parseMountInfo(line)).toThrowCode("ERR_MALFORMED")
  })
})
