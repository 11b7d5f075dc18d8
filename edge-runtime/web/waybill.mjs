// Runs a Waybill artifact in a browser, in Node, Deno, Bun or a worker: the same module, the same weights, the same
// bits as the Go runtime gives. No dependencies.
//
//   import { load } from './waybill.mjs';
//   const model = await load({ iface, module, weights, steps });
//   const { y } = await model.run({ x: { dtype: 'f32', shape: [1, 30], data: new Float32Array(30) } });
//
// iface is the parsed interface document, module and weights are Uint8Arrays (weights only when the interface has
// them), steps maps a step's path to its bytes. Every byte is checked against the interface's digests first; the
// interface itself must come from a verified manifest (bundle.mjs does that). The numbers below are those of edge-runtime/abi.
//
// Where a host compiles modules itself and does not let code see their bytes (Cloudflare Workers), module and the values of
// steps are WebAssembly.Modules. Their digests cannot be checked then: whoever gives them proves them by golden vectors.

import { sha256 } from './sha256.mjs';
import { hostImports, StepExit } from './wasi.mjs';

const VERSION = 1;
const DONE = 0, MORE = 1, PARALLEL = 2, NEED_MEMORY = 3, FAILED = 4;
const CTX = { magic: 0, arenaBase: 4, arenaSize: 8, numInputs: 12, inputs: 16, numOutputs: 20, outputs: 24, budget: 28,
  want: 32, errCode: 36, errNode: 40, errA: 48, errB: 56, header: 64 };
const MAGIC = 0x31425957;
const D = { kind: 0, dtype: 4, rank: 8, dims: 16, data: 80, bytes: 84, cap: 88, aux: 92, size: 96 };
const MAX_RANK = 8, LINE = 64, PAGE = 65536, MAX_DEPTH = 8, MAX_PARTS = 1 << 20, NO_NODE = 0xffffffff;
const KINDS = ['tensor', 'sequence', 'optional', 'map'];

// name: [number, bits, array]
const DTYPES = {
  f32: [1, 32, Float32Array], u8: [2, 8, Uint8Array], i8: [3, 8, Int8Array], u16: [4, 16, Uint16Array],
  i16: [5, 16, Int16Array], i32: [6, 32, Int32Array], i64: [7, 64, BigInt64Array], string: [8, 0, null],
  bool: [9, 8, Uint8Array], f16: [10, 16, Uint16Array], f64: [11, 64, Float64Array], u32: [12, 32, Uint32Array],
  u64: [13, 64, BigUint64Array], bf16: [16, 16, Uint16Array], f8e4m3fn: [17, 8, Uint8Array],
  f8e4m3fnuz: [18, 8, Uint8Array], f8e5m2: [19, 8, Uint8Array], f8e5m2fnuz: [20, 8, Uint8Array],
  u4: [21, 4, Uint8Array], i4: [22, 4, Uint8Array], f4e2m1: [23, 4, Uint8Array],
  f8e8m0: [24, 8, Uint8Array], u2: [25, 2, Uint8Array], i2: [26, 2, Uint8Array],
};
const NAMES = Object.fromEntries(Object.entries(DTYPES).map(([n, [id]]) => [id, n]));

/** shapeText and portShape write shapes as the runtime does: [1 30], [batch ? 30]. */
export const shapeText = (shape) => `[${Array.from(shape).join(' ')}]`;
export const portShape = (p) => (p.ranked ? shapeText((p.shape ?? []).map((d) => (d.size >= 0 ? d.size : d.sym || '?'))) : 'any shape');

