'use strict';

// The far ends that the interop tests run: real hyco-ws and Node's own ws.
// Each prints one word when it is ready, and lines of what it saw.
//
//   node peer.js hyco-listener  <listen URL> <token>
//   node peer.js hyco-sender    <connect URL> <token> <bytes>
//   node peer.js hyco-token     <URL> <key name> <key>
//   node peer.js ws-listener    <listen URL> <token>
//   node peer.js ws-pipe        <connect URL>

const crypto = require('crypto');
const net = require('net');
const [mode, url, ...args] = process.argv.slice(2);
const say = (line) => process.stdout.write(line + '\n');

// pattern is n bytes that both sides can make.
function pattern(n) {
  const b = Buffer.alloc(n);
  for (let i = 0; i < n; i++) b[i] = (i * 7 + (i >> 8)) & 0xff;
  return b;
}

const sha = (b) => crypto.createHash('sha256').update(b).digest('hex');

// The listener sends back each message as it came, and says how it ended.
function hycoListener(token) {
  const WebSocket = require('hyco-ws');
  const server = WebSocket.createRelayedServer({ server: url, token }, (ws) => {
    let bytes = 0;
    ws.on('message', (data, flags) => {
      bytes += data.length;
      ws.send(data, { binary: Boolean(flags.binary) });
    });
    ws.on('close', (code) => say(`closed ${code} ${bytes}`));
    ws.on('error', () => say('error'));
  });
  server.on('listening', () => say('ready'));
  server.on('error', (e) => say('error ' + e));
}

// The sender sends bytes, waits for them to come back and closes.
function hycoSender(token, bytes) {
  const WebSocket = require('hyco-ws');
  const data = pattern(Number(bytes));
  const got = [];
  let length = 0;
  WebSocket.relayedConnect(url, token, (ws) => {
    ws.on('message', (m) => {
      got.push(m);
      length += m.length;
      if (length === data.length) ws.close(1000);
    });
    ws.on('close', (code) => {
      say(`closed ${code} ${sha(Buffer.concat(got)) === sha(data)}`);
      process.exit(0);
    });
    for (let i = 0; i < data.length; i += 100000) ws.send(data.subarray(i, i + 100000), { binary: true });
  });
}

// A listener over Node's ws. The sender's first message, JSON, says what to do.
function wsListener(token) {
  const WebSocket = require('ws');
  const control = new WebSocket(url, { headers: { ServiceBusAuthorization: token } });
  control.on('open', () => say('ready'));
  control.on('message', (m) => serve(new WebSocket(JSON.parse(m).accept.address)));
}

function serve(ws) {
  let pongs = 0;
  let bytes = 0;
  const hash = crypto.createHash('sha256');
  ws.on('pong', () => pongs++);
  ws.on('close', (code) => say(`closed ${code} ${pongs} ${bytes} ${hash.digest('hex')}`));
  ws.on('error', (e) => say('error ' + e.message));
  ws.once('message', (m) => {
    ws.on('message', (data) => {
      bytes += data.length;
      hash.update(data);
    });
    act(ws, JSON.parse(m));
  });
}

function act(ws, { bytes, as }) {
  const data = pattern(bytes);
  switch (as) {
    case 'fragments':
      for (let i = 0; i < data.length; i += 1000) {
        ws.send(data.subarray(i, i + 1000), { binary: true, fin: i + 1000 >= data.length });
        if (i % 50000 === 0) ws.ping('between fragments');
      }
      break;
    case 'text':
      ws.send(data.toString('latin1'));
      break;
    case 'large':
      ws.send(data, { binary: true });
      break;
    case 'pings':
      for (let i = 0; i < 100; i++) ws.ping(String(i));
      ws.send(data, { binary: true });
      break;
  }
  // Closing comes from the sender, whose Close ws answers by itself.
}

// One TCP connection through a WebSocket, the way a Node program does it.
function wsPipe() {
  const WebSocket = require('ws');
  const server = net.createServer((socket) => {
    const ws = new WebSocket(url, { perMessageDeflate: false });
    const stream = WebSocket.createWebSocketStream(ws);
    socket.pipe(stream).pipe(socket);
    for (const s of [socket, stream]) s.on('error', () => { socket.destroy(); ws.terminate(); });
  });
  server.listen(0, '127.0.0.1', () => say(`ready ${server.address().port}`));
}

const modes = {
  'hyco-listener': hycoListener,
  'hyco-sender': hycoSender,
  'hyco-token': (name, key) => say(require('hyco-ws').createRelayToken(url, name, key)),
  'ws-listener': wsListener,
  'ws-pipe': wsPipe,
};
modes[mode](...args);
