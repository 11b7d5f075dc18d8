// Numbers between decimal text and bits, rounded once: JavaScript reads and writes only doubles, and going through one
// rounds twice.

const f32 = new Float32Array(1), u32 = new Uint32Array(f32.buffer), f64 = new Float64Array(1), u64 = new BigUint64Array(f64.buffer);
const MAX_F32 = 3.4028234663852886e38, OVER_F32 = 3.4028235677973366e38;

const bitsOf = (v) => ((f32[0] = v), u32[0]);
const ofBits = (b) => ((u32[0] = b), f32[0]);

/** beside compares a decimal text with a finite double exactly: negative when the text is less. */
export function beside(text, d) {
  const m = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  let digits = (m[2] + (m[3] ?? '')).replace(/^0+/, '') || '0', exp = Number(m[4] ?? 0) - (m[3]?.length ?? 0);
  if (digits.length > 1200) { // a double has fewer digits: of the rest only counts whether it is nothing
    exp += digits.length - 1201;
    digits = digits.slice(0, 1200) + (/[1-9]/.test(digits.slice(1200)) ? '1' : '0');
  }
  let num = BigInt(digits), den = 1n;
  if (m[1]) num = -num;
  if (exp >= 0) num *= 10n ** BigInt(exp);
  else den = 10n ** BigInt(-exp);
  f64[0] = d;
  const bits = u64[0], e = Number(bits >> 52n & 0x7ffn);
  let dn = bits & 0xfffffffffffffn, dd = 1n;
  if (e > 0) dn |= 1n << 52n;
  const k = Math.max(e, 1) - 1075;
  if (bits >> 63n) dn = -dn;
  if (k >= 0) dn <<= BigInt(k);
  else dd <<= BigInt(-k);
  const a = num * dd, b = dn * den;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** parseF32 rounds a JSON number to the nearest float, ties to even; ±Infinity when it is out of range. */
export function parseF32(text) {
  const d = Number(text), f = Math.fround(d);
  if (f === d) return f;
  const neg = d < 0, a = Math.abs(d), g = Math.abs(f);
  if (a >= OVER_F32 || g === Infinity) {
    if (a === OVER_F32 && beside(text, d) * (neg ? -1 : 1) < 0) return neg ? -MAX_F32 : MAX_F32;
    return neg ? -Infinity : Infinity;
  }
  // A double halfway between two floats may itself have been rounded: the text decides.
  const lo = g < a ? g : ofBits(bitsOf(g) - 1), hi = ofBits(bitsOf(lo) + 1);
  if (hi === Infinity || (lo + hi) / 2 !== a) return f;
  const c = beside(text, d) * (neg ? -1 : 1);
  const r = c < 0 ? lo : c > 0 ? hi : g;
  return neg ? -r : r;
}

// As Go writes them, so that texts of equal values are equal: two digits of exponent at least.
const written = (s) => s.replace(/e([-+])(\d)$/, 'e$10$2');

// The nearest decimal of p digits, of two the even one, as Go takes it; toPrecision takes the larger.
function nearest(v, p) {
  const t = v.toPrecision(p), more = v.toPrecision(p + 1);
  if (!/[13579](?:e|$)/.test(t) || !/5(?:e|$)/.test(more) || beside(more, v) !== 0) return t;
  return t.replace(/[13579](?=e|$)/, (d) => String(d - 1));
}

/** formatF32 writes the shortest decimal that reads back as the same float; NaN and infinities are not its work. */
export function formatF32(v) {
  if (Object.is(v, -0)) return '-0';
  const s = String(v);
  if (s.length <= 7) return written(s);
  for (let p = Math.abs(v) < 1.2e-38 ? 1 : 6; p < 9; p++) {
    const t = nearest(v, p);
    if (parseF32(t) === v) return written(String(Number(t)));
  }
  return written(String(Number(nearest(v, 9))));
}

/** formatF64 is String, but for the sign of zero. */
export const formatF64 = (v) => (Object.is(v, -0) ? '-0' : written(String(v)));

/** toF16 rounds a double to the bits of the nearest half, ties to even. */
export function toF16(v) {
  if (Number.isNaN(v)) return 0x7e00;
  const sign = v < 0 || Object.is(v, -0) ? 0x8000 : 0;
  v = Math.abs(v);
  if (v === 0) return sign;
  if (v === Infinity) return sign | 0x7c00;
  f64[0] = v;
  const e = Number(u64[0] >> 52n & 0x7ffn) - 1022; // v = m * 2^e with m in [0.5, 1); subnormal doubles are far below
  const ulp = Math.max(e - 11, -24);
  const x = v * 2 ** -ulp, lo = Math.floor(x), r = x - lo;
  const n = r > 0.5 || r === 0.5 && lo % 2 === 1 ? lo + 1 : lo;
  if (ulp === -24) return sign | n;
  const bits = (ulp + 24) * 1024 + n;
  return sign | (bits >= 0x7c00 ? 0x7c00 : bits);
}

/** fromF16 widens exactly. */
export function fromF16(h) {
  const sign = h & 0x8000 ? -1 : 1, e = h >> 10 & 0x1f, m = h & 0x3ff;
  if (e === 31) return m ? NaN : sign * Infinity;
  return e === 0 ? sign * m * 2 ** -24 : sign * (m + 1024) * 2 ** (e - 25);
}

/** toBF16 rounds a float to the bits of the nearest bfloat16, ties to even. */
export function toBF16(v) {
  if (Number.isNaN(v)) return 0x7fc0;
  const b = bitsOf(v);
  return (b + 0x7fff + (b >>> 16 & 1)) / 65536 & 0xffff;
}

/** fromBF16 widens exactly. */
export const fromBF16 = (h) => ofBits(h << 16 >>> 0);
