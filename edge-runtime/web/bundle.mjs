// Opens a bundle that `deploy/jsbundle` wrote: from the artifact's digest to the last byte, each link checked, and nothing
// runs when one does not hold.
//
//   digest of the artifact -> manifest.json -> interface.json -> module, weights and steps
//
// facts is the generated artifact.mjs. read(FILE) gives a promise of a file's bytes. Where the host compiled the modules
// itself (compiled: {FILE: WebAssembly.Module}) their bytes cannot be seen: such a module is proven by the golden vectors
// before it answers, and without vectors it does not run.

import { digest as digestOf, load, WaybillError } from './waybill.mjs';
import { fromGolden, same } from './tensors.mjs';

const text = (bytes) => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);

async function checked(what, bytes, want) {
  const got = await digestOf(bytes);
  if (got !== want) throw new WaybillError(`${what} has digest ${got}, expected ${want}`, { kind: 'digest' });
  return bytes;
}

/** openBundle gives {model, digest, iface}. digest: the artifact that the caller wants; prove: run the golden vectors. */
export async function openBundle({ facts, read, compiled, digest = facts.digest, prove = false, log, maxMemory }) {
  const manifest = JSON.parse(text(await checked('manifest.json', await read('manifest.json'), digest)));
  const layer = (role, path) => {
    const found = manifest.layers.filter((l) => l.annotations['dev.waybill.role'] === role
      && (path === undefined || l.annotations['org.opencontainers.image.title'] === path));
    if (found.length !== 1) throw new WaybillError(`the manifest has ${found.length} layers of role ${role}${path ? ' at ' + path : ''}`, { kind: 'digest' });
    return found[0].digest;
  };
  const iface = JSON.parse(text(await checked('interface.json', await read('interface.json'), layer('interface'))));
  const stated = (role, ref) => {
    if (layer(role, ref.path) !== ref.digest) throw new WaybillError(`the interface document and the manifest disagree about ${ref.path}`, { kind: 'digest' });
  };
  stated('module', iface.module);
  if (iface.weights) stated('weights', iface.weights);
  const steps = {};
  for (const st of iface.steps) {
    if (st.kind === 'model') continue;
    stated('step', st.file);
    const file = facts.files.steps[st.file.path];
    steps[st.file.path] = compiled ? compiled[file] : await read(file);
  }
  const model = await load({
    iface,
    module: compiled ? compiled[facts.files.module] : await read(facts.files.module),
    weights: iface.weights ? await read(facts.files.weights) : undefined,
    steps,
    log,
    maxMemory,
  });
  if (compiled || prove) {
    if (!facts.golden) throw new WaybillError('the artifact has no golden vectors to prove the module by', { kind: 'digest' });
    await proveModel(model, JSON.parse(text(await checked('golden.json', await read('golden.json'), facts.golden))));
  }
  return { model, digest, iface };
}

/** proveModel runs the golden vectors and throws at the first that is not reproduced bit for bit. */
export async function proveModel(model, golden) {
  if (!golden.vectors?.length) throw new WaybillError('there is no golden vector to prove the module by', { kind: 'digest' });
  for (const v of golden.vectors) {
    let out;
    try {
      out = await model.run(Object.fromEntries(v.inputs.map((g) => [g.name, fromGolden(g)])));
    } catch (e) {
      throw new WaybillError(`golden vector ${v.name}: ${e.message}`, { kind: 'digest', cause: e });
    }
    const want = new Map(v.expected.map((g) => [g.name, fromGolden(g)]));
    for (const p of model.iface.outputs) {
      if (!want.has(p.name) || !same(out[p.name], want.get(p.name))) {
        throw new WaybillError(`golden vector ${v.name}: output ${p.name} was not reproduced: this is not the module of the artifact, or not its host`, { kind: 'digest' });
      }
    }
  }
}
