// The bundle in Node: a library (import { load } from './node.mjs') and a server (node node.mjs [--listen HOST:PORT]).

import { createServer } from 'node:http';
import { readFile, realpath } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import facts from './artifact.mjs';
import { openBundle } from './bundle.mjs';
import { handler } from './v2.mjs';

const read = async (file) => new Uint8Array(await readFile(new URL(file, import.meta.url)));

/** load opens the model. digest: refuse any other artifact; prove: run its golden vectors first; maxMemory: bytes. */
export async function load(options = {}) {
  return (await openBundle({ ...options, facts, read })).model;
}

/** fetchHandler answers the Open Inference Protocol: a function from a Request to a promise of a Response. */
export function fetchHandler({ maxBody, maxQueue, log, opened, ...options } = {}) {
  const open = async () => opened ?? openBundle({ prove: Boolean(facts.golden), ...options, facts, read });
  return handler({ ...facts, open, maxBody, maxQueue, log });
}

/** serve answers on host and port; it gives a promise of the http.Server once it listens. */
export async function serve({ host = '127.0.0.1', port = 0, ...options } = {}) {
  const handle = fetchHandler(options);
  const server = createServer(async (req, res) => {
    let answer;
    try {
      const body = req.method === 'GET' || req.method === 'HEAD' ? undefined : Readable.toWeb(req);
      const headers = new Headers();
      for (let i = 0; i < req.rawHeaders.length; i += 2) headers.append(req.rawHeaders[i], req.rawHeaders[i + 1]);
      answer = await handle(new Request(new URL(req.url, 'http://localhost'), { method: req.method, headers, body, duplex: 'half' }));
    } catch (e) {
      answer = new Response(JSON.stringify({ error: e.message }) + '\n', { status: 400, headers: { 'content-type': 'application/json' } });
    }
    const bytes = Buffer.from(await answer.arrayBuffer());
    res.writeHead(answer.status, { ...Object.fromEntries(answer.headers), ...(req.method === 'HEAD' ? {} : { 'content-length': bytes.length }) });
    res.end(bytes);
    if (!req.readableEnded) req.resume();
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  return server;
}

const main = async () => {
  const at = process.argv.indexOf('--listen');
  const listen = at > 0 ? process.argv[at + 1] ?? '' : `${process.env.HOST ?? '127.0.0.1'}:${process.env.PORT ?? 8080}`;
  const m = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(listen);
  if (!m) throw new Error(`--listen wants HOST:PORT, not "${listen}"`);
  const log = (line) => process.stderr.write(line + '\n');
  const opened = await openBundle({ facts, read, prove: Boolean(facts.golden) }); // what does not check out does not listen
  const server = await serve({ opened, host: m[1] ?? (m[2] || '0.0.0.0'), port: Number(m[3]), log });
  const a = server.address();
  process.stdout.write(`listening on http://${a.family === 'IPv6' ? `[${a.address}]` : a.address}:${a.port}\n`);
  for (const s of ['SIGTERM', 'SIGINT']) process.once(s, () => server.close(() => process.exit(0)));
};

if (process.argv[1] && await realpath(process.argv[1]).catch(() => '') === await realpath(fileURLToPath(import.meta.url))) {
  await main().catch((e) => {
    process.stderr.write(`error: ${e.message}\n`);
    process.exitCode = 1;
  });
}
