// A command-line driver: reads a job as JSON from stdin, writes the outputs as JSON to stdout. Tensors have the form of
// the golden document (docs/format.md): base64 of little-endian bytes, or strings.
//
//   {"interface": {...}, "module": "model.wasm", "weights": "weights.bin", "steps": {"path in the interface": "file"},
//    "calls": [[tensor, ...], ...]}   ->   {"calls": [[tensor, ...] | {"error": "..."}, ...]}

import { readFile } from 'node:fs/promises';
import { load } from './waybill.mjs';

const fromGolden = (g) => {
  const t = { kind: g.kind || 'tensor', dtype: g.dtype, shape: g.shape ?? [] };
  if (t.kind !== 'tensor') t.elems = (g.elems ?? []).map(fromGolden);
  else if (t.dtype === 'string') t.strings = g.strings ?? [];
  else t.data = new Uint8Array(Buffer.from(g.data ?? '', 'base64'));
  return t;
};

const toGolden = (name, t) => {
  const g = { name, dtype: t.dtype ?? '', shape: t.shape ?? [] };
  if (t.kind !== 'tensor') return { ...g, kind: t.kind, elems: t.elems.map((e) => toGolden('', e)) };
  if (t.dtype === 'string') return { ...g, strings: t.strings };
  return { ...g, data: Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength).toString('base64') };
};

let text = '';
for await (const chunk of process.stdin) text += chunk;
const job = JSON.parse(text);
const steps = {};
for (const [path, file] of Object.entries(job.steps ?? {})) steps[path] = await readFile(file);
const model = await load({
  iface: job.interface,
  module: await readFile(job.module),
  weights: job.weights ? await readFile(job.weights) : undefined,
  steps,
  log: (step, line) => process.stderr.write(`${step}: ${line}\n`),
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
process.stdout.write(JSON.stringify({ calls }) + '\n');
