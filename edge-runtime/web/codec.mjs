// The tensors of the Open Inference Protocol V2 (docs/serving.md) to and from the loader's: JSON, and the extension of
// binary tensors. The rules, and mostly the words, are those of edge-runtime/serve.

import { bytesOf, fromBase64 } from './tensors.mjs';
import { portShape, shapeText } from './waybill.mjs';
import { formatF32, formatF64, fromBF16, fromF16, parseF32, toBF16, toF16 } from './number.mjs';

/** An answer other than 200. */
export class HTTPError extends Error {
  constructor(status, message, headers = {}) {
    super(message);
    Object.assign(this, { status, headers });
  }
}

const fail = (m) => new HTTPError(400, m);

// dtype: [datatype, bytes, array, reads an element of JSON, writes one]
const integer = (bits, signed) => (tok, dtype) => {
  if (!/^-?\d+$/.test(tok) || !signed && tok[0] === '-') throw fail(`${tok} is no value of ${dtype}`);
  const v = BigInt(tok);
  if (v !== (signed ? BigInt.asIntN(bits, v) : BigInt.asUintN(bits, v))) throw fail(`${tok} is out of the range of ${dtype}`);
  return bits === 64 ? v : Number(v);
};
const special = { null: NaN, '"NaN"': NaN, '"Infinity"': Infinity, '"-Infinity"': -Infinity };
const floating = (parse) => (tok, dtype) => {
  if (Object.hasOwn(special, tok)) return parse(special[tok], null);
  if (!/^[-0-9]/.test(tok)) throw fail(`${tok} is no number`);
  const v = parse(Number(tok), tok);
  if (v === null) throw fail(`${tok} is out of the range of ${dtype}`);
  return v;
};
const finite = (d, tok, v) => (tok !== null && !Number.isFinite(d) ? null : v);
const showFloat = (format) => (v) => (Number.isNaN(v) ? '"NaN"' : v === Infinity ? '"Infinity"' : v === -Infinity ? '"-Infinity"' : format(v));
const showF32 = showFloat(formatF32);
const TYPES = {
  bool: ['BOOL', 1, Uint8Array, (tok) => {
    if (tok === 'true' || tok === '1') return 1;
    if (tok === 'false' || tok === '0') return 0;
    throw fail(`${tok} is neither true nor false`);
  }, (v) => (v ? 'true' : 'false')],
  u8: ['UINT8', 1, Uint8Array, integer(8, false), String], u16: ['UINT16', 2, Uint16Array, integer(16, false), String],
  u32: ['UINT32', 4, Uint32Array, integer(32, false), String], u64: ['UINT64', 8, BigUint64Array, integer(64, false), String],
  i8: ['INT8', 1, Int8Array, integer(8, true), String], i16: ['INT16', 2, Int16Array, integer(16, true), String],
  i32: ['INT32', 4, Int32Array, integer(32, true), String], i64: ['INT64', 8, BigInt64Array, integer(64, true), String],
  f32: ['FP32', 4, Float32Array, floating((d, tok) => {
    const v = tok === null ? d : parseF32(tok);
    return finite(v, tok, v);
  }), showF32],
  f64: ['FP64', 8, Float64Array, floating((d, tok) => finite(d, tok, d)), showFloat(formatF64)],
  f16: ['FP16', 2, Uint16Array, floating((d, tok) => {
    const h = toF16(d);
    return tok !== null && (h & 0x7fff) === 0x7c00 ? null : h;
  }), (h) => showF32(fromF16(h))],
  bf16: ['BF16', 2, Uint16Array, floating((d, tok) => finite(d, tok, toBF16(Math.fround(d)))), (h) => showF32(fromBF16(h))],
  string: ['BYTES', 0, null, null, null],
};

const MAX_RANK = 8, MAX_DEPTH = 64;

/** The members of a JSON text named data are left as they are, as Raw, until their type is known. */
class Raw {
  constructor(text) { this.text = text; }
}

const misshapen = (m) => fail(`the request is not the JSON object that the protocol wants: ${m}`);

