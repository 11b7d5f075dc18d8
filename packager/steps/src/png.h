/* PNG (ISO/IEC 15948): every colour type and depth, interlaced or not. Checksums are not compared: the bytes that pass are
   a picture or an error, and the artifact's own integrity is the digest's matter. */

typedef struct {
  dec *d;
  u32 left;  /* bytes of the current IDAT */
  u32 bits, have;
} zin;

static u32 be32(const u8 *p) { return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3]; }

/* zbyte gives the next byte of the chain of IDAT chunks, -1 at its end. */
static int zbyte(zin *z) {
  dec *d = z->d;
  while (!z->left) {
    if (d->at + 12 > d->n || d->n - d->at < 12) return -1;
    u32 next = d->at + 4; /* behind the checksum */
    if (d->n - next < 8 || be32(d->p + next + 4) != 0x49444154) return -1;
    u32 len = be32(d->p + next);
    if (len > d->n - next - 8) return -1;
    d->at = next + 8;
    z->left = len;
  }
  z->left--;
  return d->p[d->at++];
}

static u32 zbits(zin *z, u32 n) {
  while (z->have < n) {
    int b = zbyte(z);
    if (b < 0) {
      bad(z->d, CUT, 0);
      b = 0;
    }
    z->bits |= (u32)b << z->have;
    z->have += 8;
  }
  u32 v = z->bits & ((1u << n) - 1);
  z->bits >>= n;
  z->have -= n;
  return v;
}

typedef struct {
  unsigned short count[16], symbol[288];
} huff;

static int hbuild(huff *h, const u8 *len, u32 n) {
  unsigned short offs[16];
  for (u32 i = 0; i < 16; i++) h->count[i] = 0;
  for (u32 i = 0; i < n; i++) h->count[len[i]]++;
  h->count[0] = 0;
  int left = 1;
  for (u32 i = 1; i < 16; i++) {
    left = left * 2 - h->count[i];
    if (left < 0) return 0;
  }
  offs[1] = 0;
  for (u32 i = 1; i < 15; i++) offs[i + 1] = offs[i] + h->count[i];
  for (u32 i = 0; i < n; i++)
    if (len[i]) h->symbol[offs[len[i]]++] = (unsigned short)i;
  return 1;
}

static int hsym(zin *z, const huff *h) {
  int code = 0, first = 0, index = 0;
  for (u32 i = 1; i < 16; i++) {
    code |= (int)zbits(z, 1);
    int count = h->count[i];
    if (code - count < first) return h->symbol[index + code - first];
    index += count;
    first = (first + count) << 1;
    code <<= 1;
    if (z->d->code) return -1;
  }
  return -1;
}

