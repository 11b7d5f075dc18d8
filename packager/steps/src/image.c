/* image: one PNG or JPEG file (u8 [n]) to a tensor f32 [1, 3, H, W] (or [1, H, W, 3]): decoded to 8-bit RGB, resized, and
   normalised as (v - mean) * scale per channel. Alpha is dropped, grey becomes three channels.
   Configuration: u32 width, height, flags (1: channels last, 2: BGR), most pixels of the file's image; f32 mean[3], scale[3].
   Errors: codes of the step's own from 64 on, below; B is a position in the file where there is one. */
#include "waybill.h"

enum { BAD_FORMAT = 64, BAD_PNG, BAD_JPEG, BAD_DEFLATE, TOO_LARGE, UNSUPPORTED, CUT };
enum { START, RESIZE };

typedef struct {
  wb_ctx head;
  u32 bound, phase, w, h, row, rgb, xs, fill;
} ctx;

typedef struct {
  u32 width, height, flags, pixels;
  float mean[3], scale[3];
} config;

static inline const config *conf(void) { return (const config *)wb_config(); }

/* One decoding: the file, a bump allocator in the arena, and the first error. */
typedef struct {
  const u8 *p;
  u32 n, at;
  u32 mem, used, room;
  u32 w, h;
  u8 *rgb;
  u32 code;
  i64 a, b;
  u64 need;
} dec;

static int bad(dec *d, u32 code, i64 a) {
  if (!d->code) d->code = code, d->a = a, d->b = d->at;
  return 0;
}

static void *take(dec *d, u64 bytes) {
  u64 end = (((u64)d->used + 15) & ~15ull) + bytes;
  if (end > d->room) {
    d->need = end;
    d->code = WB_ERR_MEMORY;
    return 0;
  }
  u8 *p = (u8 *)(d->mem + (((u64)d->used + 15) & ~15ull));
  d->used = (u32)end;
  __builtin_memset(p, 0, bytes);
  return p;
}

static int size(dec *d, u64 w, u64 h) {
  if (!w || !h) return bad(d, BAD_FORMAT, 0);
  if (w > 65535 || h > 65535 || w * h > conf()->pixels) return bad(d, TOO_LARGE, (i64)(w * h));
  d->w = (u32)w, d->h = (u32)h;
  d->rgb = take(d, w * h * 3);
  return d->rgb != 0;
}

#include "png.h"
#include "jpeg.h"

WB_EXPORT("waybill_abi") u32 version(void) { return WB_ABI; }
WB_EXPORT("waybill_ctx") u32 context_size(void) { return sizeof(ctx); }
WB_EXPORT("waybill_heap") u32 heap(void) { return ((u32)wb_config() + wb_config_size() + 63) & ~63u; }

WB_EXPORT("waybill_bind") u32 bind(ctx *c) {
  c->bound = 0;
  u32 s = wb_check(&c->head, 1, 1);
  if (s) return s;
  wb_desc *x = wb_in(&c->head, 0);
  if (x->kind != 0 || x->dtype != WB_U8) return wb_fail(&c->head, WB_ERR_DTYPE, 0, x->dtype);
  if (x->rank != 1) return wb_fail(&c->head, WB_ERR_RANK, 0, x->rank);
  c->bound = 1;
  c->phase = START;
  return WB_DONE;
}

/* Bilinear with pixel centres at halves, as PyTorch's interpolate(align_corners=False) and OpenCV's INTER_LINEAR do. */
static void resize_row(ctx *c, u32 y, float *out) {
  const config *k = conf();
  const u8 *rgb = (const u8 *)c->rgb;
  u64 plane = (u64)k->width * k->height;
  float sy = ((float)y + 0.5f) * ((float)c->h / (float)k->height) - 0.5f;
  if (sy < 0) sy = 0;
  u32 y0 = (u32)sy;
  if (y0 > c->h - 1) y0 = c->h - 1;
  u32 y1 = y0 + 1 < c->h ? y0 + 1 : y0;
  float fy = sy - (float)y0;
  for (u32 x = 0; x < k->width; x++) {
    float sx = ((float)x + 0.5f) * ((float)c->w / (float)k->width) - 0.5f;
    if (sx < 0) sx = 0;
    u32 x0 = (u32)sx;
    if (x0 > c->w - 1) x0 = c->w - 1;
    u32 x1 = x0 + 1 < c->w ? x0 + 1 : x0;
    float fx = sx - (float)x0;
    for (u32 ch = 0; ch < 3; ch++) {
      float a = rgb[((u64)y0 * c->w + x0) * 3 + ch], b = rgb[((u64)y0 * c->w + x1) * 3 + ch];
      float e = rgb[((u64)y1 * c->w + x0) * 3 + ch], f = rgb[((u64)y1 * c->w + x1) * 3 + ch];
      float top = a + (b - a) * fx, low = e + (f - e) * fx;
      u32 to = k->flags & 2 ? 2 - ch : ch;
      float v = (top + (low - top) * fy - k->mean[to]) * k->scale[to];
      if (k->flags & 1) out[((u64)y * k->width + x) * 3 + to] = v;
      else out[to * plane + (u64)y * k->width + x] = v;
    }
  }
}

WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  u32 status;
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  const config *k = conf();
  u64 out = (u64)k->width * k->height * 12;
  if (wb_need(&c->head, out, &status)) return status;
  if (c->phase == START) {
    wb_desc *x = wb_in(&c->head, 0);
    dec d = {.p = (const u8 *)x->data, .n = x->bytes, .mem = c->head.arena_base, .used = (u32)out, .room = c->head.arena_size};
    if (d.n >= 8 && d.p[0] == 0x89 && d.p[1] == 'P') png(&d);
    else if (d.n >= 4 && d.p[0] == 0xff && d.p[1] == 0xd8) jpeg(&d);
    else bad(&d, BAD_FORMAT, 0);
    if (d.need) {
      if (wb_need(&c->head, d.need, &status)) return status;
      return wb_fail(&c->head, WB_ERR_MEMORY, (i64)d.need, 0);
    }
    if (d.code) return wb_fail(&c->head, d.code, d.a, d.b);
    c->w = d.w, c->h = d.h, c->rgb = (u32)d.rgb, c->row = 0;
    c->phase = RESIZE;
    return WB_MORE;
  }
  float *o = (float *)c->head.arena_base;
  for (u32 n = 0; c->row < k->height && n < 32; n++) resize_row(c, c->row++, o);
  if (c->row < k->height) return WB_MORE;
  i64 first[4] = {1, 3, k->height, k->width}, last[4] = {1, k->height, k->width, 3};
  wb_put(wb_out(&c->head, 0), WB_F32, 4, k->flags & 1 ? last : first, c->head.arena_base, (u32)out, 0);
  c->bound = 0;
  return WB_DONE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
