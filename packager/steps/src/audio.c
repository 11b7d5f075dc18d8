/* audio: a WAV file (u8 [n]) or raw samples (f32 or i16, [n] or [channels, n]) to features (f32): mixed down, resampled, cut into frames, windowed,
   transformed, and on to a spectrum, mel filters or cepstral coefficients. Everything is computed in f64 and rounded to f32 where
   it is stored: the signal, and the features. docs/steps.md says what each setting means.
   Errors: codes of the step's own from 64 on, below. */
#include "waybill.h"
#include "numeric.h"
#include "fft.h"

enum { BAD_FORMAT = 64, BAD_WAV, UNSUPPORTED, BAD_RATE, TOO_LONG, TOO_SHORT, CUT, NO_CHANNEL };

#include "wav.h"

enum { OUT_WAVEFORM, OUT_COMPLEX, OUT_SPECTRUM, OUT_MEL, OUT_MFCC };
enum { WIN_RECT, WIN_HANN, WIN_HAMMING, WIN_POVEY, WIN_BLACKMAN };
enum { FRAMES_INSIDE, FRAMES_CENTER, FRAMES_KALDI };
enum { PAD_ZERO, PAD_REFLECT, PAD_SYMMETRIC, PAD_EDGE };
enum { LOG_NONE, LOG_E, LOG_10, LOG_DB };
enum { SCALE_NONE, SCALE_ENERGY, SCALE_SUM };
enum {
  F_SYMMETRIC = 1,  /* a symmetric window, else a periodic one */
  F_START = 2,      /* the window stands at the start of the transform, else in its middle */
  F_DROP = 4,       /* the last frame is dropped */
  F_DC = 8,         /* each frame's mean is taken off */
  F_EMPH_FRAME = 16,
  F_SLANEY = 32,    /* mel scale; else htk */
  F_NORM = 64,      /* each filter has area 1 */
  F_IN_MEL = 128,   /* triangles are straight on the mel axis, else in Hz */
  F_REF_MAX = 256,  /* the largest value becomes 0 */
  F_RANGE = 512,
  F_ORTHO = 1024,
  F_NORMALIZE = 2048,
  F_ALL = 4096,     /* one mean for all, else one a feature */
  F_VARIANCE = 8192,
  F_EPS_STD = 16384,
  F_LAST = 32768,   /* features along the last axis, else time */
};

/* As packager/steps/audio.go writes it. */
typedef struct __attribute__((packed)) {
  u32 flags, rate, source_rate, most, length, frame, hop, nfft, window, frames, pad, output, power, scaling, mels, coefs, log, axes, zeros, ddof;
  int channel;
  u32 spare;
  double scale, preemphasis, rolloff, fmin, fmax, floor, add, range, reference, lifter, epsilon, mean, inverse;
} config;

static inline const config *conf(void) { return (const config *)wb_config(); }

enum { START, TABLES, DECODE, RESAMPLE, FRAMES, SHAPE, SUM, SQUARES, WRITE };
enum { T_ROOTS, T_WINDOW, T_WIDE, T_CHIRP, T_SPREAD, T_MEL, T_DCT, T_LIFT, T_TAPS, T_END };

typedef struct {
  wb_ctx head;
  u32 bound, phase, table, bins, width, cells, stride, rows, taps, reach, up, down, used_mel;
  u64 at, n, need;
  sound in;
  fft_plan plan;
  double peak, gain, reference;
  u32 source, signal, roots, window, wide, chirp, spread, mel, weights, dct, lift, kernel, a, b, x, power, feat, sums, out;
} ctx;

WB_EXPORT("waybill_abi") u32 version(void) { return WB_ABI; }
WB_EXPORT("waybill_ctx") u32 context_size(void) { return sizeof(ctx); }
WB_EXPORT("waybill_heap") u32 heap(void) { return ((u32)wb_config() + wb_config_size() + 63) & ~63u; }

WB_EXPORT("waybill_bind") u32 bind(ctx *c) {
  c->bound = 0;
  u32 s = wb_check(&c->head, 1, 1);
  if (s) return s;
  wb_desc *x = wb_in(&c->head, 0);
  if (x->kind != 0 || (x->dtype != WB_U8 && x->dtype != WB_F32 && x->dtype != WB_I16)) return wb_fail(&c->head, WB_ERR_DTYPE, 0, x->dtype);
  if (x->rank != 1 && (x->dtype == WB_U8 || x->rank != 2)) return wb_fail(&c->head, WB_ERR_RANK, 0, x->rank);
  c->bound = 1, c->phase = START, c->need = 0;
  return WB_DONE;
}

