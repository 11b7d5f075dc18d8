package steps

import (
	"slices"
	"strings"
	"sync"

	"github.com/waybill-ml/waybill/packager/steps/charset"
)

// normalForm is NFD, NFC, NFKD or NFKC with the library's tables: take apart, order the marks, and put together again.
func normalForm(compatible, compose bool) []operation {
	canonical, more, class := charset.Mapping("canonical"), map[rune][]rune{}, charset.Mapping("class")
	if compatible {
		more = charset.Mapping("compatible")
	}
	apart := func(r rune) (string, bool) {
		if to, ok := more[r]; ok {
			return string(to), true
		}
		to, ok := canonical[r]
		return string(to), ok
	}
	classOf := func(r rune) byte {
		if c := class[r]; c != nil {
			return byte(c[0])
		}
		return 0
	}
	ops := []operation{
		{kind: opDecompose, args: func(b *blob) []uint32 { return append(b.replacements(apart), b.classes(classOf)...) }},
		{kind: opOrder},
	}
	if compose {
		ops = append(ops, operation{kind: opCompose, args: func(b *blob) []uint32 {
			list := compositions()
			var flat []uint32
			for _, c := range list {
				flat = append(flat, uint32(c[0]), uint32(c[1]), uint32(c[2]))
			}
			return []uint32{b.put32(flat), uint32(len(list))}
		}})
	}
	return append(ops, operation{kind: opEncode, apply: func(s string) string {
		var list []rune
		for _, r := range s {
			if k := r - 0xac00; k >= 0 && k < 11172 {
				list = append(list, 0x1100+k/588, 0x1161+k%588/28)
				if k%28 > 0 {
					list = append(list, 0x11a7+k%28)
				}
			} else if to, ok := apart(r); ok {
				list = append(list, []rune(to)...)
			} else {
				list = append(list, r)
			}
		}
		for i := 0; i < len(list); i++ {
			j := i
			for j < len(list) && classOf(list[j]) != 0 {
				j++
			}
			slices.SortStableFunc(list[i:j], func(a, b rune) int { return int(classOf(a)) - int(classOf(b)) })
			i = j
		}
		if compose {
			list = composeAll(list, classOf)
		}
		return string(list)
	}})
}

// compositions are triples first, second, both; they rise.
func compositions() [][3]rune {
	var list [][3]rune
	for both, of := range charset.Mapping("composed") {
		list = append(list, [3]rune{of[0], of[1], both})
	}
	slices.SortFunc(list, func(a, b [3]rune) int { return slices.Compare(a[:], b[:]) })
	return list
}

var pairs = sync.OnceValue(func() map[[2]rune]rune {
	m := map[[2]rune]rune{}
	for _, c := range compositions() {
		m[[2]rune{c[0], c[1]}] = c[2]
	}
	return m
})

func composeAll(list []rune, classOf func(rune) byte) []rune {
	var out []rune
	starter, last := -1, byte(0)
	for _, r := range list {
		class := classOf(r)
		if starter >= 0 && (starter == len(out)-1 || last != 0 && last < class) {
			s := out[starter]
			both, ok := pairs()[[2]rune{s, r}]
			switch {
			case s >= 0x1100 && s < 0x1113 && r >= 0x1161 && r < 0x1176:
				both, ok = 0xac00+((s-0x1100)*21+r-0x1161)*28, true
			case s >= 0xac00 && s < 0xd7a4 && (s-0xac00)%28 == 0 && r > 0x11a7 && r < 0x11c3:
				both, ok = s+r-0x11a7, true
			}
			if ok {
				out[starter] = both
				continue
			}
		}
		if class == 0 {
			starter, last = len(out), 0
		} else if starter >= 0 {
			last = class
		}
		out = append(out, r)
	}
	return out
}

// normalize applies the operations to a text at once.
func normalize(ops []operation, s string) string {
	for _, o := range ops {
		if o.apply != nil {
			s = o.apply(s)
		}
	}
	return strings.Clone(s)
}
