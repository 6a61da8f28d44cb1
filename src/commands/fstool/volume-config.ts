import { isAbsolute, join, normalize } from "node:path"
import { parseTomlTable, type TomlTable } from "../../formats/toml-table.ts"

/** Where the volumes of this machine are written down. */
export const VOLUMES_FILE = "/etc/cosmian_vm/volumes.toml"
/** Location, name and mapping of the volume that Cosmian VM 1.3 makes, and that the agent's files are in. */
export const DEFAULT_LOCATION = "/var/lib/cosmian_vm"
const DEFAULT_NAME = "cosmian_vm_container"

export const FILE_SYSTEMS = ["ext4", "xfs"] as const
export type FileSystem = (typeof FILE_SYSTEMS)[number]

/** One encrypted volume: where its parts are. All paths are absolute. */
export interface Volume {
  /** Also the name of its mapping in /dev/mapper. */
  readonly name: string
  /** Directory of the header and, unless said otherwise, of container and mount point. */
  readonly location: string
  /** File or block device with the encrypted data. */
  readonly container: string
  /** File with the detached LUKS2 header. */
  readonly header: string
  readonly mountPoint: string
  readonly fileSystem: FileSystem
  /** `none`: the volume may be without integrity protection. Then whoever writes the disk can garble data unnoticed. */
  readonly integrity: "required" | "none"
  /** Whether `mount --all`, which runs at boot, mounts it. */
  readonly atBoot: boolean
  /**
   * PCRs whose values at creation are needed to change what the TPM remembers of the header. Must be the ones that the
   * volume was made with.
   */
  readonly headerPcrs: readonly number[]
}

/** The volume of a directory in which nothing was configured: `container`, `header` and mount point `data`. */
export function volumeAt(location: string, name = defaultName(location)): Volume {
  return {
    name,
    location,
    container: join(location, "container"),
    header: join(location, "header"),
    mountPoint: join(location, "data"),
    fileSystem: "ext4",
    integrity: "required",
    atBoot: true,
    headerPcrs: [],
  }
}

/** The mapping's name of Cosmian VM 1.3 for its location, else the directory's name. */
export function defaultName(location: string): string {
  if (location === DEFAULT_LOCATION) return DEFAULT_NAME
  const name = (location.split("/").findLast((part) => part !== "") ?? "")
    .replaceAll(/[^A-Za-z0-9_.-]/g, "_")
    .replace(/^[^A-Za-z0-9_]+/, "")
  return name === "" ? "volume" : name.slice(0, MAX_NAME)
}

/** Device mapper takes 127 characters; cryptsetup adds a suffix, and logs are for people. */
const MAX_NAME = 64
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/

/** Whether a volume may be called so. The name is an argument of programs and a file in /dev/mapper. */
export function isVolumeName(name: string): boolean {
  return NAME.test(name) && name.length <= MAX_NAME && name !== "control"
}

/**
 * Reads the text of `volumes.toml`: one table `[[volume]]` for each.
 * @throws UsageError ERR_CONFIG with line and key
 */
export function parseVolumes(text: string, file: string): Volume[] {
  const root = parseTomlTable(text, file, "ERR_CONFIG")
  const volumes: Volume[] = []
  for (const table of root.tables("volume")) {
    const volume = volumeOf(table)
    for (const key of ["name", "location", "mountPoint", "container", "header"] as const)
      if (volumes.some((other) => other[key] === volume[key]))
        throw table.fault(
          SETTING[key],
          `another ${SETTING[key].replace("_", " ")} than any volume before`,
          JSON.stringify(volume[key]),
        )
    volumes.push(volume)
  }
  root.finish()
  return volumes
}

const SETTING = {
  name: "name",
  location: "location",
  container: "container",
  header: "header",
  mountPoint: "mount_point",
} as const

