/* text: strings [N] to the tokens of a WordPiece tokenizer: input_ids, attention_mask and token_type_ids (i64 [N, L]; the
   step may have the first one or two alone). Configuration: the words of `config`, whose offsets count from its start; packager/steps/text.go
   writes it. Each code point has a replacement and a class (none, space, punctuation), in a table of two levels. Vocabulary: open addressing by
   FNV-1a of the bytes, with another seed for the pieces that continue a word.
   Errors of its own: 64, the rows differ in length (A the row, B its length) and the configuration does not pad them. */
#include "waybill.h"

enum { RAGGED = 64 };
enum { PAD_NONE, PAD_FIXED, PAD_LONGEST };
enum { READ, FILL };
enum { SPACE = 1, PUNCT = 2, REPLACE = 4 };
enum { MOST_CHARS = 256, MARGIN = 320 };

typedef struct {
  u32 room, cut_left, pad, pad_length, pad_multiple, pad_left, pad_id, pad_type;
  u32 type, before, after, unk, max_chars, longest;
  u32 frame, pages, entries, replaced, slots, mask, text, added, num_added;
  u32 first[8];
} config;

typedef struct {
  u32 off, len, id; /* len: the top bit marks a piece that continues a word; id 0xffffffff: empty */
} slot;

typedef struct {
  wb_ctx head;
  u32 bound, phase, rows, row, pos, count, start, longest, chars, len;
  u64 fill;
  u8 word[4 * MOST_CHARS];
} ctx;

static inline const config *conf(void) { return (const config *)wb_config(); }
static inline const void *at(u32 off) { return wb_config() + off; }

WB_EXPORT("waybill_abi") u32 version(void) { return WB_ABI; }
WB_EXPORT("waybill_ctx") u32 context_size(void) { return sizeof(ctx); }
WB_EXPORT("waybill_heap") u32 heap(void) { return ((u32)wb_config() + wb_config_size() + 63) & ~63u; }

WB_EXPORT("waybill_bind") u32 bind(ctx *c) {
  c->bound = 0;
  u32 outs = c->head.num_outputs;
  u32 s = wb_check(&c->head, 1, outs >= 1 && outs <= 3 ? outs : 3);
  if (s) return s;
  wb_desc *x = wb_in(&c->head, 0);
  if (x->kind != 0 || x->dtype != WB_STRING) return wb_fail(&c->head, WB_ERR_DTYPE, 0, x->dtype);
  if (x->rank != 1) return wb_fail(&c->head, WB_ERR_RANK, 0, x->rank);
  if (x->dims[0] < 0 || x->dims[0] > 0x10000000) return wb_fail(&c->head, WB_ERR_DIM, 0, x->dims[0]);
  c->rows = (u32)x->dims[0];
  c->row = c->pos = c->count = c->start = c->longest = c->chars = c->len = 0;
  c->phase = READ;
  c->bound = 1;
  return WB_DONE;
}

/* decode reads one code point of s[0..n) and returns its bytes, 0 when they are not UTF-8. */
static u32 decode(const u8 *s, u32 n, u32 *cp) {
  u32 a = s[0];
  if (a < 0x80) return *cp = a, 1;
  u32 k = a >= 0xc2 && a < 0xe0 ? 2 : a >= 0xe0 && a < 0xf0 ? 3 : a >= 0xf0 && a < 0xf5 ? 4 : 0;
  if (!k || k > n) return 0;
  u32 v = a & (0x7f >> k);
  for (u32 i = 1; i < k; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
    v = v << 6 | (s[i] & 0x3f);
  }
  if ((k == 3 && (v < 0x800 || (v >= 0xd800 && v < 0xe000))) || (k == 4 && (v < 0x10000 || v > 0x10ffff))) return 0;
  return *cp = v, k;
}

static u32 entry(u32 cp) {
  const unsigned short *pages = at(conf()->pages);
  return ((const u32 *)at(conf()->entries))[(u32)pages[cp >> 8] * 256 + (cp & 255)];
}

