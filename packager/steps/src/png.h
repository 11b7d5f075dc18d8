/* PNG (ISO/IEC 15948): every colour type and depth, interlaced or not. Checksums are not compared: the bytes that pass are
   a picture or an error, and the artifact's own integrity is the digest's matter.
   png_step inflates up to the end of a line, a block's header or a few thousand bytes; lines become rows of the picture as they
   come, only an interlaced one is kept whole. */

enum { FAST = 9, WINDOW = 1 << 15 };

/* A Huffman code: counts per length, the symbols in order, and for codes of up to FAST bits (length << 9 | symbol) by the next bits. */
typedef struct {
  unsigned short count[17], symbol[288], fast[1 << FAST];
} huff;

enum { P_HEAD, P_ALLOC, P_ZLIB, P_BLOCK, P_STORED, P_CODES, P_LINE, P_WAIT, P_LACED, P_END };

typedef struct {
  u32 stage, back_to, w, h, depth, type, lace, ch, bpp, npal, left, final;
  const u8 *pal;
  u64 acc;
  u32 have;
  u32 run, dist, at;             /* a stored block's or a match's rest; where in the window */
  u64 made;                      /* bytes inflated so far */
  u32 pass, pw, ph, y, line, pos; /* the pass, its size, and the line that is being filled */
  u8 *window, *prev, *cur, *all;
  huff lit, far;
} pdec;

static u32 be32(const u8 *p) { return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3]; }

/* zbyte gives the next byte of the chain of IDAT chunks, -1 at its end. */
static inline int zbyte(dec *d, pdec *z) {
  while (!z->left) {
    if (d->n - d->at < 12) return -1;
    u32 next = d->at + 4; /* behind the checksum */
    if (be32(d->p + next + 4) != 0x49444154) return -1;
    u32 len = be32(d->p + next);
    if (len > d->n - next - 8) return -1;
    d->at = next + 8;
    z->left = len;
  }
  z->left--;
  return d->p[d->at++];
}

/* zfill makes n bits present, up to 32. Behind the data come zeros; taking one of them is an error. */
static inline void zfill(dec *d, pdec *z, u32 n) {
  while (z->have < n) {
    int b = zbyte(d, z);
    if (b < 0) return;
    z->acc |= (u64)(u32)b << z->have;
    z->have += 8;
  }
}

static inline void zdrop(dec *d, pdec *z, u32 n) {
  if (n > z->have) {
    bad(d, CUT, 0);
    n = z->have;
  }
  z->acc >>= n, z->have -= n;
}

static inline u32 zbits(dec *d, pdec *z, u32 n) {
  zfill(d, z, n);
  u32 v = (u32)z->acc & ((1u << n) - 1);
  zdrop(d, z, n);
  return v;
}

static int hbuild(huff *h, const u8 *len, u32 n) {
  unsigned short offs[17], next[17];
  for (u32 i = 0; i < 17; i++) h->count[i] = 0;
  for (u32 i = 0; i < n; i++) h->count[len[i]]++;
  h->count[0] = 0;
  int left = 1;
  u32 code = 0;
  offs[1] = 0;
  for (u32 i = 1; i < 16; i++) {
    left = left * 2 - h->count[i];
    if (left < 0) return 0;
    next[i] = (unsigned short)code;
    code = (code + h->count[i]) << 1;
    offs[i + 1] = (unsigned short)(offs[i] + h->count[i]);
  }
  for (u32 i = 0; i < 1u << FAST; i++) h->fast[i] = 0;
  for (u32 i = 0; i < n; i++) {
    u32 l = len[i];
    if (!l) continue;
    h->symbol[offs[l]++] = (unsigned short)i;
    u32 c = next[l]++, r = 0;
    if (l > FAST) continue;
    for (u32 k = 0; k < l; k++) r |= (c >> k & 1) << (l - 1 - k); /* bits come lowest first */
    for (; r < 1u << FAST; r += 1u << l) h->fast[r] = (unsigned short)(l << 9 | i);
  }
  return 1;
}