function volumeOf(table: TomlTable): Volume {
  const location = pathOf(table, "location", null)
  if (location === null) throw table.fault("location", "a directory", "none")
  const name = table.string("name") ?? defaultName(location)
  if (!isVolumeName(name))
    throw table.fault("name", `1 to ${MAX_NAME} letters, digits and _.-`, JSON.stringify(name))
  const usual = volumeAt(location, name)
  const volume: Volume = {
    ...usual,
    container: pathOf(table, "container", location) ?? usual.container,
    header: pathOf(table, "header", location) ?? usual.header,
    mountPoint: pathOf(table, "mount_point", location) ?? usual.mountPoint,
    fileSystem: table.choice("filesystem", FILE_SYSTEMS) ?? "ext4",
    integrity: table.choice("integrity", ["required", "none"]) ?? "required",
    atBoot: table.boolean("at_boot") ?? true,
    headerPcrs: pcrsOf(table, "header_pcrs"),
  }
  table.finish()
  return volume
}

/** @param base where relative paths start; null: only absolute ones are accepted. */
function pathOf(table: TomlTable, key: string, base: string | null): string | null {
  const value = table.string(key)
  if (value === null) return null
  const relative = !isAbsolute(value)
  if (value === "" || value.includes("\0") || value.split("/").includes("..") || (relative && base === null))
    throw table.fault(key, base === null ? "an absolute path" : "a path without ..", JSON.stringify(value))
  return tidyPath(relative ? join(base ?? "/", value) : value)
}

/** Without doubled, trailing or `.` parts, so that paths can be compared as text. */
export function tidyPath(path: string): string {
  return normalize(`${path}/`).replace(/(?<=.)\/$/, "")
}

function pcrsOf(table: TomlTable, key: string): number[] {
  const value = table.raw(key) ?? []
  const isPcr = (item: unknown): item is number =>
    typeof item === "number" && Number.isInteger(item) && item >= 0 && item <= 23
  if (Array.isArray(value) && value.every(isPcr)) return [...new Set(value)].sort((a, b) => a - b)
  throw table.fault(key, "an array of PCR numbers, 0 to 23", JSON.stringify(value) ?? "something else")
}

/** The entry of a volume, to be added at the end of `volumes.toml`. What is as usual is left out. */
export function encodeVolume(volume: Volume): string {
  const usual = volumeAt(volume.location, volume.name)
  const lines = [
    "[[volume]]",
    `name = ${JSON.stringify(volume.name)}`,
    `location = ${JSON.stringify(volume.location)}`,
  ]
  for (const key of ["container", "header", "mountPoint"] as const)
    if (volume[key] !== usual[key]) lines.push(`${SETTING[key]} = ${JSON.stringify(volume[key])}`)
  if (volume.fileSystem !== "ext4") lines.push(`filesystem = ${JSON.stringify(volume.fileSystem)}`)
  if (volume.integrity !== "required") lines.push(`integrity = ${JSON.stringify(volume.integrity)}`)
  if (!volume.atBoot) lines.push("at_boot = false")
  if (volume.headerPcrs.length > 0) lines.push(`header_pcrs = [${volume.headerPcrs.join(", ")}]`)
  return `${lines.join("\n")}\n`
}

/**
 * The text with the volume's entry at its end. People's comments and entries stay as they are.
 * @throws UsageError ERR_CONFIG where the result would not be accepted, as when a name is taken
 */
export function withVolume(text: string, file: string, volume: Volume): string {
  const gap = text === "" || text.endsWith("\n\n") ? "" : text.endsWith("\n") ? "\n" : "\n\n"
  const added = `${text}${gap}${encodeVolume(volume)}`
  parseVolumes(added, file)
  return added
}

/** The text without the entry of the volume of that name: from its `[[volume]]` to the next heading. */
export function withoutVolume(text: string, file: string, name: string): string {
  const index = parseVolumes(text, file).findIndex((volume) => volume.name === name)
  if (index < 0) return text
  const lines = text.split("\n")
  const headings = lines.flatMap((line, at) => (/^\s*\[/.test(line) ? [at] : []))
  const start = headings.filter((at) => /^\s*\[\[\s*volume\s*\]\]/.test(lines[at] ?? ""))[index]
  // Written in another way, as an inline array: left to the one who wrote it.
  if (start === undefined) return text
  const end = headings.find((at) => at > start) ?? lines.length
  // What stands directly above the next heading is about that one.
  let last = end
  while (end < lines.length && last > start + 1 && /^\s*(#.*)?$/.test(lines[last - 1] ?? "")) last--
  const rest = [...lines.slice(0, start), ...lines.slice(last)].join("\n")
  return rest.replace(/\n{2,}$/, "\n")
}
