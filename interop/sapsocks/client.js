// A SOCKS5 client of npm's socks with a custom authentication.
//
//   node client.js '{"proxy": port, "host": "db.corp", "port": 1, "token": "…", "location": "…", "bytes": N}'
//
// It sends so many bytes through the proxy to an echo service, ends its
// direction, and prints {"echoed": N, "same": true} or {"error": "…"}. Without a
// token it does without authentication.
'use strict';
const { randomBytes } = require('node:crypto');
const { SocksClient } = require('socks');

const options = JSON.parse(process.argv[2]);
const proxy = { host: '127.0.0.1', port: options.proxy, type: 5 };
if (options.token !== undefined) {
  Object.assign(proxy, {
    custom_auth_method: 0x80,
    custom_auth_response_size: 2,
    custom_auth_request_handler: async () => {
      const token = Buffer.from(options.token);
      const location = Buffer.from(Buffer.from(options.location ?? '').toString('base64'));
      const head = Buffer.alloc(5);
      head[0] = 1;
      head.writeUInt32BE(token.length, 1);
      return Buffer.concat([head, token, Buffer.from([location.length]), location]);
    },
    custom_auth_response_handler: async (data) => data[0] === 1 && data[1] === 0,
  });
}

async function main() {
  const { socket } = await SocksClient.createConnection({
    proxy,
    command: 'connect',
    destination: { host: options.host, port: options.port },
    timeout: 20000,
  });
  socket.allowHalfOpen = true;
  const sent = randomBytes(options.bytes);
  const got = [];
  socket.on('data', (chunk) => got.push(chunk));
  const ended = new Promise((resolve, reject) => socket.on('end', resolve).on('error', reject));
  socket.end(sent);
  await ended;
  const echoed = Buffer.concat(got);
  console.log(JSON.stringify({ echoed: echoed.length, same: echoed.equals(sent) }));
}

main().catch((e) => console.log(JSON.stringify({ error: e.message })));
