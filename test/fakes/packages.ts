/** Real packages. */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"

interface PackageContent {
  readonly name: string
  readonly version: string
  /** By absolute path. */
  readonly files: Readonly<Record<string, string>>
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
async function succeed(command: readonly string[], env: Record<string, string> = {}): Promise<string> {
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
