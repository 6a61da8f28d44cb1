/**
 * A NitroTPM in front of a software TPM: it calls itself one and answers AWS's own command, with documents under a root that nobody
 * trusts by accident. All else goes to the software TPM. That one's NV indexes have 2048 bytes at most, so that it holds the request
 * and this front the answer.
 */
import { createServer, type Server, type Socket, connect as tcp } from "node:net"
import { CborReader, cbor } from "../../src/formats/cbor.ts"
import { NITRO_BUFFER_BYTES, NITRO_INDEX } from "../../src/native/nitro-tpm.ts"
import { type NitroPki, nitroMembers, nitroPayload, nitroPki, nitroSign, withMember } from "./nitro-tpm.ts"

const CC = {
  nvUndefineSpace: 0x122,
  nvDefineSpace: 0x12a,
  nvRead: 0x14e,
  nvReadPublic: 0x169,
  getCapability: 0x17a,
  nsmRequest: 0x20000001,
}
const HEAD = 10
const HELD_BYTES = 1024
const SHA384 = 0x000c
const PCRS = 24

export class NitroFront {
  moduleId = "i-0123456789abcdef0-tpm00000000000000aa"
  pki: NitroPki = nitroPki()
  /** What the next requests are answered with in a document's place; null: a document. */
  refusal: string | null = null
  /** What becomes of the software TPM's PCRs in a document. */
  pcrs = (values: readonly Uint8Array[]): readonly Uint8Array[] => values
  #behind = 0
  #port = 0
  #servers: Server[] = []
  /** Content of the NV index, once the command was given. */
  #answer: Buffer | null = null

  /** The address of this front, now before the software TPM at `tcti`. */
  async before(tcti: string): Promise<string> {
    this.#behind = Number(/port=(\d+)/.exec(tcti)?.[1])
    for (let attempt = 0; this.#port === 0; attempt++) {
      if (attempt === 50) throw new Error("no free pair of ports")
      await this.#listen(32_000 + 2 * Math.floor(Math.random() * 300))
    }
    return `swtpm:host=127.0.0.1,port=${this.#port}`
  }

