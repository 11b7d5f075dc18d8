/* JPEG (ITU-T T.81): baseline, extended sequential and progressive Huffman, 8 bits, one component (grey), three (YCbCr, or RGB by
   Adobe's marker or the components' names) or four (CMYK, YCCK), restart intervals. The inverse transform, the smoothing of halved
   chroma and the colours are in integers and give the same samples as libjpeg-turbo's defaults. A scan that ends early is an error.
   Arithmetic coding, lossless, hierarchical and 12 bits are unsupported.

   Decoding goes in pieces: jpeg_step does one marker, MCU, row of blocks or row of pixels. A sequential picture in one scan
   is decoded strip by strip (a row of MCUs); any other keeps all of its coefficients. */

typedef struct {
  u32 id, h, v, q, td, ta;
  u32 bw, nw, nh;         /* blocks in a padded row; and in the picture itself, across and down */
  u32 dw, dh, mode, row;  /* samples in the picture; how it is brought to full size; bytes in a row of px */
  int pred;
  short *coef;
  u8 *px, *up;            /* two strips of samples; one row at full size */
} jcomp;

enum { J_MARKER, J_ALLOC, J_CLEAR, J_SCAN, J_IDCT, J_ROWS, J_END };
enum { UP_PLAIN, UP_H2V1, UP_H2V2, UP_H1V2 };

typedef struct {
  jcomp c[4];
  u32 stage, nc, hmax, vmax, mcux, mcuy, progressive, restart, eobrun, scans;
  u32 adobe, transform, jfif, strips; /* strips: decoded strip by strip */
  u32 n, unit, total, ss, se, ah, al, list[4];
  u32 strip, comp, block, y;
  u64 clear, coefs;
  unsigned short q[4][64];
  huff dc[4], ac[4];
  u32 seen_q, seen_dc, seen_ac; /* bit i: table i was defined */
  u64 acc;
  u32 have, pad; /* bits in acc, and how many of them lie behind the data */
} jdec;