static u64 divide_up(u64 a, u64 b) { return (a + b - 1) / b; }

static u32 gcd(u32 a, u32 b) {
  while (b) {
    u32 t = wb_rem(a, b);
    a = b, b = t;
  }
  return a;
}

/* take gives the place of `bytes` more of the arena. Places are counted before any is asked for. */
static u32 take(ctx *c, u64 bytes) {
  u64 at = (c->need + 15) & ~15ull;
  c->need = at + bytes;
  return (u32)(c->head.arena_base + at);
}

/* Mel frequencies in any unit that is proportional to the scale's. */
static double to_mel(double f) {
  if (!(conf()->flags & F_SLANEY)) return f64_log(1 + f / 700);
  return f < 1000 ? f * 3 / 200 : 15 + f64_log(f / 1000) / 0x1.199b76b9099dcp-4;
}

static double from_mel(double m) {
  if (!(conf()->flags & F_SLANEY)) return 700 * (f64_exp(m) - 1);
  return m < 15 ? m * 200 / 3 : 1000 * f64_exp((m - 15) * 0x1.199b76b9099dcp-4);
}

/* open finds the samples, and how many frames and bytes they come to. */
static u32 open(ctx *c) {
  const config *k = conf();
  wb_desc *x = wb_in(&c->head, 0);
  sound *s = &c->in;
  if (x->dtype == WB_U8) {
    u32 e = wav_open(&c->head, (const u8 *)x->data, x->bytes, s);
    if (e) return e;
  } else {
    u32 size = x->dtype == WB_F32 ? 4 : 2;
    i64 chans = x->rank == 2 ? x->dims[0] : 1;
    if (chans < 1 || chans > 65535) return wb_fail(&c->head, WB_ERR_DIM, 0, chans);
    *s = (sound){(const u8 *)x->data, (u64)x->dims[x->rank - 1], (u32)chans, x->dtype == WB_F32 ? PCM_F32 : PCM_S16, k->source_rate, size, 0};
    s->apart = s->frames * size;
  }
  if (s->rate < 1000 || s->rate > 768000) return wb_fail(&c->head, BAD_RATE, s->rate, 0);
  if (k->channel >= (i64)s->channels) return wb_fail(&c->head, NO_CHANNEL, k->channel, s->channels);
  u32 g = gcd(s->rate, k->rate);
  c->up = k->rate / g, c->down = s->rate / g;
  u64 n = divide_up(s->frames * c->up, c->down);
  if (s->frames > k->most || n > k->most) return wb_fail(&c->head, TOO_LONG, (i64)(n > s->frames ? n : s->frames), k->most);
  if (!n) return wb_fail(&c->head, TOO_SHORT, 0, 1);
  c->taps = 0;
  if (c->up != c->down) {
    double least = (c->up < c->down ? c->up : c->down) * k->rolloff;
    c->reach = (u32)(k->zeros * (double)c->down / least) + 1;
    c->taps = 2 * c->reach + 1;
    c->source = take(c, s->frames * 4);
  }
  u64 total = k->length ? k->length : n;
  c->n = n < total ? n : total;
  c->signal = take(c, total * 4);
  if (c->taps) c->kernel = take(c, (u64)c->up * c->taps <= 1 << 20 ? (u64)c->up * c->taps * 8 : (u64)c->taps * 8);
  if (k->output == OUT_WAVEFORM) {
    c->rows = (u32)total, c->cells = c->width = c->stride = 1;
    c->feat = c->signal;
  } else {
    u64 span = k->flags & F_START ? k->frame : k->nfft, rows;
    if (k->frames == FRAMES_INSIDE) rows = total < span ? 0 : 1 + (total - span) / k->hop;
    else if (k->frames == FRAMES_CENTER) rows = 1 + (total + k->nfft / 2 * 2 - k->nfft) / k->hop;
    else rows = (total + k->hop / 2) / k->hop;
    if (rows && k->flags & F_DROP) rows--;
    if (!rows) return wb_fail(&c->head, TOO_SHORT, (i64)total, (i64)span);
    c->rows = (u32)rows;
    c->bins = k->nfft / 2 + 1;
    c->stride = k->output >= OUT_MEL ? k->mels : c->bins;
    c->width = k->output == OUT_MFCC ? k->coefs : c->stride;
    c->cells = k->output == OUT_COMPLEX ? 2 : 1;
    fft_make(&c->plan, k->nfft & 1 ? k->nfft : k->nfft / 2);
    u64 h = c->plan.m ? c->plan.m : c->plan.n;
    c->roots = take(c, (u64)k->nfft * 16);
    c->window = take(c, (u64)k->frame * 8);
    if (c->plan.m) c->wide = take(c, h * 16), c->chirp = take(c, (u64)c->plan.n * 16), c->spread = take(c, h * 16);
    c->x = take(c, h * 16), c->a = take(c, h * 16), c->b = take(c, h * 16);
    c->power = take(c, (u64)c->bins * 8);
    if (k->output >= OUT_MEL) c->mel = take(c, (u64)k->mels * 12), c->weights = take(c, (u64)c->bins * 16 + 16);
    if (k->output == OUT_MFCC) c->dct = take(c, (u64)k->mels * k->coefs * 8), c->lift = take(c, (u64)k->coefs * 8 + (u64)k->mels * 8);
    c->feat = take(c, rows * c->stride * c->cells * 4);
  }
  c->reference = f64_log(k->reference < k->floor ? k->floor : k->reference) * 0x1.bcb7b1526e50ep-2 * (k->power == 2 ? 10 : 20);
  c->sums = take(c, k->flags & F_NORMALIZE ? (u64)c->width * c->cells * 16 : 0);
  u64 out = (u64)c->rows * c->width * c->cells * 4;
  if (out > 0x7fffffff) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)out, 0);
  c->out = take(c, out);
  return WB_DONE;
}

