import { defineCommand } from "citty"
import { connectionArgs } from "./agent-options.ts"
import { appCommand } from "./cli-app.ts"
import { connectCommand } from "./cli-connect.ts"
import { enrollCommand, snapshotCommand } from "./cli-snapshot.ts"
import { verifyCommand } from "./cli-verify.ts"
import { meta } from "./command.ts"

/** `snapshot`, `verify`, `enroll`, `app`, `connect`: under `cosmian_vm cli` and directly under the executable. */
export const cliCommands = {
  snapshot: snapshotCommand,
  verify: verifyCommand,
  enroll: enrollCommand,
  app: appCommand,
  connect: connectCommand,
}

export const cliCommand = defineCommand({
  meta: meta({
    name: "cli",
    description: "snapshot, verify, app and connect, as the tool of earlier versions had them",
    examples: [
      {
        line: "cosmian_vm cli --url https://vm.example:5555 --allow-insecure-tls verify -s vm.snapshot",
        does: "the same as without cli",
      },
    ],
  }),
  args: connectionArgs,
  subCommands: cliCommands,
})
