/* Operations that make segments: added tokens, and splitting at the matches of a pattern. */
#ifndef TEXT_SPLIT_H
#define TEXT_SPLIT_H
#include "text.h"

enum { SINGLE_WORD = 1, LSTRIP = 2, RSTRIP = 4 };
enum { WORD = 1, SPACE = 2 };
enum { ISOLATED, REMOVED, CONTIGUOUS, WITH_PREVIOUS, WITH_NEXT };

/* added: a, b, c the trie of the tokens' texts, whose values count pairs (id, flags) at d; e, f the table of words and spaces. Empty text goes. */
static u32 op_added(ctx *c, const op *o) {
  const trie *t = (const trie *)&o->a;
  const u32 *info = at(o->d);
  const u8 *text = mem(c, c->text);
  u32 status, cp;
  for (; c->i < c->num; c->i++, c->inside = 0) {
    seg s = segs(c)[c->i];
    if (room(c, 8, 24, &status)) return status;
    text = mem(c, c->text);
    if (!is_text(s.id)) {
      push(c, s.end, s.id);
      c->from = s.end, c->left -= 4;
      continue;
    }
    if (!c->inside) c->at = c->lo = c->ws = c->from, c->hold = NONE, c->inside = 1;
    while (c->at < s.end) {
      if (c->left < 0) return WB_MORE;
      if (room(c, 8, 24, &status)) return status;
      if (c->hold != NONE) { /* the spaces behind a token */
        u32 n = decode(text + c->at, &cp);
        if (class_of(o->e, o->f, cp) & SPACE) {
          c->at += n, c->left -= 6;
          continue;
        }
        push(c, c->at, c->hold);
        c->lo = c->ws = c->at, c->hold = NONE;
        continue;
      }
      u32 node = 0, best = 0, found = 0;
      for (u32 j = c->at; j < s.end && (node = child(t, node, text[j])) != NONE; j++, c->left -= 16)
        if (value(t, node) != NONE) best = j + 1 - c->at, found = value(t, node);
      u32 go = decode(text + c->at, &cp);
      c->left -= 10;
      if (best) {
        u32 flags = info[2 * found + 1], stop = c->at + best, fits = 1;
        if (flags & SINGLE_WORD) {
          u32 b = c->at;
          if (b > c->from) {
            do b--;
            while ((text[b] & 0xc0) == 0x80);
            decode(text + b, &cp);
            if (class_of(o->e, o->f, cp) & WORD) fits = 0;
          }
          if (stop < s.end) {
            decode(text + stop, &cp);
            if (class_of(o->e, o->f, cp) & WORD) fits = 0;
          }
        }
        if (fits) {
          u32 start = flags & LSTRIP ? (c->ws > c->lo ? c->ws : c->lo) : c->at;
          if (start > c->lo) push(c, start, s.id == FIRST && c->lo == c->from ? FIRST : TEXT);
          c->at = c->lo = c->ws = stop;
          if (flags & RSTRIP) c->hold = info[2 * found];
          else push(c, stop, info[2 * found]);
          continue;
        }
        go = best;
      }
      for (u32 stop = c->at + go; c->at < stop; c->left -= 6) {
        u32 n = decode(text + c->at, &cp);
        c->at += n;
        if (!(class_of(o->e, o->f, cp) & SPACE)) c->ws = c->at;
      }
    }
    if (room(c, 8, 24, &status)) return status;
    if (c->hold != NONE) push(c, s.end, c->hold);
    else if (c->lo < s.end) push(c, s.end, s.id == FIRST && c->lo == c->from ? FIRST : TEXT);
    c->from = s.end;
  }
  return WB_DONE;
}

/* event takes the next piece of a text, up to `end`. */
static void event(ctx *c, const op *o, u32 end, u32 matched, u32 first) {
  u32 join = 0, flag = matched ^ o->c;
  if (o->b == CONTIGUOUS) join = flag == c->was;
  if (o->b == WITH_PREVIOUS) join = flag && !c->was;
  if (o->b == WITH_NEXT) join = !flag && c->was;
  if (join && c->any) made(c)[c->made - 1].end = end;
  else push(c, end, o->b == REMOVED && flag ? DROP : first && !c->any ? FIRST : TEXT);
  c->was = flag, c->any = 1;
}

/* split: a the automaton, b the behaviour, c whether what does not match counts as the match. */
static u32 op_split(ctx *c, const op *o) {
  const dfa *d = at(o->a);
  u32 status;
  for (; c->i < c->num; c->i++, c->inside = 0) {
    seg s = segs(c)[c->i];
    if (room(c, 8, 24, &status)) return status;
    if (!is_text(s.id)) {
      push(c, s.end, s.id);
      c->from = s.end, c->left -= 4;
      continue;
    }
    if (!c->inside) {
      c->m_from = c->lo = c->from, c->m_prev = d->classes, c->was = c->any = 0, c->inside = 1;
      seek(c, d);
    }
    while (c->m_from < s.end) {
      if (room(c, 8, 24, &status)) return status;
      if (!scan(c, d, mem(c, c->text), s.end)) return WB_MORE;
      if (c->m_end == NONE) {
        skip(c, d, mem(c, c->text));
        continue;
      }
      if (c->m_from > c->lo) event(c, o, c->m_from, 0, s.id == FIRST);
      event(c, o, c->m_end, 1, s.id == FIRST);
      behind(c, d);
      c->lo = c->m_from;
    }
    if (room(c, 8, 24, &status)) return status;
    if (s.end > c->lo) event(c, o, s.end, 0, s.id == FIRST);
    c->from = s.end;
  }
  return WB_DONE;
}

/* chunk: pieces of a code points. */
static u32 op_chunk(ctx *c, const op *o) {
  u32 status, cp;
  for (; c->i < c->num; c->i++, c->inside = 0) {
    seg s = segs(c)[c->i];
    if (room(c, 8, 24, &status)) return status;
    if (is_text(s.id)) {
      if (!c->inside) c->at = c->from, c->lo = 0, c->any = 0, c->inside = 1;
      while (c->at < s.end) {
        if (c->left < 0) return WB_MORE;
        if (room(c, 8, 24, &status)) return status;
        c->at += decode(mem(c, c->text) + c->at, &cp), c->left -= 4;
        if (++c->lo == o->a || c->at == s.end) {
          push(c, c->at, s.id == FIRST && !c->any ? FIRST : TEXT);
          c->any = 1, c->lo = 0;
        }
      }
    } else {
      push(c, s.end, s.id);
    }
    c->from = s.end, c->left -= 4;
  }
  return WB_DONE;
}

#endif
