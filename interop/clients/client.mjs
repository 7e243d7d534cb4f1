// Asks for a page through a proxy: client.mjs socks4|socks5|http HOST:PORT USER PASSWORD TARGET.
// It prints the answer's status, or what the library says.
import http from 'node:http'
import { SocksClient } from 'socks'
import { HttpsProxyAgent } from 'https-proxy-agent'

const [kind, proxy, user, password, target] = process.argv.slice(2)
const at = (text) => ({ host: text.split(':')[0], port: Number(text.split(':')[1]) })

const get = (options) => new Promise((resolve, reject) => {
  http.get({ ...at(target), path: '/', ...options }, (res) => {
    res.resume()
    resolve(res.statusCode)
  }).on('error', reject)
})

try {
  if (kind !== 'http') {
    const { socket } = await SocksClient.createConnection({
      proxy: { ...at(proxy), type: kind === 'socks4' ? 4 : 5, userId: user, password }, command: 'connect', destination: at(target),
    })
    console.log(await get({ createConnection: () => socket }))
  } else {
    console.log(await get({ agent: new HttpsProxyAgent(`http://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${proxy}`) }))
  }
} catch (e) {
  console.log(e.message)
}
process.exit(0)
