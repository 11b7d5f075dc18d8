/* image: one PNG or JPEG file (u8 [n]) to a tensor f32 [1, 3, H, W] (or [1, H, W, 3]): decoded to 8-bit RGB, resized, and
   normalised as (v - mean) * scale per channel. Alpha is dropped, grey becomes three channels. The picture is resized row by row as it
   is decoded, and never in memory as a whole unless it is interlaced, progressive or not in one scan.
   Configuration: u32 width, height, flags (1: channels last, 2: BGR, 4: turned as EXIF says), most pixels of the file's image; f32 mean[3], scale[3].
   Errors: codes of the step's own from 64 on, below; B is a position in the file where there is one. */
#include "waybill.h"

enum { BAD_FORMAT = 64, BAD_PNG, BAD_JPEG, BAD_DEFLATE, TOO_LARGE, UNSUPPORTED, CUT };
enum { LAST = 1, BGR = 2, TURN = 4 };

typedef struct {
  u32 width, height, flags, pixels;
  float mean[3], scale[3];
} config;

static inline const config *conf(void) { return (const config *)wb_config(); }

/* One decoding: the file, a bump allocator in the arena, the row that was decoded last, and the first error. */
typedef struct {
  const u8 *p;
  u32 n, at;
  u32 mem, used, room;
  u32 w, h, turn; /* turn: EXIF's orientation, 1 to 8 */
  u8 *rgb, *before;
  u32 ready, end;
  u32 code;
  i64 a, b;
  u64 need;
} dec;

static int bad(dec *d, u32 code, i64 a) {
  if (!d->code) d->code = code, d->a = a, d->b = d->at;
  return 0;
}

/* take gives memory of any content, or leaves in need how large the arena must be. */
static void *take(dec *d, u64 bytes) {
  u64 at = ((u64)d->used + 15) & ~15ull, end = at + bytes;
  if (end > d->room) {
    d->need = end;
    return 0;
  }
  d->used = (u32)end;
  return (u8 *)(u32)(d->mem + at);
}

static int size(dec *d, u64 w, u64 h) {
  if (!w || !h) return bad(d, BAD_FORMAT, 0);
  if (w > 65535 || h > 65535 || w * h > conf()->pixels) return bad(d, TOO_LARGE, (i64)(w * h));
  d->w = (u32)w, d->h = (u32)h;
  return 1;
}

/* rows finds room for the row that is being decoded and the one before it. */
static int rows(dec *d) {
  d->rgb = take(d, (u64)d->w * 3);
  d->before = take(d, (u64)d->w * 3);
  return d->rgb && d->before;
}

/* exif looks for the orientation in a block of EXIF data; what is damaged counts as absent. */
static void exif(dec *d, const u8 *p, u32 n) {
  if (n < 14 || (p[0] != 'I' && p[0] != 'M') || p[1] != p[0]) return;
  int big = p[0] == 'M';
#define EXIF16(at) (big ? (u32)p[at] << 8 | p[(at) + 1] : (u32)p[(at) + 1] << 8 | p[at])
#define EXIF32(at) (big ? EXIF16(at) << 16 | EXIF16((at) + 2) : EXIF16((at) + 2) << 16 | EXIF16(at))
  u32 at = EXIF32(4);
  if (EXIF16(2) != 42 || at > n - 2) return;
  u32 count = EXIF16(at);
  for (at += 2; count && n - at >= 12; count--, at += 12)
    if (EXIF16(at) == 0x112 && EXIF16(at + 2) == 3) {
      u32 v = EXIF16(at + 8);
      if (v >= 1 && v <= 8) d->turn = v;
      return;
    }
}

#include "png.h"
#include "jpeg.h"

typedef struct {
  wb_ctx head;
  u32 bound, open, y, row; /* y: the row in d.rgb; row: the next one of the output, as the picture is stored */
  dec d;
  union {
    pdec png;
    jdec jpeg;
  } u;
} ctx;

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
  c->open = 0;
  return WB_DONE;
}

/* The output's size before it is turned. */
static inline u32 turned(const ctx *c) { return conf()->flags & TURN && c->d.turn > 4; }
static inline u32 out_w(const ctx *c) { return turned(c) ? conf()->height : conf()->width; }
static inline u32 out_h(const ctx *c) { return turned(c) ? conf()->width : conf()->height; }

