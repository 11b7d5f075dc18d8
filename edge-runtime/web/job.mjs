// Runs a job: an artifact and calls, with tensors in the form of the golden document (docs/format.md): base64 of
// little-endian bytes, or strings. run.mjs does it in Node; a page can do it in a browser.
//
//   {"interface": {...}, "module": FILE, "weights": FILE, "steps": {"path in the interface": FILE},
//    "calls": [[tensor, ...], ...]}   ->   {"calls": [[tensor, ...] | {"error": "..."}, ...]}

import { load } from './waybill.mjs';
import { fromGolden, toGolden } from './tensors.mjs';

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
