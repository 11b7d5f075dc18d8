package codegen_test

import (
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/waybill-ml/waybill/packager/ir"
)

// recipe adds an operator with inputs and attributes that mostly fit, and tells whether it did.
type recipe = func(*generator) bool

type attrs = map[string]any

// recipes are those of the operators of ONNX, and behind "ir:" those of canonical operators that no operator of ONNX becomes.
var recipes = sync.OnceValue(func() map[string]recipe {
	out := map[string]recipe{}
	for _, fam := range []map[string]recipe{plainRecipes(), shapeRecipes(), indexRecipes(), windowRecipes(), normRecipes(), attentionRecipes(), recurrentRecipes(),
		imageRecipes(), signalRecipes(), quantRecipes(), listRecipes(), textRecipes(), mlRecipes(), bodyRecipes(), innerRecipes(), trainingRecipes(), fusedRecipes(), moreAttentionRecipes(), moreQuantRecipes()} {
		for op, r := range fam {
			if out[op] != nil {
				panic("two recipes for " + op)
			}
			out[op] = r
		}
	}
	return out
})

var recipeNames = sync.OnceValue(func() []string {
	var out []string
	for op := range recipes() {
		out = append(out, op)
	}
	sort.Strings(out)
	return out
})

// data makes a tensor of any type: of plain values, odd ones, or both.
func (g *generator) data(dt ir.DType, dims ...int64) *ir.Data {
	switch {
	case dt == ir.String:
		return g.strs(dims...)
	case dt.IsStored():
		return g.bits(dt, dims...)
	case g.one(2):
		return g.plain(dt, dims...)
	}
	return g.tensor(dt, dims...)
}

func (g *generator) strs(dims ...int64) *ir.Data {
	n, _ := ir.Elements(dims)
	d := ir.Strs(dims, nil)
	words := []string{"", "a", "b", "A", "cat", "Dog", "hello world", " x  y ", "1", "-3", "äÖß", "İı", "日本語", "a,b,,c", "the", "x@y.org", "a-b_c", "ﬁne", "\u00a0z\t", strings.Repeat("long ", 9)}
	if g.one(3) {
		words = []string{"0", "-0", "1", "-3", "12.5", "2.5e3", "-1e-320", "1e400", "nan", "NaN", "inf", "-Infinity", "INF", "9007199254740993", "18446744073709551615", "-9223372036854775809", "0.1", "1e22", "+4", "3.4028235677973366e38", "123456789012345678901234567890"}
	}
	for range n {
		d.Strings = append(d.Strings, words[g.n(len(words))])
	}
	return d
}

// of makes a value of the given type and dims, or takes one that there is.
func (g *generator) of(dt ir.DType, dims ...int64) made {
	if g.one(3) {
		for _, m := range g.pool {
			if m.d.DType == dt && slices.Equal(m.d.Dims, dims) {
				return m
			}
		}
	}
	return g.fresh(dt, dims...)
}

func (g *generator) scalar(v int64) made { return g.value(ir.I64s(nil, []int64{v})) }

func (g *generator) real(dt ir.DType, v float64) made {
	return g.value(&ir.Data{DType: dt, Dims: []int64{}, Bytes: encode(dt, v, 1)})
}

// wholes makes a tensor of i64 or i32 from v.
func (g *generator) wholes(dims []int64, v ...int64) made {
	if g.one(3) {
		return g.value(ir.IntData(ir.I32, dims, v))
	}
	return g.value(ir.I64s(dims, v))
}

// flt gives a float value of rank lo or more.
func (g *generator) flt(lo int) made {
	m, _ := g.pick(g.floatType(), func(d *ir.Data) bool { return d.DType.IsFloat() && len(d.Dims) >= lo })
	return g.orElse(m, lo)
}

func (g *generator) orElse(m made, rank int) made {
	if m.v == nil {
		return g.fresh(g.floatType(), g.ranked(rank)...)
	}
	return m
}

// num gives a number of rank lo or more.
func (g *generator) num(lo int) made {
	m, _ := g.pick(g.dtype(), func(d *ir.Data) bool { return isNumber(d.DType) && len(d.Dims) >= lo })
	return g.orElse(m, lo)
}

// thing gives a tensor of any type of rank lo or more.
func (g *generator) thing(lo int) made {
	dt := g.dtype()
	switch g.n(8) {
	case 0:
		dt = ir.String
	case 1:
		dt = storedTypes[g.n(len(storedTypes))]
	case 2:
		dt = ir.Bool
	}
	m, _ := g.pick(dt, func(d *ir.Data) bool { return len(d.Dims) >= lo })
	return g.orElse(m, lo)
}

func (g *generator) boolean(lo int) made {
	m, ok := g.pick(ir.Bool, func(d *ir.Data) bool { return d.DType == ir.Bool && len(d.Dims) >= lo })
	if !ok {
		return g.fresh(ir.Bool, g.ranked(lo)...)
	}
	return m
}

func (g *generator) integer(lo int) made {
	ints := []ir.DType{ir.I8, ir.I16, ir.I32, ir.I64, ir.U8, ir.U16, ir.U32, ir.U64}
	m, ok := g.pick(ints[g.n(len(ints))], func(d *ir.Data) bool { return d.DType.IsInt() && !d.DType.IsStored() && len(d.Dims) >= lo })
	if !ok {
		return g.fresh(ir.I32, g.ranked(lo)...)
	}
	return m
}

// dim is a small size, rarely 0.
func (g *generator) dim() int64 {
	if g.one(25) {
		return 0
	}
	return choose[int64](g, 1, 1, 2, 2, 3, 4, 5, 6)
}

func (g *generator) somedims(rank int) []int64 {
	d := make([]int64, rank)
	for i := range d {
		d[i] = g.dim()
	}
	return d
}

// some leaves out each attribute by chance.
func (g *generator) some(at attrs) attrs {
	names := make([]string, 0, len(at))
	for k := range at {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		if g.one(3) {
			delete(at, k)
		}
	}
	return at
}

// maybe is what f makes, or nothing.
func (g *generator) maybe(f func() made) made {
	if g.bit() == 0 {
		return made{}
	}
	return f()
}

func (g *generator) f32or64() ir.DType { return choose(g, ir.F32, ir.F32, ir.F64) }

// ver is a random operator set of lo or newer, as a suffix.
func (g *generator) ver(op string, lo, hi int) string {
	if g.bit() == 0 {
		return op
	}
	return op + "@" + itoa(lo+g.n(hi-lo+1))
}

func itoa(n int) string {
	if n >= 10 {
		return itoa(n/10) + itoa(n%10)
	}
	return string(rune('0' + n))
}

func fill(n int, v int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// between makes n numbers from lo to hi.
func (g *generator) between(n int, lo, hi int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = lo + int64(g.n(int(hi-lo+1)))
	}
	return out
}

// reals makes n attribute values.
func (g *generator) reals(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(float32(choose(g, 0, 1, -1, 0.5, 2, -0.25, g.float(), g.float()*3, g.float()*1e-3)))
	}
	return out
}
