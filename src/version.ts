import { version } from "../package.json"

declare const BUILD_COMMIT: string | undefined

/** Version of the product, from package.json at build time. */
export const VERSION: string = version

/**
 * Short commit that the executable was built from; `unbuilt` where the sources run as they are.
 * `build.ts` sets it: `define: { BUILD_COMMIT: '"abc1234"' }`.
 */
export const COMMIT: string = typeof BUILD_COMMIT === "string" ? BUILD_COMMIT : "unbuilt"

/** What `--version` prints. @param name the name under which the executable was started. */
export function versionLine(name: string): string {
  return `${name} ${VERSION} (${COMMIT})`
}