// What JSON calls a value.
const kindOf = (v) => (Array.isArray(v) ? 'array' : v instanceof Map ? 'object' : typeof v === 'bigint' ? 'number' : typeof v === 'boolean' ? 'bool' : typeof v);

const jsonText = (v) => (v instanceof Map ? `{${Array.from(v, ([k, x]) => `${JSON.stringify(k)}:${jsonText(x)}`).join(',')}}` : Array.isArray(v) ? `[${v.map(jsonText).join(',')}]`
  : v instanceof Raw ? v.text : typeof v === 'bigint' ? String(v) : JSON.stringify(v));

/** parseJSON reads JSON; numbers become BigInt or Number, data members Raw. */
export function parseJSON(text) {
  let i = 0;
  const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
  const bad = (m) => misshapen(`${m ?? (i < text.length ? `unexpected ${JSON.stringify(text[i])} at character ${i}` : 'it ends in the middle')}`);
  const space = () => {
    for (let c; (c = text.charCodeAt(i)) === 32 || c === 10 || c === 13 || c === 9;) i++;
    return text[i];
  };
  const string = (skip) => {
    const at = i++;
    let plain = true;
    for (;; i++) {
      const c = text.charCodeAt(i);
      if (c === 34) break;
      if (!(c >= 32)) throw bad();
      if (c !== 92) continue;
      plain = false;
      const esc = /["\\/bfnrt]|u[0-9a-fA-F]{4}/y;
      esc.lastIndex = i + 1;
      const m = esc.exec(text);
      if (!m) throw bad();
      i += m[0].length;
    }
    i++;
    if (skip) return null;
    return plain ? text.slice(at + 1, i - 1) : JSON.parse(text.slice(at, i));
  };
  const word = (w, v) => {
    if (!text.startsWith(w, i)) throw bad();
    i += w.length;
    return v;
  };
  const value = (skip, depth) => {
    if (depth > MAX_DEPTH) throw bad('it nests too deep');
    const c = space();
    switch (c) {
      case '{': {
        const o = new Map();
        i++;
        if (space() === '}') { i++; return o; }
        for (;;) {
          if (space() !== '"') throw bad();
          const k = string(false);
          if (space() !== ':') throw bad();
          i++;
          space();
          const at = i;
          const raw = !skip && k === 'data';
          const v = value(skip || raw, depth + 1);
          if (!skip) o.set(k, raw ? new Raw(text.slice(at, i)) : v);
          const n = space();
          i++;
          if (n === '}') return o;
          if (n !== ',') { i--; throw bad(); }
        }
      }
      case '[': {
        const a = [];
        i++;
        if (space() === ']') { i++; return a; }
        for (;;) {
          const v = value(skip, depth + 1);
          if (!skip) a.push(v);
          const n = space();
          i++;
          if (n === ']') return a;
          if (n !== ',') { i--; throw bad(); }
        }
      }
      case '"': return string(skip);
      case 't': return word('true', true);
      case 'f': return word('false', false);
      case 'n': return word('null', null);
    }
    NUMBER.lastIndex = i;
    const m = NUMBER.exec(text);
    if (!m) throw bad();
    i += m[0].length;
    if (skip) return null;
    return /^-?\d+$/.test(m[0]) ? BigInt(m[0].slice(0, 400)) : Number(m[0]);
  };
  if (space() === undefined) throw fail('the request is empty; it must be a JSON object with inputs');
  const v = value(false, 0) ?? new Map();
  if (!(v instanceof Map)) throw misshapen(`it is a JSON ${kindOf(v)}`);
  if (space() !== undefined) throw fail("there is something after the request's JSON object");
  return v;
}

/** datatype is the protocol's name for a port. */
export function datatype(p) {
  if (p.kind && p.kind !== 'tensor') return 'BYTES';
  return TYPES[p.dtype]?.[0] ?? p.dtype.toUpperCase();
}

const names = (ports) => ports.map((p) => p.name).join(', ') || 'none';

const member = (o, key, want, what) => {
  const v = o.get(key);
  if (v === undefined || v === null) return undefined;
  if (kindOf(v) !== want) throw misshapen(`${what}${key} cannot be a JSON ${kindOf(v)}`);
  return v;
};

const flag = (params, name, where = '') => {
  const v = params?.get(name);
  if (v === undefined || v === null) return false;
  if (typeof v !== 'boolean') throw fail(`${where}parameter ${name} is ${jsonText(v)}; it is true or false`);
  return v;
};

const count = (shape) => {
  let n = 1n;
  for (const d of shape) if (d < 0) throw fail(`dimension ${d} is negative`);
  for (const d of shape) if (d > 0 && (n *= BigInt(d)) >= 1n << 63n) throw fail(`shape ${shapeText(shape)} has too many elements`);
  return shape.some((d) => d == 0) ? 0 : Number(n);
};

/** tensorPort checks what a request says about a tensor; it gives the tensor without its elements. */
function tensorPort(p, dt, shape) {
  const optional = p.kind === 'optional' && p.elem, port = optional ? p.elem : p;
  if (port.kind && port.kind !== 'tensor') throw fail(`it is a ${port.kind}, which the protocol cannot carry`);
  const want = datatype(port);
  if (dt !== want) throw fail(`datatype ${JSON.stringify(dt ?? '')}, the model wants ${want}`);
  if (!TYPES[port.dtype]) throw fail(`the protocol has no datatype for ${port.dtype}`);
  if (shape.length > MAX_RANK) throw fail(`rank ${shape.length} is more than ${MAX_RANK}`);
  return { t: { kind: 'tensor', dtype: port.dtype, shape: shape.map(Number) }, n: count(shape), whole: (t) => (optional ? { kind: 'optional', dtype: t.dtype, elems: [t] } : t) };
}

/** fromJSON reads the elements of a tensor: flat, or nested exactly as the shape says. */
function fromJSON(p, dt, told, raw) {
  const { t, n, whole } = tensorPort(p, dt, told), { shape } = t;
  const s = raw instanceof Raw ? raw.text : '';
  if (n > s.length) throw fail(`shape ${shapeText(shape)} needs ${n} elements, there are fewer in data`);
  if (!s) throw fail('it has no data');
  const [, , Arr, read] = TYPES[t.dtype];
  const out = Arr ? (t.data = new Arr(n)) : (t.strings = new Array(n));
  let i = 0, at = 0;
  const TOKEN = /[^,\]\s]+/y;
  const space = () => {
    for (let c; (c = s.charCodeAt(i)) === 32 || c === 10 || c === 13 || c === 9;) i++;
    return s[i];
  };
  const token = () => { // it is valid JSON already
    const from = i;
    if (s[i] === '"') {
      for (i++; s[i] !== '"'; i++) if (s[i] === '\\') i++;
      i++;
    } else {
      TOKEN.lastIndex = i;
      i += TOKEN.exec(s)[0].length;
    }
    return s.slice(from, i);
  };
  const put = (tok) => {
    try {
      if (Arr) out[at] = read(tok, t.dtype);
      else if (tok[0] !== '"') throw fail(`${tok} is no string`);
      else out[at] = JSON.parse(tok);
    } catch (e) {
      throw fail(`element ${at}: ${e.message}`);
    }
    at++;
  };
  const elements = (want, d) => {
    i++;
    let k = 0;
    for (; space() !== ']'; k++) {
      if (s[i] === '[' || s[i] === '{') throw fail(`data is not flat, and not nested as shape ${shapeText(shape)} says`);
      if (k < want) put(token());
      else token();
      if (space() === ',') i++;
    }
    i++;
    if (k !== want) throw fail(d < 0 ? `data has ${k} elements, shape ${shapeText(shape)} needs ${want}` : `data has ${k} elements in dimension ${d}, shape says ${want}`);
  };
  const level = (d) => {
    if (space() !== '[') throw fail(`data is not nested as shape ${shapeText(shape)} says: no array at depth ${d + 1}`);
    if (d === shape.length - 1) return elements(shape[d], d);
    i++;
    let k = 0;
    for (; space() !== ']'; k++) {
      if (k >= shape[d]) throw fail(`data has more than ${shape[d]} elements in dimension ${d}`);
      level(d + 1);
      if (space() === ',') i++;
    }
    i++;
    if (k !== shape[d]) throw fail(`data has ${k} elements in dimension ${d}, shape says ${shape[d]}`);
    return undefined;
  };
  if (space() !== '[') throw fail('data is no array');
  const nested = shape.length > 1 && /^\s*\[\s*\[/.test(s.slice(i, i + 4096));
  if (nested) level(0);
  else elements(n, -1);
  return whole(t);
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const textOr = (b) => {
  try {
    return utf8.decode(b);
  } catch {
    return b.slice();
  }
};

/** fromBytes reads the binary form: little-endian, row-major; each element of BYTES after its length in 4 bytes. */
function fromBytes(p, dt, shape, raw) {
  const { t, n, whole } = tensorPort(p, dt, shape);
  if (t.dtype === 'string') {
    if (4 * n > raw.length) throw fail(`${n} elements of BYTES need ${4 * n} bytes for their lengths alone, there are ${raw.length}`);
    const v = new DataView(raw.buffer, raw.byteOffset, raw.length);
    t.strings = [];
    let at = 0;
    for (let k = 0; k < n; k++) {
      if (at + 4 > raw.length) throw fail(`element ${k}: there are no 4 bytes for its length`);
      const size = v.getUint32(at, true);
      at += 4;
      if (at + size > raw.length) throw fail(`element ${k}: its length is ${size}, there are ${raw.length - at} bytes left`);
      t.strings.push(textOr(raw.subarray(at, at + size)));
      at += size;
    }
    if (at < raw.length) throw fail(`there are ${raw.length - at} bytes after the last element`);
    return whole(t);
  }
  const [, size, Arr] = TYPES[t.dtype];
  if (raw.length !== n * size) throw fail(`${t.dtype} of shape ${shapeText(shape)} needs ${n * size} bytes, there are ${raw.length}`);
  if (t.dtype === 'bool') raw.forEach((b, k) => { if (b > 1) throw fail(`element ${k}: the byte 0x${b.toString(16).padStart(2, '0')} is neither true nor false`); });
  t.data = new Arr(raw.slice().buffer); // aligned
  return whole(t);
}

/** firstState is what a stream's state is before its first call, by input. */
export function firstState(iface) {
  const m = new Map();
  for (const s of iface.state ?? []) {
    const p = iface.inputs.find((q) => q.name === s.input), shape = s.shape ?? [];
    const [, size, Arr] = TYPES[p?.dtype] ?? [];
    if (!Arr) throw new Error(`state of input ${s.input}: a ${p?.kind} of ${p?.dtype} can't be carried`);
    const t = { kind: 'tensor', dtype: p.dtype, shape, data: new Arr(count(shape)) };
    if (s.init) {
      const b = fromBase64(s.init);
      if (b.length !== t.data.length * size) throw new Error(`state of input ${s.input}: ${b.length} bytes for shape ${shapeText(shape)}`);
      bytesOf(t).set(b);
    }
    m.set(s.input, t);
  }
  return m;
}

function complete(iface, given, first) {
  const inputs = Object.create(null);
  for (const p of iface.inputs) {
    if (given.has(p.name)) inputs[p.name] = given.get(p.name);
    else if (first.has(p.name)) inputs[p.name] = first.get(p.name);
    else if (p.kind === 'optional') inputs[p.name] = { kind: 'optional', dtype: p.elem?.dtype, elems: [] };
    else throw fail(`input "${p.name}" is missing; the model needs ${names(iface.inputs)}`);
  }
  return inputs;
}

/** decode reads a request: its JSON, and the bytes that follow it. */
export function decode(text, blob, iface, first) {
  const req = parseJSON(text);
  const id = member(req, 'id', 'string', '');
  const params = member(req, 'parameters', 'object', '');
  for (const name of ['sequence_id', 'sequence_start', 'sequence_end']) {
    const v = params?.get(name);
    if (v !== undefined && v !== null && v !== false && v !== 0n && v !== '') throw fail(`${name}: this server carries no sessions; send the state's outputs as its inputs of the next request`);
  }
  const given = new Map();
  for (const t of member(req, 'inputs', 'array', '') ?? []) {
    if (!(t instanceof Map)) throw misshapen(`inputs cannot be a JSON ${kindOf(t)}`);
    const name = member(t, 'name', 'string', 'inputs.') ?? '';
    const p = iface.inputs.find((q) => q.name === name);
    if (!p) throw fail(`the model has no input ${JSON.stringify(name)}; it has ${names(iface.inputs)}`);
    if (given.has(name)) throw fail(`input "${name}" stands twice in the request`);
    const shape = member(t, 'shape', 'array', 'inputs.')?.map((n) => {
      if (n === null) return 0n;
      if (typeof n !== 'bigint' || n !== BigInt.asIntN(64, n)) throw misshapen(`inputs.shape cannot be a JSON ${kindOf(n)}`);
      return n;
    });
    if (!shape) throw fail(`input "${name}" has no shape`);
    const dt = member(t, 'datatype', 'string', 'inputs.');
    let size = member(t, 'parameters', 'object', 'inputs.')?.get('binary_data_size');
    if (size === null) size = 0n;
    try {
      if (size === undefined) given.set(name, fromJSON(p, dt, shape, t.get('data')));
      else {
        if (typeof size !== 'bigint' || size < 0n) throw fail(`parameter binary_data_size is ${jsonText(size)}, which is no length`);
        if (t.has('data')) throw fail('it has both data and binary_data_size');
        if (size > BigInt(blob.length)) throw fail(`binary_data_size is ${size}, the body has only ${blob.length} bytes left`);
        given.set(name, fromBytes(p, dt, shape, blob.subarray(0, Number(size))));
        blob = blob.subarray(Number(size));
      }
    } catch (e) {
      throw e instanceof HTTPError ? fail(`input "${name}": ${e.message}`) : e;
    }
  }
  if (blob.length > 0) throw fail(`there are ${blob.length} bytes after the last binary tensor`);
  const inputs = complete(iface, given, first);
  const all = flag(params, 'binary_data_output');
  let outputs = (member(req, 'outputs', 'array', '') ?? []).map((o) => {
    if (!(o instanceof Map)) throw misshapen(`outputs cannot be a JSON ${kindOf(o)}`);
    const name = member(o, 'name', 'string', 'outputs.') ?? '', op = member(o, 'parameters', 'object', 'outputs.');
    const binary = op?.has('binary_data') ? flag(op, 'binary_data', `output ${JSON.stringify(name)}: `) : all;
    const port = iface.outputs.find((q) => q.name === name);
    if (!port) throw fail(`the model has no output ${JSON.stringify(name)}; it has ${names(iface.outputs)}`);
    return { port, binary };
  });
  if (outputs.length === 0) outputs = iface.outputs.map((port) => ({ port, binary: all }));
  return { id, inputs, outputs };
}

/** decodeRaw reads a request that is the elements of the model's only input and nothing else. */
export function decodeRaw(raw, iface, first) {
  const needed = iface.inputs.filter((p) => !first.has(p.name) && p.kind !== 'optional');
  if (needed.length === 0) throw fail('the model needs no input: send JSON');
  if (needed.length > 1) throw fail(`a body of one raw tensor (Inference-Header-Content-Length: 0) is for models with one input; this one has ${names(iface.inputs)}`);
  const p = needed[0];
  if (!p.ranked) throw fail(`input "${p.name}" has no fixed rank: its shape must be told in JSON`);
  const dims = p.shape ?? []; // a scalar's is null
  const shape = dims.map((d) => (d.size >= 0 ? d.size : 1)), open = dims.flatMap((d, i) => (d.size < 0 ? [i] : []));
  if (open.length > 1) throw fail(`input "${p.name}" has more than one open dim: its shape must be told in JSON`);
  const known = count(shape), size = TYPES[p.dtype]?.[1] ?? 0;
  if (p.dtype === 'string') {
    if (known !== 1) throw fail(`input "${p.name}" has ${known} elements; a raw body is one`);
    const b = new Uint8Array(4 + raw.length);
    new DataView(b.buffer).setUint32(0, raw.length, true);
    b.set(raw, 4);
    raw = b;
  } else if (open.length === 1) {
    if (!size || !known || raw.length % (known * size) !== 0) throw fail(`input "${p.name}": ${raw.length} bytes are no whole number of elements of shape ${portShape(p)}`);
    shape[open[0]] = raw.length / (known * size);
  }
  const given = new Map([[p.name, fromBytes(p, datatype(p), shape, raw)]]);
  return { inputs: complete(iface, given, first), outputs: iface.outputs.map((port) => ({ port, binary: true })) };
}

const element = (t, i) => {
  if (t.dtype !== 'string') return TYPES[t.dtype][4](t.data[i]);
  if (typeof t.strings[i] !== 'string') throw new Error(`element ${i} is not valid UTF-8`);
  return JSON.stringify(t.strings[i]);
};

/** valueJSON writes any value: a sequence as an array, an optional as its value or null, a map as an object. */
function valueJSON(t) {
  if (t.kind === 'optional') return t.elems.length ? valueJSON(t.elems[0]) : 'null';
  if (t.kind === 'sequence') return `[${t.elems.map(valueJSON).join(',')}]`;
  if (t.kind === 'map') {
    const [keys, values] = t.elems, n = count(keys.shape);
    if ((values.kind === 'tensor' ? count(values.shape) : values.elems.length) !== n) throw new Error(`a map of ${n} keys has another number of values`);
    const parts = [];
    for (let i = 0; i < n; i++) {
      const k = element(keys, i);
      parts.push(`${k[0] === '"' ? k : `"${k}"`}:${values.kind === 'tensor' ? element(values, i) : valueJSON(values.elems[i])}`);
    }
    return `{${parts.join(',')}}`;
  }
  let at = 0;
  const nested = (d) => (d === t.shape.length ? element(t, at++) : `[${Array.from({ length: t.shape[d] }, () => nested(d + 1)).join(',')}]`);
  return nested(0);
}

const bytesElement = (parts, b) => {
  const n = new Uint8Array(4);
  new DataView(n.buffer).setUint32(0, b.length, true);
  parts.push(n, b);
  return 4 + b.length;
};

/** encode makes the answer: its bytes, and how many of them are JSON when binary tensors follow (-1: all is JSON). */
export function encode({ name, version, digest }, req, out) {
  const enc = new TextEncoder();
  const blobs = [], tensors = [];
  for (const { port, binary } of req.outputs) {
    let t = out[port.name], json = false;
    if ((t.kind ?? 'tensor') !== 'tensor') {
      t = { kind: 'tensor', dtype: 'string', shape: [1], strings: [valueJSON(t)] };
      json = true;
    }
    if (!TYPES[t.dtype]) throw new Error(`output "${port.name}": the protocol has no datatype for ${t.dtype}`);
    const params = [];
    if (json) params.push('"content_type":"application/json"');
    let rest = '';
    if (binary) {
      let size = 0;
      if (t.dtype === 'string') for (const s of t.strings) size += bytesElement(blobs, typeof s === 'string' ? enc.encode(s) : s);
      else {
        const b = bytesOf(t);
        size = b.length;
        blobs.push(b);
      }
      params.push(`"binary_data_size":${size}`);
    } else {
      const n = count(t.shape), parts = new Array(n);
      for (let i = 0; i < n; i++) parts[i] = element(t, i);
      rest = `,"data":[${parts.join(',')}]`;
    }
    tensors.push(`{"name":${JSON.stringify(port.name)},"datatype":"${TYPES[t.dtype][0]}","shape":[${t.shape}]${params.length ? `,"parameters":{${params}}` : ''}${rest}}`);
  }
  const head = enc.encode(`{"model_name":${JSON.stringify(name)},"model_version":${JSON.stringify(version)}`
    + `${req.id === undefined ? '' : `,"id":${JSON.stringify(req.id)}`},"parameters":{"digest":"${digest}"},"outputs":[${tensors.join(',')}]}`);
  if (!req.outputs.some((o) => o.binary)) return { body: head, header: -1 };
  const body = new Uint8Array(blobs.reduce((a, b) => a + b.length, head.length));
  body.set(head);
  blobs.reduce((at, b) => (body.set(b, at), at + b.length), head.length);
  return { body, header: head.length };
}
