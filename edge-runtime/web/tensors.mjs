// Tensors in the form of the golden document (docs/format.md): base64 of little-endian bytes, or strings.

export const fromBase64 = (s) => Uint8Array.from(atob(s), (c) => c.charCodeAt(0));

export const toBase64 = (b) => {
  let s = '';
  for (let i = 0; i < b.length; i += 0x2000) s += String.fromCharCode(...b.subarray(i, i + 0x2000));
  return btoa(s);
};

/** bytesOf gives the bytes of a tensor's elements. */
export const bytesOf = (t) => new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength);

export const fromGolden = (g) => {
  const t = { kind: g.kind || 'tensor', dtype: g.dtype, shape: g.shape ?? [] };
  if (t.kind !== 'tensor') t.elems = (g.elems ?? []).map(fromGolden);
  else if (t.dtype === 'string') t.strings = g.strings ?? [];
  else t.data = fromBase64(g.data ?? '');
  return t;
};

export const toGolden = (name, t) => {
  const g = { name, dtype: t.dtype ?? '', shape: t.shape ?? [] };
  if (t.kind !== 'tensor') return { ...g, kind: t.kind, elems: t.elems.map((e) => toGolden('', e)) };
  if (t.dtype === 'string') return { ...g, strings: t.strings };
  return { ...g, data: toBase64(bytesOf(t)) };
};

/** same tells whether two tensors are equal bit for bit. */
export function same(a, b) {
  const kind = a.kind ?? 'tensor';
  if (kind !== (b.kind ?? 'tensor')) return false;
  if (kind !== 'tensor') return a.elems.length === b.elems.length && a.elems.every((e, i) => same(e, b.elems[i]));
  if (a.dtype !== b.dtype || a.shape.length !== b.shape.length || a.shape.some((n, i) => n !== b.shape[i])) return false;
  if (a.dtype === 'string') return a.strings.length === b.strings.length && a.strings.every((s, i) => s === b.strings[i]);
  const x = bytesOf(a), y = bytesOf(b);
  return x.length === y.length && x.every((v, i) => v === y[i]);
}