static inline int hsym(dec *d, pdec *z, const huff *h) {
  zfill(d, z, 16);
  u32 f = h->fast[(u32)z->acc & ((1u << FAST) - 1)];
  if (f) {
    zdrop(d, z, f >> 9);
    return (int)(f & 511);
  }
  int code = 0, first = 0, index = 0;
  for (u32 i = 1; i < 16; i++) {
    code |= (int)(z->acc >> (i - 1) & 1);
    int count = h->count[i];
    if (code - count < first) {
      zdrop(d, z, i);
      return h->symbol[index + code - first];
    }
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  if (z->have < 15) bad(d, CUT, 0);
  return -1;
}

/* zcodes reads the codes of a block. */
static int zcodes(dec *d, pdec *z, u32 type) {
  static const u8 order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  u8 len[320];
  u32 nlen = 288, ndist = 30;
  if (type == 1) {
    for (u32 i = 0; i < 288; i++) len[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    for (u32 i = 0; i < 30; i++) len[288 + i] = 5;
  } else {
    nlen = zbits(d, z, 5) + 257, ndist = zbits(d, z, 5) + 1;
    u32 ncode = zbits(d, z, 4) + 4;
    if (nlen > 286 || ndist > 30) return bad(d, BAD_DEFLATE, nlen);
    for (u32 i = 0; i < 19; i++) len[i] = 0;
    for (u32 i = 0; i < ncode; i++) len[order[i]] = (u8)zbits(d, z, 3);
    if (d->code) return 0;
    if (!hbuild(&z->lit, len, 19)) return bad(d, BAD_DEFLATE, 0);
    u32 i = 0;
    while (i < nlen + ndist) {
      int s = hsym(d, z, &z->lit);
      if (s < 0) return bad(d, BAD_DEFLATE, 0);
      if (s < 16) {
        len[i++] = (u8)s;
        continue;
      }
      u8 v = 0;
      u32 rep;
      if (s == 16) {
        if (!i) return bad(d, BAD_DEFLATE, 0);
        v = len[i - 1], rep = 3 + zbits(d, z, 2);
      } else rep = s == 17 ? 3 + zbits(d, z, 3) : 11 + zbits(d, z, 7);
      if (d->code || i + rep > nlen + ndist) return bad(d, BAD_DEFLATE, 0);
      while (rep--) len[i++] = v;
    }
  }
  if (!hbuild(&z->lit, len, nlen) || !hbuild(&z->far, len + nlen, ndist)) return bad(d, BAD_DEFLATE, 0);
  return 1;
}

static inline void zput(pdec *z, u8 b) {
  z->window[z->made++ % WINDOW] = b;
  z->cur[z->pos++] = b;
}

/* zinflate goes on with a block's codes until the line is full or the block ends. */
static u32 zinflate(dec *d, pdec *z) {
  static const unsigned short base[29] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
  static const u8 extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
  static const unsigned short dbase[30] = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
  static const u8 dextra[30] = {0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
  u32 work = 0;
  while (z->pos < z->line && work < 200000) {
    if (z->run) {
      zput(z, z->window[(z->made - z->dist) % WINDOW]);
      z->run--, work += 4;
      continue;
    }
    int s = hsym(d, z, &z->lit);
    work += 12;
    if (d->code) return work;
    if (s < 0) return (u32)bad(d, BAD_DEFLATE, 0);
    if (s < 256) {
      zput(z, (u8)s);
      continue;
    }
    if (s == 256) {
      z->stage = P_BLOCK;
      return work;
    }
    s -= 257;
    if (s >= 29) return (u32)bad(d, BAD_DEFLATE, s);
    u32 n = base[s] + zbits(d, z, extra[s]);
    int t = hsym(d, z, &z->far);
    if (d->code) return work;
    if (t < 0 || t >= 30) return (u32)bad(d, BAD_DEFLATE, t);
    u32 back = dbase[t] + zbits(d, z, dextra[t]);
    if (d->code || back > z->made) return (u32)bad(d, BAD_DEFLATE, back);
    z->run = n, z->dist = back, work += 20;
  }
  return work;
}

static u32 zstored(dec *d, pdec *z) {
  u32 work = 0;
  for (; z->run && z->pos < z->line && work < 200000; z->run--, work += 8) {
    int b;
    if (z->have) b = (int)zbits(d, z, 8);
    else b = zbyte(d, z);
    if (b < 0) return (u32)bad(d, CUT, 0);
    zput(z, (u8)b);
  }
  if (!z->run) z->stage = P_BLOCK;
  return work;
}

static u32 paeth(int a, int b, int c) {
  int p = a + b - c, pa = p > a ? p - a : a - p, pb = p > b ? p - b : b - p, pc = p > c ? p - c : c - p;
  return (u32)(pa <= pb && pa <= pc ? a : pb <= pc ? b : c);
}

/* Where a pass of Adam7 begins and how far its pixels lie apart. */
static const u8 lace_x[7] = {0, 4, 0, 2, 0, 1, 0}, lace_y[7] = {0, 0, 4, 0, 2, 0, 1}, lace_dx[7] = {8, 8, 4, 4, 2, 2, 1}, lace_dy[7] = {8, 8, 8, 4, 4, 2, 2};

static u64 line_bytes(const pdec *z, u64 w) { return 1 + (w * z->ch * z->depth + 7) / 8; }

/* next_pass sets the size of the pass that comes, and passes over empty ones. It tells whether there is one. */
static int next_pass(pdec *z) {
  for (; z->pass < 7; z->pass++) {
    z->pw = z->w, z->ph = z->h;
    if (z->lace) {
      u32 s = z->pass;
      z->pw = (z->w + lace_dx[s] - 1 - lace_x[s]) / lace_dx[s], z->ph = (z->h + lace_dy[s] - 1 - lace_y[s]) / lace_dy[s];
    }
    if (!z->pw || !z->ph) continue;
    z->y = z->pos = 0;
    z->line = (u32)line_bytes(z, z->pw);
    return 1;
  }
  return 0;
}

/* png_head reads chunks up to the first IDAT. */
static u32 png_head(dec *d, pdec *z) {
  static const u8 sig[8] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10};
  const u8 *p = d->p;
  if (!d->at) {
    if (d->n < 45) return (u32)bad(d, CUT, 0);
    for (u32 i = 0; i < 8; i++)
      if (p[i] != sig[i]) return (u32)bad(d, BAD_PNG, 0);
    if (be32(p + 8) != 13 || be32(p + 12) != 0x49484452) return (u32)bad(d, BAD_PNG, 0);
    u32 type = p[25];
    z->w = be32(p + 16), z->h = be32(p + 20), z->depth = p[24], z->type = type, z->lace = p[28];
    if (p[26] || p[27] || z->lace > 1) return (u32)bad(d, BAD_PNG, 0);
    z->ch = type == 0 ? 1 : type == 2 ? 3 : type == 3 ? 1 : type == 4 ? 2 : type == 6 ? 4 : 0;
    int small = z->depth == 1 || z->depth == 2 || z->depth == 4;
    if (!z->ch || !(z->depth == 8 || (z->depth == 16 && type != 3) || (small && (type == 0 || type == 3)))) return (u32)bad(d, BAD_PNG, z->depth);
    if (!size(d, z->w, z->h)) return 0;
    /* Deflate makes at most 1,032 bytes of one: a short file cannot ask for much. */
    if (line_bytes(z, z->w) * z->h / 1032 > d->n) return (u32)bad(d, CUT, 0);
    d->at = 33;
  }
  u32 work = 0;
  for (; work < 200000; work += 20) {
    if (d->n - d->at < 12) return (u32)bad(d, CUT, 0);
    u32 len = be32(p + d->at), name = be32(p + d->at + 4);
    if (len > d->n - d->at - 12) return (u32)bad(d, CUT, 0);
    if (name == 0x49444154) {
      if (z->type == 3 && !z->npal) return (u32)bad(d, BAD_PNG, 0);
      z->left = len;
      d->at += 8;
      z->stage = P_ALLOC;
      return work + 20;
    }
    if (name == 0x504c5445) {
      if (wb_rem(len, 3) || len > 768) return (u32)bad(d, BAD_PNG, len);
      z->pal = p + d->at + 8, z->npal = len / 3;
    } else if (name == 0x65584966) exif(d, p + d->at + 8, len);
    else if (name == 0x49454e44 || !(name & 0x20000000)) return (u32)bad(d, BAD_PNG, name);
    d->at += 12 + len;
  }
  return work;
}

static int png_alloc(dec *d, pdec *z) {
  u32 used = d->used, line = (u32)line_bytes(z, z->w);
  z->all = 0;
  u8 *m = take(d, WINDOW + 2ull * line);
  if (m && z->lace) z->all = take(d, (u64)z->w * z->h * 3);
  if (!m || (z->lace && !z->all) || !rows(d)) {
    d->used = used;
    return 0;
  }
  z->window = m, z->prev = m + WINDOW, z->cur = z->prev + line;
  z->pass = z->lace ? 0 : 6;
  next_pass(z);
  return 1;
}

/* png_line undoes the filter of a full line and puts its pixels where they belong. */
static u32 png_line(dec *d, pdec *z) {
  u32 f = z->cur[0], n = z->line - 1, bpp = z->bpp, depth = z->depth, type = z->type;
  u8 *raw = z->cur + 1;
  const u8 *up = z->prev + 1;
  if (f > 4) return (u32)bad(d, BAD_PNG, f);
  if (!z->y) __builtin_memset(z->prev, 0, z->line);
  if (f == 1)
    for (u32 i = bpp; i < n; i++) raw[i] += raw[i - bpp];
  else if (f == 2)
    for (u32 i = 0; i < n; i++) raw[i] += up[i];
  else if (f == 3)
    for (u32 i = 0; i < n; i++) raw[i] += (u8)(((i >= bpp ? raw[i - bpp] : 0u) + up[i]) / 2);
  else if (f == 4)
    for (u32 i = 0; i < n; i++) raw[i] += (u8)(i >= bpp ? paeth(raw[i - bpp], up[i], up[i - bpp]) : up[i]);
  u32 s = z->pass, step = depth == 16 ? 2 : 1, dx = z->lace ? lace_dx[s] * 3 : 3;
  u8 *o = z->lace ? z->all + ((u64)(lace_y[s] + z->y * lace_dy[s]) * z->w + lace_x[s]) * 3 : d->rgb;
  for (u32 x = 0; x < z->pw; x++, o += dx) {
    u32 q;
    if (depth < 8) q = raw[x * depth / 8] >> (8 - depth - x * depth % 8) & ((1u << depth) - 1);
    else q = raw[(u64)x * bpp];
    if (type == 3) {
      if (q >= z->npal) return (u32)bad(d, BAD_PNG, q);
      o[0] = z->pal[3 * q], o[1] = z->pal[3 * q + 1], o[2] = z->pal[3 * q + 2];
    } else if (type & 2) {
      const u8 *v = raw + (u64)x * bpp; /* 16 bits: the high byte */
      o[0] = v[0], o[1] = v[step], o[2] = v[2 * step];
    } else o[0] = o[1] = o[2] = (u8)(depth < 8 ? q * 255 / ((1u << depth) - 1) : q);
  }
  u8 *swap = z->prev;
  z->prev = z->cur, z->cur = swap;
  z->pos = 0;
  if (!z->lace) d->ready = 1;
  if (++z->y == z->ph) {
    z->pass++;
    if (!next_pass(z)) z->y = 0, z->stage = z->lace ? P_LACED : P_END;
  }
  return n * 4 + z->pw * 5 + 50;
}

/* png_step does a piece of work, as jpeg_step does. */
static u32 png_step(dec *d, pdec *z) {
  u32 work = 0;
  switch (z->stage) {
  case P_HEAD: return png_head(d, z);
  case P_ALLOC:
    z->bpp = z->ch * z->depth >= 8 ? z->ch * z->depth / 8 : 1;
    if (png_alloc(d, z)) z->stage = P_ZLIB;
    return 10;
  case P_ZLIB: {
    u32 head = zbits(d, z, 8) << 8;
    head |= zbits(d, z, 8);
    if (d->code) return 0;
    if (wb_rem(head, 31) || (head >> 8 & 15) != 8 || head & 0x20) return (u32)bad(d, BAD_DEFLATE, head);
    z->stage = P_BLOCK;
    return 10;
  }
  case P_BLOCK: {
    if (z->final) return (u32)bad(d, CUT, (i64)z->made);
    z->final = zbits(d, z, 1);
    u32 type = zbits(d, z, 2);
    if (d->code) return 0;
    if (type == 3) return (u32)bad(d, BAD_DEFLATE, type);
    if (type) {
      z->stage = P_CODES;
      zcodes(d, z, type);
      return 8000;
    }
    zdrop(d, z, z->have & 7);
    u32 n = zbits(d, z, 16), inv = zbits(d, z, 16);
    if (d->code) return 0;
    if ((n ^ inv) != 0xffff) return (u32)bad(d, BAD_DEFLATE, n);
    z->run = n, z->stage = P_STORED;
    return 20;
  }
  case P_STORED:
  case P_CODES:
    work = z->stage == P_CODES ? zinflate(d, z) : zstored(d, z);
    if (!d->code && z->pos == z->line) z->back_to = z->stage, z->stage = P_LINE;
    return work + 10;
  case P_LINE:
    z->stage = z->back_to; /* the line may end the picture, and set another one */
    return png_line(d, z);
  case P_LACED:
    if (z->y == z->h) {
      z->stage = P_END;
      return 10;
    }
    __builtin_memcpy(d->rgb, z->all + (u64)z->y++ * z->w * 3, z->w * 3);
    d->ready = 1;
    return z->w;
  }
  d->end = 1;
  return 10;
}