/* Which rows of the picture row y of the output lies between, and how far. */
static u32 between(u32 y, u32 from, u32 to, float *part) {
  float s = ((float)y + 0.5f) * ((float)from / (float)to) - 0.5f;
  if (s < 0) s = 0;
  u32 i = (u32)s;
  if (i > from - 1) i = from - 1;
  *part = s - (float)i;
  return i;
}

/* Bilinear with pixel centres at halves, as PyTorch's interpolate(align_corners=False) and OpenCV's INTER_LINEAR do. */
static void resize_row(ctx *c, u32 y) {
  const config *k = conf();
  const dec *d = &c->d;
  float *out = (float *)c->head.arena_base, fy;
  u64 plane = (u64)k->width * k->height;
  u32 w = out_w(c), h = out_h(c), y0 = between(y, d->h, h, &fy), y1 = y0 + 1 < d->h ? y0 + 1 : y0;
  const u8 *upper = y0 == c->y ? d->rgb : d->before, *lower = y1 == c->y ? d->rgb : d->before;
  u32 turn = k->flags & TURN ? d->turn : 1;
  for (u32 x = 0; x < w; x++) {
    float fx;
    u32 x0 = between(x, d->w, w, &fx), x1 = x0 + 1 < d->w ? x0 + 1 : x0;
    u32 tx = turn == 2 || turn == 3 || turn == 7 || turn == 8 ? w - 1 - x : x, ty = turn == 3 || turn == 4 || turn == 6 || turn == 7 ? h - 1 - y : y;
    u64 at = turn > 4 ? (u64)tx * k->width + ty : (u64)ty * k->width + tx;
    for (u32 ch = 0; ch < 3; ch++) {
      float a = upper[x0 * 3 + ch], b = upper[x1 * 3 + ch], e = lower[x0 * 3 + ch], f = lower[x1 * 3 + ch];
      float top = a + (b - a) * fx, low = e + (f - e) * fx;
      u32 to = k->flags & BGR ? 2 - ch : ch;
      float v = (top + (low - top) * fy - k->mean[to]) * k->scale[to];
      if (k->flags & LAST) out[at * 3 + to] = v;
      else out[to * plane + at] = v;
    }
  }
}

/* wanted tells whether the next row of the output needs no more than the rows up to y. */
static int wanted(const ctx *c) {
  float part;
  u32 y0 = between(c->row, c->d.h, out_h(c), &part);
  return (y0 + 1 < c->d.h ? y0 + 1 : y0) <= c->y;
}

WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  u32 status;
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  const config *k = conf();
  dec *d = &c->d;
  u64 out = (u64)k->width * k->height * 12;
  if (!c->open) {
    wb_desc *x = wb_in(&c->head, 0);
    const u8 *p = (const u8 *)x->data;
    u32 n = x->bytes;
    if (n >= 8 && p[0] == 0x89 && p[1] == 'P') c->open = 1;
    else if (n >= 4 && p[0] == 0xff && p[1] == 0xd8) c->open = 2;
    else return wb_fail(&c->head, BAD_FORMAT, 0, 0);
    *d = (dec){.p = p, .n = n, .mem = c->head.arena_base, .used = (u32)out, .turn = 1};
    c->y = (u32)-1, c->row = 0;
    if (c->open == 1) c->u.png.stage = P_HEAD;
    else c->u.jpeg.stage = J_MARKER;
  }
  d->room = c->head.arena_size;
  u32 budget = c->head.budget ? c->head.budget : 500000, work = 0;
  while (work < budget) {
    if (d->ready) {
      if (c->row < out_h(c) && wanted(c)) {
        resize_row(c, c->row++);
        work += out_w(c) * 25;
        continue;
      }
      u8 *swap = d->rgb;
      d->rgb = d->before, d->before = swap;
      d->ready = 0;
    }
    work += (c->open == 1 ? png_step(d, &c->u.png) : jpeg_step(d, &c->u.jpeg)) + 10;
    if (d->code) return wb_fail(&c->head, d->code, d->a, d->b);
    if (d->need) {
      u64 need = d->need;
      d->need = 0;
      if (wb_need(&c->head, need, &status)) return status;
      return wb_fail(&c->head, WB_ERR_MEMORY, (i64)need, 0);
    }
    c->y += d->ready;
    if (d->end) {
      i64 first[4] = {1, 3, k->height, k->width}, last[4] = {1, k->height, k->width, 3};
      wb_put(wb_out(&c->head, 0), WB_F32, 4, k->flags & LAST ? last : first, c->head.arena_base, (u32)out, 0);
      c->bound = 0;
      return WB_DONE;
    }
  }
  return WB_MORE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
