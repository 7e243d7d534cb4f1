// A client that prints what Node says: tls.mjs LISTENER VERSION ALPN CA [CERTIFICATE KEY].
import { readFileSync } from 'node:fs'
import tls from 'node:tls'

const [listener, version, alpn, ca, cert, key] = process.argv.slice(2)
const [host, port] = listener.split(':')
const socket = tls.connect({
  host, port, ca: readFileSync(ca), minVersion: version, maxVersion: version,
  ...(alpn && { ALPNProtocols: [alpn] }),
  ...(cert && { cert: readFileSync(cert), key: readFileSync(key) }),
})
const say = (text) => {
  console.log(text)
  process.exit(0)
}
socket.on('error', (e) => say(e.message))
socket.on('data', () => say('it came through'))
socket.on('end', () => say('the end'))
socket.write('\n')
