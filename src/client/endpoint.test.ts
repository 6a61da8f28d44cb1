import { expect, test } from "bun:test"
import { endpointText, parseAgentUrl, parseApplication } from "./endpoint.ts"

test("an agent's URL gives host and port", () => {
  expect(parseAgentUrl("https://vm.example:5555")).toEqual({ host: "vm.example", port: 5555 })
  expect(parseAgentUrl("https://vm.example/")).toEqual({ host: "vm.example", port: 443 })
  expect(parseAgentUrl("https://[2001:db8::1]:5555")).toEqual({ host: "2001:db8::1", port: 5555 })
})

for (const url of [
  "",
  "vm.example:5555",
  "http://vm.example",
  "https://",
  "https://user:secret@vm.example",
  "https://vm.example/path",
  "https://vm.example/?x=1",
  "https://vm.example:70000",
  "file:///etc/passwd",
])
  test(`the URL ${JSON.stringify(url)} is refused`, () => {
    expect(() => parseAgentUrl(url)).toThrowCode("ERR_BAD_VALUE")
  })

test("a password in a URL is not repeated in the error", () => {
  try {
    parseAgentUrl("https://user:secret@vm.example")
    expect.unreachable()
  } catch (error) {
    expect(JSON.stringify(error)).not.toContain("secret")
  }
})

test("an application has port 443 unless it says another", () => {
  expect(parseApplication("app.example")).toEqual({ host: "app.example", port: 443 })
  expect(parseApplication("app.example:8443")).toEqual({ host: "app.example", port: 8443 })
  expect(parseApplication("[::1]:8443")).toEqual({ host: "::1", port: 8443 })
  expect(endpointText(parseApplication("[::1]"))).toBe("[::1]:443")
})

for (const text of ["", ":443", "host:", "host:0", "host:65536", "https://host", "a b", "host:443/x", "::1"])
  test(`the application ${JSON.stringify(text)} is refused`, () => {
    expect(() => parseApplication(text)).toThrowCode("ERR_BAD_VALUE")
  })
