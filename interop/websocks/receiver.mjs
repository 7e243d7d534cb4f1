// Feeds the bytes given in hex to ws's parser of frames, in a client's role,
// and prints how that ended.
import { Receiver } from 'ws';

const receiver = new Receiver({ isServer: false });
receiver.on('message', () => console.log(JSON.stringify({ code: 'MESSAGE' })));
receiver.on('error', (err) => console.log(JSON.stringify({ code: err.code })));
receiver.end(Buffer.from(process.argv[2], 'hex'));