static double window_at(const config *k, u32 i) {
  u32 n = k->flags & F_SYMMETRIC ? k->frame - 1 : k->frame;
  if (k->window == WIN_RECT || !n) return 1;
  double cs = f64_cispi((double)wb_rem(2 * i, 2 * n) / n).re;
  if (k->window == WIN_HAMMING) return 0.54 - 0.46 * cs;
  if (k->window == WIN_BLACKMAN) return (0.42 - 0.5 * cs) + 0.08 * f64_cispi((double)wb_rem(4 * i, 2 * n) / n).re;
  double h = 0.5 - 0.5 * cs;
  return k->window == WIN_HANN ? h : h > 0 ? f64_exp(0.85 * f64_log(h)) : 0;
}

/* mel_filter writes the weights of filter i, which are above zero for a run of bins, and tells how many there are. Its record in c->mel
   is {first bin, count, first weight}. */
static u32 mel_filter(ctx *c, u32 i) {
  const config *k = conf();
  u32 *rec = (u32 *)c->mel + 3 * i, count = 0;
  double *w = (double *)c->weights + c->used_mel;
  double lo = to_mel(k->fmin), step = (to_mel(k->fmax) - lo) / (k->mels + 1);
  double m0 = lo + i * step, m1 = lo + (i + 1) * step, m2 = lo + (i + 2) * step;
  double f0 = from_mel(m0), f1 = from_mel(m1), f2 = from_mel(m2), hz = (double)k->rate / k->nfft;
  double first = f0 / hz;
  u32 from = first < 1 ? 0 : (u32)first - 1; /* a bin early: the comparisons below decide */
  for (u32 b = from; b < c->bins; b++) {
    double f = b * hz, up, down;
    if (f > f2 + hz) break;
    if (k->flags & F_IN_MEL) {
      double m = to_mel(f);
      up = (m - m0) / (m1 - m0), down = (m2 - m) / (m2 - m1);
    } else up = (f - f0) / (f1 - f0), down = (f2 - f) / (f2 - f1);
    double v = up < down ? up : down;
    if (!(v > 0)) {
      if (count) break;
      continue;
    }
    if (c->used_mel + count >= 2 * c->bins + 2) break;
    if (!count) rec[0] = b;
    w[count++] = k->flags & F_NORM ? v * (2 / (f2 - f0)) : v;
  }
  if (!count) rec[0] = 0;
  rec[1] = count, rec[2] = c->used_mel;
  c->used_mel += count;
  return c->bins;
}