static int inflate(zin *z, u8 *out, u32 size) {
  static const unsigned short base[29] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
  static const u8 extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
  static const unsigned short dbase[30] = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
  static const u8 dextra[30] = {0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
  static const u8 order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  dec *d = z->d;
  u32 at = 0, last;
  u32 head = zbits(z, 8) << 8;
  head |= zbits(z, 8);
  if (d->code) return 0;
  if (head % 31 || (head >> 8 & 15) != 8 || head & 0x20) return bad(d, BAD_DEFLATE, head);
  do {
    last = zbits(z, 1);
    u32 type = zbits(z, 2);
    if (d->code) return 0;
    if (type == 0) {
      z->bits = z->have = 0;
      u32 n = zbits(z, 16), inv = zbits(z, 16);
      if (d->code) return 0;
      if ((n ^ inv) != 0xffff) return bad(d, BAD_DEFLATE, n);
      if (n > size - at) n = size - at, last = 1; /* more than the picture needs */
      while (n--) {
        int b = zbyte(z);
        if (b < 0) return bad(d, CUT, 0);
        out[at++] = (u8)b;
      }
      continue;
    }
    if (type == 3) return bad(d, BAD_DEFLATE, type);
    u8 len[320];
    huff lit, dist;
    u32 nlen = 288, ndist = 30;
    if (type == 1) {
      for (u32 i = 0; i < 288; i++) len[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
      for (u32 i = 0; i < 30; i++) len[288 + i] = 5;
    } else {
      nlen = zbits(z, 5) + 257, ndist = zbits(z, 5) + 1;
      u32 ncode = zbits(z, 4) + 4;
      if (nlen > 286 || ndist > 30) return bad(d, BAD_DEFLATE, nlen);
      for (u32 i = 0; i < 19; i++) len[i] = 0;
      for (u32 i = 0; i < ncode; i++) len[order[i]] = (u8)zbits(z, 3);
      if (!hbuild(&lit, len, 19)) return bad(d, BAD_DEFLATE, 0);
      u32 i = 0;
      while (i < nlen + ndist) {
        int s = hsym(z, &lit);
        if (s < 0) return bad(d, BAD_DEFLATE, 0);
        if (s < 16) {
          len[i++] = (u8)s;
          continue;
        }
        u8 v = 0;
        u32 rep;
        if (s == 16) {
          if (!i) return bad(d, BAD_DEFLATE, 0);
          v = len[i - 1], rep = 3 + zbits(z, 2);
        } else rep = s == 17 ? 3 + zbits(z, 3) : 11 + zbits(z, 7);
        if (d->code || i + rep > nlen + ndist) return bad(d, BAD_DEFLATE, 0);
        while (rep--) len[i++] = v;
      }
    }
    if (!hbuild(&lit, len, nlen) || !hbuild(&dist, len + nlen, ndist)) return bad(d, BAD_DEFLATE, 0);
    for (;;) {
      int s = hsym(z, &lit);
      if (d->code) return 0;
      if (s < 0) return bad(d, BAD_DEFLATE, 0);
      if (s == 256) break;
      if (at == size) return 1; /* more than the picture needs */
      if (s < 256) {
        out[at++] = (u8)s;
        continue;
      }
      s -= 257;
      if (s >= 29) return bad(d, BAD_DEFLATE, s);
      u32 n = base[s] + zbits(z, extra[s]);
      int t = hsym(z, &dist);
      if (d->code) return 0;
      if (t < 0 || t >= 30) return bad(d, BAD_DEFLATE, t);
      u32 back = dbase[t] + zbits(z, dextra[t]);
      if (d->code || back > at) return bad(d, BAD_DEFLATE, back);
      for (; n && at < size; n--, at++) out[at] = out[at - back];
    }
  } while (!last);
  return at == size ? 1 : bad(d, CUT, at);
}

static u32 paeth(int a, int b, int c) {
  int p = a + b - c, pa = p > a ? p - a : a - p, pb = p > b ? p - b : b - p, pc = p > c ? p - c : c - p;
  return (u32)(pa <= pb && pa <= pc ? a : pb <= pc ? b : c);
}

static int png(dec *d) {
  static const u8 sig[8] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10};
  static const u8 px[7] = {0, 4, 0, 2, 0, 1, 0}, py[7] = {0, 0, 4, 0, 2, 0, 1}, dx[7] = {8, 8, 4, 4, 2, 2, 1}, dy[7] = {8, 8, 8, 4, 4, 2, 2};
  const u8 *p = d->p, *pal = 0;
  u32 npal = 0;
  if (d->n < 45) return bad(d, CUT, 0);
  for (u32 i = 0; i < 8; i++)
    if (p[i] != sig[i]) return bad(d, BAD_PNG, 0);
  if (be32(p + 8) != 13 || be32(p + 12) != 0x49484452) return bad(d, BAD_PNG, 0);
  u32 w = be32(p + 16), h = be32(p + 20), depth = p[24], type = p[25], lace = p[28];
  if (p[26] || p[27] || lace > 1) return bad(d, BAD_PNG, 0);
  u32 ch = type == 0 ? 1 : type == 2 ? 3 : type == 3 ? 1 : type == 4 ? 2 : type == 6 ? 4 : 0;
  int small = depth == 1 || depth == 2 || depth == 4;
  if (!ch || !(depth == 8 || (depth == 16 && type != 3) || (small && (type == 0 || type == 3)))) return bad(d, BAD_PNG, depth);
  d->at = 33;
  if (!size(d, w, h)) return 0;
  for (;;) {
    if (d->n - d->at < 12) return bad(d, CUT, 0);
    u32 len = be32(p + d->at), name = be32(p + d->at + 4);
    if (len > d->n - d->at - 12) return bad(d, CUT, 0);
    if (name == 0x49444154) break;
    if (name == 0x504c5445) {
      if (len % 3 || len > 768) return bad(d, BAD_PNG, len);
      pal = p + d->at + 8, npal = len / 3;
    } else if (name == 0x49454e44 || !(name & 0x20000000)) return bad(d, BAD_PNG, name);
    d->at += 12 + len;
  }
  if (type == 3 && !npal) return bad(d, BAD_PNG, 0);
  u64 total = 0;
  for (u32 s = lace ? 0 : 6; s < 7; s++) {
    u64 pw = lace ? (w + dx[s] - 1 - px[s]) / dx[s] : w, ph = lace ? (h + dy[s] - 1 - py[s]) / dy[s] : h;
    if (pw && ph) total += ph * (1 + (pw * ch * depth + 7) / 8);
  }
  if (total > 0x7fffffff) return bad(d, TOO_LARGE, (i64)total);
  u8 *raw = take(d, total);
  if (!raw) return 0;
  zin z = {.d = d, .left = be32(p + d->at)};
  d->at += 8;
  if (!inflate(&z, raw, (u32)total)) return 0;
  u32 bpp = ch * depth >= 8 ? ch * depth / 8 : 1;
  for (u32 s = lace ? 0 : 6; s < 7; s++) {
    u32 pw = lace ? (w + dx[s] - 1 - px[s]) / dx[s] : w, ph = lace ? (h + dy[s] - 1 - py[s]) / dy[s] : h;
    if (!pw || !ph) continue;
    u32 line = (pw * ch * depth + 7) / 8;
    u8 *prev = 0;
    for (u32 y = 0; y < ph; y++, raw += line) {
      u32 f = *raw++;
      if (f > 4) return bad(d, BAD_PNG, f);
      for (u32 i = 0; i < line; i++) {
        u32 a = i >= bpp ? raw[i - bpp] : 0, b = prev ? prev[i] : 0, c = prev && i >= bpp ? prev[i - bpp] : 0;
        raw[i] += (u8)(f == 1 ? a : f == 2 ? b : f == 3 ? (a + b) / 2 : f == 4 ? paeth((int)a, (int)b, (int)c) : 0);
      }
      prev = raw;
      for (u32 x = 0; x < pw; x++) {
        u8 v[3];
        if (depth < 8) {
          u32 q = raw[x * depth / 8] >> (8 - depth - x * depth % 8) & ((1u << depth) - 1);
          if (type == 3) goto palette;
          v[0] = v[1] = v[2] = (u8)(q * 255 / ((1u << depth) - 1));
          goto put;
        palette:
          if (q >= npal) return bad(d, BAD_PNG, q);
          v[0] = pal[3 * q], v[1] = pal[3 * q + 1], v[2] = pal[3 * q + 2];
        } else {
          const u8 *q = raw + (u64)x * bpp;
          if (type == 3) {
            if (*q >= npal) return bad(d, BAD_PNG, *q);
            v[0] = pal[3 * *q], v[1] = pal[3 * *q + 1], v[2] = pal[3 * *q + 2];
          } else {
            u32 step = depth / 8; /* 16 bits: the high byte */
            v[0] = q[0], v[1] = type & 2 ? q[step] : q[0], v[2] = type & 2 ? q[2 * step] : q[0];
          }
        }
      put:;
        u32 ox = lace ? px[s] + x * dx[s] : x, oy = lace ? py[s] + y * dy[s] : y;
        u8 *o = d->rgb + ((u64)oy * w + ox) * 3;
        o[0] = v[0], o[1] = v[1], o[2] = v[2];
      }
    }
  }
  return 1;
}