static inline u32 *ids(ctx *c) { return (u32 *)(c->head.arena_base + ((c->rows * 4 + 15) & ~15u)); }
static inline u32 *ends(ctx *c) { return (u32 *)c->head.arena_base; }

/* find looks s[0..n) up, whose hash is h. */
static u32 find(u32 h, const u8 *s, u32 n, u32 flag) {
  const config *k = conf();
  const slot *t = at(k->slots);
  const u8 *text = at(k->text);
  for (u32 i = h & k->mask;; i = (i + 1) & k->mask) {
    if (t[i].id == 0xffffffffu) return t[i].id;
    if (t[i].len != (n | flag)) continue;
    u32 j = 0;
    while (j < n && text[t[i].off + j] == s[j]) j++;
    if (j == n) return t[i].id;
  }
}

/* flush ends a word: the longest pieces from the left, or the unknown token for all of it. Returns the work done. */
static u32 flush(ctx *c) {
  const config *k = conf();
  u32 work = 1, *out = ids(c), n = c->count, len = c->len;
  if (!c->chars) return 0;
  if (c->chars > k->max_chars) out[n++] = k->unk;
  else
    for (u32 from = 0; from < len;) {
      u32 h = from ? 2166136261u ^ 0x9e3779b9u : 2166136261u, flag = from ? 1u << 31 : 0, best = 0, id = 0;
      u32 most = len - from < k->longest ? len - from : k->longest;
      for (u32 j = 0; j < most; j++, work++) {
        h = (h ^ c->word[from + j]) * 16777619u;
        if (from + j + 1 < len && (c->word[from + j + 1] & 0xc0) == 0x80) continue;
        u32 f = find(h, c->word + from, j + 1, flag);
        if (f != 0xffffffffu) best = j + 1, id = f;
      }
      if (!best) {
        n = c->count;
        out[n++] = k->unk;
        break;
      }
      out[n++] = id;
      from += best;
    }
  c->count = n;
  c->chars = c->len = 0;
  return work;
}

/* feed takes one code point of the normalised text: its bytes s[0..n) and class. */
static u32 feed(ctx *c, const u8 *s, u32 n, u32 class) {
  u32 work = 0;
  if (class) work = flush(c);
  if (class == SPACE) return work;
  if (c->chars < MOST_CHARS)
    for (u32 i = 0; i < n; i++) c->word[c->len++] = s[i];
  c->chars += c->chars <= MOST_CHARS;
  return class == PUNCT ? work + flush(c) : work;
}

/* special is the added token at s, the longest one, or null. */
static const slot *special(const u8 *s, u32 n, u32 *work) {
  const config *k = conf();
  if (!(k->first[s[0] >> 5] >> (s[0] & 31) & 1)) return 0;
  const slot *t = at(k->added);
  *work += k->num_added;
  const u8 *text = at(k->text);
  for (u32 i = 0; i < k->num_added; i++) {
    u32 j = 0;
    if (t[i].len > n) continue;
    while (j < t[i].len && text[t[i].off + j] == s[j]) j++;
    if (j == t[i].len) return t + i;
  }
  return 0;
}

/* grown is wb_need with some more room, so that it rarely happens. */
static int grown(ctx *c, u64 bytes, u32 *status) {
  return bytes > c->head.arena_size && wb_need(&c->head, bytes + bytes / 2 < 0xf0000000u ? bytes + bytes / 2 : bytes, status);
}

/* row_length is how many tokens a row with n of its own gets, before the padding to the longest. */
static u64 row_length(u32 n) {
  const config *k = conf();
  u64 len = (u64)(n < k->room ? n : k->room) + k->before + k->after;
  return k->pad == PAD_FIXED && len < k->pad_length ? k->pad_length : len;
}