// What an error record of a module says, in the words of the runtime.
const errorText = (code, a, b, inputs) => {
  const input = () => (inputs[Number(a)] ? `input "${inputs[Number(a)].name}"` : `input ${a}`);
  switch (code) {
    case 1: return `host and module disagree about the call (${a}, ${b})`;
    case 2: return `${input()} has element type ${NAMES[Number(b)] ?? `dtype(${b})`}, which the model does not accept`;
    case 3: return `${input()} has rank ${b}, which the model does not accept`;
    case 4: return `dimension ${a} is ${b}, which the model does not accept`;
    case 5: return `shapes do not fit together: ${a} against ${b}`;
    case 6: return `index ${a} is out of range (${b})`;
    case 7: return `${a} bytes or elements needed, more than the module can address`;
    case 8: return 'the size of a tensor overflows';
    case 9: return `a value is outside of what the operator accepts (${a}, ${b})`;
    case 10: return `${input()} holds a string that is not valid UTF-8`;
    case 11: return `called in the wrong state (${a})`;
    case 12: return a === 1n ? 'the inputs ask for a random draw (training mode), which modules never make: switch training mode off, or set its ratio to 0'
      : `the inputs ask for what the module does not do (${a})`;
  }
  return `${code >= ERR_USER ? 'step' : 'unknown'} error ${code} (${a}, ${b})`;
};

// Of these the caller's values are the cause; from ERR_USER on they are a step's own.
const INPUT_FAULTS = [2, 3, 4, 5, 6, 8, 9, 10, 12], ERR_USER = 64;

/** An error of the artifact, of its inputs, or of the call: kind is 'input', 'memory' or 'crash' where it is one of these. */
export class WaybillError extends Error {
  constructor(message, fields) {
    super(message);
    Object.assign(this, fields);
  }
}

const up = (n, to) => Math.ceil(n / to) * to;

/** digest gives the digest of bytes as artifacts write it. */
export async function digest(bytes) {
  const h = globalThis.crypto?.subtle
    ? new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', bytes)) : sha256(bytes);
  return 'sha256:' + Array.from(h, (b) => b.toString(16).padStart(2, '0')).join('');
}

async function check(what, bytes, want) {
  const got = await digest(bytes);
  if (got !== want) throw new WaybillError(`${what} has digest ${got}, the interface document says ${want}`);
}

/** load checks and compiles an artifact. maxMemory bounds the linear memory below what the interface document allows. */
export async function load({ iface, module, weights, steps = {}, log = () => {}, maxMemory = 0 }) {
  if (iface.abi !== VERSION) throw new WaybillError(`the artifact needs version ${iface.abi} of the ABI, this is version ${VERSION}`);
  const compiledAlready = (m) => m instanceof WebAssembly.Module;
  if (!compiledAlready(module)) await check('the module', module, iface.module.digest);
  if (iface.weights) {
    if (!weights) throw new WaybillError(`the module needs its weights ${iface.weights.path}`);
    if (weights.length !== iface.weights.size) throw new WaybillError(`weights have ${weights.length} bytes, the interface document says ${iface.weights.size}`);
    await check('the weights image', weights, iface.weights.digest);
  }
  const chain = [];
  for (const st of iface.steps) {
    const ours = st.kind === 'model';
    const code = ours ? module : steps[st.file.path];
    if (!code) throw new WaybillError(`step ${st.name}: its module ${st.file.path} was not given`);
    if (ours && st.file.digest !== iface.module.digest) throw new WaybillError(`step ${st.name} is another module than the interface document's`);
    if (!ours && !compiledAlready(code)) await check(`step ${st.name}`, code, st.file.digest);
    const compiled = compiledAlready(code) ? code : await WebAssembly.compile(code);
    const imports = WebAssembly.Module.imports(compiled);
    if (ours && imports.length > 0) throw new WaybillError(`the model imports ${imports[0].module}.${imports[0].name}; a model may import nothing`);
    const known = hostImports(() => null, () => {});
    for (const i of imports) {
      if (i.kind !== 'function' || !Object.hasOwn(known, i.module) || !Object.hasOwn(known[i.module], i.name)) {
        throw new WaybillError(`the step imports ${i.module}.${i.name}, which is not in the set that steps may use`);
      }
    }
    chain.push(new Guest(st, compiled, ours, iface, weights, log, maxMemory));
  }
  if (chain.filter((g) => g.ours).length !== 1) throw new WaybillError('the interface document must list one model');
  return new Model(iface, chain);
}

/** A loaded artifact. Calls of run are answered one after the other. */
class Model {
  #chain;
  #queue = Promise.resolve();
  constructor(iface, chain) {
    this.iface = iface;
    this.#chain = chain;
  }

