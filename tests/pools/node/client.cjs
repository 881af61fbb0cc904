// A client with the pool of undici: works off a plan (tests/src/pools/plan.rs) and says what came of it.
'use strict';
const fs = require('node:fs');
const { setTimeout: rest } = require('node:timers/promises');
const { Pool } = require('undici');

const USUAL = 64 << 10;
const LONGEST = 512 << 10;
const PATIENCE = 30_000;

const plan = { headers: {}, urls: [], streams: new Map(), kinds: [] };
for (const line of fs.readFileSync(process.argv[2], 'utf8').trim().split('\n')) {
  const [word, ...rest] = line.split(' ');
  if (word === 'stop') plan.stop = rest[0];
  else if (word === 'workers') plan.workers = Number(rest[0]);
  else if (word === 'pause') plan.pause = Number(rest[0]);
  else if (word === 'header') plan.headers[rest[0]] = rest[1];
  else if (word === 'url') plan.urls.push(rest[0]);
  else if (word === 'stream') plan.streams.set(rest[0], fs.readFileSync(rest[1]));
  else if (word === 'kind') {
    plan.kinds.push({ name: rest[0], servers: rest[1].split(','), header: rest[2], value: rest[3] });
  } else throw new Error(`unknown line: ${line}`);
}

const pools = plan.urls.map((url) => new Pool(url, {
  connections: plan.workers, keepAliveTimeout: 600_000, headersTimeout: PATIENCE, bodyTimeout: PATIENCE,
}));
const served = new Map();
const now = () => Date.now() * 1000;
const below = (bound) => Math.floor(Math.random() * bound);
const pick = (items) => items[below(items.length)];
const say = (line) => fs.writeSync(1, `${JSON.stringify(line)}\n`);

// What is sent piece by piece has no length: it is chunked.
async function* pieces(body) {
  for (let at = 0; at < body.length; at += 9000) yield body.subarray(at, at + 9000);
}

async function exchange() {
  const kind = pick(plan.kinds);
  const length = below(below(50) === 0 ? LONGEST : USUAL);
  let method = 'GET';
  let path = `/bytes/${length}`;
  let sends = Buffer.alloc(0);
  let body = null;
  const roll = below(100);
  if (roll < 15) path = `/chunked/${length}/5`;
  else if (roll < 20) method = 'HEAD';
  else if (roll < 60) {
    [method, path] = ['POST', '/mirror'];
    const stream = pick([...plan.streams.values()]);
    const from = below(stream.length - length);
    sends = stream.subarray(from, from + length);
    body = roll < 30 ? pieces(sends) : sends;
  }
  const sent = now();
  const headers = { ...plan.headers, 'x-kind': kind.name, 'x-sent': String(sent) };
  if (kind.header) headers[kind.header] = kind.value;
  const bad = (outcome, error) => say({
    outcome, kind: kind.name, request: `${method} ${path} of ${length} bytes`, error, sent, ended: now(),
  });
  let response;
  let got;
  try {
    response = await pick(pools).request({ method, path, headers, body });
    got = Buffer.from(await response.body.arrayBuffer());
  } catch (error) {
    return bad('failed', `${error.code ?? ''} ${error.message}`);
  }
  const server = String(response.headers['x-served-by']);
  const due = method === 'GET' ? plan.streams.get(server)?.subarray(0, length) : sends;
  if (response.statusCode !== 200) return bad('wrong', `status ${response.statusCode}`);
  if (!kind.servers.includes(server)) return bad('wrong', `served by ${server}`);
  if (!got.equals(due)) return bad('wrong', `${got.length} bytes of ${server} are not the ${due.length} that are due`);
  const key = `${kind.name} ${server}`;
  served.set(key, (served.get(key) ?? 0) + 1);
}

async function work() {
  while (!fs.existsSync(plan.stop)) {
    await exchange();
    await rest(below(plan.pause));
  }
}

Promise.all(Array.from({ length: plan.workers }, work)).then(() => {
  for (const [key, count] of served) {
    const [kind, server] = key.split(' ');
    say({ outcome: 'served', kind, server, count });
  }
  say({ outcome: 'end' });
  process.exit(0);
});