static u32 read(ctx *c) {
  const config *k = conf();
  const wb_desc *x = wb_in(&c->head, 0);
  const u32 *off = (const u32 *)x->data;
  const u8 *text = (const u8 *)(off + c->rows + 1);
  u64 head = ((u64)c->rows * 4 + 15) & ~15ull;
  u32 status;
  for (u32 work = 0; c->row < c->rows; work++) {
    if (work > 100000) return WB_MORE;
    if (grown(c, head + ((u64)c->count + MARGIN) * 4, &status)) return status;
    const u8 *s = text + off[c->row] + c->pos;
    u32 n = off[c->row + 1] - off[c->row] - c->pos;
    int full = !k->cut_left && c->count - c->start >= k->room;
    if (!n || full) {
      if (!full) work += flush(c);
      c->chars = c->len = 0;
      u32 have = c->count - c->start;
      if (!k->cut_left && have > k->room) c->count = c->start + k->room;
      ends(c)[c->row] = c->count;
      u64 len = row_length(c->count - c->start);
      if (len > 0xf0000000u) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)len, 0);
      if (k->pad != PAD_LONGEST && c->row && len != c->longest) return wb_fail(&c->head, RAGGED, c->row, (i64)len);
      if (len > c->longest) c->longest = (u32)len;
      c->row++, c->pos = 0, c->start = c->count;
      continue;
    }
    const slot *t = special(s, n, &work);
    if (t) {
      work += flush(c);
      ids(c)[c->count++] = t->id;
      c->pos += t->len;
      continue;
    }
    u32 cp, m = decode(s, n, &cp);
    if (!m) return wb_fail(&c->head, WB_ERR_STRING, 0, c->row);
    u32 e = entry(cp);
    if (e & REPLACE) {
      const u8 *r = (const u8 *)at(k->replaced) + (e >> 8);
      for (u32 left = e >> 3 & 31; left;) {
        u32 b = decode(r, left, &cp);
        work += feed(c, r, b, entry(cp) & 3);
        r += b, left -= b;
      }
    } else {
      work += feed(c, s, m, e & 3);
    }
    c->pos += m;
  }
  if (!c->rows) c->longest = (u32)row_length(0);
  if (k->pad == PAD_LONGEST && k->pad_multiple && c->longest % k->pad_multiple) c->longest += k->pad_multiple - c->longest % k->pad_multiple;
  c->phase = FILL;
  c->fill = 0;
  return WB_MORE;
}

WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  if (c->phase == READ) return read(c);
  const config *k = conf();
  u32 outs = c->head.num_outputs, status, L = c->longest;
  u64 total = (u64)c->rows * L, from = (((u64)c->rows * 4 + 15) & ~15ull) + (u64)c->count * 4;
  from = (from + 63) & ~63ull;
  if (total > 0x10000000) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)total, 0);
  if (wb_need(&c->head, from + total * 8 * outs, &status)) return status;
  i64 *id = (i64 *)(u32)(c->head.arena_base + from), *mask = id + total, *type = mask + total;
  const u32 *frame = at(k->frame), *all = ids(c);
  for (u32 work = 0; c->fill < total && work < 100000; work++, c->fill++) {
    u32 row = (u32)c->fill / L, j = (u32)c->fill % L, start = row ? ends(c)[row - 1] : 0, n = ends(c)[row] - start;
    if (n > k->room) start += n - k->room, n = k->room;
    u32 len = n + k->before + k->after, shift = k->pad_left ? L - len : 0;
    i64 v = k->pad_id, t = k->pad_type;
    int real = j >= shift && j - shift < len;
    if (real) {
      u32 i = j - shift;
      if (i < k->before) v = frame[2 * i], t = frame[2 * i + 1];
      else if (i < k->before + n) v = all[start + i - k->before], t = k->type;
      else v = frame[2 * (i - n)], t = frame[2 * (i - n) + 1];
    }
    id[c->fill] = v;
    if (outs > 1) mask[c->fill] = real;
    if (outs > 2) type[c->fill] = t;
  }
  if (c->fill < total) return WB_MORE;
  i64 dims[2] = {c->rows, L};
  for (u32 i = 0; i < outs; i++) wb_put(wb_out(&c->head, i), WB_I64, 2, dims, (u32)(id + i * total), (u32)(total * 8), 0);
  c->bound = 0;
  return WB_DONE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
