// Runs a job: an artifact and calls, with tensors in the form of the golden document (docs/format.md): base64 of
// little-endian bytes, or strings. run.mjs does it in Node; a page can do it in a browser.
//
//   {"interface": {...}, "module": FILE, "weights": FILE, "steps": {"path in the interface": FILE},
//    "calls": [[tensor, ...], ...]}   ->   {"calls": [[tensor, ...] | {"error": "..."}, ...]}

import { load } from './waybill.mjs';

const fromBase64 = (s) => Uint8Array.from(atob(s), (c) => c.charCodeAt(0));

const toBase64 = (b) => {
  let s = '';
  for (let i = 0; i < b.length; i += 0x2000) s += String.fromCharCode(...b.subarray(i, i + 0x2000));
  return btoa(s);
};

const fromGolden = (g) => {
  const t = { kind: g.kind || 'tensor', dtype: g.dtype, shape: g.shape ?? [] };
  if (t.kind !== 'tensor') t.elems = (g.elems ?? []).map(fromGolden);
  else if (t.dtype === 'string') t.strings = g.strings ?? [];
  else t.data = fromBase64(g.data ?? '');
  return t;
};

const toGolden = (name, t) => {
  const g = { name, dtype: t.dtype ?? '', shape: t.shape ?? [] };
  if (t.kind !== 'tensor') return { ...g, kind: t.kind, elems: t.elems.map((e) => toGolden('', e)) };
  if (t.dtype === 'string') return { ...g, strings: t.strings };
  return { ...g, data: toBase64(new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength)) };
};

// runJob performs the job; read(FILE) gives a promise of the file's bytes, log(step, line) takes what steps write.
export async function runJob(job, read, log = () => {}) {
  const steps = {};
  for (const [path, file] of Object.entries(job.steps ?? {})) steps[path] = await read(file);
  const model = await load({
    iface: job.interface,
    module: await read(job.module),
    weights: job.weights ? await read(job.weights) : undefined,
    steps,
    log,
  });
  const calls = [];
  for (const ins of job.calls) {
    try {
      const out = await model.run(Object.fromEntries(ins.map((g) => [g.name, fromGolden(g)])));
      calls.push(job.interface.outputs.map((p) => toGolden(p.name, out[p.name])));
    } catch (e) {
      calls.push({ error: e.message });
    }
  }
  return { calls };
}