  /** run takes and gives tensors by name: {kind?, dtype, shape, data | strings | elems}. */
  run(inputs, { signal } = {}) {
    const job = this.#queue.then(() => this.#run(inputs, signal));
    this.#queue = job.catch(() => {});
    return job;
  }

  async #run(inputs, signal) {
    const values = new Map();
    for (const p of this.iface.inputs) {
      if (!Object.hasOwn(inputs, p.name)) throw new WaybillError(`input "${p.name}" is missing`, { kind: 'input' });
      values.set(p.name, inputs[p.name]);
    }
    checkInputs(this.iface, values);
    for (const g of this.#chain) {
      const outs = await g.run(g.step.inputs.map((p) => values.get(p.name)), signal);
      g.step.outputs.forEach((p, i) => values.set(p.name, outs[i]));
    }
    return Object.fromEntries(this.iface.outputs.map((p) => [p.name, values.get(p.name)]));
  }
}

/** checkInputs compares kinds, element types, sizes and symbols with the interface document. */
function checkInputs(iface, values) {
  const syms = new Map();
  for (const p of iface.inputs) {
    const t = values.get(p.name);
    const bad = (m) => new WaybillError(`input "${p.name}": ${m}`, { kind: 'input' });
    const want = p.kind || 'tensor', have = t?.kind ?? 'tensor';
    if (!t || have !== want) throw bad(`it is ${t ? 'a ' + have : 'nothing'}, the model has a ${want}`);
    if (have !== 'tensor') continue;
    if (t.dtype !== p.dtype) throw bad(`its element type is ${t.dtype}, the model has ${p.dtype}`);
    if (!p.ranked) continue;
    const shape = Array.from(t.shape ?? [], Number), dims = p.shape ?? []; // a scalar's is null
    if (shape.length !== dims.length) throw bad(`it has rank ${shape.length}, the model wants ${portShape(p)}`);
    dims.forEach((d, j) => {
      const n = shape[j];
      if (d.size >= 0 && n !== d.size) throw bad(`its shape is ${shapeText(shape)}, the model wants ${portShape(p)}`);
      if (d.size >= 0) return;
      if (d.max > 0 && n > d.max) throw bad(`dimension ${j} (${d.sym ?? ''}) is ${n}, the model takes at most ${d.max}`);
      if (j === 0 && iface.limits?.maxBatch > 0 && n > iface.limits.maxBatch) throw bad(`a batch of ${n}, the model takes at most ${iface.limits.maxBatch}`);
      if (!d.sym) return;
      if (syms.has(d.sym) && syms.get(d.sym) !== n) throw bad(`dimension ${d.sym} is ${n}, another input has ${syms.get(d.sym)}`);
      syms.set(d.sym, n);
    });
  }
}

/** One member of the chain. */
class Guest {
  constructor(step, compiled, ours, iface, weights, log, maxMemory) {
    Object.assign(this, { step, compiled, ours, iface, weights, log, maxMemory });
    this.reentrant = ours || step.reentrant === true;
  }

  async instantiate() {
    let memory;
    const imports = this.ours ? {} : hostImports(() => memory, (l) => this.log(this.step.name, l));
    const inst = await WebAssembly.instantiate(this.compiled, imports);
    const x = inst.exports;
    memory = x.memory;
    for (const n of ['waybill_abi', 'waybill_ctx', 'waybill_bind', 'waybill_resume', 'waybill_part']) {
      if (typeof x[n] !== 'function') throw new WaybillError(`${this.step.name}: the module does not export ${n}`);
    }
    if (typeof x._initialize === 'function') x._initialize();
    if (x.waybill_abi() !== VERSION) throw new WaybillError(`${this.step.name}: the module speaks version ${x.waybill_abi()} of the ABI`);
    this.ctxSize = x.waybill_ctx() >>> 0;
    if (x.waybill_heap) {
      this.heap = x.waybill_heap() >>> 0;
      const w = this.ours ? this.iface.weights : null;
      if (x.waybill_weights && (x.waybill_weights() >>> 0) !== w?.base) {
        throw new WaybillError(`${this.step.name}: the module wants its weights at ${x.waybill_weights() >>> 0}`);
      }
      if (w) {
        if (this.heap < w.base + w.size) throw new WaybillError(`${this.step.name}: the heap starts inside the weights`);
        this.ensure(x, w.base + w.size);
        new Uint8Array(memory.buffer, w.base, w.size).set(this.weights);
      }
    }
    return x;
  }

