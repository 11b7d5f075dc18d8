package interp

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/waybill-ml/waybill/packager/ir"
)

func (c *call) stringConcat() (*tensor, error) {
	a, b, out, ia, ib, err := c.pair(ir.String)
	if err != nil {
		return nil, err
	}
	for i := range ia {
		out.strs[i] = a.strs[ia[i]] + b.strs[ib[i]]
	}
	return out, nil
}

// blank is white space as StringSplit sees it.
func blank(r rune) bool { return unicode.Is(unicode.White_Space, r) || r >= 0x1c && r <= 0x1f }

func splitText(s, delimiter string, limit int64) []string {
	var out []string
	if delimiter != "" {
		for limit < 0 || int64(len(out)) < limit {
			before, after, found := strings.Cut(s, delimiter)
			if !found {
				break
			}
			out, s = append(out, before), after
		}
		return append(out, s)
	}
	for {
		s = strings.TrimLeftFunc(s, blank)
		if s == "" {
			return out
		}
		end := strings.IndexFunc(s, blank)
		switch {
		case limit >= 0 && int64(len(out)) >= limit:
			return append(out, s) // the rest, with the white space at its end
		case end < 0:
			return append(out, s)
		}
		out, s = append(out, s[:end]), s[end:]
	}
}

func (c *call) stringSplit() ([]*tensor, error) {
	x := c.t(0)
	counts, err := alloc(ir.I64, x.dims)
	if err != nil {
		return nil, err
	}
	var parts [][]string
	most := 0
	for i, s := range x.strs {
		p := splitText(s, c.n.Str("delimiter"), c.n.Int("maxsplit"))
		parts = append(parts, p)
		counts.ints[i] = int64(len(p))
		most = max(most, len(p))
	}
	out, err := alloc(ir.String, append(append([]int64{}, x.dims...), int64(most)))
	if err != nil {
		return nil, err
	}
	for i, p := range parts {
		copy(out.strs[i*most:], p)
	}
	return []*tensor{out, counts}, nil
}

func (c *call) regexFullMatch() (*tensor, error) {
	x := c.t(0)
	re, err := regexp.Compile(`\A(?:` + c.n.Str("pattern") + `)\z`)
	if err != nil {
		return nil, err
	}
	out, err := alloc(ir.Bool, x.dims)
	if err != nil {
		return nil, err
	}
	for i, s := range x.strs {
		if re.MatchString(s) {
			out.ints[i] = 1
		}
	}
	return out, nil
}
