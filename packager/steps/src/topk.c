/* topk: the k largest of each row of f32 scores [N, C] (or [C]), in falling order, equal ones by index, NaN last.
   Input: scores. Outputs: names (string) or, without labels, indices (i64), and the scores (f32), [N, k] (or [k]).
   Configuration: u32 k, u32 labels, then u32 offsets[labels + 1] and the text of the labels when there are any. */
#include "waybill.h"

typedef struct {
  wb_ctx head;
  u64 rows, cols, next, text;
  u32 k, labels, bound, sized;
} ctx;

WB_EXPORT("waybill_abi") u32 version(void) { return WB_ABI; }
WB_EXPORT("waybill_ctx") u32 context_size(void) { return sizeof(ctx); }
WB_EXPORT("waybill_heap") u32 heap(void) { return ((u32)wb_config() + wb_config_size() + 63) & ~63u; }

WB_EXPORT("waybill_bind") u32 bind(ctx *c) {
  c->bound = 0;
  u32 s = wb_check(&c->head, 1, 2);
  if (s) return s;
  wb_desc *x = wb_in(&c->head, 0);
  if (x->kind != 0 || x->dtype != WB_F32) return wb_fail(&c->head, WB_ERR_DTYPE, 0, x->dtype);
  if (x->rank != 1 && x->rank != 2) return wb_fail(&c->head, WB_ERR_RANK, 0, x->rank);
  const u32 *cfg = (const u32 *)wb_config();
  c->k = cfg[0], c->labels = cfg[1];
  c->rows = x->rank == 2 ? (u64)x->dims[0] : 1;
  c->cols = (u64)x->dims[x->rank - 1];
  i64 dim = x->rank - 1;
  if (c->cols < c->k || (c->labels && c->cols != c->labels)) return wb_fail(&c->head, WB_ERR_DIM, dim, (i64)c->cols);
  c->next = c->text = 0;
  c->bound = 1;
  c->sized = 0;
  return WB_DONE;
}

/* before tells whether score a at index i stands before b at a smaller index. */
static int before(float a, float b) { return a > b || (b != b && a == a); }

WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  u32 status;
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  const u32 *cfg = (const u32 *)wb_config(), *off = cfg + 2;
  u64 n = c->rows * c->k; /* no more than the input has elements */
  if (wb_need(&c->head, n * 12, &status)) return status;
  const float *x = (const float *)wb_in(&c->head, 0)->data;
  u32 base = c->head.arena_base;
  i64 *index = (i64 *)base;
  float *score = (float *)(u32)(base + n * 8);
  for (u64 work = 0; c->next < c->rows && work < (1 << 19); c->next++, work += c->cols + c->k) {
    const float *row = x + c->next * c->cols;
    i64 *ix = index + c->next * c->k;
    float *sc = score + c->next * c->k;
    u32 have = 0;
    for (u64 j = 0; j < c->cols; j++) {
      float v = row[j];
      if (have == c->k && !before(v, sc[have - 1])) continue;
      u32 p = have < c->k ? have++ : have - 1;
      for (; p > 0 && before(v, sc[p - 1]); p--, work++) sc[p] = sc[p - 1], ix[p] = ix[p - 1];
      sc[p] = v == v ? v : __builtin_nanf("");
      ix[p] = (i64)j;
    }
    if (c->labels)
      for (u32 p = 0; p < c->k; p++) c->text += off[ix[p] + 1] - off[ix[p]];
  }
  if (c->next < c->rows) return WB_MORE;
  wb_desc *in = wb_in(&c->head, 0);
  i64 dims[2] = {in->rank == 2 ? in->dims[0] : c->k, c->k};
  if (c->labels) {
    u64 at = n * 12, size = 4 * (n + 1) + c->text;
    if (wb_need(&c->head, at + size, &status)) return status;
    u32 *to = (u32 *)(u32)(base + at);
    u8 *text = (u8 *)(to + n + 1);
    const u8 *from = (const u8 *)(off + c->labels + 1);
    u32 end = 0;
    to[0] = 0;
    for (u64 i = 0; i < n; i++) {
      for (u32 b = off[index[i]]; b < off[index[i] + 1]; b++) text[end++] = from[b];
      to[i + 1] = end;
    }
    wb_put(wb_out(&c->head, 0), WB_STRING, in->rank, dims, (u32)to, (u32)size, end);
  } else {
    wb_put(wb_out(&c->head, 0), WB_I64, in->rank, dims, (u32)index, (u32)(8 * n), 0);
  }
  wb_put(wb_out(&c->head, 1), WB_F32, in->rank, dims, (u32)score, (u32)(4 * n), 0);
  c->bound = 0;
  return WB_DONE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
