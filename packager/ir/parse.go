package ir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxNesting bounds regions and types in text.
const maxNesting = 32

// Parse reads the text form that Print writes, and verifies the graph. Errors name the line.
func Parse(text string) (*Graph, error) {
	p := &parser{vals: map[string]*Value{}}
	if err := p.scan(text); err != nil {
		return nil, err
	}
	g, err := p.graph()
	if err != nil {
		line := 0
		if p.pos < len(p.toks) {
			line = p.toks[p.pos].line
		}
		return nil, fmt.Errorf("line %d: %w", line, err)
	}
	if err := Verify(g); err != nil {
		return nil, err
	}
	return g, nil
}

type token struct {
	kind byte // 'w' word, 's' string, else the punctuation itself; 0 at the end
	text string
	line int
}

type parser struct {
	toks []token
	pos  int
	vals map[string]*Value
}

func (p *parser) scan(s string) error {
	line := 1
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '"':
			q, err := strconv.QuotedPrefix(s[i:])
			if err != nil {
				return fmt.Errorf("line %d: bad string", line)
			}
			v, err := strconv.Unquote(q)
			if err != nil {
				return fmt.Errorf("line %d: bad string", line)
			}
			p.toks = append(p.toks, token{'s', v, line})
			i += len(q)
		case identByte(c):
			k := i
			for k < len(s) && identByte(s[k]) {
				k++
			}
			p.toks = append(p.toks, token{'w', s[i:k], line})
			i = k
		case strings.IndexByte("{}()[],=#<?*!", c) >= 0:
			p.toks = append(p.toks, token{c, string(c), line})
			i++
		default:
			return fmt.Errorf("line %d: unexpected %q", line, c)
		}
	}
	p.toks = append(p.toks, token{0, "the end", line})
	return nil
}

func (p *parser) peek() token { return p.toks[p.pos] }

func (p *parser) next() token {
	t := p.toks[p.pos]
	if t.kind != 0 {
		p.pos++
	}
	return t
}

