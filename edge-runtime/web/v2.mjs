// The Open Inference Protocol V2 over REST as a function from a Request to a promise of a Response, which is what a
// Worker, a service worker and, through node.mjs, Node's HTTP server are made of.

import { datatype, decode, decodeRaw, encode, firstState, HTTPError } from './codec.mjs';

const HEADER = 'inference-header-content-length';
const STATUS = { input: 400, memory: 413 };

/**
 * handler answers for one model. open() gives a promise of what openBundle gives; it is called at the first request that
 * needs the model. When it fails nothing is answered but 503: an artifact that did not check out never runs.
 */
export function handler({ name, version, digest, waybill, open, maxBody = 32 << 20, maxQueue = 256, log = () => {} }) {
  let opened, waiting = 0;
  const ready = async () => {
    opened ??= open().then((o) => ({ ...o, first: firstState(o.iface) }));
    try {
      return await opened;
    } catch (e) {
      log(`the model could not be loaded: ${e.message}`);
      throw new HTTPError(503, 'the model could not be loaded: see the log');
    }
  };
  const json = (status, v, headers = {}) => new Response(JSON.stringify(v) + '\n', { status, headers: { 'content-type': 'application/json', ...headers } });
  const known = { 'waybill-digest': digest };

  async function body(request) {
    const large = () => new HTTPError(413, `the request is larger than ${maxBody} bytes`);
    if (Number(request.headers.get('content-length') ?? 0) > maxBody) throw large();
    let stream = request.body;
    const enc = (request.headers.get('content-encoding') ?? '').toLowerCase();
    if (enc && enc !== 'identity') {
      if (enc !== 'gzip' && enc !== 'deflate') throw new HTTPError(415, `content encoding "${enc}" is not supported; gzip and deflate are`);
      stream = stream?.pipeThrough(new DecompressionStream(enc));
    }
    const parts = [];
    let size = 0;
    if (stream) {
      const reader = stream.getReader();
      try {
        for (let r; !(r = await reader.read()).done;) {
          size += r.value.length;
          if (size > maxBody) throw large();
          parts.push(r.value);
        }
      } catch (e) {
        reader.cancel().catch(() => {});
        throw e instanceof HTTPError ? e : new HTTPError(400, `the request could not be read: ${e.message}`);
      }
    }
    const all = new Uint8Array(size);
    parts.reduce((at, p) => (all.set(p, at), at + p.length), 0);
    return all;
  }

  // JSON may also come without a type, or with the one that curl -d sends, but the latter not from a web page.
  function checkJSON(h) {
    const ct = h.get('content-type');
    if (!ct) return;
    const [type, ...params] = ct.split(';').map((s) => s.trim().toLowerCase());
    if (type === 'application/x-www-form-urlencoded' && !h.get('origin')) return;
    if (type !== 'application/json') throw new HTTPError(415, `content type ${JSON.stringify(ct)} is not supported; send application/json, or binary tensors with the header Inference-Header-Content-Length`);
    const cs = params.find((p) => p.startsWith('charset='))?.slice(8).replace(/^"|"$/g, '');
    if (cs && cs !== 'utf-8') throw new HTTPError(415, `charset "${cs}" is not supported; send UTF-8`);
  }

  async function infer(request) {
    const raw = await body(request);
    const told = request.headers.get(HEADER);
    let length = raw.length;
    if (told === null) checkJSON(request.headers);
    else {
      if (!/^\d{1,15}$/.test(told.trim())) throw new HTTPError(400, `the header Inference-Header-Content-Length is "${told}", which is no length`);
      length = Number(told);
      if (length > raw.length) throw new HTTPError(400, `the header Inference-Header-Content-Length says ${length}, the body has only ${raw.length} bytes`);
    }
    const { model, iface, first } = await ready();
    const req = told !== null && length === 0 ? decodeRaw(raw, iface, first)
      : decode(new TextDecoder('utf-8', { ignoreBOM: true }).decode(raw.subarray(0, length)), raw.subarray(length), iface, first);
    if (waiting >= maxQueue) throw new HTTPError(429, 'too many requests are waiting; try again in 1s', { 'retry-after': '1' });
    waiting++;
    let out;
    try {
      const ms = iface.limits?.timeoutMs;
      out = await model.run(req.inputs, { signal: ms > 0 ? AbortSignal.timeout(ms) : undefined });
    } catch (e) {
      if (e.name === 'TimeoutError') throw new HTTPError(504, 'the inference took longer than limits.timeoutMs of the model');
      const status = STATUS[e.kind] ?? 500;
      if (status === 500) log(e.message);
      throw new HTTPError(status, e.message);
    } finally {
      waiting--;
    }
    const { body: answer, header } = encode({ name, version, digest }, req, out);
    return new Response(answer, { headers: { ...known, ...(header < 0 ? { 'content-type': 'application/json' }
      : { 'content-type': 'application/octet-stream', [HEADER]: String(header) }) } });
  }

  const ports = (ps) => ps.map((p) => ({ name: p.name, datatype: datatype(p), shape: (p.shape ?? []).map((d) => d.size) }));
  const routes = {
    '': () => json(200, { name: 'waybill', version: waybill, extensions: ['binary_tensor_data'] }),
    'health/live': () => json(200, { live: true }),
    'health/ready': () => ready().then(() => json(200, { ready: true }), () => json(503, { ready: false })),
    model: async () => {
      const { iface } = await ready();
      return json(200, { name, versions: [version], platform: 'waybill_wasm', inputs: ports(iface.inputs), outputs: ports(iface.outputs), properties: { digest } }, known);
    },
    'model/ready': () => ready().then(() => json(200, { name, ready: true }, known), () => json(503, { name, ready: false }, known)),
    'model/infer': infer,
  };

  return async function handle(request) {
    try {
      const { pathname } = new URL(request.url);
      const nothing = new HTTPError(404, `there is nothing at ${pathname}; this server speaks the Open Inference Protocol below /v2`);
      const m = /^\/v2(?:\/(?:(health\/(?:live|ready))|models\/([^/]+)(?:\/versions\/([^/]+))?(?:\/(ready|infer))?)?)?$/.exec(pathname);
      if (!m) throw nothing;
      let route = m[1] ?? '';
      if (m[2] !== undefined) {
        let asked, want;
        try {
          [asked, want] = [decodeURIComponent(m[2]), decodeURIComponent(m[3] ?? '')];
        } catch {
          throw nothing;
        }
        if (asked !== name) throw new HTTPError(404, `there is no model "${asked}" here; there is ${name}`);
        if (want && want !== version && want !== digest) throw new HTTPError(404, `model "${name}" has version ${version} here, not "${want}"`);
        route = m[4] ? `model/${m[4]}` : 'model';
      }
      const method = route === 'model/infer' ? 'POST' : 'GET';
      if (request.method !== method && !(method === 'GET' && request.method === 'HEAD')) {
        throw new HTTPError(405, `${pathname} does not take ${request.method}, only ${method}`, { allow: method });
      }
      const res = await routes[route](request);
      return request.method === 'HEAD' ? new Response(null, res) : res;
    } catch (e) {
      if (e instanceof HTTPError) return json(e.status, { error: e.message }, e.headers);
      log(String(e?.stack ?? e));
      return json(500, { error: e?.message ?? 'the request failed' });
    }
  };
}
