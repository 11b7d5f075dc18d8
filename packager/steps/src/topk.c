/* topk: the k largest of each row of scores, in falling order, equal ones by index, NaN last.
   Input: scores [N, C] or [C] of f32, f64, f16 or bf16; or a sequence of N maps from a class (i64 or string) to f32 or f64, as ZipMap gives it.
   Outputs: classes and scores, [N, k] (or [k]). Classes are labels (string) when there are any, else a map's own keys, else indices (i64).
   Scores are f64 when the input's are, else f32.
   Configuration: u32 k, labels, flags (what an empty sequence gives; 1: classes are strings, 2: scores f64), then u32 offsets[labels + 1] and the text of the labels when there are any. */
#include "waybill.h"

typedef struct {
  wb_ctx head;
  u64 rows, cols, next, col, text, made;
  u32 k, labels, bound, maps, have, dtype, keys, wide, end;
} ctx;

WB_EXPORT("waybill_abi") u32 version(void) { return WB_ABI; }
WB_EXPORT("waybill_ctx") u32 context_size(void) { return sizeof(ctx); }
WB_EXPORT("waybill_heap") u32 heap(void) { return ((u32)wb_config() + wb_config_size() + 63) & ~63u; }

static int is_score(u32 t) { return t == WB_F32 || t == WB_F64 || t == WB_F16 || t == WB_BF16; }

static inline wb_desc *child(const wb_desc *d, u64 i) { return (wb_desc *)d->data + i; }

WB_EXPORT("waybill_bind") u32 bind(ctx *c) {
  c->bound = 0;
  u32 s = wb_check(&c->head, 1, 2);
  if (s) return s;
  wb_desc *x = wb_in(&c->head, 0);
  const u32 *cfg = (const u32 *)wb_config();
  c->k = cfg[0], c->labels = cfg[1];
  c->maps = x->kind == WB_SEQUENCE;
  if (c->maps) {
    c->rows = (u64)x->dims[0], c->cols = 0;
    c->keys = cfg[2] & 1 ? WB_STRING : WB_I64, c->dtype = cfg[2] & 2 ? WB_F64 : WB_F32;
    if (c->rows) { /* the first map tells the types; a row of others is refused when it comes */
      wb_desc *m = child(x, 0);
      if (m->kind != WB_MAP) return wb_fail(&c->head, WB_ERR_DTYPE, 0, m->kind);
      c->keys = child(m, 0)->dtype, c->dtype = child(m, 1)->dtype;
    }
  } else {
    if (x->kind != 0) return wb_fail(&c->head, WB_ERR_DTYPE, 0, x->dtype);
    if (x->rank != 1 && x->rank != 2) return wb_fail(&c->head, WB_ERR_RANK, 0, x->rank);
    c->rows = x->rank == 2 ? (u64)x->dims[0] : 1;
    c->cols = (u64)x->dims[x->rank - 1];
    c->dtype = x->dtype, c->keys = WB_I64;
    if (c->cols < c->k || (c->labels && c->cols != c->labels)) return wb_fail(&c->head, WB_ERR_DIM, x->rank - 1, (i64)c->cols);
  }
  if (!is_score(c->dtype)) return wb_fail(&c->head, WB_ERR_DTYPE, 0, c->dtype);
  if (c->labels) c->keys = WB_STRING;
  if (c->rows * c->k > 1ull << 27) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)(c->rows * c->k), 0);
  c->wide = c->dtype == WB_F64 ? 8 : 4;
  c->next = c->col = c->text = c->made = 0;
  c->have = c->end = 0;
  c->bound = 1;
  return WB_DONE;
}

/* before tells whether score a at index i stands before b at a smaller index. */
static int before(double a, double b) { return a > b || (b != b && a == a); }

static double half(u32 h) {
  u32 e = h >> 10 & 31, m = h & 1023;
  double v = e == 31 ? (m ? __builtin_nan("") : __builtin_inf()) : e ? (double)(m | 1024) * 0x1p-25 * (double)(1u << e) : (double)m * 0x1p-24;
  return h & 0x8000 ? -v : v;
}

static double score(u32 dtype, u32 at, u64 i) {
  u32 b;
  float f;
  switch (dtype) {
  case WB_F64: return ((const double *)at)[i];
  case WB_F16: return half(((const unsigned short *)at)[i]);
  case WB_BF16:
    b = (u32)((const unsigned short *)at)[i] << 16;
    __builtin_memcpy(&f, &b, 4);
    return f;
  }
  return ((const float *)at)[i];
}

static double kept(const ctx *c, u32 scores, u64 i) { return c->wide == 8 ? ((const double *)scores)[i] : ((const float *)scores)[i]; }

static void keep(const ctx *c, u32 scores, u64 i, double v) {
  if (c->wide == 8) ((double *)scores)[i] = v == v ? v : __builtin_nan("");
  else ((float *)scores)[i] = v == v ? (float)v : __builtin_nanf("");
}

