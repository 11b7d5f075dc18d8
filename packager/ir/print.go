package ir

import (
	"encoding/hex"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
)

// maxListed is the number of elements up to which a constant is written as a list; longer ones are written in hex.
const maxListed = 16

// Print gives the graph's text form, which Parse reads back. Equal graphs give equal text. The graph must have the
// structure that Verify asks for.
func Print(g *Graph) string { return (&printer{}).graph(g) }

// Outline is Print for readers: a constant or attribute of more than 16 elements is given as its type and "...", which
// Parse does not read.
func Outline(g *Graph) string { return (&printer{brief: true}).graph(g) }

func (p *printer) graph(g *Graph) string {
	p.line("graph %s {", strconv.Quote(g.Name))
	p.depth++
	if g.Producer != "" {
		p.line("producer %s", strconv.Quote(g.Producer))
	}
	domains := make([]string, 0, len(g.Opsets))
	for d := range g.Opsets {
		domains = append(domains, d)
	}
	sort.Strings(domains)
	for _, d := range domains {
		p.line("opset %s %d", strconv.Quote(d), g.Opsets[d])
	}
	for _, v := range Consts(g.Body) {
		p.line("const %s %s", quoteIdent(v.Name), p.data(v.Const))
	}
	p.body(g.Body)
	for _, s := range g.State {
		init := ""
		if s.Init != nil {
			init = " " + p.data(s.Init)
		}
		p.line("state %s from %s%s", quoteIdent(s.Input), quoteIdent(s.Output), init)
	}
	p.depth--
	p.line("}")
	return p.b.String()
}

type printer struct {
	b     strings.Builder
	depth int
	brief bool
}

func (p *printer) data(d *Data) string {
	if !p.brief || d.Len() <= maxListed {
		return dataString(d)
	}
	return d.Type().String() + "(...)"
}

func (p *printer) attr(a Attr) string {
	if n := len(a.Ints) + len(a.Floats) + len(a.Strs); p.brief && n > maxListed {
		return fmt.Sprintf("[... %d elements]", n)
	}
	if a.Kind == AttrData {
		return p.data(a.Data)
	}
	return FormatAttr(a)
}

func (p *printer) line(format string, args ...any) {
	p.b.WriteString(strings.Repeat("  ", p.depth))
	fmt.Fprintf(&p.b, format, args...)
	p.b.WriteByte('\n')
}

func (p *printer) body(r *Region) {
	for _, v := range r.Params {
		p.line("param %s %s", quoteIdent(v.Name), v.Type)
	}
	for _, n := range r.Nodes {
		p.node(n)
	}
	p.line("result %s", strings.Join(quoted(valueNames(r.Results)), ", "))
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quoteIdent(n)
	}
	return out
}

func (p *printer) node(n *Node) {
	var outs, ins, attrs []string
	for _, o := range n.Outs {
		if o == nil {
			outs = append(outs, "_")
		} else {
			outs = append(outs, quoteIdent(o.Name)+" "+o.Type.String())
		}
	}
	for _, v := range n.Ins {
		if v == nil {
			ins = append(ins, "_")
		} else {
			ins = append(ins, quoteIdent(v.Name))
		}
	}
	for _, k := range n.AttrNames() {
		attrs = append(attrs, quoteIdent(k)+"="+p.attr(n.Attrs[k]))
	}
	s := strings.Join(outs, ", ") + " = " + quoteIdent(n.Op) + "(" + strings.Join(ins, ", ") + ")"
	if len(attrs) > 0 {
		s += " {" + strings.Join(attrs, ", ") + "}"
	}
	p.line("%s #%d %s", s, n.ID, strconv.Quote(n.Name))
	for _, r := range n.Regions {
		p.depth++
		p.line("region (%s) {", strings.Join(quoted(valueNames(r.Captures)), ", "))
		p.depth++
		p.body(r)
		p.depth--
		p.line("}")
		p.depth--
	}
}

// FormatAttr gives the text form of an attribute value.
func FormatAttr(a Attr) string {
	join := func(n int, f func(int) string) string {
		s := make([]string, n)
		for i := range s {
			s[i] = f(i)
		}
		return "[" + strings.Join(s, ", ") + "]"
	}
	switch a.Kind {
	case AttrInt:
		return strconv.FormatInt(a.Int, 10)
	case AttrFloat:
		return "float:" + floatString(a.Float, 64)
	case AttrString:
		return strconv.Quote(a.Str)
	case AttrInts:
		return join(len(a.Ints), func(i int) string { return strconv.FormatInt(a.Ints[i], 10) })
	case AttrFloats:
		return "floats" + join(len(a.Floats), func(i int) string { return floatString(a.Floats[i], 64) })
	case AttrStrings:
		return "strings" + join(len(a.Strs), func(i int) string { return strconv.Quote(a.Strs[i]) })
	case AttrData:
		return dataString(a.Data)
	case AttrDType:
		return "dtype:" + a.DType.String()
	}
	return "?"
}

// floatString writes the shortest decimal that reads back the same; NaNs keep their bits.
func floatString(v float64, bits int) string {
	if math.IsNaN(v) {
		if bits == 32 {
			return "nan32:" + strconv.FormatUint(uint64(math.Float32bits(float32(v))), 16)
		}
		return "nan:" + strconv.FormatUint(math.Float64bits(v), 16)
	}
	return strings.Replace(strconv.FormatFloat(v, 'g', -1, bits), "+", "", 1)
}

func dataString(d *Data) string {
	var dims []string
	for _, n := range d.Dims {
		dims = append(dims, strconv.FormatInt(n, 10))
	}
	head := d.DType.String() + "[" + strings.Join(dims, ",") + "]"
	n := int(d.Len())
	var list []string
	switch {
	case d.DType == String:
		for _, s := range d.Strings {
			list = append(list, strconv.Quote(s))
		}
	case n > maxListed || d.DType.Bits() < 8 || !(d.DType == F32 || d.DType == F64 || d.DType == Bool || d.DType.IsInt()):
		return head + "(hex:" + hex.EncodeToString(d.Bytes) + ")"
	case hasNaN(d):
		return head + "(hex:" + hex.EncodeToString(d.Bytes) + ")"
	case d.DType == F32 || d.DType == F64:
		for i := 0; i < n; i++ {
			list = append(list, floatString(d.Float(i), d.DType.Bits()))
		}
	case d.DType == U64:
		for i := 0; i < n; i++ {
			list = append(list, strconv.FormatUint(uint64(d.Int(i)), 10))
		}
	default:
		for i := 0; i < n; i++ {
			list = append(list, strconv.FormatInt(d.Int(i), 10))
		}
	}
	return head + "(" + strings.Join(list, ", ") + ")"
}

// hasNaN finds NaNs, whose bits a decimal would lose.
func hasNaN(d *Data) bool {
	if d.DType != F32 && d.DType != F64 {
		return false
	}
	for i := 0; i < int(d.Len()); i++ {
		if math.IsNaN(d.Float(i)) {
			return true
		}
	}
	return false
}