  ensure(x, size) {
    const have = x.memory.buffer.byteLength;
    if (size <= have) return;
    let limit = this.ours && this.iface.memory.max ? up(this.iface.memory.max, PAGE) : 0xffff0000;
    if (this.maxMemory) limit = Math.min(limit, this.maxMemory);
    if (size > limit) throw new WaybillError(`${this.step.name}: the call needs ${size} bytes of memory: memory limit reached (${limit} bytes)`, { kind: 'memory' });
    try {
      x.memory.grow(Math.ceil((size - have) / PAGE));
    } catch (e) {
      throw new WaybillError(`${this.step.name}: the system has no ${size} bytes of memory left: memory limit reached`, { kind: 'memory', cause: e });
    }
  }

  async run(ins, signal) {
    const x = this.idle ?? await this.instantiate();
    this.idle = null;
    let outs;
    try {
      outs = await this.drive(x, ins, signal);
    } catch (e) {
      if (e instanceof WebAssembly.RuntimeError || e instanceof StepExit || e instanceof RangeError) {
        throw new WaybillError(`${this.step.name}: the module crashed: ${e.message}`, { kind: 'crash', cause: e });
      }
      if (e instanceof WaybillError && this.reentrant) this.idle = x;
      throw e;
    }
    if (this.reentrant) this.idle = x;
    return outs;
  }

  async drive(x, ins, signal) {
    const nOut = this.step.outputs.length;
    const fixed = up(this.ctxSize, LINE) + up((ins.length + nOut) * D.size, LINE);
    const raw = ins.map((t, i) => prepare(t, this.step.inputs[i].name, 0));
    const size = fixed + raw.reduce((n, r) => n + room(r) + LINE, 0);
    let base, arena = 0;
    if (x.waybill_heap) {
      base = up(this.heap, LINE);
      arena = up(base + size, LINE);
      this.ensure(x, arena + Math.max(this.ours ? this.iface.memory.arena : 0, PAGE));
    } else {
      base = x.waybill_alloc(size + LINE) >>> 0;
      if (base === 0 || base % 16 !== 0) throw new WaybillError(`${this.step.name}: the module could not allocate ${size} bytes`);
    }
    const l = { next: base };
    const ctx = take(l, this.ctxSize), inDesc = take(l, (ins.length + nOut) * D.size), outDesc = inDesc + ins.length * D.size;
    new Uint8Array(x.memory.buffer, ctx, l.next - ctx).fill(0);
    raw.forEach((r, i) => put(x.memory, inDesc + i * D.size, l, r));
    const h = () => new DataView(x.memory.buffer, ctx, CTX.header);
    const set = (o, v) => h().setUint32(o, v, true), get = (o) => h().getUint32(o, true);
    set(CTX.magic, MAGIC);
    if (arena) {
      set(CTX.arenaBase, arena);
      set(CTX.arenaSize, x.memory.buffer.byteLength - arena);
    }
    set(CTX.numInputs, ins.length);
    set(CTX.inputs, inDesc);
    set(CTX.numOutputs, nOut);
    set(CTX.outputs, outDesc);
    set(CTX.errNode, NO_NODE);
    const grow = () => {
      const want = get(CTX.want);
      if (!arena || want === 0) throw new WaybillError(`${this.step.name}: it asks for ${want} bytes, which the host cannot give`);
      this.ensure(x, arena + get(CTX.arenaSize) + want);
      set(CTX.arenaSize, x.memory.buffer.byteLength - arena);
    };
    const failure = () => {
      const code = get(CTX.errCode), a = h().getBigInt64(CTX.errA, true), b = h().getBigInt64(CTX.errB, true);
      const node = this.ours ? this.iface.nodes?.[get(CTX.errNode)] : undefined;
      return new WaybillError(`${this.step.name}${node ? ': ' + node : ''}: ${errorText(code, a, b, this.step.inputs)}`,
        { kind: INPUT_FAULTS.includes(code) || code >= ERR_USER ? 'input' : undefined, code, a, b, node });
    };
    let s = x.waybill_bind(ctx) >>> 0;
    if (s === FAILED) throw failure();
    if (s === NEED_MEMORY) grow();
    else if (s !== DONE && s !== MORE) throw new WaybillError(`${this.step.name}: bind returned status ${s}`);
    for (let since = Date.now(); ;) {
      signal?.throwIfAborted();
      if (Date.now() - since > 12) { // let the page breathe
        await new Promise((r) => setTimeout(r));
        since = Date.now();
        signal?.throwIfAborted();
      }
      s = x.waybill_resume(ctx) >>> 0;
      if (s === DONE) break;
      if (s === FAILED) throw failure();
      if (s === NEED_MEMORY) grow();
      else if (s === PARALLEL) {
        const n = get(CTX.want);
        if (n === 0 || n > MAX_PARTS) throw new WaybillError(`${this.step.name}: a parallel section of ${n} parts`);
        for (let i = 0; i < n; i++) {
          const p = x.waybill_part(ctx, i) >>> 0;
          if (p === FAILED) throw failure();
          if (p !== DONE) throw new WaybillError(`${this.step.name}: part returned status ${p}`);
        }
      } else if (s !== MORE) throw new WaybillError(`${this.step.name}: resume returned status ${s}`);
    }
    const outs = [];
    for (let i = 0; i < nOut; i++) outs.push(read(x.memory, outDesc + i * D.size, 0));
    if (x.waybill_free && this.reentrant) x.waybill_free(base);
    return outs;
  }
}

