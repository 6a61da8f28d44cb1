import { resolve } from "node:path"
import { defineCommand } from "citty"
import { listOf, meta, repeatable } from "./command.ts"

const execCommand = defineCommand({
  meta: meta({
    name: "exec",
    description: "measure programs as the kernel does when they are run",
    details: [
      "The programs are not run. A program whose content was measured before under the same path is not measured again.",
    ],
    examples: [
      { line: "cosmian_vm simulate exec /tmp/vm /usr/bin/ls", does: "as if ls were run in the simulated VM" },
    ],
  }),
  args: {
    dir: {
      type: "positional",
      required: true,
      valueHint: "DIR",
      description: "directory of the running simulated machine",
    },
    path: repeatable({ type: "positional", valueHint: "PATH", description: "program to measure" }),
  },
  run: ({ args }) => measure(resolve(args.dir), listOf(args.path)),
})

/** What happens inside a simulated machine. */
export const simulateCommand = defineCommand({
  meta: meta({
    name: "simulate",
    description: "let something happen in a simulated VM (agent --simulate)",
    examples: [
      { line: "cosmian_vm simulate exec /tmp/vm /usr/bin/ls", does: "as if ls were run in the simulated VM" },
    ],
  }),
  subCommands: { exec: execCommand },
})

async function measure(dir: string, paths: readonly string[]): Promise<number> {
  const { measureFile } = await import("../native/simulated-machine.ts")
  for (const path of paths) await measureFile(dir, resolve(path))
  return 0
}
