import { CodedError } from "../../errors.ts"

/** One piece of a longer piece of work: what it does, and how it is taken back, also when it was cut short in the middle. */
export interface Step<C> {
  /** A word, for the journal and for programs. */
  readonly name: string
  /** What people read while it runs. */
  readonly title: string
  run(context: C): Promise<void>
  /** Has to work whether the step was finished, half done or hardly begun. Absent: it leaves nothing behind. */
  undo?(context: C): Promise<void>
}

export interface StepWatcher<C> {
  /** Called before each step; what it throws ends the work before that step. */
  before(step: Step<C>, number: number, total: number): void
}

/**
 * Runs steps in their order. When one fails, it and those before it are undone in reverse order, and its error goes on; what
 * could not be undone is added to the error's hint.
 */
export async function runSteps<C>(
  steps: readonly Step<C>[],
  context: C,
  watcher: StepWatcher<C>,
): Promise<void> {
  const begun: Step<C>[] = []
  try {
    for (const [index, step] of steps.entries()) {
      watcher.before(step, index + 1, steps.length)
      begun.push(step)
      await step.run(context)
    }
  } catch (error) {
    const left = await undoSteps(begun, context)
    throw left.length === 0 ? error : withLeftOvers(error, left)
  }
}

/** Undoes steps, the last one first. Every one is tried. Returns what failed, one line each. */
async function undoSteps<C>(begun: readonly Step<C>[], context: C): Promise<string[]> {
  const left: string[] = []
  for (const step of begun.toReversed()) {
    try {
      await step.undo?.(context)
    } catch (error) {
      left.push(`${step.name}: ${error instanceof Error ? error.message : error}`)
    }
  }
  return left
}

function withLeftOvers(error: unknown, left: readonly string[]): unknown {
  const hint = `not everything could be taken back (${left.join("; ")}): the next fstool tries again`
  if (!(error instanceof CodedError)) return new CodedError("ERR_INTERNAL", { cause: error, hint })
  return new CodedError(error.code, {
    ...(error.at === undefined ? {} : { at: error.at }),
    ...(error.expected === undefined ? {} : { expected: error.expected }),
    ...(error.found === undefined ? {} : { found: error.found }),
    hint: error.hint === undefined ? hint : `${error.hint}; ${hint}`,
    cause: error,
  })
}