static const u8 zigzag[64] = {0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
                              35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

static u32 be16(const u8 *p) { return (u32)p[0] << 8 | p[1]; }

/* jfill brings acc to more than 32 bits. Behind the data, which ends at a marker, come zeros. */
static void jfill(dec *d, jdec *j) {
  while (j->have <= 48) {
    u32 b = 0;
    while (d->at + 1 < d->n && d->p[d->at] == 0xff && d->p[d->at + 1] == 0xff) d->at++;
    if (d->at < d->n && d->p[d->at] != 0xff) b = d->p[d->at++];
    else if (d->at + 1 < d->n && d->p[d->at + 1] == 0) b = 0xff, d->at += 2;
    else j->pad += 8;
    j->acc = j->acc << 8 | b;
    j->have += 8;
  }
}

static inline void jdrop(dec *d, jdec *j, u32 n) {
  j->have -= n;
  if (j->have < j->pad) bad(d, CUT, 0);
}

/* n is at most 16. */
static inline u32 jbits(dec *d, jdec *j, u32 n) {
  if (j->have < 16) jfill(d, j);
  u32 v = (u32)(j->acc >> (j->have - n)) & ((1u << n) - 1);
  jdrop(d, j, n);
  return v;
}

static inline int jext(dec *d, jdec *j, u32 n) {
  if (!n) return 0;
  int v = (int)jbits(d, j, n);
  return v < 1 << (n - 1) ? v - (1 << n) + 1 : v;
}

static inline u32 jsym(dec *d, jdec *j, const huff *h) {
  if (j->have < 16) jfill(d, j);
  u32 f = h->fast[(j->acc >> (j->have - FAST)) & ((1u << FAST) - 1)];
  if (f) {
    jdrop(d, j, f >> 9);
    return f & 511;
  }
  u32 top = (u32)(j->acc >> (j->have - 16)) & 0xffff;
  int code = 0, first = 0, index = 0;
  for (u32 i = 1; i <= 16; i++) {
    code |= (int)(top >> (16 - i) & 1);
    int count = h->count[i];
    if (code - count < first) {
      jdrop(d, j, i);
      return h->symbol[index + code - first];
    }
    index += count, first = (first + count) << 1, code <<= 1;
  }
  bad(d, BAD_JPEG, 1);
  return 0;
}

/* A table of T.81: counts of 1 to 16 bits, then the symbols. */
static int jtable(dec *d, huff *h, const u8 *p, u32 left, u32 *used) {
  u32 n = 0, code = 0;
  int room = 1;
  if (left < 16) return bad(d, BAD_JPEG, 2);
  for (u32 i = 0; i < 16; i++) {
    room = room * 2 - p[i];
    if (room < 0) return bad(d, BAD_JPEG, 3);
    n += p[i];
    h->count[i + 1] = p[i];
  }
  if (n > 256 || n > left - 16) return bad(d, BAD_JPEG, 4);
  for (u32 i = 0; i < n; i++) h->symbol[i] = p[16 + i];
  for (u32 i = 0; i < 1u << FAST; i++) h->fast[i] = 0;
  n = 0;
  for (u32 bits = 1; bits <= FAST; bits++, code <<= 1)
    for (u32 i = 0; i < p[bits - 1]; i++, code++, n++)
      for (u32 k = 0; k < 1u << (FAST - bits); k++) h->fast[code << (FAST - bits) | k] = (unsigned short)(bits << 9 | p[16 + n]);
  *used = 16;
  for (u32 i = 0; i < 16; i++) *used += p[i];
  return 1;
}

static void jsequential(dec *d, jdec *j, jcomp *c, short *b) {
  if (j->strips) __builtin_memset(b, 0, 128);
  u32 t = jsym(d, j, &j->dc[c->td]);
  if (t > 15) {
    bad(d, BAD_JPEG, 5);
    return;
  }
  c->pred = (short)(c->pred + jext(d, j, t));
  b[0] = (short)c->pred;
  const huff *h = &j->ac[c->ta];
  for (u32 k = 1; k < 64; k++) {
    u32 rs = jsym(d, j, h), r = rs >> 4, s = rs & 15;
    if (d->code) return;
    if (!s) {
      if (r < 15) break;
      k += 15;
      continue;
    }
    k += r;
    if (k > 63) {
      bad(d, BAD_JPEG, 6);
      return;
    }
    b[zigzag[k]] = (short)jext(d, j, s);
  }
}

static void jprogressive(dec *d, jdec *j, jcomp *c, short *b) {
  u32 al = j->al, se = j->se;
  if (!j->ss) {
    if (j->ah) {
      if (jbits(d, j, 1)) b[0] = (short)(b[0] | 1 << al);
      return;
    }
    u32 t = jsym(d, j, &j->dc[c->td]);
    if (t > 15) {
      bad(d, BAD_JPEG, 5);
      return;
    }
    c->pred = (short)(c->pred + jext(d, j, t));
    b[0] = (short)((u32)c->pred << al);
    return;
  }
  const huff *h = &j->ac[c->ta];
  u32 k = j->ss;
  if (!j->ah) {
    if (j->eobrun) {
      j->eobrun--;
      return;
    }
    for (; k <= se; k++) {
      u32 rs = jsym(d, j, h), r = rs >> 4, s = rs & 15;
      if (d->code) return;
      if (!s) {
        if (r < 15) {
          j->eobrun = (1u << r) - 1 + jbits(d, j, r);
          return;
        }
        k += 15;
        continue;
      }
      k += r;
      if (k > 63) {
        bad(d, BAD_JPEG, 6);
        return;
      }
      b[zigzag[k]] = (short)((u32)jext(d, j, s) << al);
    }
    return;
  }
  short one = (short)(1 << al);
  if (!j->eobrun) {
    for (; k <= se; k++) {
      u32 rs = jsym(d, j, h), r = rs >> 4, s = rs & 15;
      short v = 0;
      if (d->code) return;
      if (s == 1) v = jbits(d, j, 1) ? one : (short)-one;
      else if (s) {
        bad(d, BAD_JPEG, 7);
        return;
      } else if (r < 15) {
        j->eobrun = (1u << r) + jbits(d, j, r);
        break;
      }
      for (; k <= se; k++) {
        short *p = &b[zigzag[k]];
        if (*p) {
          if (jbits(d, j, 1) && !(*p & one)) *p = (short)(*p > 0 ? *p + one : *p - one);
        } else if (!r--) {
          *p = v;
          break;
        }
      }
      if (d->code) return;
    }
  }
  if (j->eobrun) {
    for (; k <= se; k++) {
      short *p = &b[zigzag[k]];
      if (*p && jbits(d, j, 1) && !(*p & one)) *p = (short)(*p > 0 ? *p + one : *p - one);
    }
    j->eobrun--;
  }
}

static u32 jblock(dec *d, jdec *j, jcomp *c, u64 at) {
  u32 before = d->at;
  if (j->progressive) jprogressive(d, j, c, c->coef + at * 64);
  else jsequential(d, j, c, c->coef + at * 64);
  return 60 + (d->at - before) * 20;
}

/* jscan_open reads a scan's header. */
static int jscan_open(dec *d, jdec *j, const u8 *p, u32 len) {
  if (len < 6) return bad(d, BAD_JPEG, 9);
  u32 n = p[0];
  if (!n || n > j->nc || len != 4 + 2 * n) return bad(d, BAD_JPEG, 9);
  j->ss = p[1 + 2 * n], j->se = p[2 + 2 * n], j->ah = p[3 + 2 * n] >> 4, j->al = p[3 + 2 * n] & 15;
  if (!j->progressive) j->ss = 0, j->se = 63, j->ah = j->al = 0;
  else if (j->ss > j->se || j->se > 63 || (!j->ss && j->se) || (j->ss && n > 1) || j->al > 13) return bad(d, BAD_JPEG, 10);
  u32 seen = 0;
  for (u32 i = 0; i < n; i++) {
    u32 k = 0;
    while (k < j->nc && (j->c[k].id != p[1 + 2 * i] || seen >> k & 1)) k++;
    if (k == j->nc) return bad(d, BAD_JPEG, 11);
    seen |= 1u << k;
    j->list[i] = k;
    jcomp *c = &j->c[k];
    c->td = p[2 + 2 * i] >> 4, c->ta = p[2 + 2 * i] & 15;
    if (c->td > 3 || c->ta > 3) return bad(d, BAD_JPEG, 12);
    int dc = !j->ss && !j->ah, ac = !j->progressive || j->ss;
    if ((dc && !(j->seen_dc >> c->td & 1)) || (ac && !(j->seen_ac >> c->ta & 1))) return bad(d, BAD_JPEG, 13);
    c->pred = 0;
  }
  if (j->strips) return bad(d, BAD_JPEG, 24); /* every component was in the first scan */
  j->n = n, j->unit = 0, j->have = j->pad = 0, j->acc = 0, j->eobrun = 0;
  j->total = n == 1 ? j->c[j->list[0]].nw * j->c[j->list[0]].nh : j->mcux * j->mcuy;
  return 1;
}

static int jframe(dec *d, jdec *j, const u8 *p, u32 len) {
  if (j->nc || len < 9) return bad(d, BAD_JPEG, 14);
  u32 nc = p[5];
  if (p[0] != 8 || (nc != 1 && nc != 3 && nc != 4)) return bad(d, UNSUPPORTED, nc);
  if (len != 6 + 3 * nc) return bad(d, BAD_JPEG, 14);
  u32 h = be16(p + 1), w = be16(p + 3);
  if (!size(d, w, h)) return 0;
  j->hmax = j->vmax = 1;
  for (u32 i = 0; i < nc; i++) {
    jcomp *c = &j->c[i];
    c->id = p[6 + 3 * i], c->h = p[7 + 3 * i] >> 4, c->v = p[7 + 3 * i] & 15, c->q = p[8 + 3 * i];
    if (!c->h || !c->v || c->h > 4 || c->v > 4 || c->q > 3) return bad(d, BAD_JPEG, 15);
    for (u32 k = 0; k < i; k++)
      if (j->c[k].id == c->id) return bad(d, BAD_JPEG, 15);
    if (nc == 1) c->h = c->v = 1;
    if (c->h > j->hmax) j->hmax = c->h;
    if (c->v > j->vmax) j->vmax = c->v;
  }
  j->mcux = (w + 8 * j->hmax - 1) / (8 * j->hmax), j->mcuy = (h + 8 * j->vmax - 1) / (8 * j->vmax);
  u64 blocks = 0;
  for (u32 i = 0; i < nc; i++) {
    jcomp *c = &j->c[i];
    c->bw = j->mcux * c->h;
    c->dw = (w * c->h + j->hmax - 1) / j->hmax, c->dh = (h * c->v + j->vmax - 1) / j->vmax;
    c->nw = (c->dw + 7) / 8, c->nh = (c->dh + 7) / 8;
    c->row = c->bw * 8;
    int h2 = j->hmax == 2 * c->h, v1 = j->vmax == c->v, v2 = j->vmax == 2 * c->v;
    c->mode = h2 && v1 && c->dw > 2 ? UP_H2V1 : h2 && v2 && c->dw > 2 ? UP_H2V2 : j->hmax == c->h && v2 ? UP_H1V2 : UP_PLAIN;
    blocks += (u64)c->nw * c->nh;
  }
  /* Each block takes a bit at least: a short file cannot ask for much. */
  if (blocks / 8 > d->n - d->at) return bad(d, CUT, (i64)blocks);
  j->nc = nc;
  return 1;
}

/* jalloc finds room for the samples, and for the coefficients of a strip or of all. */
static int jalloc(dec *d, jdec *j) {
  u32 used = d->used;
  u64 coefs = 0, bytes = 0;
  for (u32 i = 0; i < j->nc; i++) {
    jcomp *c = &j->c[i];
    coefs += (u64)c->bw * c->v * (j->strips ? 1 : j->mcuy) * 64;
    bytes += (u64)c->row * c->v * 16 + c->row * 2 + d->w;
  }
  u8 *at = take(d, coefs * 2), *px = at ? take(d, bytes) : 0;
  if (!px || !rows(d)) {
    d->used = used;
    return 0;
  }
  j->clear = (u64)(u32)at, j->coefs = j->strips ? 0 : coefs * 2;
  for (u32 i = 0; i < j->nc; i++) {
    jcomp *c = &j->c[i];
    c->coef = (short *)at, at += (u64)c->bw * c->v * (j->strips ? 1 : j->mcuy) * 128;
    c->px = px, px += (u64)c->row * c->v * 16;
    c->up = px, px += c->row * 2 + d->w;
  }
  return 1;
}

static inline u8 clamp(int v) { return v < 0 ? 0 : v > 255 ? 255 : (u8)v; }

static inline u32 sar(u32 v, u32 n) { return (u32)((int)v >> n); }

/* One dimension of the inverse DCT of Loeffler, Ligtenberg and Moschytz, with 13 bits of fraction: 12 products. Sums wrap. */
static inline void idct1(const u32 *s, u32 step, u32 *o, u32 shift) {
  u32 z1 = (s[2 * step] + s[6 * step]) * 4433u, t2 = z1 - s[6 * step] * 15137u, t3 = z1 + s[2 * step] * 6270u;
  u32 t0 = (s[0] + s[4 * step]) << 13, t1 = (s[0] - s[4 * step]) << 13;
  u32 e0 = t0 + t3, e3 = t0 - t3, e1 = t1 + t2, e2 = t1 - t2;
  u32 a = s[7 * step], b = s[5 * step], c = s[3 * step], f = s[step];
  u32 z5 = (a + c + b + f) * 9633u, z3 = z5 - (a + c) * 16069u, z4 = z5 - (b + f) * 3196u, z2;
  z1 = (u32)0 - (a + f) * 7373u, z2 = (u32)0 - (b + c) * 20995u;
  a = a * 2446u + z1 + z3, b = b * 16819u + z2 + z4, c = c * 25172u + z2 + z3, f = f * 12299u + z1 + z4;
  u32 half = 1u << (shift - 1);
  o[0] = sar(e0 + f + half, shift), o[7] = sar(e0 - f + half, shift);
  o[1] = sar(e1 + c + half, shift), o[6] = sar(e1 - c + half, shift);
  o[2] = sar(e2 + b + half, shift), o[5] = sar(e2 - b + half, shift);
  o[3] = sar(e3 + a + half, shift), o[4] = sar(e3 - a + half, shift);
}

static void idct(const short *b, const unsigned short *q, u8 *out, u32 stride) {
  u32 s[64], t[64], o[8];
  u32 ac = 0;
  for (u32 i = 1; i < 64; i++) ac |= (u32)b[i];
  if (!ac) {
    u8 v = clamp((((int)b[0] * q[0] * 4 + 16) >> 5) + 128);
    for (u32 y = 0; y < 8; y++) __builtin_memset(out + y * stride, v, 8);
    return;
  }
  for (u32 i = 0; i < 64; i++) s[i] = (u32)((int)b[i] * q[i]);
  for (u32 x = 0; x < 8; x++) {
    idct1(s + x, 8, o, 11);
    for (u32 y = 0; y < 8; y++) t[8 * y + x] = o[y];
  }
  for (u32 y = 0; y < 8; y++) {
    idct1(t + 8 * y, 1, o, 18);
    for (u32 x = 0; x < 8; x++) out[y * stride + x] = clamp((int)o[x] + 128);
  }
}

/* A component's row of samples, of the two strips that are there; rows outside of the picture are its first and last. */
static const u8 *jrow(const jcomp *c, int y) {
  if (y < 0) y = 0;
  if (y >= (int)c->dh) y = (int)c->dh - 1;
  u32 tall = 8 * c->v;
  return c->px + (u64)(((u32)y / tall & 1) * tall + wb_rem((u32)y, tall)) * c->row;
}

/* jup brings row y of a component to the picture's width. */
static const u8 *jup(const dec *d, const jdec *j, const jcomp *c, u32 y) {
  u8 *o = c->up;
  u32 n = c->dw;
  if (c->mode == UP_PLAIN) {
    const u8 *a = jrow(c, (int)(y * c->v / j->vmax));
    if (c->h == j->hmax) return a;
    for (u32 x = 0; x < d->w; x++) o[x] = a[x * c->h / j->hmax];
    return o;
  }
  if (c->mode == UP_H2V1) {
    const u8 *a = jrow(c, (int)y);
    o[0] = a[0], o[2 * n - 1] = a[n - 1];
    for (u32 x = 0; x + 1 < n; x++) {
      o[2 * x + 1] = (u8)((3 * a[x] + a[x + 1] + 2) >> 2);
      o[2 * x + 2] = (u8)((3 * a[x + 1] + a[x] + 1) >> 2);
    }
    return o;
  }
  const u8 *a = jrow(c, (int)(y / 2)), *b = jrow(c, (int)(y / 2) + (y & 1 ? 1 : -1));
  if (c->mode == UP_H1V2) {
    for (u32 x = 0; x < n; x++) o[x] = (u8)((3 * a[x] + b[x] + 1 + (y & 1)) >> 2);
    return o;
  }
  u32 now = 3u * a[0] + b[0], next;
  o[0] = (u8)((4 * now + 8) >> 4);
  for (u32 x = 0; x + 1 < n; x++, now = next) {
    next = 3u * a[x + 1] + b[x + 1];
    o[2 * x + 1] = (u8)((3 * now + next + 7) >> 4);
    o[2 * x + 2] = (u8)((3 * next + now + 8) >> 4);
  }
  o[2 * n - 1] = (u8)((4 * now + 7) >> 4);
  return o;
}

static inline u32 over255(u32 v) { return (v + 128 + ((v + 128) >> 8)) >> 8; }

static void jcolours(dec *d, jdec *j, u32 y) {
  const u8 *s[4];
  u8 *o = d->rgb;
  for (u32 i = 0; i < j->nc; i++) s[i] = jup(d, j, &j->c[i], y);
  int ycc = j->nc == 4 ? j->adobe && j->transform == 2 : j->jfif || j->adobe ? j->jfif || j->transform != 0 : j->c[0].id != 'R' || j->c[1].id != 'G' || j->c[2].id != 'B';
  for (u32 x = 0; x < d->w; x++, o += 3) {
    if (j->nc == 1) {
      o[0] = o[1] = o[2] = s[0][x];
      continue;
    }
    if (ycc) {
      int l = s[0][x], cb = s[1][x] - 128, cr = s[2][x] - 128;
      o[0] = clamp(l + ((91881 * cr + 32768) >> 16));
      o[1] = clamp(l + ((-22554 * cb - 46802 * cr + 32768) >> 16));
      o[2] = clamp(l + ((116130 * cb + 32768) >> 16));
    } else o[0] = s[0][x], o[1] = s[1][x], o[2] = s[2][x];
    if (j->nc == 4) { /* inks are stored inverted, as Adobe does; YCCK's colours are not */
      u32 k = s[3][x];
      for (u32 i = 0; i < 3; i++) o[i] = (u8)(k - over255((ycc ? o[i] : 255u - o[i]) * k));
    }
  }
}

/* jmarker reads up to the end of one marker segment. */
static u32 jmarker(dec *d, jdec *j) {
  u32 skipped = 0;
  if (!j->nc && !d->at) d->at = 2;
  /* libjpeg passes over bytes between a scan and the next marker. */
  while (j->scans && d->at < d->n && d->p[d->at] != 0xff) {
    d->at++;
    if (++skipped == 1 << 16) return skipped;
  }
  if (d->n - d->at < 2) {
    if (j->strips) j->stage = J_END; /* the picture is whole, the end marker is missing */
    else bad(d, CUT, 0);
    return 10;
  }
  if (d->p[d->at] != 0xff) return (u32)bad(d, BAD_JPEG, 16);
  u32 m = d->p[d->at + 1];
  if (m == 0xff) {
    d->at++;
    return 10;
  }
  if (m == 0 && j->scans) {
    d->at += 2;
    return 10;
  }
  d->at += 2;
  if (m == 0xd9) {
    if (!j->scans) return (u32)bad(d, BAD_JPEG, 22);
    j->stage = j->strips ? J_END : J_IDCT;
    return 10;
  }
  if (m >= 0xd0 && m <= 0xd7 && j->scans) return 10;
  if (d->n - d->at < 2) return (u32)bad(d, CUT, 0);
  u32 len = be16(d->p + d->at);
  if (len < 2) return (u32)bad(d, BAD_JPEG, 17);
  if (len > d->n - d->at) return (u32)bad(d, CUT, 0);
  const u8 *p = d->p + d->at + 2;
  d->at += len;
  len -= 2;
  if (m == 0xc0 || m == 0xc1 || m == 0xc2) {
    j->progressive = m == 0xc2;
    jframe(d, j, p, len);
  } else if (m == 0xc4) {
    while (len) {
      u32 t = p[0], used = 0;
      if ((t & 15) > 3 || t >> 4 > 1) return (u32)bad(d, BAD_JPEG, 18);
      if (!jtable(d, t >> 4 ? &j->ac[t & 15] : &j->dc[t & 15], p + 1, len - 1, &used)) return 0;
      if (t >> 4) j->seen_ac |= 1u << (t & 15);
      else j->seen_dc |= 1u << (t & 15);
      p += used + 1, len -= used + 1;
      skipped += 2000;
    }
  } else if (m >= 0xc3 && m <= 0xcf && m != 0xc8) {
    return (u32)bad(d, UNSUPPORTED, m);
  } else if (m == 0xdb) {
    while (len) {
      u32 t = *p & 15, wide = *p >> 4, n = wide ? 129 : 65;
      if (t > 3 || wide > 1 || len < n) return (u32)bad(d, BAD_JPEG, 19);
      for (u32 i = 0; i < 64; i++) j->q[t][zigzag[i]] = (unsigned short)(wide ? be16(p + 1 + 2 * i) : p[1 + i]);
      j->seen_q |= 1u << t;
      p += n, len -= n;
      skipped += 200;
    }
  } else if (m == 0xdd) {
    if (len != 2) return (u32)bad(d, BAD_JPEG, 20);
    j->restart = be16(p);
  } else if (m == 0xe0) {
    if (len >= 5 && p[0] == 'J' && p[1] == 'F' && p[2] == 'I' && p[3] == 'F' && !p[4]) j->jfif = 1;
  } else if (m == 0xe1) {
    if (len >= 6 && p[0] == 'E' && p[1] == 'x' && p[2] == 'i' && p[3] == 'f' && !p[4] && !p[5]) exif(d, p + 6, len - 6);
  } else if (m == 0xee) {
    if (len >= 12 && p[0] == 'A' && p[1] == 'd' && p[2] == 'o' && p[3] == 'b' && p[4] == 'e') j->adobe = 1, j->transform = p[11];
  } else if (m == 0xda) {
    /* A progressive file has some ten scans; a bound keeps a hostile one from taking long. */
    if (!j->nc || ++j->scans > 100) return (u32)bad(d, BAD_JPEG, 21);
    if (!jscan_open(d, j, p, len)) return 0;
    if (j->scans == 1) {
      j->strips = !j->progressive && j->n == j->nc;
      j->stage = J_ALLOC;
      for (u32 i = 0; j->strips && i < j->nc; i++)
        if (!(j->seen_q >> j->c[i].q & 1)) return (u32)bad(d, BAD_JPEG, 23);
    } else j->stage = J_SCAN;
  }
  return skipped + 100;
}

/* After this many units of a scan a restart marker follows. */
static int jrestart(dec *d, jdec *j) {
  if (!j->restart || wb_rem(j->unit, j->restart) || j->unit == j->total) return 1;
  while (d->at + 1 < d->n && d->p[d->at] == 0xff && d->p[d->at + 1] == 0xff) d->at++;
  if (d->n - d->at < 2 || d->p[d->at] != 0xff || (d->p[d->at + 1] & 0xf8) != 0xd0) return bad(d, d->at >= d->n ? CUT : BAD_JPEG, 8);
  d->at += 2;
  j->acc = 0, j->have = j->pad = j->eobrun = 0;
  for (u32 i = 0; i < j->nc; i++) j->c[i].pred = 0;
  return 1;
}

static u32 junit(dec *d, jdec *j) {
  u32 u = j->unit, work = 30;
  if (j->n == 1 && !j->strips) {
    jcomp *c = &j->c[j->list[0]];
    work += jblock(d, j, c, (u64)(u / c->nw) * c->bw + wb_rem(u, c->nw));
  } else {
    u32 my = j->strips ? 0 : u / j->mcux, mx = wb_rem(u, j->mcux);
    for (u32 i = 0; i < j->n; i++) {
      jcomp *c = &j->c[j->list[i]];
      for (u32 y = 0; y < c->v; y++)
        for (u32 x = 0; x < c->h; x++) work += jblock(d, j, c, (u64)(my * c->v + y) * c->bw + mx * c->h + x);
    }
  }
  j->unit++;
  if (d->code || !jrestart(d, j)) return work;
  if (j->strips && wb_rem(j->unit, j->mcux) == 0) j->stage = J_IDCT;
  else if (j->unit == j->total) j->stage = J_MARKER;
  return work;
}

/* A row of blocks of one component; at most 512 of them at a time. */
static u32 jidct(dec *d, jdec *j) {
  jcomp *c = &j->c[j->comp];
  u32 from = j->block, row = from / c->bw, end = row * c->bw + c->bw, work = 0;
  if (!(j->seen_q >> c->q & 1)) return (u32)bad(d, BAD_JPEG, 23);
  if (end > from + 512) end = from + 512;
  const short *coef = c->coef + (j->strips ? 0 : (u64)j->strip * c->v * c->bw * 64);
  u8 *px = c->px + (u64)(j->strip % 2) * c->v * 8 * c->row;
  for (u32 b = from; b < end; b++, work += 250) idct(coef + (u64)b * 64, j->q[c->q], px + (u64)row * 8 * c->row + (b - row * c->bw) * 8, c->row);
  j->block = end;
  if (end == c->bw * c->v) {
    j->block = 0;
    if (++j->comp == j->nc) j->comp = 0, j->stage = J_ROWS;
  }
  return work;
}

/* jpeg_step does a piece of work. It sets d->ready when d->rgb holds a row, and d->end behind the last one. */
static u32 jpeg_step(dec *d, jdec *j) {
  switch (j->stage) {
  case J_MARKER: return jmarker(d, j);
  case J_ALLOC:
    if (jalloc(d, j)) j->stage = J_CLEAR;
    return 10;
  case J_CLEAR: {
    u64 n = j->coefs < 1 << 18 ? j->coefs : 1 << 18;
    __builtin_memset((u8 *)(u32)j->clear, 0, n);
    j->clear += n, j->coefs -= n;
    if (!j->coefs) j->stage = J_SCAN;
    return (u32)n / 4;
  }
  case J_SCAN: return junit(d, j);
  case J_IDCT: return jidct(d, j);
  case J_ROWS: {
    /* The last row of a strip waits for the next one, whose first chroma row it may need. */
    u32 tall = 8 * j->vmax, end = (j->strip + 1) * tall - 1;
    int last = j->strip + 1 == j->mcuy;
    if (last || end > d->h) end = d->h;
    if (j->y < end) {
      jcolours(d, j, j->y++);
      d->ready = 1;
      return d->w * 14;
    }
    j->strip++;
    j->stage = j->strips ? (last ? J_MARKER : J_SCAN) : last ? J_END : J_IDCT;
    return 10;
  }
  }
  d->end = 1;
  return 10;
}