func (p *parser) accept(kind byte) bool {
	if p.peek().kind == kind {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(kind byte) error {
	if !p.accept(kind) {
		return fmt.Errorf("want %q, got %q", kind, p.peek().text)
	}
	return nil
}

func (p *parser) word(w string) error {
	if t := p.peek(); t.kind != 'w' || t.text != w {
		return fmt.Errorf("want %q, got %q", w, t.text)
	}
	p.pos++
	return nil
}

// ident reads a name, quoted or plain.
func (p *parser) ident() (string, error) {
	t := p.next()
	if t.kind == 's' || t.kind == 'w' && isIdent(t.text) {
		return t.text, nil
	}
	return "", fmt.Errorf("want a name, got %q", t.text)
}

func (p *parser) str() (string, error) {
	t := p.next()
	if t.kind != 's' {
		return "", fmt.Errorf("want a string, got %q", t.text)
	}
	return t.text, nil
}

func (p *parser) int() (int64, error) {
	t := p.next()
	v, err := strconv.ParseInt(t.text, 10, 64)
	if t.kind != 'w' || err != nil {
		return 0, fmt.Errorf("want an integer, got %q", t.text)
	}
	return v, nil
}

// list reads items separated by commas up to the closing punctuation, whose opening one was read already.
func (p *parser) list(end byte, item func() error) error {
	if p.accept(end) {
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if p.accept(end) {
			return nil
		}
		if err := p.expect(','); err != nil {
			return err
		}
	}
}

func (p *parser) graph() (*Graph, error) {
	g := &Graph{}
	if err := p.word("graph"); err != nil {
		return nil, err
	}
	var err error
	if g.Name, err = p.str(); err != nil {
		return nil, err
	}
	if err := p.expect('{'); err != nil {
		return nil, err
	}
	for p.peek().kind == 'w' {
		switch p.peek().text {
		case "producer":
			p.pos++
			if g.Producer, err = p.str(); err != nil {
				return nil, err
			}
			continue
		case "opset":
			p.pos++
			d, err := p.str()
			if err != nil {
				return nil, err
			}
			v, err := p.int()
			if err != nil {
				return nil, err
			}
			if g.Opsets == nil {
				g.Opsets = map[string]int64{}
			}
			g.Opsets[d] = v
			continue
		case "const":
			p.pos++
			if err := p.constant(); err != nil {
				return nil, err
			}
			continue
		}
		break
	}
	if g.Body, err = p.body(0); err != nil {
		return nil, err
	}
	for p.peek().text == "state" && p.peek().kind == 'w' {
		p.pos++
		s := State{}
		if s.Input, err = p.ident(); err != nil {
			return nil, err
		}
		if err := p.word("from"); err != nil {
			return nil, err
		}
		if s.Output, err = p.ident(); err != nil {
			return nil, err
		}
		if t := p.peek(); t.kind == 'w' && t.text != "state" {
			if s.Init, err = p.data(); err != nil {
				return nil, err
			}
		}
		g.State = append(g.State, s)
	}
	if err := p.expect('}'); err != nil {
		return nil, err
	}
	if p.peek().kind != 0 {
		return nil, fmt.Errorf("unexpected %q after the graph", p.peek().text)
	}
	return g, nil
}

func (p *parser) constant() error {
	name, err := p.ident()
	if err != nil {
		return err
	}
	d, err := p.data()
	if err != nil {
		return err
	}
	return p.define(&Value{Name: name, Type: d.Type(), Const: d})
}

func (p *parser) define(v *Value) error {
	if p.vals[v.Name] != nil {
		return fmt.Errorf("value %q is defined twice", v.Name)
	}
	p.vals[v.Name] = v
	return nil
}

func (p *parser) use() (*Value, error) {
	name, err := p.ident()
	if err != nil {
		return nil, err
	}
	v := p.vals[name]
	if v == nil {
		return nil, fmt.Errorf("value %q is not defined", name)
	}
	return v, nil
}

func (p *parser) body(depth int) (*Region, error) {
	if depth > maxNesting {
		return nil, errors.New("regions are nested too deeply")
	}
	r := &Region{}
	for {
		t := p.peek()
		switch {
		case t.kind == 'w' && t.text == "param":
			p.pos++
			name, err := p.ident()
			if err != nil {
				return nil, err
			}
			typ, err := p.typ(0)
			if err != nil {
				return nil, err
			}
			v := &Value{Name: name, Type: typ}
			if err := p.define(v); err != nil {
				return nil, err
			}
			r.Params = append(r.Params, v)
		case t.kind == 'w' && t.text == "result":
			p.pos++
			for {
				v, err := p.use()
				if err != nil {
					return nil, err
				}
				r.Results = append(r.Results, v)
				if !p.accept(',') {
					return r, nil
				}
			}
		default:
			n, err := p.node(depth)
			if err != nil {
				return nil, err
			}
			r.Nodes = append(r.Nodes, n)
		}
	}
}

func (p *parser) node(depth int) (*Node, error) {
	n := &Node{Attrs: map[string]Attr{}}
	for first := true; ; first = false {
		if first && p.accept('=') {
			break
		}
		if t := p.peek(); t.kind == 'w' && t.text == "_" {
			p.pos++
			n.Outs = append(n.Outs, nil)
		} else {
			name, err := p.ident()
			if err != nil {
				return nil, err
			}
			typ, err := p.typ(0)
			if err != nil {
				return nil, err
			}
			n.Outs = append(n.Outs, &Value{Name: name, Type: typ})
		}
		if p.accept('=') {
			break
		}
		if err := p.expect(','); err != nil {
			return nil, err
		}
	}
	var err error
	if n.Op, err = p.ident(); err != nil {
		return nil, err
	}
	if err := p.expect('('); err != nil {
		return nil, err
	}
	err = p.list(')', func() error {
		if t := p.peek(); t.kind == 'w' && t.text == "_" {
			p.pos++
			n.Ins = append(n.Ins, nil)
			return nil
		}
		v, err := p.use()
		n.Ins = append(n.Ins, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	if p.accept('{') {
		err = p.list('}', func() error {
			k, err := p.ident()
			if err != nil {
				return err
			}
			if err := p.expect('='); err != nil {
				return err
			}
			n.Attrs[k], err = p.attr()
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if err := p.expect('#'); err != nil {
		return nil, err
	}
	id, err := p.int()
	if err != nil {
		return nil, err
	}
	n.ID = int(id)
	if n.Name, err = p.str(); err != nil {
		return nil, err
	}
	for p.peek().kind == 'w' && p.peek().text == "region" {
		p.pos++
		if err := p.expect('('); err != nil {
			return nil, err
		}
		var caps []*Value
		err := p.list(')', func() error {
			v, err := p.use()
			caps = append(caps, v)
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := p.expect('{'); err != nil {
			return nil, err
		}
		r, err := p.body(depth + 1)
		if err != nil {
			return nil, err
		}
		r.Captures = caps
		if err := p.expect('}'); err != nil {
			return nil, err
		}
		n.Regions = append(n.Regions, r)
	}
	for _, v := range n.Outs {
		if v != nil {
			if err := p.define(v); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

func (p *parser) attr() (Attr, error) {
	t := p.peek()
	switch {
	case t.kind == 's':
		p.pos++
		return AttrOf(t.text), nil
	case t.kind == '[':
		p.pos++
		v := []int64{}
		err := p.list(']', func() error {
			x, err := p.int()
			v = append(v, x)
			return err
		})
		return AttrOf(v), err
	case t.kind != 'w':
		return Attr{}, fmt.Errorf("want an attribute value, got %q", t.text)
	case strings.HasPrefix(t.text, "float:"):
		p.pos++
		v, err := parseFloat(strings.TrimPrefix(t.text, "float:"), 64)
		return AttrOf(v), err
	case t.text == "floats":
		p.pos++
		v := []float64{}
		if err := p.expect('['); err != nil {
			return Attr{}, err
		}
		err := p.list(']', func() error {
			x, err := parseFloat(p.next().text, 64)
			v = append(v, x)
			return err
		})
		return AttrOf(v), err
	case t.text == "strings":
		p.pos++
		v := []string{}
		if err := p.expect('['); err != nil {
			return Attr{}, err
		}
		err := p.list(']', func() error {
			x, err := p.str()
			v = append(v, x)
			return err
		})
		return AttrOf(v), err
	case strings.HasPrefix(t.text, "dtype:"):
		p.pos++
		d := DTypeByName(strings.TrimPrefix(t.text, "dtype:"))
		if !d.Valid() {
			return Attr{}, fmt.Errorf("unknown element type %q", t.text)
		}
		return AttrOf(d), nil
	case DTypeByName(t.text).Valid():
		d, err := p.data()
		return AttrOf(d), err
	}
	v, err := p.int()
	return AttrOf(v), err
}

func parseFloat(s string, bits int) (float64, error) {
	if h, ok := strings.CutPrefix(s, "nan:"); ok {
		u, err := strconv.ParseUint(h, 16, 64)
		v := math.Float64frombits(u)
		if err == nil && v == v {
			err = errors.New("not a NaN")
		}
		return v, err
	}
	if s == "" || !strings.ContainsAny(s[:1], "0123456789-iI") || strings.ContainsAny(s, "xX_") {
		return 0, fmt.Errorf("want a number, got %q", s)
	}
	return strconv.ParseFloat(s, bits)
}

func (p *parser) dims() ([]int64, error) {
	dims := []int64{}
	if err := p.expect('['); err != nil {
		return nil, err
	}
	err := p.list(']', func() error {
		n, err := p.int()
		dims = append(dims, n)
		return err
	})
	return dims, err
}

func (p *parser) data() (*Data, error) {
	t := p.next()
	d := &Data{DType: DTypeByName(t.text)}
	if t.kind != 'w' || !d.DType.Valid() {
		return nil, fmt.Errorf("want an element type, got %q", t.text)
	}
	var err error
	if d.Dims, err = p.dims(); err != nil {
		return nil, err
	}
	if err := p.expect('('); err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind == 'w' && strings.HasPrefix(t.text, "hex:") {
		p.pos++
		if d.Bytes, err = hex.DecodeString(t.text[4:]); err != nil {
			return nil, err
		}
		if err := p.expect(')'); err != nil {
			return nil, err
		}
		return d, d.Check()
	}
	var fl []float64
	var in []int64
	err = p.list(')', func() error {
		t := p.next()
		switch {
		case d.DType == String:
			if t.kind != 's' {
				return fmt.Errorf("want a string, got %q", t.text)
			}
			d.Strings = append(d.Strings, t.text)
			return nil
		case t.kind != 'w':
			return fmt.Errorf("want a number, got %q", t.text)
		case d.DType == F32 || d.DType == F64:
			v, err := parseFloat(t.text, d.DType.Bits())
			fl = append(fl, v)
			return err
		case d.DType == U64:
			v, err := strconv.ParseUint(t.text, 10, 64)
			in = append(in, int64(v))
			return err
		case (d.DType.IsInt() || d.DType == Bool) && d.DType.Bits() >= 8:
			v, err := strconv.ParseInt(t.text, 10, 64)
			in = append(in, v)
			return err
		}
		return fmt.Errorf("%s data must be in hex", d.DType)
	})
	if err != nil {
		return nil, err
	}
	switch {
	case d.DType == F32 || d.DType == F64:
		d.Bytes = FloatData(d.DType, nil, fl).Bytes
	case d.DType != String && d.DType.Bits() >= 8 && (d.DType.IsInt() || d.DType == Bool):
		d.Bytes = IntData(d.DType, nil, in).Bytes
	}
	return d, d.Check()
}

func (p *parser) typ(depth int) (Type, error) {
	if depth > maxNesting {
		return Type{}, errors.New("types are nested too deeply")
	}
	t := p.next()
	if t.kind != 'w' {
		return Type{}, fmt.Errorf("want a type, got %q", t.text)
	}
	switch t.text {
	case "seq", "optional", "map":
		if err := p.expect('('); err != nil {
			return Type{}, err
		}
		key := Invalid
		if t.text == "map" {
			key = DTypeByName(p.next().text)
			if err := p.expect(','); err != nil {
				return Type{}, err
			}
		}
		e, err := p.typ(depth + 1)
		if err != nil {
			return Type{}, err
		}
		if err := p.expect(')'); err != nil {
			return Type{}, err
		}
		switch t.text {
		case "seq":
			return SequenceOf(e), nil
		case "optional":
			return OptionalOf(e), nil
		}
		return MapOf(key, e), nil
	}
	d := DTypeByName(t.text)
	if !d.Valid() {
		return Type{}, fmt.Errorf("unknown element type %q", t.text)
	}
	if err := p.expect('['); err != nil {
		return Type{}, err
	}
	if p.accept('*') {
		return TensorOf(d, Unranked()), p.expect(']')
	}
	s := Shape{Ranked: true}
	err := p.list(']', func() error {
		dim, err := p.dim()
		s.Dims = append(s.Dims, dim)
		return err
	})
	return TensorOf(d, s), err
}

func (p *parser) dim() (Dim, error) {
	if p.accept('?') {
		return Unknown(), nil
	}
	t := p.peek()
	if t.kind == 'w' && !isIdent(t.text) {
		n, err := p.int()
		return Static(n), err
	}
	name, err := p.ident()
	if err != nil {
		return Dim{}, err
	}
	d := Symbol(name)
	if p.accept('<') {
		if err := p.expect('='); err != nil {
			return Dim{}, err
		}
		d.Max, err = p.int()
	}
	return d, err
}
