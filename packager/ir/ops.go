package ir

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Param describes an input or output of an operator.
type Param struct {
	Name     string
	Optional bool // may be nil (or cut off at the end of the list)
	Variadic bool // the last one: any number, at least one unless Optional
}

// AttrDef describes an attribute. A canonical node carries every attribute of its operator: frontends fill
// Default in where the source says nothing. Required ones have no default.
type AttrDef struct {
	Name    string
	Kind    AttrKind
	Default *Attr
}

// OpDef is one operator of the table. Its Doc states the semantics where ONNX is loose.
type OpDef struct {
	Name    string
	Doc     string
	Ins     []Param
	Outs    []Param
	Attrs   []AttrDef
	Regions int
	infer   func(*inferer) error
}

// Op finds an operator by name.
func Op(name string) (*OpDef, bool) {
	d, ok := table()[name]
	return d, ok
}

// OpNames lists the operators of the table, sorted.
func OpNames() []string {
	t := table()
	out := make([]string, 0, len(t))
	for n := range t {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// table builds the operator table once; nothing changes it afterwards.
var table = sync.OnceValue(func() map[string]*OpDef {
	t := map[string]*OpDef{}
	for _, fam := range [][]OpDef{
		mathOps(),
		trigOps(),
		bitOps(),
		smallOps(),
		tensorOps(),
		nnOps(),
		reduceOps(),
		controlOps(),
		mlOps(),
		textOps(),
		indexOps(),
		sequenceOps(),
		stringOps(),
		guardOps(),
		imageOps(),
		sampleOps(),
	} {
		for i := range fam {
			d := &fam[i]
			if _, dup := t[d.Name]; dup {
				panic("ir: operator " + d.Name + " is in the table twice")
			}
			t[d.Name] = d
		}
	}
	return t
})

// params parses "X W B? rest*": ? marks an optional, * a variadic one, *? a variadic one that may be empty.
func params(s string) []Param {
	var out []Param
	for _, f := range strings.Fields(s) {
		p := Param{}
		if strings.HasSuffix(f, "?") {
			p.Optional, f = true, strings.TrimSuffix(f, "?")
		}
		if strings.HasSuffix(f, "*") {
			p.Variadic, f = true, strings.TrimSuffix(f, "*")
		}
		p.Name = f
		out = append(out, p)
	}
	return out
}

func attr(name string, def any) AttrDef {
	a := AttrOf(def)
	return AttrDef{Name: name, Kind: a.Kind, Default: &a}
}

func need(name string, k AttrKind) AttrDef { return AttrDef{Name: name, Kind: k} }

// AttrOf makes an attribute from int, int64, float32, float64, string, []int64, []int, []float64, []string,
// *Data or DType; it panics on another type, which is a programming error.
func AttrOf(v any) Attr {
	switch v := v.(type) {
	case Attr:
		return v
	case int:
		return Attr{Kind: AttrInt, Int: int64(v)}
	case int64:
		return Attr{Kind: AttrInt, Int: v}
	case float32:
		return Attr{Kind: AttrFloat, Float: float64(v)}
	case float64:
		return Attr{Kind: AttrFloat, Float: v}
	case string:
		return Attr{Kind: AttrString, Str: v}
	case []int64:
		return Attr{Kind: AttrInts, Ints: v}
	case []int:
		w := make([]int64, len(v))
		for i, x := range v {
			w[i] = int64(x)
		}
		return Attr{Kind: AttrInts, Ints: w}
	case []float64:
		return Attr{Kind: AttrFloats, Floats: v}
	case []string:
		return Attr{Kind: AttrStrings, Strs: v}
	case *Data:
		return Attr{Kind: AttrData, Data: v}
	case DType:
		return Attr{Kind: AttrDType, DType: v}
	}
	panic(fmt.Sprintf("ir: no attribute kind for %T", v))
}

func (n *Node) attr(name string, k AttrKind) Attr {
	a, ok := n.Attrs[name]
	if !ok || a.Kind != k {
		panic(fmt.Sprintf("ir: node %q (%s) has no attribute %q of kind %d; Verify would have said so", n.Name, n.Op, name, k))
	}
	return a
}

// Int, Float, Str, Ints, Floats, Strs, Data and DType give an attribute of a verified node; they panic when
// it is missing or of another kind.
func (n *Node) Int(name string) int64 { return n.attr(name, AttrInt).Int }

// Float gives a float attribute.
func (n *Node) Float(name string) float64 { return n.attr(name, AttrFloat).Float }

// Str gives a string attribute.
func (n *Node) Str(name string) string { return n.attr(name, AttrString).Str }

// Ints gives an integer list attribute.
func (n *Node) Ints(name string) []int64 { return n.attr(name, AttrInts).Ints }

// Floats gives a float list attribute.
func (n *Node) Floats(name string) []float64 { return n.attr(name, AttrFloats).Floats }

// Strs gives a string list attribute.
func (n *Node) Strs(name string) []string { return n.attr(name, AttrStrings).Strs }

// Data gives a tensor attribute.
func (n *Node) Data(name string) *Data { return n.attr(name, AttrData).Data }

// DType gives an element type attribute.
func (n *Node) DType(name string) DType { return n.attr(name, AttrDType).DType }

// In gives input i, nil when absent.
func (n *Node) In(i int) *Value {
	if i >= len(n.Ins) {
		return nil
	}
	return n.Ins[i]
}

// Out gives output i, nil when nobody asked for it.
func (n *Node) Out(i int) *Value {
	if i >= len(n.Outs) {
		return nil
	}
	return n.Outs[i]
}

// AttrNames lists the node's attributes, sorted: the order in which tools must walk them.
func (n *Node) AttrNames() []string {
	out := make([]string, 0, len(n.Attrs))
	for k := range n.Attrs {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// FillDefaults adds the default of every attribute that the node lacks. Required ones stay missing.
func FillDefaults(n *Node) {
	d, ok := Op(n.Op)
	if !ok {
		return
	}
	for _, a := range d.Attrs {
		if _, has := n.Attrs[a.Name]; !has && a.Default != nil {
			if n.Attrs == nil {
				n.Attrs = map[string]Attr{}
			}
			n.Attrs[a.Name] = *a.Default
		}
	}
}

// checkForm verifies a node's counts of inputs, outputs and regions and the names and kinds of its attributes.
func (d *OpDef) checkForm(n *Node) error {
	if err := checkParams("input", d.Ins, n.Ins); err != nil {
		return err
	}
	if err := checkParams("output", d.Outs, n.Outs); err != nil {
		return err
	}
	if len(n.Regions) != d.Regions {
		return fmt.Errorf("%d regions, want %d", len(n.Regions), d.Regions)
	}
	for _, a := range d.Attrs {
		got, ok := n.Attrs[a.Name]
		if !ok {
			return fmt.Errorf("attribute %q is missing", a.Name)
		}
		if got.Kind != a.Kind {
			return fmt.Errorf("attribute %q has kind %d, want %d", a.Name, got.Kind, a.Kind)
		}
		if a.Kind == AttrData {
			if got.Data == nil {
				return fmt.Errorf("attribute %q is nil", a.Name)
			}
			if err := got.Data.Check(); err != nil {
				return fmt.Errorf("attribute %q: %w", a.Name, err)
			}
		}
	}
	if len(n.Attrs) > len(d.Attrs) {
		for _, name := range n.AttrNames() {
			if !slices.ContainsFunc(d.Attrs, func(a AttrDef) bool { return a.Name == name }) {
				return fmt.Errorf("attribute %q is not one of %s", name, d.Name)
			}
		}
	}
	return nil
}

func checkParams(what string, ps []Param, vs []*Value) error {
	last := len(ps) - 1
	variadic := last >= 0 && ps[last].Variadic
	if len(vs) > len(ps) && !variadic {
		return fmt.Errorf("%d %ss, at most %d", len(vs), what, len(ps))
	}
	for i, p := range ps {
		if p.Optional {
			continue
		}
		// An output that nobody uses is nil, and never an error.
		if i >= len(vs) && what == "input" || i < len(vs) && vs[i] == nil && what == "input" {
			return fmt.Errorf("%s %d (%s) is missing", what, i, p.Name)
		}
	}
	if variadic && what == "input" {
		for i := last; i < len(vs); i++ {
			if vs[i] == nil {
				return fmt.Errorf("%s %d is missing", what, i)
			}
		}
	}
	return nil
}