/* The text of class `at` of row r: a label, or a key of that row's map. */
static u32 text_of(const ctx *c, u64 r, i64 at, const u8 **from) {
  const u32 *off = (const u32 *)wb_config() + 3;
  u32 n = c->labels;
  if (!n) {
    wb_desc *keys = child(child(wb_in((wb_ctx *)&c->head, 0), r), 0);
    off = (const u32 *)keys->data, n = (u32)keys->dims[0];
  }
  *from = (const u8 *)(off + n + 1) + off[at];
  return off[at + 1] - off[at];
}

/* open_row finds the scores of the next row. It returns a status other than done when they do not fit. */
static u32 open_row(ctx *c, u32 *at) {
  wb_desc *x = wb_in(&c->head, 0);
  if (!c->maps) {
    u32 size = c->dtype == WB_F64 ? 8 : c->dtype == WB_F32 ? 4 : 2;
    *at = (u32)(x->data + c->next * c->cols * size);
    return WB_DONE;
  }
  wb_desc *m = child(x, c->next);
  if (m->kind != WB_MAP) return wb_fail(&c->head, WB_ERR_DTYPE, 0, m->kind);
  wb_desc *keys = child(m, 0), *values = child(m, 1);
  u32 want = c->labels ? keys->dtype : c->keys;
  if (values->kind != 0 || values->dtype != c->dtype || values->rank > 1 + (values->rank == 2 && values->dims[1] == 1)) return wb_fail(&c->head, WB_ERR_DTYPE, 0, values->dtype);
  if (keys->dtype != want || (want != WB_I64 && want != WB_STRING)) return wb_fail(&c->head, WB_ERR_DTYPE, 0, keys->dtype);
  c->cols = (u64)keys->dims[0];
  if (c->cols < c->k || (c->labels && c->cols != c->labels)) return wb_fail(&c->head, WB_ERR_DIM, 1, (i64)c->cols);
  *at = values->data;
  return WB_DONE;
}

WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  u32 status;
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  u64 n = c->rows * c->k;
  if (wb_need(&c->head, n * (8 + c->wide), &status)) return status;
  u32 base = c->head.arena_base, scores = (u32)(base + n * 8);
  i64 *index = (i64 *)base;
  u64 budget = c->head.budget ? c->head.budget : 1000000, work = 0;
  while (c->next < c->rows) {
    u32 at = 0;
    status = open_row(c, &at);
    if (status) return status;
    u64 from = c->next * c->k;
    i64 *ix = index + from;
    for (; c->col < c->cols; c->col++) {
      if (work >= budget) return WB_MORE;
      double v = score(c->dtype, at, c->col);
      work += 3;
      if (c->have == c->k && !before(v, kept(c, scores, from + c->have - 1))) continue;
      u32 p = c->have < c->k ? c->have++ : c->have - 1;
      for (; p > 0; p--, work += 3) {
        double u = kept(c, scores, from + p - 1);
        if (!before(v, u)) break;
        keep(c, scores, from + p, u), ix[p] = ix[p - 1];
      }
      keep(c, scores, from + p, v);
      ix[p] = (i64)c->col;
    }
    const u8 *text;
    for (u32 p = 0; p < c->k; p++, work += 5) {
      if (c->keys == WB_STRING) c->text += text_of(c, c->next, ix[p], &text);
      else if (c->maps) ix[p] = ((const i64 *)child(child(wb_in(&c->head, 0), c->next), 0)->data)[ix[p]];
    }
    c->next++, c->col = 0, c->have = 0;
  }
  wb_desc *in = wb_in(&c->head, 0);
  i64 dims[2] = {c->maps || in->rank == 2 ? (i64)c->rows : c->k, c->k};
  u32 rank = c->maps ? 2 : in->rank;
  if (c->keys == WB_STRING) {
    u64 at = n * (8 + c->wide), size = 4 * (n + 1) + c->text;
    if (c->text > 0x7fffffff) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)c->text, 0);
    if (wb_need(&c->head, at + size, &status)) return status;
    u32 *to = (u32 *)(u32)(base + at);
    u8 *text = (u8 *)(to + n + 1);
    to[0] = 0;
    for (; c->made < n; c->made++) {
      if (work >= budget) return WB_MORE;
      const u8 *s;
      u32 len = text_of(c, c->made / c->k, index[c->made], &s);
      __builtin_memcpy(text + c->end, s, len);
      c->end += len, to[c->made + 1] = c->end;
      work += 20 + len / 4;
    }
    wb_put(wb_out(&c->head, 0), WB_STRING, rank, dims, (u32)to, (u32)size, c->end);
  } else {
    wb_put(wb_out(&c->head, 0), WB_I64, rank, dims, (u32)index, (u32)(8 * n), 0);
  }
  wb_put(wb_out(&c->head, 1), c->wide == 8 ? WB_F64 : WB_F32, rank, dims, scores, (u32)(c->wide * n), 0);
  c->bound = 0;
  return WB_DONE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