/* The weight of input `j - reach` steps behind the base of output phase p: a sinc of the lower rate's band, under a Hann window. */
static double tap(ctx *c, u32 p, u32 j) {
  const config *k = conf();
  i64 base = (i64)((u64)p * c->down / c->up), num = (base + (i64)j - c->reach) * c->up - (i64)p * c->down;
  double band = (c->up < c->down ? c->up : c->down) * k->rolloff, t = (double)num * band / ((double)c->down * c->up), z = k->zeros;
  if (t >= z || t <= -z) return 0;
  double w = f64_cispi(t / (2 * z)).re, g = band / c->down;
  if (t == 0) return g;
  return f64_cispi(t).im / (t * 0x1.921fb54442d18p+1) * (w * w) * g;
}

static int tabled(ctx *c) { return (u64)c->up * c->taps <= 1 << 20; }

/* fill makes entry i of a table and returns how much work it was, or 0 behind the last entry. */
static u32 fill(ctx *c, u64 i) {
  const config *k = conf();
  u32 n = c->plan.n, m = c->plan.m;
  if (k->output == OUT_WAVEFORM && c->table != T_TAPS) return 0;
  switch (c->table) {
  case T_ROOTS:
    if (i >= k->nfft) return 0;
    ((cpx *)c->roots)[i] = f64_root(i, k->nfft);
    return 40;
  case T_WINDOW: {
    if (i >= k->frame) break;
    double w = window_at(k, (u32)i);
    ((double *)c->window)[i] = w;
    if (!i) c->gain = 0;
    c->gain += k->scaling == SCALE_ENERGY ? w * w : w;
    return 90;
  }
  case T_WIDE:
    if (i >= m) return 0;
    ((cpx *)c->wide)[i] = f64_root(i, m);
    return 40;
  case T_CHIRP:
    if (!m || i >= n) return 0;
    ((cpx *)c->chirp)[i] = f64_root(i * i, 2ull * n);
    return 50;
  case T_SPREAD: {
    if (!m || i) return 0;
    cpx *a = (cpx *)c->a, *h = (cpx *)c->chirp, *to = (cpx *)c->spread;
    for (u32 j = 0; j < m; j++) a[j] = (cpx){0, 0};
    for (u32 j = 0; j < n; j++) {
      cpx v = {h[j].re, -h[j].im};
      a[j] = v;
      if (j) a[m - j] = v;
    }
    cpx *t = fft_pass(m, c->plan.count, c->plan.factor, (cpx *)c->wide, 1, a, (cpx *)c->b);
    for (u32 j = 0; j < m; j++) to[j] = (cpx){t[j].re / m, t[j].im / m};
    return m * 40;
  }
  case T_MEL:
    if (k->output < OUT_MEL || i >= k->mels) return 0;
    if (!i) c->used_mel = 0;
    return 100 + mel_filter(c, (u32)i) * (k->flags & F_IN_MEL ? 8 : 2);
  case T_DCT: {
    if (k->output != OUT_MFCC || i >= (u64)k->mels * k->coefs) return 0;
    u32 q = (u32)(i / k->mels), j = (u32)wb_rem64(i, k->mels);
    double v = f64_cispi((double)wb_rem((2 * j + 1) * q, 4 * k->mels) / (2 * k->mels)).re;
    if (k->flags & F_ORTHO) v *= __builtin_sqrt((q ? 2.0 : 1.0) / k->mels);
    else v *= 2;
    ((double *)c->dct)[i] = v;
    return 50;
  }
  case T_LIFT:
    if (k->output != OUT_MFCC || i >= k->coefs) return 0;
    ((double *)c->lift)[i] = k->lifter > 0 ? 1 + 0.5 * k->lifter * f64_cispi((double)i / k->lifter).im : 1;
    return 50;
  case T_TAPS:
    if (!c->taps || !tabled(c) || i >= (u64)c->up * c->taps) return 0;
    ((double *)c->kernel)[i] = tap(c, (u32)(i / c->taps), (u32)wb_rem64(i, c->taps));
    return 80;
  }
  return 0;
}

