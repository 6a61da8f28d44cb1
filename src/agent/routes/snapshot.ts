import { AgentError } from "../../errors.ts"
import type { AgentApp, RouteContext } from "../app.ts"

/**
 * The snapshot: `GET /snapshot` starts one and answers 202 with `null` until it is done, then gives it until it is deleted;
 * `DELETE /snapshot` removes a finished one and is refused while one runs; `DELETE /v1/snapshot` also cancels a running
 * one; `GET /v1/snapshot/progress` tells how far it is.
 */
export function snapshotRoutes(app: AgentApp, context: RouteContext): void {
  const { snapshots, guard } = context

  app.get("/snapshot", async (c) => {
    // What nobody reads is not opened: it would be kept for a reader who never comes.
    if (c.req.method === "HEAD" && snapshots.progress().state === "done") return c.body(null)
    const result = snapshots.result()
    if (result !== null) return c.body(result, 200, { "Content-Type": "application/json" })
    const failure = snapshots.takeFailure()
    if (failure !== null) throw failure
    if (!snapshots.running) {
      await guard.requireSnapshotControl(c)
      // Somebody else may have started one meanwhile. Where it is too soon for another one, the client is told the same: it asks again, and then it is started.
      snapshots.start()
    }
    return c.json(null, 202, { "Retry-After": "1" })
  })

  app.delete("/snapshot", async (c) => {
    await guard.requireSnapshotControl(c)
    if (snapshots.running)
      throw new AgentError("ERR_SNAPSHOT_RUNNING", {
        hint: "wait until GET /snapshot answers 200, or cancel by DELETE /v1/snapshot",
      })
    snapshots.clear()
    return c.json(null)
  })

  app.delete("/v1/snapshot", async (c) => {
    await guard.requireSnapshotControl(c)
    await snapshots.cancel()
    snapshots.clear()
    return c.json(null)
  })

  app.get("/v1/snapshot/progress", (c) => c.json(snapshots.progress()))
}
