/* A discrete Fourier transform of any length in f64. Lengths whose prime factors are at most 13 go through Stockham passes
   (radix 4, 2 and odd ones), the others through Bluestein's convolution of a power of two. The order of operations depends on the length
   alone. Tables and scratch are the caller's. */
#ifndef FFT_H
#define FFT_H

enum { FFT_FACTORS = 24 };

/* The length and the prime factors of a plan: 0 factors, and a convolution length m, for Bluestein's way. */
typedef struct {
  u32 n, count, m;
  u32 factor[FFT_FACTORS];
} fft_plan;

static u32 fft_factor(u32 n, u32 *out) {
  static const u8 radix[7] = {4, 2, 3, 5, 7, 11, 13};
  u32 k = 0;
  for (u32 i = 0; i < 7; i++)
    for (; wb_rem(n, radix[i]) == 0; n /= radix[i]) out[k++] = radix[i];
  return n == 1 ? k : 0;
}

static void fft_make(fft_plan *p, u32 n) {
  p->n = n, p->m = 0;
  p->count = fft_factor(n, p->factor);
  if (p->count || n == 1) return;
  for (p->m = 1; p->m < 2 * n - 1; p->m *= 2) {}
  p->count = fft_factor(p->m, p->factor);
}

static inline cpx cmul(cpx a, cpx b) { return (cpx){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static inline cpx cadd(cpx a, cpx b) { return (cpx){a.re + b.re, a.im + b.im}; }
static inline cpx csub(cpx a, cpx b) { return (cpx){a.re - b.re, a.im - b.im}; }

/* fft_pass does the passes of `factor` on x (overwritten), with y as scratch; w[i * step] = exp(-2 pi i / n). The result is where
   it returns: x or y. */
static cpx *fft_pass(u32 n, u32 count, const u32 *factor, const cpx *w, u32 step, cpx *x, cpx *y) {
  u32 s = 1, left = n;
  for (u32 f = 0; f < count; f++) {
    u32 r = factor[f], m = left / r;
    for (u32 q = 0; q < m; q++) {
      const cpx *in = x + s * q;
      cpx *out = y + s * r * q;
      u32 wide = s * m;
      if (r == 4) {
        cpx w1 = w[q * s * step], w2 = w[2 * q * s * step], w3 = w[3 * q * s * step];
        for (u32 t = 0; t < s; t++) {
          cpx a = in[t], b = in[t + wide], c = in[t + 2 * wide], d = in[t + 3 * wide];
          cpx ac = cadd(a, c), bd = cadd(b, d), am = csub(a, c), bm = csub(b, d);
          out[t] = cadd(ac, bd);
          out[t + s] = cmul((cpx){am.re + bm.im, am.im - bm.re}, w1);
          out[t + 2 * s] = cmul(csub(ac, bd), w2);
          out[t + 3 * s] = cmul((cpx){am.re - bm.im, am.im + bm.re}, w3);
        }
      } else if (r == 2) {
        cpx w1 = w[q * s * step];
        for (u32 t = 0; t < s; t++) {
          cpx a = in[t], b = in[t + wide];
          out[t] = cadd(a, b);
          out[t + s] = cmul(csub(a, b), w1);
        }
      } else {
        for (u32 t = 0; t < s; t++)
          for (u32 k = 0; k < r; k++) {
            cpx v = in[t];
            for (u32 j = 1; j < r; j++) v = cadd(v, cmul(in[t + j * wide], w[wb_rem(j * k, r) * (n / r) * step]));
            out[t + k * s] = cmul(v, w[q * k * s * step]);
          }
      }
    }
    cpx *swap = x;
    x = y, y = swap;
    s *= r, left = m;
  }
  return x;
}

/* fft transforms x. a, b: scratch of n elements, of m with Bluestein; chirp[k] = exp(-pi i k^2 / n), wm the roots of m and spread the
   transform of the conjugated, wrapped chirp, divided by m. */
static cpx *fft(const fft_plan *p, const cpx *w, u32 step, const cpx *chirp, const cpx *wm, const cpx *spread, cpx *x, cpx *a, cpx *b) {
  if (!p->m) return fft_pass(p->n, p->count, p->factor, w, step, x, a);
  for (u32 i = 0; i < p->n; i++) a[i] = cmul(x[i], chirp[i]);
  for (u32 i = p->n; i < p->m; i++) a[i] = (cpx){0, 0};
  cpx *t = fft_pass(p->m, p->count, p->factor, wm, 1, a, b), *o = t == a ? b : a;
  for (u32 i = 0; i < p->m; i++) { /* conjugated, so that the same passes go back */
    t[i] = cmul(t[i], spread[i]);
    t[i].im = -t[i].im;
  }
  t = fft_pass(p->m, p->count, p->factor, wm, 1, t, o);
  for (u32 i = 0; i < p->n; i++) x[i] = cmul((cpx){t[i].re, -t[i].im}, chirp[i]);
  return x;
}

#endif