static float resampled(ctx *c, u64 i, u32 *work) {
  u32 p = (u32)wb_rem64(i, c->up);
  i64 base = (i64)(i / c->up * c->down + (u64)p * c->down / c->up) - c->reach;
  const float *x = (const float *)c->source;
  const double *w = (const double *)c->kernel + (tabled(c) ? (u64)p * c->taps : 0);
  int made = !tabled(c);
  double v = 0;
  for (u32 j = 0; j < c->taps; j++) {
    i64 at = base + j;
    if (at < 0 || at >= (i64)c->in.frames) continue;
    v += (double)x[at] * (made ? tap(c, p, j) : w[j]);
  }
  *work += c->taps * (made ? 60 : 4) + 20;
  return (float)v;
}

/* The signal at i, which may lie outside of it. */
static double padded(const float *x, i64 n, i64 i, u32 mode) {
  if (i >= 0 && i < n) return x[i];
  if (mode == PAD_ZERO) return 0;
  if (mode == PAD_EDGE || n == 1) return x[i < 0 ? 0 : n - 1];
  i64 period = mode == PAD_REFLECT ? 2 * n - 2 : 2 * n;
  i = i < 0 ? period - 1 - (i64)wb_rem64((u64)(-1 - i), (u64)period) : (i64)wb_rem64((u64)i, (u64)period);
  if (i >= n) i = mode == PAD_REFLECT ? period - i : period - 1 - i;
  return x[i];
}

/* frame makes the features of row r. */
static u32 frame(ctx *c, u64 r) {
  const config *k = conf();
  const float *sig = (const float *)c->signal;
  i64 total = k->length ? k->length : (i64)c->n;
  u32 n = k->nfft, h = c->plan.n, off = k->flags & F_START ? 0 : (n - k->frame) / 2;
  i64 start = (i64)(r * k->hop);
  if (k->frames == FRAMES_CENTER) start -= n / 2;
  else if (k->frames == FRAMES_KALDI) start += (i64)(k->hop / 2) - k->frame / 2;
  if (k->frames != FRAMES_KALDI) start += off;
  double *x = (double *)c->x;
  const double *win = (const double *)c->window;
  /* Real samples lie in the complex buffer two by two when n is even, else with imaginary parts of zero. */
  u32 gap = n & 1 ? 2 : 1;
  for (u32 i = 0; i < n * gap; i++) x[i] = 0;
  double mean = 0, before = 0;
  if (k->flags & F_DC) {
    for (u32 i = 0; i < k->frame; i++) mean += padded(sig, total, start + i, k->pad);
    mean /= k->frame;
  }
  int emph = (k->flags & F_EMPH_FRAME) && k->preemphasis != 0;
  for (u32 i = 0; i < k->frame; i++) {
    double v = padded(sig, total, start + i, k->pad) - mean, e = v;
    if (emph) e = v - k->preemphasis * (i ? before : v);
    before = v;
    x[(off + i) * gap] = e * win[i];
  }
  cpx *z = fft(&c->plan, (cpx *)c->roots, n / h, (cpx *)c->chirp, (cpx *)c->wide, (cpx *)c->spread, (cpx *)c->x, (cpx *)c->a, (cpx *)c->b);
  double gain = k->scaling == SCALE_NONE ? 1 : k->scaling == SCALE_SUM ? c->gain : __builtin_sqrt(c->gain);
  float *out = (float *)c->feat + r * c->stride * c->cells;
  double *power = (double *)c->power;
  for (u32 b = 0; b < c->bins; b++) {
    cpx v;
    if (n & 1) v = z[b];
    else { /* two real transforms of half the length, put together */
      cpx p = z[b == h ? 0 : b], q = z[b ? h - b : 0];
      cpx even = {(p.re + q.re) * 0.5, (p.im - q.im) * 0.5}, odd = {(p.im + q.im) * 0.5, (q.re - p.re) * 0.5};
      v = cadd(even, cmul(odd, b == h ? (cpx){-1, 0} : ((cpx *)c->roots)[b]));
    }
    if (k->scaling != SCALE_NONE) v.re /= gain, v.im /= gain;
    if (k->output == OUT_COMPLEX) {
      out[2 * b] = (float)v.re, out[2 * b + 1] = (float)v.im;
      continue;
    }
    double e = v.re * v.re + v.im * v.im;
    power[b] = k->power == 2 ? e : __builtin_sqrt(e);
  }
  u32 work = (c->plan.m ? 2 * c->plan.m : h) * 40 + n * 12;
  if (k->output == OUT_COMPLEX) return work;
  for (u32 i = 0; i < c->stride; i++) {
    double v;
    if (k->output == OUT_SPECTRUM) v = power[i];
    else {
      const u32 *rec = (const u32 *)c->mel + 3 * i;
      const double *w = (const double *)c->weights + rec[2];
      v = 0;
      for (u32 b = 0; b < rec[1]; b++) v += power[rec[0] + b] * w[b];
    }
    if (k->log != LOG_NONE) {
      v += k->add;
      if (v < k->floor) v = k->floor;
      double l = f64_log(v);
      v = k->log == LOG_E ? l : l * 0x1.bcb7b1526e50ep-2;
      if (k->log == LOG_DB) v = v * (k->power == 2 ? 10 : 20) - c->reference;
      work += 25;
    }
    float f = (float)v;
    out[i] = f;
    if (f > c->peak) c->peak = f;
  }
  return work + 4 * c->bins;
}

