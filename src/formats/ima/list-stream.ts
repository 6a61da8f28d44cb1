import { ParseError } from "../../errors.ts"
import { asciiTemplateDigestBytes, parseAsciiMeasurementList } from "./ascii.ts"
import { encodeMeasurementList } from "./encode.ts"
import { ListReader } from "./list-reader.ts"
import { type MeasurementList, parseMeasurementList } from "./measurement-list.ts"
import { imaTemplate, TEMPLATE_DIGEST_BYTES, TEMPLATE_DIGEST_SIZES } from "./template.ts"

/** Entries of a list that follow each other. */
export interface Batch {
  readonly list: MeasurementList
  /** Index of the first one in the whole list. */
  readonly first: number
}

/** Bytes that are read before they are parsed. An entry is smaller. */
const BATCH_BYTES = 2 * 1024 * 1024
const NEWLINE = 0x0a

/**
 * Reads a list of any length in bounded memory, in the kernel's binary form or as its text; which of them, and of which size
 * the template digests are, its beginning tells.
 * @throws ParseError as parseMeasurementList and parseAsciiMeasurementList
 */
export async function* readMeasurementList(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Batch> {
  let form: ListForm | null = null
  let pending = new Uint8Array(0)
  let first = 0
  for await (const bytes of inParts(chunks, BATCH_BYTES)) {
    pending = pending.length === 0 ? bytes : joined([pending, bytes])
    form ??= formOf(pending)
    const { list, end } = form.whole(pending, first)
    if (list !== null) yield { list, first }
    first += list?.count ?? 0
    pending = pending.subarray(end)
  }
  if (form === null || pending.length === 0) return
  yield { list: form.rest(pending, first), first }
}

/** How lists of one form are parsed. */
interface ListForm {
  /** The entries that end within `bytes`, null where none does; and the offset behind them. */
  whole(bytes: Uint8Array, first: number): { readonly list: MeasurementList | null; readonly end: number }
  /** What remains at the end of the list: all of it has to be entries. */
  rest(bytes: Uint8Array, first: number): MeasurementList
}

function formOf(start: Uint8Array): ListForm {
  // A list as text begins with the number of a PCR, two digits; as bytes with the same in little-endian, below 256.
  return (start[1] ?? 0) === 0 ? new BinaryForm(binaryDigestBytes(start)) : new AsciiForm(start)
}

class BinaryForm implements ListForm {
  readonly #templateDigestBytes: number
  #offset = 0

  constructor(templateDigestBytes: number) {
    this.#templateDigestBytes = templateDigestBytes
  }

  whole(bytes: Uint8Array, first: number) {
    const origin = { entry: first, offset: this.#offset }
    const { count, end } = new ListReader(bytes, this.#templateDigestBytes, origin).wholeEntries()
    const list = count === 0 ? null : this.rest(bytes.subarray(0, end), first)
    this.#offset += end
    return { list, end }
  }

  rest(bytes: Uint8Array, first: number): MeasurementList {
    return parseMeasurementList(bytes, {
      templateDigestBytes: this.#templateDigestBytes,
      origin: { entry: first, offset: this.#offset },
    })
  }
}

/** The size with which the first entry's template has a name that is known. */
function binaryDigestBytes(start: Uint8Array): number {
  return TEMPLATE_DIGEST_SIZES.find((size) => hasTemplate(start, size)) ?? TEMPLATE_DIGEST_BYTES
}

function hasTemplate(start: Uint8Array, digestBytes: number): boolean {
  const nameAt = 4 + digestBytes + 4
  if (start.length < nameAt) return false
  const length = new DataView(start.buffer, start.byteOffset).getUint32(nameAt - 4, true)
  const name = Buffer.from(start.subarray(nameAt, nameAt + Math.min(length, 256))).toString("latin1")
  if (name.length !== length) return false
  try {
    return imaTemplate(name, "").fields.length > 0
  } catch (error) {
    if (error instanceof ParseError) return false
    throw error
  }
}

class AsciiForm implements ListForm {
  readonly #templateDigestBytes: number

  constructor(start: Uint8Array) {
    this.#templateDigestBytes = asciiTemplateDigestBytes(start)
  }

  whole(bytes: Uint8Array, first: number) {
    const end = bytes.lastIndexOf(NEWLINE) + 1
    if (end === 0 && bytes.length >= BATCH_BYTES)
      throw new ParseError("ERR_TOO_LARGE", {
        at: `measurement list, line ${first + 1}`,
        expected: `at most ${BATCH_BYTES} bytes`,
      })
    return { list: end === 0 ? null : this.rest(bytes.subarray(0, end), first), end }
  }

  /** Lines as entries of the binary form, so that there is one of everything that follows. */
  rest(bytes: Uint8Array, first: number): MeasurementList {
    const templateDigestBytes = this.#templateDigestBytes
    const entries = parseAsciiMeasurementList(bytes, { firstLine: first + 1, templateDigestBytes })
    return parseMeasurementList(encodeMeasurementList(entries), {
      templateDigestBytes,
      origin: { entry: first, offset: 0 },
    })
  }
}

/** The same bytes in parts of at least that size, but for the last one. */
async function* inParts(
  chunks: AsyncIterable<Uint8Array>,
  atLeast: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let waiting: Uint8Array[] = []
  let length = 0
  for await (const chunk of chunks) {
    waiting.push(chunk)
    length += chunk.length
    if (length < atLeast) continue
    yield joined(waiting)
    waiting = []
    length = 0
  }
  if (length > 0) yield joined(waiting)
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(parts))
}
