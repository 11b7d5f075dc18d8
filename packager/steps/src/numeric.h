/* Elementary functions in f64, as docs/numerics.md defines them: only + - * / and square roots, each rounded on its own, so
   that every host computes the same bits. */
#ifndef NUMERIC_H
#define NUMERIC_H

typedef struct {
  double re, im;
} cpx;

static inline u64 f64_bits(double v) {
  u64 b;
  __builtin_memcpy(&b, &v, 8);
  return b;
}

static inline double f64_of(u64 b) {
  double v;
  __builtin_memcpy(&v, &b, 8);
  return v;
}

static double f64_exp(double x) {
  x = 710 < x ? 710 : x;
  x = x < -746 ? -746 : x;
  if (x != x) return x;
  double n = __builtin_rint(x * 0x1.71547652b82fep+0);
  double hi = x - n * 0x1.62e42feep-1, lo = n * 0x1.a39ef35793c76p-33, r = hi - lo, t = r * r;
  double q = 0x1.6376972bea4dp-25;
  q = q * t + -0x1.bbd41c5d26bf1p-20;
  q = q * t + 0x1.1566aaf25de2cp-14;
  q = q * t + -0x1.6c16c16bebd93p-9;
  q = q * t + 0x1.5555555555555p-3;
  double c = r - t * q, y = 1 - ((lo - (r * c) / (2 - c)) - hi);
  int k = (int)n, k1 = k >> 1, k2 = k - k1;
  return y * f64_of((u64)(k1 + 1023) << 52) * f64_of((u64)(k2 + 1023) << 52);
}

static double f64_log(double x) {
  if (x != x || x < 0) return __builtin_nan("");
  if (x == 0) return -__builtin_inf();
  if (x == __builtin_inf()) return x;
  int e = 0;
  if (x < 0x1p-1022) x = x * 0x1p54, e = -54;
  u64 b = f64_bits(x);
  e += (int)(b >> 52) - 1022;
  double m = f64_of((b & 0xfffffffffffffull) | 0x3fe0000000000000ull);
  if (m < 0x1.6a09e667f3bcdp-1) m = m + m, e = e - 1;
  double f = m - 1, k = e, s = f / (2 + f), s2 = s * s, s4 = s2 * s2;
  double t1 = s2 * (0x1.5555555555593p-1 + s4 * (0x1.2492494229359p-2 + s4 * (0x1.7466496cb03dep-3 + s4 * 0x1.2f112df3e5244p-3)));
  double t2 = s4 * (0x1.999999997fa04p-2 + s4 * (0x1.c71c51d8e78afp-3 + s4 * 0x1.39a09d078c69fp-3));
  double r = t1 + t2, h = (0.5 * f) * f;
  return k * 0x1.62e42feep-1 - ((h - (s * (h + r) + k * 0x1.a39ef35793c76p-33)) - f);
}

/* cos(pi x) + i sin(pi x), for |x| below 2^50: x is taken apart exactly, the rest are the polynomials of section 2.3. */
static cpx f64_cispi(double x) {
  double n = __builtin_rint(2 * x), z = (x - 0.5 * n) * 0x1.921fb54442d18p+1, s = z * z;
  double p = 0x1.5d93a5acfd57cp-33;
  p = p * s + -0x1.ae5e68a2b9cebp-26;
  p = p * s + 0x1.71de357b1fe7dp-19;
  p = p * s + -0x1.a01a019c161d5p-13;
  p = p * s + 0x1.111111110f8a6p-7;
  p = p * s + -0x1.5555555555549p-3;
  double sn = z + (z * s) * p;
  p = -0x1.8fae9be8838d4p-37;
  p = p * s + 0x1.1ee9ebdb4b1c4p-29;
  p = p * s + -0x1.27e4f809c52adp-22;
  p = p * s + 0x1.a01a019cb159p-16;
  p = p * s + -0x1.6c16c16c15177p-10;
  p = p * s + 0x1.555555555554cp-5;
  double h = 0.5 * s, w = 1 - h, cs = w + (((1 - w) - h) + s * (s * p));
  switch ((int)((i64)n & 3)) {
  case 0: return (cpx){cs, sn};
  case 1: return (cpx){-sn, cs};
  case 2: return (cpx){-cs, -sn};
  }
  return (cpx){sn, -cs};
}

/* exp(-2 pi i k / n) */
static cpx f64_root(u64 k, u64 n) {
  cpx c = f64_cispi((double)(2 * wb_rem64(k, n)) / (double)n);
  c.im = -c.im;
  return c;
}

#endif