/* shape does what needs the largest value, and the cosine transform. */
static u32 shape(ctx *c, u64 r) {
  const config *k = conf();
  float *row = (float *)c->feat + r * c->stride;
  for (u32 i = 0; i < c->stride; i++) {
    double v = row[i];
    if (k->flags & F_RANGE && v < c->peak - k->range) v = c->peak - k->range;
    if (k->flags & F_REF_MAX) v -= c->peak;
    row[i] = (float)v;
  }
  if (k->output != OUT_MFCC) return c->stride * 3 + 5;
  double *keep = (double *)c->lift + k->coefs, *dct = (double *)c->dct;
  for (u32 i = 0; i < k->mels; i++) keep[i] = row[i];
  for (u32 q = 0; q < k->coefs; q++) {
    double v = 0;
    for (u32 i = 0; i < k->mels; i++) v += keep[i] * dct[q * k->mels + i];
    row[q] = (float)(v * ((double *)c->lift)[q]);
  }
  return c->stride * (3 + 2 * k->coefs) + 5;
}

static inline u32 group(u32 i) { return conf()->flags & F_ALL ? 0 : i; }

/* Sums over the rows, and then of the squared distances from the mean; one for each feature, or one for all. */
static u32 sum(ctx *c, u64 r, int squares) {
  double *s = (double *)c->sums;
  u32 w = c->width * c->cells;
  const float *row = (const float *)c->feat + r * c->stride * c->cells;
  for (u32 i = 0; i < w; i++) {
    u32 g = group(i);
    double d = row[i];
    if (squares) d -= s[2 * g], s[2 * g + 1] += d * d;
    else s[2 * g] += d;
  }
  return w * 4 + 5;
}

static void settle(ctx *c, int squares) {
  const config *k = conf();
  double *s = (double *)c->sums;
  u32 w = c->width * c->cells, groups = k->flags & F_ALL ? 1 : w;
  double n = (double)c->rows * (k->flags & F_ALL ? w : 1);
  for (u32 g = 0; g < groups; g++) {
    if (!squares) {
      s[2 * g] /= n, s[2 * g + 1] = 0;
      continue;
    }
    double v = n > k->ddof ? s[2 * g + 1] / (n - k->ddof) : 0;
    s[2 * g + 1] = k->flags & F_EPS_STD ? __builtin_sqrt(v) + k->epsilon : __builtin_sqrt(v + k->epsilon);
  }
}

static u32 write(ctx *c, u64 r) {
  const config *k = conf();
  const double *s = (const double *)c->sums;
  const float *row = (const float *)c->feat + r * c->stride * c->cells;
  float *out = (float *)c->out;
  for (u32 i = 0; i < c->width; i++)
    for (u32 q = 0; q < c->cells; q++) {
      u32 g = 2 * group(i * c->cells + q);
      double v = row[i * c->cells + q];
      if (k->flags & F_NORMALIZE) {
        v -= s[g];
        if (k->flags & F_VARIANCE) v /= s[g + 1];
      }
      v = (v - k->mean) * k->inverse;
      u64 to = k->flags & F_LAST ? r * c->width + i : (u64)i * c->rows + r;
      out[to * c->cells + q] = v == v ? (float)v : __builtin_nanf("");
    }
  return c->width * c->cells * 5 + 5;
}

