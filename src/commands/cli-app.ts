import { defineCommand } from "citty"
import { appArgs, appOf, connectionArgs } from "./agent-options.ts"
import { meta } from "./command.ts"

const VM = "cosmian_vm --url https://vm.example:5555"
const APP_DETAILS =
  "Nothing is sent before the VM has attested on the very connection that is used, and was found to be the one that --snapshot or --policy describes."

const appInitCommand = defineCommand({
  meta: meta({
    name: "init",
    description: "hand the application its configuration, and start it",
    details: [APP_DETAILS],
    examples: [
      {
        line: "cosmian_vm --url https://vm.example:5555 app init -c app.toml -s vm.snapshot --owner-key owner.pem",
        does: "verify, then send the configuration, sealed to the VM",
      },
    ],
  }),
  args: {
    ...appArgs,
    configuration: {
      type: "string",
      alias: ["c", "conf"],
      valueHint: "FILE",
      required: true,
      description: "the application's configuration file",
    },
  },
  async run({ args }) {
    const { initApp } = await import("./app.ts")
    return initApp({ ...appOf(args), configuration: args.configuration })
  },
})

/** The commands that take no more than what all have. */
const APP_ORDERS = {
  restart: {
    description: "restart the application",
    example: {
      line: `${VM} app restart -s vm.snapshot --owner-key owner.pem`,
      does: "after a change of its configuration",
    },
  },
  stop: {
    description: "stop the application",
    example: {
      line: `${VM} app stop -s vm.snapshot --owner-key owner.pem`,
      does: "it stays stopped until app restart",
    },
  },
  status: {
    description: "tell whether the application runs and has a configuration",
    example: { line: `${VM} app status -s vm.snapshot --token-file token --json`, does: "for a program" },
  },
} as const

function appOrder(name: keyof typeof APP_ORDERS) {
  const { description, example } = APP_ORDERS[name]
  return defineCommand({
    meta: meta({ name, description, details: [APP_DETAILS], examples: [example] }),
    args: appArgs,
    async run({ args }) {
      const { orderApp } = await import("./app.ts")
      return orderApp(name, appOf(args))
    },
  })
}

const appLogsCommand = defineCommand({
  meta: meta({
    name: "logs",
    description: "show the last lines of the application's log",
    details: [APP_DETAILS],
    examples: [
      {
        line: `${VM} app logs --lines 100 -s vm.snapshot --token-file token`,
        does: "more than the usual 20",
      },
    ],
  }),
  args: {
    ...appArgs,
    lines: { type: "string", valueHint: "N", default: "20", description: "how many, 1000 at most" },
  },
  async run({ args }) {
    const { showAppLogs } = await import("./app.ts")
    return showAppLogs({ ...appOf(args), lines: args.lines })
  },
})

export const appCommand = defineCommand({
  meta: meta({ name: "app", description: "set up and look after the application inside the VM" }),
  args: connectionArgs,
  subCommands: {
    init: appInitCommand,
    restart: appOrder("restart"),
    stop: appOrder("stop"),
    status: appOrder("status"),
    logs: appLogsCommand,
  },
})
