package explain

import (
	"math"
	"sort"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Count is a number that may depend on symbolic dimensions: a sum of products of symbols, or unknown. The zero value is 0;
// Counts are immutable.
type Count struct {
	unknown bool
	terms   map[string]int64 // factor by product of symbols, joined with "*"; "" is the constant
}

// Exactly is the count n; a negative n is unknown.
func Exactly(n int64) Count {
	if n < 0 {
		return Unknown()
	}
	if n == 0 {
		return Count{}
	}
	return Count{terms: map[string]int64{"": n}}
}

// Unknown is the count of which nothing is known before the model runs, or that overflows 63 bits.
func Unknown() Count { return Count{unknown: true} }

// Known reports a number or a formula.
func (c Count) Known() bool { return !c.unknown }

// Plus adds.
func (c Count) Plus(d Count) Count {
	if c.unknown || d.unknown {
		return Unknown()
	}
	sum := map[string]int64{}
	for k, n := range c.terms {
		sum[k] = n
	}
	for k, n := range d.terms {
		if sum[k] > math.MaxInt64-n {
			return Unknown()
		}
		sum[k] += n
	}
	return Count{terms: sum}
}

// Times multiplies.
func (c Count) Times(d Count) Count {
	if c.unknown || d.unknown {
		return Unknown()
	}
	product := Count{}
	for k, n := range c.terms {
		for l, m := range d.terms {
			if n > math.MaxInt64/m {
				return Unknown()
			}
			product = product.Plus(Count{terms: map[string]int64{joined(k, l): n * m}})
		}
	}
	return product
}

func joined(k, l string) string {
	if k == "" || l == "" {
		return k + l
	}
	f := append(strings.Split(k, "*"), strings.Split(l, "*")...)
	sort.Strings(f)
	return strings.Join(f, "*")
}

// covers reports that c is at least d whatever the symbols stand for.
func (c Count) covers(d Count) bool {
	for k, n := range d.terms {
		if c.terms[k] < n {
			return false
		}
	}
	return true
}

// String gives "12", "8*N + 4" or "?".
func (c Count) String() string {
	if c.unknown {
		return "?"
	}
	keys := make([]string, 0, len(c.terms))
	for k := range c.terms {
		keys = append(keys, k)
	}
	// Higher powers first, the constant last.
	sort.Slice(keys, func(i, j int) bool {
		if a, b := strings.Count(keys[i], "*"), strings.Count(keys[j], "*"); a != b {
			return a > b
		}
		if (keys[i] == "") != (keys[j] == "") {
			return keys[j] == ""
		}
		return keys[i] < keys[j]
	})
	var out []string
	for _, k := range keys {
		n := strconv.FormatInt(c.terms[k], 10)
		switch {
		case k == "":
			out = append(out, n)
		case n == "1":
			out = append(out, k)
		default:
			out = append(out, n+"*"+k)
		}
	}
	if len(out) == 0 {
		return "0"
	}
	return strings.Join(out, " + ")
}

// MarshalText is String: numbers and formulas are both strings in JSON.
func (c Count) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func dim(d ir.Dim) Count {
	switch {
	case d.Any:
		return Unknown()
	case d.Sym != "":
		// A name with a star in it would fall apart in a product.
		return Count{terms: map[string]int64{strings.ReplaceAll(d.Sym, "*", "·"): 1}}
	}
	return Exactly(d.N)
}

func product(ds []ir.Dim) Count {
	c := Exactly(1)
	for _, d := range ds {
		c = c.Times(dim(d))
	}
	return c
}

// elements counts the elements of a tensor.
func elements(v *ir.Value) Count {
	if v == nil {
		return Count{}
	}
	if v.Type.Kind != ir.Tensor || !v.Type.Shape.Ranked {
		return Unknown()
	}
	return product(v.Type.Shape.Dims)
}

// size counts the bytes of a value. Types of fewer than 8 bits take a byte per element while the model runs.
func size(v *ir.Value) Count {
	if v == nil {
		return Count{}
	}
	if v.Const != nil && v.Const.DType == ir.String {
		n := int64(4)
		for _, s := range v.Const.Strings {
			n += 4 + int64(len(s))
		}
		return Exactly(n)
	}
	if v.Type.Kind != ir.Tensor || v.Type.DType.Bits() == 0 {
		return Unknown()
	}
	return elements(v).Times(Exactly(int64(max(v.Type.DType.Bits(), 8) / 8)))
}
