// Reads forms, each in base64 on a line, with two parsers of Node's, and prints
// as JSON what the data fields hold together (in hex) and each open's fields.
"use strict";
const querystring = require("node:querystring");

function fields(parser, body) {
  if (parser === "querystring") return { ...querystring.parse(body) };
  return Object.fromEntries(new URLSearchParams(body));
}

function decode(data) {
  const bytes = [];
  for (let i = 0; i < data.length; i++) {
    if (data[i] !== "#") {
      bytes.push(data.charCodeAt(i));
      continue;
    }
    const hex = data.slice(i + 1, i + 3);
    if (!/^[0-9a-fA-F]{2}$/.test(hex)) throw new Error(`bad encoding at ${i}`);
    bytes.push(parseInt(hex, 16));
    i += 2;
  }
  return Buffer.from(bytes);
}

const lines = require("node:fs").readFileSync(0, "latin1").split("\n").filter((l) => l);
const out = {};
for (const parser of ["querystring", "URLSearchParams"]) {
  const opens = [];
  const data = [];
  for (const line of lines) {
    const form = fields(parser, Buffer.from(line, "base64").toString("latin1"));
    if (form.action === "open") opens.push(form);
    if (!("data" in form)) continue;
    const bytes = decode(form.data);
    if (bytes.length !== Number(form.datalength)) throw new Error(`datalength ${form.datalength} of ${bytes.length} bytes`);
    data.push(bytes);
  }
  out[parser] = { opens, data: Buffer.concat(data).toString("hex") };
}
console.log(JSON.stringify(out));
