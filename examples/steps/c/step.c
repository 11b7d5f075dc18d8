/* A preprocessing step in C: clips every value of an f64 tensor to [-4, 4], replaces NaN by 0, scales to [-1, 1] and
   gives f32, whatever the shape. README.md has the build command. */
#include "waybill.h"

/* Elements per resume: about 2 ms of work at a nanosecond each. */
enum { CHUNK = 1 << 20 };

typedef struct {
  wb_ctx head;
  u64 n, next;
  u32 bound;
} ctx;

extern u8 __heap_base; /* where the linker's own data ends */

WB_EXPORT("waybill_abi") u32 version(void) { return WB_ABI; }
WB_EXPORT("waybill_ctx") u32 context_size(void) { return sizeof(ctx); }
WB_EXPORT("waybill_heap") u32 heap(void) { return ((u32)&__heap_base + 63) & ~63u; }

WB_EXPORT("waybill_bind") u32 bind(ctx *c) {
  c->bound = 0;
  if (c->head.magic != WB_MAGIC) return wb_fail(&c->head, WB_ERR_ABI, 0, c->head.magic);
  if (c->head.num_inputs != 1) return wb_fail(&c->head, WB_ERR_ABI, 1, c->head.num_inputs);
  if (c->head.num_outputs != 1) return wb_fail(&c->head, WB_ERR_ABI, 2, c->head.num_outputs);
  wb_desc *x = wb_in(&c->head, 0);
  if (x->kind != 0 || x->dtype != WB_F64) return wb_fail(&c->head, WB_ERR_DTYPE, 0, x->dtype);
  if (x->rank > 8) return wb_fail(&c->head, WB_ERR_RANK, 0, x->rank);
  c->n = x->bytes / 8; /* the host has checked dims against bytes */
  c->next = 0;
  c->bound = 1;
  return WB_DONE;
}

WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  u32 status;
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  if (wb_need(&c->head, 4 * c->n, &status)) return status;
  const double *x = (const double *)wb_in(&c->head, 0)->data;
  float *y = (float *)c->head.arena_base;
  u64 end = c->next + CHUNK < c->n ? c->next + CHUNK : c->n;
  for (; c->next < end; c->next++) {
    double v = x[c->next];
    if (v != v) v = 0;
    if (v > 4) v = 4;
    if (v < -4) v = -4;
    y[c->next] = (float)(v * 0.25);
  }
  if (c->next < c->n) return WB_MORE;
  wb_desc *in = wb_in(&c->head, 0), *out = wb_out(&c->head, 0);
  *out = *in;
  out->dtype = WB_F32;
  out->data = c->head.arena_base;
  out->bytes = out->cap = (u32)(4 * c->n);
  c->bound = 0;
  return WB_DONE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