  close(): void {
    for (const server of this.#servers) server.close()
  }

  async #listen(port: number): Promise<void> {
    const commands = createServer((socket) => this.#serve(socket))
    const control = createServer((socket) => {
      const behind = tcp(this.#behind + 1, "127.0.0.1")
      tie(socket, behind)
      socket.pipe(behind).pipe(socket)
    })
    const opened = await Promise.all([listening(commands, port), listening(control, port + 1)])
    if (opened.includes(false)) {
      commands.close()
      control.close()
      return
    }
    this.#servers = [commands, control]
    this.#port = port
  }

  #serve(socket: Socket): void {
    const behind = tcp(this.#behind, "127.0.0.1")
    tie(socket, behind)
    const answers = new Messages(behind)
    const transceive = (command: Buffer): Promise<Buffer> => {
      behind.write(command)
      return answers.next()
    }
    const commands = new Messages(socket)
    const run = async (): Promise<void> => {
      for (;;) {
        const command = await commands.next()
        const code = command.readUInt32BE(6)
        if (code === CC.nvUndefineSpace) this.#answer = null
        if (code === CC.nsmRequest) {
          this.#answer = await this.#document(transceive, command)
          socket.write(withSession(Buffer.alloc(0)))
        } else if (this.#answer !== null && isReadOfAnswer(command))
          socket.write(withSession(slice(this.#answer, command)))
        else if (isVendorString(command)) socket.write(vendorString())
        else socket.write(asDefined(code, await transceive(asHeld(code, command))))
      }
    }
    // Ends with the connection: swtpm's TCTI makes one for each command.
    run().catch(() => socket.destroy())
  }

  async #document(transceive: (command: Buffer) => Promise<Buffer>, command: Buffer): Promise<Buffer> {
    const [authorizing, index] = [command.readUInt32BE(HEAD), command.readUInt32BE(HEAD + 4)]
    if (authorizing !== NITRO_INDEX || index !== NITRO_INDEX) throw new Error("another index")
    const held = await transceive(nvRead(index, HELD_BYTES))
    const nonce = nonceIn(held.subarray(HEAD + 4 + 2, HEAD + 4 + 2 + HELD_BYTES))
    const values = this.pcrs(await pcrValues(transceive))
    const pairs = values.flatMap((value, pcr) => [cbor.unsigned(pcr), cbor.bytes(value)])
    let members = withMember(nitroMembers(this.pki), "nitrotpm_pcrs", cbor.map(...pairs))
    members = withMember(members, "module_id", cbor.text(this.moduleId))
    members = withMember(members, "user_data", Uint8Array.of(0xf6))
    members = withMember(members, "nonce", cbor.bytes(nonce))
    const document = nitroSign(nitroPayload(members), this.pki.key)
    const out = Buffer.alloc(NITRO_BUFFER_BYTES, 0xff)
    out.set(
      this.refusal === null
        ? cbor.map(cbor.text("Attestation"), cbor.map(cbor.text("document"), cbor.bytes(document)))
        : cbor.map(cbor.text("Error"), cbor.text(this.refusal)),
    )
    return out
  }
}

/** `{"Attestation": {"user_data": null, "nonce": bytes, "public_key": null}}` and nothing else. */
function nonceIn(request: Uint8Array): Uint8Array {
  const reader = new CborReader(request, "request")
  const nothing = (name: string) => {
    if (reader.text("name") !== name || !reader.null()) throw new Error(`${name} is not null`)
  }
  if (reader.map("request") !== 1 || reader.text("kind") !== "Attestation" || reader.map("members") !== 3)
    throw new Error("another request")
  nothing("user_data")
  if (reader.text("name") !== "nonce") throw new Error("no nonce")
  const nonce = reader.bytes("nonce")
  nothing("public_key")
  return nonce
}

async function pcrValues(transceive: (command: Buffer) => Promise<Buffer>): Promise<Uint8Array[]> {
  const values: Uint8Array[] = []
  for (let pcr = 0; pcr < PCRS; pcr++) {
    const select = Buffer.alloc(3)
    select[pcr >> 3] = 1 << (pcr & 7)
    const answer = await transceive(
      message(0x8001, 0x17e, Buffer.concat([u32(1), u16(SHA384), Buffer.of(3), select])),
    )
    // Counter, then the selection that was read, then one digest with its size.
    const digest = HEAD + 4 + 4 + 2 + 1 + 3 + 4
    if (answer.readUInt16BE(digest) !== 48) throw new Error("no SHA-384 bank")
    values.push(Uint8Array.from(answer.subarray(digest + 2, digest + 50)))
  }
  return values
}

/** The software TPM defines a smaller index. */
function asHeld(code: number, command: Buffer): Buffer {
  const sizeAt = command.length - 2
  if (code !== CC.nvDefineSpace || command.readUInt16BE(sizeAt) !== NITRO_BUFFER_BYTES) return command
  const changed = Buffer.from(command)
  changed.writeUInt16BE(HELD_BYTES, sizeAt)
  return changed
}

/** And it is described as it was asked for. */
function asDefined(code: number, answer: Buffer): Buffer {
  const [indexAt, sizeAt] = [HEAD + 2, HEAD + 2 + 4 + 2 + 4 + 2]
  if (code !== CC.nvReadPublic || answer.length < sizeAt + 2 || answer.readUInt32BE(indexAt) !== NITRO_INDEX)
    return answer
  if (answer.readUInt16BE(sizeAt) === HELD_BYTES) answer.writeUInt16BE(NITRO_BUFFER_BYTES, sizeAt)
  return answer
}

function isReadOfAnswer(command: Buffer): boolean {
  return command.readUInt32BE(6) === CC.nvRead && command.readUInt32BE(HEAD + 4) === NITRO_INDEX
}

function isVendorString(command: Buffer): boolean {
  return command.readUInt32BE(6) === CC.getCapability && command.readUInt32BE(HEAD + 4) === 0x106
}

function vendorString(): Buffer {
  const texts = ["Nitr", "oTPM", "\0\0\0\0", "\0\0\0\0"]
  const properties = texts.flatMap((text, index) => [u32(0x106 + index), Buffer.from(text, "latin1")])
  return message(0x8001, 0, Buffer.concat([Buffer.of(1), u32(6), u32(texts.length), ...properties]))
}

function slice(answer: Buffer, command: Buffer): Buffer {
  const size = command.readUInt16BE(command.length - 4)
  const offset = command.readUInt16BE(command.length - 2)
  return Buffer.concat([u16(size), answer.subarray(offset, offset + size)])
}

function nvRead(index: number, size: number): Buffer {
  const password = Buffer.concat([u32(0x40000009), u16(0), Buffer.of(0), u16(0)])
  const handles = Buffer.concat([u32(index), u32(index)])
  return message(
    0x8002,
    CC.nvRead,
    Buffer.concat([handles, u32(password.length), password, u16(size), u16(0)]),
  )
}

/** A response to a command with a password. */
function withSession(parameters: Buffer): Buffer {
  return message(0x8002, 0, Buffer.concat([u32(parameters.length), parameters, Buffer.of(0, 0, 1, 0, 0)]))
}

function message(tag: number, code: number, body: Buffer): Buffer {
  return Buffer.concat([u16(tag), u32(HEAD + body.length), u32(code), body])
}

function u16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 0xff)
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}

/** Commands or responses, one after the other, each with its size in its head. */
class Messages {
  #bytes = Buffer.alloc(0)
  #waiting: (() => void) | null = null
  #closed = false

  constructor(socket: Socket) {
    socket.on("data", (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
      this.#waiting?.()
    })
    socket.on("close", () => {
      this.#closed = true
      this.#waiting?.()
    })
  }

  async next(): Promise<Buffer> {
    for (;;) {
      const size = this.#bytes.length < HEAD ? HEAD : this.#bytes.readUInt32BE(2)
      if (this.#bytes.length >= size && this.#bytes.length >= HEAD) {
        const whole = Buffer.from(this.#bytes.subarray(0, size))
        this.#bytes = this.#bytes.subarray(size)
        return whole
      }
      if (this.#closed) throw new Error("closed")
      await new Promise<void>((resolve) => {
        this.#waiting = resolve
      })
    }
  }
}

function tie(one: Socket, other: Socket): void {
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    here.on("error", () => there.destroy())
    here.on("close", () => there.destroy())
  }
}

function listening(server: Server, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    server.once("error", () => resolve(false))
    server.listen(port, "127.0.0.1", () => resolve(true))
  })
}