function take(l, size) {
  const p = up(l.next, LINE);
  l.next = p + size;
  return p;
}

/** prepare checks a tensor and turns its contents into bytes. */
function prepare(t, name, depth) {
  const bad = (m) => new WaybillError(`input "${name}": ${m}`, { kind: 'input' });
  if (!t || depth > MAX_DEPTH) throw bad('no value, or one that nests too deep');
  const kind = KINDS.indexOf(t.kind ?? 'tensor');
  if (kind < 0) throw bad(`unknown kind ${t.kind}`);
  if (kind > 0) {
    const elems = (t.elems ?? []).map((e) => prepare(e, name, depth + 1));
    if (kind === 2 && elems.length > 1 || kind === 3 && elems.length !== 2) throw bad(`a ${t.kind} of ${elems.length} values`);
    const len = kind === 3 ? elems[0].count : elems.length;
    return { kind, dtype: t.dtype ? DTYPES[t.dtype][0] : elems[0]?.dtype ?? 0, shape: [len], elems, count: len };
  }
  const d = DTYPES[t.dtype];
  if (!d) throw bad(`unknown element type ${t.dtype}`);
  const shape = t.shape.map(Number);
  if (shape.length > MAX_RANK || shape.some((n) => !Number.isSafeInteger(n) || n < 0)) throw bad(`bad shape ${shapeText(shape)}`);
  const count = shape.reduce((a, b) => a * b, 1);
  const r = { kind, dtype: d[0], shape, count };
  if (t.dtype === 'string') {
    if (t.strings.length !== count) throw bad(`shape ${shapeText(shape)} needs ${count} strings, there are ${t.strings.length}`);
    const enc = new TextEncoder(), parts = t.strings.map((s) => (typeof s === 'string' ? enc.encode(s) : s));
    const text = parts.reduce((n, p) => n + p.length, 0);
    r.bytes = new Uint8Array(4 * (count + 1) + text);
    r.aux = text;
    const v = new DataView(r.bytes.buffer);
    let off = 0;
    parts.forEach((p, i) => {
      v.setUint32(4 * i, off, true);
      r.bytes.set(p, 4 * (count + 1) + off);
      off += p.length;
    });
    v.setUint32(4 * count, off, true);
    return r;
  }
  const want = Math.ceil(count * d[1] / 8);
  r.bytes = new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength);
  if (r.bytes.length !== want) throw bad(`${t.dtype} of shape ${shapeText(shape)} needs ${want} bytes, there are ${r.bytes.length}`);
  return r;
}

