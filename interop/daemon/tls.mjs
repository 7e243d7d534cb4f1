// A TLS client of Node: tls.mjs ends|hears|proxy|sql HOST:PORT CA CERT KEY [TARGET]
// ends: it asks, and ends its direction. hears: it asks. proxy: it gets the target's page by
// way of an HTTPS proxy. sql: it asks PostgreSQL, without an SSLRequest.
// It prints what it got, and then how that ended.
import fs from 'node:fs'
import https from 'node:https'
import http from 'node:http'
import tls from 'node:tls'

const [what, address, ...rest] = process.argv.slice(2)
const [host, port] = address.split(':')
const [ca, cert, key] = rest.slice(0, 3).map((file) => fs.readFileSync(file))
const target = rest[3]

async function converse () {
  const s = tls.connect({ host, port: Number(port), ca, cert, key, servername: 'door.example', allowHalfOpen: true })
  let got = ''
  s.setEncoding('utf8')
  s.on('data', (d) => { got += d })
  s.on('secureConnect', () => {
    s.write('question\n')
    if (what === 'ends') s.end()
  })
  const how = await new Promise((resolve) => {
    s.on('end', () => resolve('an end'))
    s.on('error', (e) => resolve(e.code))
  })
  s.end()
  return [got, how]
}

async function proxy () {
  const { HttpsProxyAgent } = await import('https-proxy-agent')
  const agent = new HttpsProxyAgent(`https://${address}`, { ca, cert, key, servername: 'door.example' })
  return new Promise((resolve, reject) => {
    http.get(`http://${target}/`, { agent }, (res) => {
      let got = ''
      res.on('data', (d) => { got += d })
      res.on('end', () => resolve([got, res.statusCode]))
    }).on('error', reject)
  })
}

async function sql () {
  const pg = (await import('pg')).default
  const client = new pg.Client({
    host, port: Number(port), user: 'postgres', database: 'postgres', ssl: { ca, cert, key, servername: 'door.example' }, sslnegotiation: 'direct',
  })
  await client.connect()
  const got = await client.query("select 6*7 as n, repeat('x', 1000000) as s")
  await client.end()
  return [got.rows[0].n, got.rows[0].s.length]
}

try {
  console.log((await { ends: converse, hears: converse, proxy, sql }[what]()).join(''))
} catch (e) {
  console.log(e.code ?? '', e.message)
}
process.exit(0)
