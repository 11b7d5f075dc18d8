/* RIFF/WAVE and RF64: uncompressed integers of 8, 16, 24 and 32 bits and floats of 32 and 64 bits, in the plain and the extensible form. */

static inline u32 le16(const u8 *p) { return (u32)p[0] | (u32)p[1] << 8; }
static inline u32 le32(const u8 *p) { return le16(p) | le16(p + 2) << 16; }

/* sound: samples in memory, one frame every `stride` bytes, its channels `apart` bytes from each other. */
typedef struct {
  const u8 *p;
  u64 frames;
  u32 channels, format, rate;
  u64 stride, apart;
} sound;

enum { PCM_U8, PCM_S16, PCM_S24, PCM_S32, PCM_F32, PCM_F64 };

static int is(const u8 *p, const char *s) { return p[0] == s[0] && p[1] == s[1] && p[2] == s[2] && p[3] == s[3]; }

static u32 wav_bad(wb_ctx *c, u32 code, i64 a, u32 at) { return wb_fail(c, code, a, at); }

/* wav_open finds the samples in a file of n bytes. A data chunk whose length was not known to its writer (0xffffffff) ends with the file. */
static u32 wav_open(wb_ctx *c, const u8 *p, u32 n, sound *s) {
  if (n < 12) return wav_bad(c, n >= 4 && !is(p, "RIFF") && !is(p, "RF64") ? BAD_FORMAT : CUT, 0, n);
  if ((!is(p, "RIFF") && !is(p, "RF64")) || !is(p + 8, "WAVE")) return wav_bad(c, BAD_FORMAT, 0, 0);
  int wide = p[1] == 'F', known = 0;
  u64 big = 0;
  for (u32 at = 12;;) {
    if (n - at < 8) return wav_bad(c, CUT, 0, at);
    const u8 *q = p + at + 8;
    u32 left = n - at - 8, len = le32(p + at + 4);
    if (is(p + at, "data")) {
      if (!known) return wav_bad(c, BAD_WAV, 1, at);
      u64 want = wide && len == 0xffffffff ? big : len;
      if (len == 0xffffffff && !wide) want = left;
      if (want > left) return wav_bad(c, CUT, (i64)want, at);
      s->p = q, s->frames = want / s->stride;
      return WB_DONE;
    }
    if (len > left) return wav_bad(c, CUT, len, at);
    if (is(p + at, "ds64") && len >= 24) big = le32(q + 8) | (u64)le32(q + 12) << 32;
    if (is(p + at, "fmt ")) {
      static const u8 size[6] = {1, 2, 3, 4, 4, 8};
      if (len < 16 || known) return wav_bad(c, BAD_WAV, 2, at);
      u32 tag = le16(q), bits = le16(q + 14);
      if (tag == 0xfffe) {
        if (len < 40) return wav_bad(c, BAD_WAV, 3, at);
        tag = le16(q + 24);
      }
      s->channels = le16(q + 2), s->rate = le32(q + 4);
      if (tag == 1 && (bits == 8 || bits == 16 || bits == 24 || bits == 32)) s->format = PCM_U8 + bits / 8 - 1;
      else if (tag == 3 && (bits == 32 || bits == 64)) s->format = bits == 32 ? PCM_F32 : PCM_F64;
      else return wav_bad(c, UNSUPPORTED, tag, bits);
      s->apart = size[s->format], s->stride = s->apart * s->channels;
      if (!s->channels || le16(q + 12) != s->stride) return wav_bad(c, BAD_WAV, 4, at);
      known = 1;
    }
    u64 next = (u64)at + 8 + len + (len & 1);
    if (next > n) return wav_bad(c, CUT, 0, at);
    at = (u32)next;
  }
}

static double sound_at(const sound *s, u64 i, u32 ch) {
  const u8 *p = s->p + i * s->stride + ch * s->apart;
  switch (s->format) {
  case PCM_U8: return ((double)p[0] - 128) * 0x1p-7;
  case PCM_S16: return (double)(short)le16(p) * 0x1p-15;
  case PCM_S24: return (double)((int)(le16(p) << 8 | (u32)p[2] << 24) >> 8) * 0x1p-23;
  case PCM_S32: return (double)(int)le32(p) * 0x1p-31;
  case PCM_F32: {
    float f;
    __builtin_memcpy(&f, p, 4);
    return f;
  }
  }
  double d;
  __builtin_memcpy(&d, p, 8);
  return d;
}

/* sound_mono gives frame i: one channel, or the mean of all, added up in order. */
static double sound_mono(const sound *s, u64 i, i64 channel) {
  if (channel >= 0) return sound_at(s, i, (u32)channel);
  double v = sound_at(s, i, 0);
  for (u32 k = 1; k < s->channels; k++) v += sound_at(s, i, k);
  return s->channels > 1 ? v / s->channels : v;
}
