package interp

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/packager/ir"
)

// mapRunes changes case rune by rune; invalid bytes stay as they are.
func mapRunes(s string, f func(rune) rune) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b.WriteByte(s[i])
		} else {
			b.WriteRune(f(r))
		}
		i += n
	}
	return b.String()
}

func (c *call) stringNormalizer() (*tensor, error) {
	x := c.t(0)
	stop, fold := map[string]bool{}, c.n.Int("is_case_sensitive") == 0
	for _, w := range c.n.Strs("stopwords") {
		if fold {
			w = mapRunes(w, unicode.ToLower)
		}
		stop[w] = true
	}
	var kept []string
	for _, s := range x.strs {
		k := s
		if fold {
			k = mapRunes(s, unicode.ToLower)
		}
		if stop[k] {
			continue
		}
		switch c.n.Str("case_change_action") {
		case "LOWER":
			s = mapRunes(s, unicode.ToLower)
		case "UPPER":
			s = mapRunes(s, unicode.ToUpper)
		}
		kept = append(kept, s)
	}
	dims := append([]int64{}, x.dims...)
	if len(stop) > 0 {
		if r := len(dims); r != 1 && (r != 2 || dims[0] != 1) {
			return nil, fmt.Errorf("X of %v, want [C] or [1,C]", x.dims)
		}
		if len(kept) == 0 {
			kept = []string{""}
		}
		dims[len(dims)-1] = int64(len(kept))
	}
	out, err := alloc(ir.String, dims)
	if err != nil {
		return nil, err
	}
	copy(out.strs, kept)
	return out, nil
}

func (c *call) tokenizer() (*tensor, error) {
	x, n := c.t(0), c.n
	if r := len(x.dims); r != 1 && r != 2 {
		return nil, fmt.Errorf("X of %v, want [C] or [N,C]", x.dims)
	}
	var split func(string) []string
	seps := n.Strs("separators")
	switch {
	case len(seps) == 1 && seps[0] == "":
		split = func(s string) (out []string) {
			for len(s) > 0 {
				_, k := utf8.DecodeRuneInString(s)
				out = append(out, s[:k])
				s = s[k:]
			}
			return
		}
	case len(seps) > 0:
		re, err := regexp.Compile("(?:" + strings.Join(seps, ")|(?:") + ")")
		if err != nil {
			return nil, err
		}
		split = func(s string) (out []string) {
			at := 0
			for _, m := range re.FindAllStringIndex(s, -1) {
				if m[0] == m[1] {
					continue
				}
				out = append(out, s[at:m[0]])
				at = m[1]
			}
			return append(out, s[at:])
		}
	default:
		re, err := regexp.Compile(n.Str("tokenexp"))
		if err != nil {
			return nil, err
		}
		re.Longest()
		split = func(s string) []string { return re.FindAllString(s, -1) }
	}
	lists := make([][]string, len(x.strs))
	longest := 0
	for i, s := range x.strs {
		for _, t := range split(s) {
			if t != "" && int64(utf8.RuneCountInString(t)) >= n.Int("mincharnum") {
				lists[i] = append(lists[i], t)
			}
		}
		longest = max(longest, len(lists[i]))
	}
	mark := n.Int("mark") != 0
	if mark && longest > 0 {
		longest += 2
		for i, l := range lists {
			lists[i] = append(append([]string{"\x02"}, l...), "\x03")
		}
	} else if mark {
		for i := range lists {
			lists[i] = nil
		}
	}
	out, err := alloc(ir.String, append(append([]int64{}, x.dims...), int64(longest)))
	if err != nil {
		return nil, err
	}
	for i := range lists {
		for k := 0; k < longest; k++ {
			out.strs[i*longest+k] = n.Str("pad_value")
			if k < len(lists[i]) {
				out.strs[i*longest+k] = lists[i][k]
			}
		}
	}
	return out, nil
}

func (c *call) tfIdf() (*tensor, error) {
	x, n := c.t(0), c.n
	pool, err := fromData(n.Data("pool"))
	if err != nil {
		return nil, err
	}
	counts, columns, weights := n.Ints("ngram_counts"), n.Ints("ngram_indexes"), n.Data("weights").Floats()
	// Each n-gram of the pool by its items; the same one may stand there more than once.
	grams := map[string][]int{}
	id := 0
	for i, from := range counts {
		to := int64(pool.len())
		if i+1 < len(counts) {
			to = counts[i+1]
		}
		for p := from; p < to; p += int64(i + 1) {
			var items []int
			for k := int64(0); k <= int64(i); k++ {
				items = append(items, int(p+k))
			}
			key := gramKey(pool, items)
			grams[key] = append(grams[key], id)
			id++
		}
	}
	cols := int64(0)
	for _, v := range columns {
		cols = max(cols, v+1)
	}
	rowLen, rowCount, dims := 0, 1, []int64{cols}
	switch len(x.dims) {
	case 1:
		rowLen = int(x.dims[0])
	case 2:
		rowCount, rowLen = int(x.dims[0]), int(x.dims[1])
		dims = []int64{x.dims[0], cols}
	default:
		return nil, fmt.Errorf("X of %v", x.dims)
	}
	out, err := alloc(ir.F32, dims)
	if err != nil {
		return nil, err
	}
	for row := 0; row < rowCount; row++ {
		freq := make([]int, id)
		for size := int(n.Int("min_gram_length")); size <= int(n.Int("max_gram_length")); size++ {
			skips := int(n.Int("max_skip_count"))
			if size == 1 {
				skips = 0
			}
			for skip := 0; skip <= skips; skip++ {
				step := skip + 1
				for start := 0; start+(size-1)*step < rowLen; start++ {
					items := make([]int, size)
					for k := range items {
						items[k] = row*rowLen + start + k*step
					}
					for _, g := range grams[gramKey(x, items)] {
						freq[g]++
					}
				}
			}
		}
		for g, f := range freq {
			at := row*int(cols) + int(columns[g])
			w := float32(weights[g])
			switch n.Str("mode") {
			case "TF":
				out.f32[at] = float32(f)
			case "IDF":
				if f > 0 {
					out.f32[at] = w
				}
			default:
				out.f32[at] = mul(float32(f), w)
			}
		}
	}
	return out, nil
}

func gramKey(t *tensor, items []int) string {
	var b strings.Builder
	for _, i := range items {
		if t.strs != nil {
			fmt.Fprintf(&b, "%d:%s", len(t.strs[i]), t.strs[i])
		} else {
			fmt.Fprintf(&b, "%d,", t.ints[i])
		}
	}
	return b.String()
}
