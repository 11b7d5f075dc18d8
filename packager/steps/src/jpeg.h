/* JPEG (ITU-T T.81): baseline, extended sequential and progressive Huffman, 8 bits, one component (grey) or three (YCbCr, or
   RGB by Adobe's marker), any sampling factors, restart intervals. Chroma is repeated, not smoothed. A scan that
   ends early is an error. Arithmetic coding, lossless, hierarchical, 12 bits and four components are unsupported. */

typedef struct {
  u32 id, h, v, q, td, ta, bw, bh, nw, nh; /* blocks in the padded picture, and in the picture itself */
  int pred;
  short *coef;
  u8 *px;
} jcomp;

typedef struct {
  dec *d;
  jcomp c[3];
  u32 nc, hmax, vmax, mcux, mcuy, progressive, restart, adobe, eobrun;
  unsigned short q[4][64];
  huff dc[4], ac[4];
  u32 seen_q, seen_dc, seen_ac; /* bit i: table i was defined */
  u32 bits, have;
  int err;
} jdec;

static const u8 zigzag[64] = {0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
                              35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

static u32 be16(const u8 *p) { return (u32)p[0] << 8 | p[1]; }

static u32 jbit(jdec *j) {
  dec *d = j->d;
  if (!j->have) {
    if (d->at >= d->n) {
      bad(d, CUT, 0);
      return 0;
    }
    u32 b = d->p[d->at];
    if (b == 0xff) {
      if (d->at + 1 >= d->n || d->p[d->at + 1]) { /* a marker inside of the data */
        bad(d, CUT, 0);
        return 0;
      }
      d->at++;
    }
    d->at++;
    j->bits = b, j->have = 8;
  }
  j->have--;
  return j->bits >> j->have & 1;
}

static int jbits(jdec *j, u32 n) {
  int v = 0;
  while (n--) v = v << 1 | (int)jbit(j);
  return v;
}

static int jext(jdec *j, u32 n) {
  if (!n) return 0;
  int v = jbits(j, n);
  return v < 1 << (n - 1) ? v - (1 << n) + 1 : v;
}

static u32 jsym(jdec *j, const huff *h) {
  int code = 0, first = 0, index = 0;
  for (u32 i = 1; i < 16; i++) {
    code |= (int)jbit(j);
    int count = h->count[i];
    if (code - count < first) return h->symbol[index + code - first];
    index += count, first = (first + count) << 1, code <<= 1;
  }
  code |= (int)jbit(j); /* 16 bits: the rest of the table */
  if (code - first >= 0 && index + code - first < (int)h->symbol[287]) return h->symbol[index + code - first];
  bad(j->d, BAD_JPEG, 1);
  return 0;
}

/* A table of T.81: counts of 1 to 16 bits, then the symbols. symbol[287] keeps how many there are. */
static int jtable(dec *d, huff *h, const u8 *p, u32 left, u32 *used) {
  u32 n = 0;
  int room = 1;
  if (left < 16) return bad(d, BAD_JPEG, 2);
  for (u32 i = 0; i < 16; i++) {
    room = room * 2 - p[i];
    if (room < 0) return bad(d, BAD_JPEG, 3);
    n += p[i];
    if (i < 15) h->count[i + 1] = p[i];
  }
  if (n > 256 || n > left - 16) return bad(d, BAD_JPEG, 4);
  for (u32 i = 0; i < 256; i++) h->symbol[i] = i < n ? p[16 + i] : 0;
  h->symbol[287] = (unsigned short)n;
  *used = 16 + n;
  return 1;
}

static void jblock(jdec *j, jcomp *c, short *b, u32 ss, u32 se, u32 ah, u32 al) {
  dec *d = j->d;
  if (!j->progressive) {
    u32 t = jsym(j, &j->dc[c->td]);
    if (t > 15) {
      bad(d, BAD_JPEG, 5);
      return;
    }
    c->pred += jext(j, t);
    b[0] = (short)c->pred;
    for (u32 k = 1; k < 64; k++) {
      u32 rs = jsym(j, &j->ac[c->ta]), r = rs >> 4, s = rs & 15;
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
      b[zigzag[k]] = (short)jext(j, s);
    }
    return;
  }
  if (!ss) {
    if (ah) {
      if (jbit(j)) b[0] = (short)(b[0] | 1 << al);
      return;
    }
    u32 t = jsym(j, &j->dc[c->td]);
    if (t > 15) {
      bad(d, BAD_JPEG, 5);
      return;
    }
    c->pred += jext(j, t);
    b[0] = (short)((u32)c->pred << al);
    return;
  }
  const huff *h = &j->ac[c->ta];
  u32 k = ss;
  if (!ah) {
    if (j->eobrun) {
      j->eobrun--;
      return;
    }
    for (; k <= se; k++) {
      u32 rs = jsym(j, h), r = rs >> 4, s = rs & 15;
      if (d->code) return;
      if (!s) {
        if (r < 15) {
          j->eobrun = (1u << r) - 1 + (u32)jbits(j, r);
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
      b[zigzag[k]] = (short)((u32)jext(j, s) << al);
    }
    return;
  }
  short one = (short)(1 << al);
  if (!j->eobrun) {
    for (; k <= se; k++) {
      u32 rs = jsym(j, h), r = rs >> 4, s = rs & 15;
      short v = 0;
      if (d->code) return;
      if (s == 1) v = jbit(j) ? one : (short)-one;
      else if (s) {
        bad(d, BAD_JPEG, 7);
        return;
      } else if (r < 15) {
        j->eobrun = (1u << r) + (u32)jbits(j, r);
        break;
      }
      for (; k <= se; k++) {
        short *p = &b[zigzag[k]];
        if (*p) {
          if (jbit(j) && !(*p & one)) *p = (short)(*p > 0 ? *p + one : *p - one);
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
      if (*p && jbit(j) && !(*p & one)) *p = (short)(*p > 0 ? *p + one : *p - one);
    }
    j->eobrun--;
  }
}

/* After this many units of a scan a restart marker follows. */
static int jrestart(jdec *j, u32 done, u32 total) {
  dec *d = j->d;
  if (!j->restart || done % j->restart || done == total) return 1;
  if (d->n - d->at < 2 || d->p[d->at] != 0xff || (d->p[d->at + 1] & 0xf8) != 0xd0) return bad(d, BAD_JPEG, 8);
  d->at += 2;
  j->have = j->eobrun = 0;
  for (u32 i = 0; i < j->nc; i++) j->c[i].pred = 0;
  return 1;
}

static int jscan(jdec *j, const u8 *p, u32 len) {
  dec *d = j->d;
  if (len < 6) return bad(d, BAD_JPEG, 9);
  u32 n = p[0];
  if (!n || n > j->nc || len != 4 + 2 * n) return bad(d, BAD_JPEG, 9);
  u32 ss = p[1 + 2 * n], se = p[2 + 2 * n], ah = p[3 + 2 * n] >> 4, al = p[3 + 2 * n] & 15;
  if (!j->progressive) ss = 0, se = 63, ah = al = 0;
  else if (ss > se || se > 63 || (!ss && se) || (ss && n > 1) || al > 13) return bad(d, BAD_JPEG, 10);
  jcomp *list[3];
  for (u32 i = 0; i < n; i++) {
    list[i] = 0;
    for (u32 k = 0; k < j->nc; k++)
      if (j->c[k].id == p[1 + 2 * i]) list[i] = &j->c[k];
    for (u32 k = 0; k < i; k++)
      if (list[k] == list[i]) list[i] = 0;
    if (!list[i]) return bad(d, BAD_JPEG, 11);
    list[i]->td = p[2 + 2 * i] >> 4, list[i]->ta = p[2 + 2 * i] & 15;
    if (list[i]->td > 3 || list[i]->ta > 3) return bad(d, BAD_JPEG, 12);
    int dc = !ss && !ah, ac = !j->progressive || ss;
    if ((dc && !(j->seen_dc >> list[i]->td & 1)) || (ac && !(j->seen_ac >> list[i]->ta & 1))) return bad(d, BAD_JPEG, 13);
    list[i]->pred = 0;
  }
  j->have = j->eobrun = 0;
  if (n == 1) {
    jcomp *c = list[0];
    u32 total = c->nw * c->nh;
    for (u32 u = 0; u < total; u++) {
      jblock(j, c, c->coef + ((u64)(u / c->nw) * c->bw + u % c->nw) * 64, ss, se, ah, al);
      if (d->code || !jrestart(j, u + 1, total)) return 0;
    }
    return 1;
  }
  u32 total = j->mcux * j->mcuy;
  for (u32 u = 0; u < total; u++) {
    for (u32 i = 0; i < n; i++) {
      jcomp *c = list[i];
      for (u32 y = 0; y < c->v; y++)
        for (u32 x = 0; x < c->h; x++)
          jblock(j, c, c->coef + ((u64)(u / j->mcux * c->v + y) * c->bw + u % j->mcux * c->h + x) * 64, ss, se, ah, al);
    }
    if (d->code || !jrestart(j, u + 1, total)) return 0;
  }
  return 1;
}

static int jframe(jdec *j, const u8 *p, u32 len) {
  dec *d = j->d;
  if (j->nc || len < 9) return bad(d, BAD_JPEG, 14);
  u32 nc = p[5];
  if (p[0] != 8 || (nc != 1 && nc != 3)) return bad(d, UNSUPPORTED, nc);
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
  for (u32 i = 0; i < nc; i++) {
    jcomp *c = &j->c[i];
    c->bw = j->mcux * c->h, c->bh = j->mcuy * c->v;
    c->nw = ((w * c->h + j->hmax - 1) / j->hmax + 7) / 8, c->nh = ((h * c->v + j->vmax - 1) / j->vmax + 7) / 8;
    u64 blocks = (u64)c->bw * c->bh;
    c->coef = take(d, blocks * 128);
    c->px = take(d, blocks * 64);
    if (!c->coef || !c->px) return 0;
  }
  j->nc = nc;
  return 1;
}

static u8 clamp(float v) { return v < 0 ? 0 : v > 255 ? 255 : (u8)(v + 0.5f); }

/* The inverse DCT by its definition, rows then columns, in f32 and in a fixed order: the same bits everywhere. */
static void idct(const short *b, const unsigned short *q, u8 *out, u32 stride) {
  static const float c[8] = {0.35355339f, 0.49039264f, 0.46193977f, 0.41573481f, 0.35355339f, 0.27778512f, 0.19134172f, 0.09754516f};
  float t[64], f[8][8];
  for (u32 x = 0; x < 8; x++)
    for (u32 u = 0; u < 8; u++) { /* cos((2x+1) u pi/16) * norm, from the table by symmetry */
      u32 a = (2 * x + 1) * u % 32;
      float s = 1;
      if (a > 16) a = 32 - a;
      if (a > 8) a = 16 - a, s = -1;
      f[x][u] = u ? s * (a == 8 ? 0 : a ? c[a] : 0.5f) : c[0];
    }
  for (u32 y = 0; y < 8; y++)
    for (u32 x = 0; x < 8; x++) {
      float v = 0;
      for (u32 u = 0; u < 8; u++) v += f[x][u] * (float)((int)b[8 * y + u] * q[8 * y + u]);
      t[8 * y + x] = v;
    }
  for (u32 x = 0; x < 8; x++)
    for (u32 y = 0; y < 8; y++) {
      float v = 128;
      for (u32 u = 0; u < 8; u++) v += f[y][u] * t[8 * u + x];
      out[y * stride + x] = clamp(v);
    }
}

static int jpeg(dec *d) {
  jdec *j = take(d, sizeof(jdec));
  if (!j) return 0;
  j->d = d;
  j->adobe = 1;
  d->at = 2;
  u32 scans = 0;
  for (;;) {
    if (d->n - d->at < 2) return bad(d, CUT, 0);
    if (d->p[d->at] != 0xff) return bad(d, BAD_JPEG, 16);
    u32 m = d->p[d->at + 1];
    if (m == 0xff) {
      d->at++;
      continue;
    }
    d->at += 2;
    if (m == 0xd9) break;
    if (d->n - d->at < 2) return bad(d, CUT, 0);
    u32 len = be16(d->p + d->at);
    if (len < 2) return bad(d, BAD_JPEG, 17);
    if (len > d->n - d->at) return bad(d, CUT, 0);
    const u8 *p = d->p + d->at + 2;
    d->at += len;
    len -= 2;
    if (m == 0xc0 || m == 0xc1 || m == 0xc2) {
      j->progressive = m == 0xc2;
      if (!jframe(j, p, len)) return 0;
    } else if (m == 0xc4) {
      while (len) {
        u32 t = p[0], used;
        if ((t & 15) > 3 || t >> 4 > 1) return bad(d, BAD_JPEG, 18);
        if (!jtable(d, t >> 4 ? &j->ac[t & 15] : &j->dc[t & 15], p + 1, len - 1, &used)) return 0;
        if (t >> 4) j->seen_ac |= 1u << (t & 15);
        else j->seen_dc |= 1u << (t & 15);
        p += used + 1, len -= used + 1;
      }
    } else if (m >= 0xc3 && m <= 0xcf) {
      return bad(d, UNSUPPORTED, m);
    } else if (m == 0xdb) {
      while (len) {
        u32 t = *p & 15, wide = *p >> 4, n = wide ? 129 : 65;
        if (t > 3 || wide > 1 || len < n) return bad(d, BAD_JPEG, 19);
        for (u32 i = 0; i < 64; i++) j->q[t][zigzag[i]] = (unsigned short)(wide ? be16(p + 1 + 2 * i) : p[1 + i]);
        j->seen_q |= 1u << t;
        p += n, len -= n;
      }
    } else if (m == 0xdd) {
      if (len != 2) return bad(d, BAD_JPEG, 20);
      j->restart = be16(p);
    } else if (m == 0xee) {
      if (len >= 12 && p[0] == 'A' && p[1] == 'd' && p[2] == 'o' && p[3] == 'b' && p[4] == 'e') j->adobe = p[11];
    } else if (m == 0xda) {
      /* A progressive file has some ten scans; a bound keeps a hostile one from taking long. */
      if (!j->nc || ++scans > 100) return bad(d, BAD_JPEG, 21);
      if (!jscan(j, p, len)) return 0;
    }
  }
  if (!scans) return bad(d, BAD_JPEG, 22);
  for (u32 i = 0; i < j->nc; i++) {
    jcomp *c = &j->c[i];
    if (!(j->seen_q >> c->q & 1)) return bad(d, BAD_JPEG, 23);
    for (u32 y = 0; y < c->bh; y++)
      for (u32 x = 0; x < c->bw; x++) idct(c->coef + ((u64)y * c->bw + x) * 64, j->q[c->q], c->px + (u64)y * 8 * c->bw * 8 + x * 8, c->bw * 8);
  }
  for (u32 y = 0; y < d->h; y++)
    for (u32 x = 0; x < d->w; x++) {
      u8 *o = d->rgb + ((u64)y * d->w + x) * 3, s[3];
      for (u32 i = 0; i < j->nc; i++) {
        jcomp *c = &j->c[i];
        s[i] = c->px[(u64)(y * c->v / j->vmax) * c->bw * 8 + x * c->h / j->hmax];
      }
      if (j->nc == 1) o[0] = o[1] = o[2] = s[0];
      else if (!j->adobe) o[0] = s[0], o[1] = s[1], o[2] = s[2];
      else {
        float cb = (float)s[1] - 128, cr = (float)s[2] - 128;
        o[0] = clamp((float)s[0] + 1.402f * cr);
        o[1] = clamp((float)s[0] - 0.344136f * cb - 0.714136f * cr);
        o[2] = clamp((float)s[0] + 1.772f * cb);
      }
    }
  return 1;
}
