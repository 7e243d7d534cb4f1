// A socketFactory for kafkajs that reaches each broker through a SOCKS5 listener
// of tunneld, by the name that the brokers advertise:
//
//   new Kafka({
//     brokers: ['kafka-1.corp:9092'],
//     socketFactory: socksFactory({ host: '127.0.0.1', port: 1080 }),
//   })
//
// kafkajs listens to the socket's data as soon as it has it, so the handshake
// takes its own share of the data before anybody else sees it (RFC 1928).
// Brokers that want TLS are not for this factory.
const net = require('node:net')

const REPLIES = ['', 'general failure', 'not allowed', 'network unreachable',
  'host unreachable', 'connection refused', 'TTL expired', 'command not supported',
  'address type not supported']

class SocksSocket extends net.Socket {
  constructor (proxy, host, port, onConnect) {
    super()
    const name = Buffer.from(host)
    this.received = Buffer.alloc(0)
    this.connect(proxy, () => {
      this.setKeepAlive(true, 60000)
      // Greeting and request in one packet: tunneld asks for no password.
      this.write(Buffer.concat([
        Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length]), name,
        Buffer.from([port >> 8, port & 0xff])
      ]))
    })
    this.ready = onConnect
  }

  emit (event, ...args) {
    if (event === 'end' && this.ready) {
      this.destroy(new Error('SOCKS: the proxy closed in the handshake'))
      return true
    }
    if (event !== 'data' || !this.ready) return super.emit(event, ...args)
    this.received = Buffer.concat([this.received, args[0]])
    const b = this.received
    const refusal = b.length > 3 && b[3] !== 0
    if (b.length < 12 && !refusal) return true // 05 00, then ten bytes of reply
    if (b[0] !== 5 || b[1] !== 0 || b[2] !== 5 || refusal) {
      this.destroy(new Error(`SOCKS: ${REPLIES[b[3]] || 'not a SOCKS5 proxy'}`))
      return true
    }
    const onConnect = this.ready
    this.ready = null
    onConnect()
    return b.length > 12 ? super.emit('data', b.subarray(12)) : true
  }
}

module.exports = proxy => ({ host, port, ssl, onConnect }) => {
  if (ssl) throw new Error('this socket factory does not speak TLS')
  return new SocksSocket(proxy, host, port, onConnect)
}
