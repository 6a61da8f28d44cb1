import { describe, expect, test } from "bun:test"
import {
  defaultName,
  encodeVolume,
  isVolumeName,
  parseVolumes,
  volumeAt,
  withoutVolume,
  withVolume,
} from "./volume-config.ts"

const FILE = "volumes.toml"

describe("volumes.toml", () => {
  test("a location is enough: container, header and mount point data lie in it", () => {
    expect(parseVolumes('[[volume]]\nlocation = "/mnt/disk//"\n', FILE)).toEqual([
      {
        name: "disk",
        location: "/mnt/disk",
        container: "/mnt/disk/container",
        header: "/mnt/disk/header",
        mountPoint: "/mnt/disk/data",
        fileSystem: "ext4",
        integrity: "required",
        atBoot: true,
        headerPcrs: [],
      },
    ])
  })

  test("the location of Cosmian VM 1.3 has the mapping of Cosmian VM 1.3", () => {
    expect(volumeAt("/var/lib/cosmian_vm")).toMatchObject({
      name: "cosmian_vm_container",
      mountPoint: "/var/lib/cosmian_vm/data",
    })
  })

  test("every setting is read, relative paths start at the location", () => {
    const [volume] = parseVolumes(
      `[[volume]]
name = "database"
location = "/srv/db"
container = "/dev/nvme2n1"
header = "db.header"
mount_point = "/var/lib/postgresql"
filesystem = "xfs"
integrity = "none"
at_boot = false
header_pcrs = [8, 4, 4]
`,
      FILE,
    )
    expect(volume).toEqual({
      name: "database",
      location: "/srv/db",
      container: "/dev/nvme2n1",
      header: "/srv/db/db.header",
      mountPoint: "/var/lib/postgresql",
      fileSystem: "xfs",
      integrity: "none",
      atBoot: false,
      headerPcrs: [4, 8],
    })
    // What is written is what is read.
    if (volume !== undefined) expect(parseVolumes(encodeVolume(volume), FILE)).toEqual([volume])
  })

  for (const [text, what] of [
    ["[[volume]]\n", "no location"],
    ['[[volume]]\nlocation = "data"\n', "relative location"],
    ['[[volume]]\nlocation = "/a/../b"\n', "location with .."],
    ['[[volume]]\nlocation = "/a"\nheader = "../h"\n', "header with .."],
    ['[[volume]]\nlocation = "/a"\nmount-point = "x"\n', "misspelt setting"],
    ['[[volume]]\nlocation = "/a"\nname = "--help"\n', "name that is an option"],
    ['[[volume]]\nlocation = "/a"\nname = "a/b"\n', "name that is a path"],
    ['[[volume]]\nlocation = "/a"\nname = "control"\n', "name of the device mapper's own file"],
    ['[[volume]]\nlocation = "/a"\nfilesystem = "vfat"\n', "another file system"],
    ['[[volume]]\nlocation = "/a"\nheader_pcrs = [24]\n', "PCR that does not exist"],
    ['[[volume]]\nlocation = "/a"\n[[volume]]\nlocation = "/b"\nname = "a"\n', "name twice"],
    ['[[volume]]\nlocation = "/a"\n[[volume]]\nlocation = "/b"\nmount_point = "/a/data"\n', "place twice"],
    ['[volume]\nlocation = "/a"\n', "one table instead of an array"],
    ["volumes = []\n", "unknown setting"],
    ["[[volume\n", "no TOML"],
  ] as const)
    test(`refused: ${what}`, () => {
      expect(() => parseVolumes(text, FILE)).toThrowCode("ERR_CONFIG")
    })

  test("names are made from directories, and never look like options", () => {
    expect(defaultName("/srv/My Disk")).toBe("My_Disk")
    expect(defaultName("/srv/--x")).toBe("x")
    expect(defaultName("/")).toBe("volume")
    for (const location of ["/srv/é", "/-", "/..."]) expect(isVolumeName(defaultName(location))).toBe(true)
  })

  test("an entry is added and removed, and everything else stays as somebody wrote it", () => {
    const own = `# our disks\n[[volume]]\nlocation = "/a" # first\n\n# the second\n[[volume]]\nlocation = "/b"\n`
    const added = withVolume(own, FILE, volumeAt("/c"))
    expect(added.startsWith(own)).toBe(true)
    expect(parseVolumes(added, FILE).map(({ name }) => name)).toEqual(["a", "b", "c"])
    expect(withoutVolume(added, FILE, "c")).toBe(own)
    expect(withoutVolume(own, FILE, "a")).toBe(`# our disks\n\n# the second\n[[volume]]\nlocation = "/b"\n`)
    expect(withoutVolume(own, FILE, "nobody")).toBe(own)
    expect(withoutVolume(withVolume("", FILE, volumeAt("/c")), FILE, "c")).toBe("")
  })

  test("a name that is taken is not added a second time", () => {
    const text = encodeVolume(volumeAt("/a"))
    expect(() => withVolume(text, FILE, volumeAt("/b", "a"))).toThrowCode("ERR_CONFIG")
  })
})