static u32 done(ctx *c) {
  const config *k = conf();
  i64 dims[5];
  u32 rank = 0;
  for (u32 i = 0; i < k->axes; i++) dims[rank++] = 1;
  i64 w = c->width, r = c->rows;
  if (k->output == OUT_WAVEFORM) dims[rank++] = r;
  else if (k->flags & F_LAST) dims[rank++] = r, dims[rank++] = w;
  else dims[rank++] = w, dims[rank++] = r;
  if (c->cells == 2) dims[rank++] = 2;
  wb_put(wb_out(&c->head, 0), WB_F32, rank, dims, c->out, c->rows * c->width * c->cells * 4, 0);
  c->bound = 0;
  return WB_DONE;
}

/* Each phase is a loop over c->at that stops when the budget is spent. */
WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  u32 status;
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  const config *k = conf();
  if (c->phase == START) {
    if (!c->need) {
      status = open(c);
      if (status) return status;
      if (c->need > 0xf0000000u) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)c->need, 0);
    }
    if (wb_need(&c->head, c->need, &status)) return status;
    c->phase = TABLES, c->table = c->used_mel = 0, c->at = 0;
    c->peak = -__builtin_inf();
  }
  u64 total = k->length ? k->length : c->n;
  u32 budget = c->head.budget ? c->head.budget : 700000, work = 0;
  while (work < budget) {
    u64 i = c->at++;
    u32 w;
    switch (c->phase) {
    case TABLES:
      w = fill(c, i);
      if (w) work += w;
      else {
        c->at = 0;
        if (++c->table == T_END) c->phase = DECODE;
      }
      break;
    case DECODE: {
      u64 end = c->taps ? c->in.frames : c->n;
      if (i < end) {
        ((float *)(c->taps ? c->source : c->signal))[i] = (float)(sound_mono(&c->in, i, k->channel) * k->scale);
        work += 5 + 5 * (k->channel < 0 ? c->in.channels : 1);
      } else c->phase = RESAMPLE, c->at = c->taps ? 0 : c->n;
      break;
    }
    case RESAMPLE: {
      float *s = (float *)c->signal;
      if (i < c->n) s[i] = resampled(c, i, &work);
      else if (i < total) s[i] = 0, work += 2;
      else {
        c->at = total;
        c->phase = k->preemphasis != 0 && !(k->flags & F_EMPH_FRAME) ? FRAMES + 100 : FRAMES;
        if (c->phase == FRAMES) c->at = 0;
      }
      break;
    }
    case FRAMES + 100: { /* the whole signal's pre-emphasis, from its end: what lies behind the samples is silence */
      float *s = (float *)c->signal;
      u64 j = total - (i - total) - 1;
      if (j == 0) c->phase = FRAMES, c->at = 0;
      else if (j < c->n) s[j] = (float)((double)s[j] - k->preemphasis * (double)s[j - 1]);
      work += 4;
      break;
    }
    case FRAMES:
      if (k->output != OUT_WAVEFORM && i < c->rows) work += frame(c, i);
      else c->phase = (k->flags & (F_RANGE | F_REF_MAX)) || k->output == OUT_MFCC ? SHAPE : SUM, c->at = 0;
      break;
    case SHAPE:
      if (i < c->rows) work += shape(c, i);
      else c->phase = SUM, c->at = 0;
      break;
    case SUM:
    case SQUARES: {
      int squares = c->phase == SQUARES;
      if (!i && !squares && k->flags & F_NORMALIZE)
        for (u32 g = 0; g < 2 * c->width * c->cells; g++) ((double *)c->sums)[g] = 0;
      if (k->flags & F_NORMALIZE && (!squares || k->flags & F_VARIANCE)) {
        if (i < c->rows) {
          work += sum(c, i, squares);
          break;
        }
        settle(c, squares);
      }
      c->phase = squares ? WRITE : SQUARES, c->at = 0;
      break;
    }
    default:
      if (i < c->rows) work += write(c, i);
      else return done(c);
    }
  }
  return WB_MORE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
