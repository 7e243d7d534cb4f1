// A SOCKS5 server of npm's @luminati-io/socksv5 with a handler for method 0x80.
//
//   node server.js '{"token": "…", "location": "…", "map": {"db.corp:1": [host, port]}}'
//
// It prints {"port": N} and runs until its standard input ends. Hosts of the map
// are connected here; IPv4 addresses by the package itself; others are denied.
'use strict';
const net = require('node:net');

// The package asks for a function that newer versions of Node no longer have.
require('node:util').isError ??= (e) => e instanceof Error;
const socks = require('@luminati-io/socksv5');

const options = JSON.parse(process.argv[2]);

// reader takes exact numbers of bytes from a socket and gives back the rest.
function reader(socket) {
  return (n) => new Promise((resolve) => {
    let have = Buffer.alloc(0);
    const onData = (chunk) => {
      have = Buffer.concat([have, chunk]);
      if (have.length < n) return;
      socket.removeListener('data', onData);
      socket.pause();
      if (have.length > n) socket.unshift(have.subarray(n));
      resolve(have.subarray(0, n));
    };
    socket.on('data', onData);
    socket.resume();
  });
}

const jwt = {
  METHOD: 0x80,
  server(socket, done) {
    const read = reader(socket);
    (async () => {
      const head = await read(5);
      const token = head.readUInt32BE(1) ? (await read(head.readUInt32BE(1))).toString('latin1') : '';
      const length = (await read(1))[0];
      const location = length ? Buffer.from((await read(length)).toString('latin1'), 'base64').toString() : '';
      const good = head[0] === 1 && token === options.token && location === (options.location ?? '');
      socket.write(Buffer.from([1, good ? 0 : 1]));
      done(good);
    })();
  },
};

const server = socks.createServer((info, accept, deny) => {
  const real = options.map[`${info.dstAddr}:${info.dstPort}`];
  if (!real) return net.isIPv4(info.dstAddr) ? accept() : deny();
  const target = net.connect({ host: real[0], port: real[1], allowHalfOpen: true }, () => {
    const socket = accept(true);
    socket.pipe(target);
    target.pipe(socket);
    socket.on('error', () => target.destroy());
  });
  target.on('error', () => deny());
});
server.useAuth(jwt);
// The package makes its listener without this, and Node then ends a connection
// as soon as the other side has ended its direction.
server._srv.allowHalfOpen = true;
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.resume().on('end', () => process.exit(0));
