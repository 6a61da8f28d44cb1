/** Real packages. */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"

export interface PackageContent {
  readonly name: string
  readonly version: string
  /** By absolute path. */
  readonly files: Readonly<Record<string, string>>
}

export interface DebOptions extends PackageContent {
  readonly architecture?: string
  readonly conffiles?: readonly string[]
  readonly compression?: "xz" | "gzip" | "zstd" | "none"
}

/** Builds a .deb in a new directory below `parent` and returns its path. */
export async function buildDeb(parent: string, options: DebOptions): Promise<string> {
  const { name, version, files, architecture = "amd64", conffiles = [], compression = "xz" } = options
  const dir = mkdtempSync(join(parent, "deb-"))
  const tree = join(dir, "tree")
  put(
    tree,
    "/DEBIAN/control",
    `Package: ${name}\nVersion: ${version}\nArchitecture: ${architecture}\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n`,
  )
  if (conffiles.length > 0) put(tree, "/DEBIAN/conffiles", `${conffiles.join("\n")}\n`)
  for (const [path, content] of Object.entries(files)) put(tree, path, content)
  const deb = join(dir, `${name}_${version}_${architecture}.deb`)
  await succeed(["dpkg-deb", "--root-owner-group", `-Z${compression}`, "--build", tree, deb])
  return deb
}

/** Builds a .rpm (release 1, noarch, unsigned) in a new directory below `parent` and returns its path. */
export async function buildRpm(parent: string, { name, version, files }: PackageContent): Promise<string> {
  const dir = mkdtempSync(join(parent, "rpm-"))
  const source = join(dir, "source")
  for (const [path, content] of Object.entries(files)) put(source, path, content)
  const spec = join(dir, "package.spec")
  writeFileSync(
    spec,
    `Name: ${name}\nVersion: ${version}\nRelease: 1\nSummary: a test\nLicense: none\nBuildArch: noarch\n%description\na test\n` +
      `%install\nmkdir -p %{buildroot}\ncp -a ${source}/. %{buildroot}/\n%files\n${Object.keys(files).join("\n")}\n`,
  )
  await succeed(["rpmbuild", "-bb", "--define", `_topdir ${dir}/top`, spec])
  return join(dir, "top/RPMS/noarch", `${name}-${version}-1.noarch.rpm`)
}

function put(tree: string, path: string, content: string): void {
  mkdirSync(dirname(join(tree, path)), { recursive: true })
  writeFileSync(join(tree, path), content)
}

/** Runs a program that has to succeed. */
export async function succeed(command: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const child = Bun.spawn([...command], {
    stdout: "pipe",
    stderr: "pipe",
    stdin: "ignore",
    env: { ...process.env, ...env },
  })
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${stderr}`)
  return stdout
}