function room(r) {
  if (r.kind === 0) return up(r.bytes.length, LINE);
  return up(r.elems.length * D.size + r.elems.reduce((n, e) => n + room(e) + LINE, 0), LINE);
}

function put(memory, at, l, r) {
  new Uint8Array(memory.buffer, at, D.size).fill(0);
  const v = new DataView(memory.buffer, at, D.size);
  const n = r.kind === 0 ? r.bytes.length : r.elems.length * D.size;
  const data = take(l, n);
  v.setUint32(D.kind, r.kind, true);
  v.setUint32(D.dtype, r.dtype, true);
  v.setUint32(D.rank, r.shape.length, true);
  r.shape.forEach((d, i) => v.setBigInt64(D.dims + 8 * i, BigInt(d), true));
  v.setUint32(D.data, data, true);
  v.setUint32(D.bytes, n, true);
  v.setUint32(D.cap, up(n, LINE), true);
  v.setUint32(D.aux, r.aux ?? 0, true);
  if (r.kind === 0) new Uint8Array(memory.buffer, data, n).set(r.bytes);
  else r.elems.forEach((e, i) => put(memory, data + i * D.size, l, e));
}

function read(memory, at, depth) {
  const bad = (m) => new WaybillError(`the module breaks the ABI: ${m}`);
  if (depth > MAX_DEPTH) throw bad('an output nests too deep');
  const total = memory.buffer.byteLength;
  if (at + D.size > total) throw bad('a descriptor is outside of the memory');
  const v = new DataView(memory.buffer, at, D.size);
  const kind = v.getUint32(D.kind, true), data = v.getUint32(D.data, true), n = v.getUint32(D.bytes, true);
  if (data + n > total) throw bad('an output is outside of the memory');
  const dtype = NAMES[v.getUint32(D.dtype, true)];
  if (kind > 0) {
    if (kind > 3 || n % D.size !== 0) throw bad(`kind ${kind} with ${n} bytes`);
    const elems = [];
    for (let i = 0; i < n / D.size; i++) elems.push(read(memory, data + i * D.size, depth + 1));
    if (kind === 2 && elems.length > 1 || kind === 3 && elems.length !== 2) throw bad(`a ${KINDS[kind]} of ${elems.length} values`);
    return { kind: KINDS[kind], dtype, elems };
  }
  if (!dtype) throw bad('unknown element type');
  const rank = v.getUint32(D.rank, true);
  if (rank > MAX_RANK) throw bad(`rank ${rank}`);
  const shape = [];
  for (let i = 0; i < rank; i++) shape.push(Number(v.getBigInt64(D.dims + 8 * i, true)));
  const count = shape.reduce((a, b) => a * b, 1);
  if (dtype === 'string') {
    const o = new DataView(memory.buffer, data, n);
    const dec = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }), text = data + 4 * (count + 1);
    if (n < 4 * (count + 1)) throw bad('strings do not fit');
    const strings = [];
    for (let i = 0; i < count; i++) {
      const a = o.getUint32(4 * i, true), b = o.getUint32(4 * i + 4, true);
      if (b < a || text + b > data + n) throw bad('string offsets');
      const raw = new Uint8Array(memory.buffer, text + a, b - a).slice();
      try {
        strings.push(dec.decode(raw));
      } catch {
        strings.push(raw); // not UTF-8: the bytes themselves, which go in again as they are
      }
    }
    return { kind: 'tensor', dtype, shape, strings };
  }
  const [, bits, Arr] = DTYPES[dtype];
  if (n !== Math.ceil(count * bits / 8)) throw bad(`${dtype} of shape ${shapeText(shape)} with ${n} bytes`);
  return { kind: 'tensor', dtype, shape, data: new Arr(memory.buffer.slice(data, data + n)) };
}
