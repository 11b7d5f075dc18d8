package onnx

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The parts of onnx.proto3 that the compiler reads. Other fields are skipped.

type opsetProto struct {
	domain  string
	version int64
}

type modelProto struct {
	irVersion int64
	opsets    []opsetProto
	producer  string
	prodVer   string
	graph     *graphProto
	functions []functionProto
	training  int
}

type graphProto struct {
	name    string
	nodes   []nodeProto
	inits   []tensorProto
	sparse  int
	inputs  []valueInfo
	outputs []valueInfo
}

type nodeProto struct {
	ins, outs  []string
	name, op   string
	domain     string
	attrs      []attrProto
	overload   string
	sourceLine int // position in its graph
}

// attribute types of onnx.proto3
const (
	attrFloat   = 1
	attrInt     = 2
	attrString  = 3
	attrTensor  = 4
	attrGraph   = 5
	attrFloats  = 6
	attrInts    = 7
	attrStrings = 8
	attrTensors = 9
	attrGraphs  = 10
	attrType    = 13
)

type attrProto struct {
	name    string
	ref     string
	typ     int64
	f       float32
	i       int64
	s       string
	t       *tensorProto
	g       *graphProto
	floats  []float32
	ints    []int64
	strs    []string
	tensors []tensorProto
	tp      *typeProto
	other   bool // holds a kind that the compiler does not read
}

type tensorProto struct {
	dims     []int64
	dtype    int64
	name     string
	segment  bool
	raw      []byte
	hasRaw   bool
	f32      []float32
	i32      []int64
	strs     []string
	i64      []int64
	f64      []float64
	u64      []int64
	external []kv
	location int64
}

type kv struct{ key, value string }

type valueInfo struct {
	name string
	typ  *typeProto
}

type typeProto struct {
	kind     string // tensor, sequence, map, optional, sparse
	elemType int64  // tensor's element type, map's key type
	hasShape bool
	dims     []dimProto
	elem     *typeProto
}

type dimProto struct {
	value    int64
	hasValue bool
	param    string
}

type functionProto struct {
	name, domain string
	overload     string
	ins, outs    []string
	nodes        []nodeProto
	opsets       []opsetProto
	defaults     []attrProto
}

func decodeModel(b []byte) (*modelProto, error) {
	m := &modelProto{}
	err := fields(b, func(x field) error {
		switch x.num {
		case 1:
			return x.int(&m.irVersion)
		case 2:
			return x.name(&m.producer)
		case 3:
			return x.name(&m.prodVer)
		case 7:
			if err := x.want(protowire.BytesType); err != nil {
				return err
			}
			g, err := decodeGraph(x.b, 0)
			m.graph = g
			return err
		case 8:
			return msgs(x, &m.opsets, decodeOpset)
		case 20:
			m.training++
		case 25:
			return msgs(x, &m.functions, decodeFunction)
		}
		return nil
	})
	return m, err
}

func decodeOpset(b []byte) (o opsetProto, err error) {
	err = fields(b, func(x field) error {
		switch x.num {
		case 1:
			return x.name(&o.domain)
		case 2:
			return x.int(&o.version)
		}
		return nil
	})
	return
}

func decodeFunction(b []byte) (f functionProto, err error) {
	names := func(x field, to *[]string) error {
		var s string
		err := x.name(&s)
		*to = append(*to, s)
		return err
	}
	err = fields(b, func(x field) error {
		switch x.num {
		case 1:
			return x.name(&f.name)
		case 4:
			return names(x, &f.ins)
		case 5:
			return names(x, &f.outs)
		case 7:
			if len(f.nodes) >= maxNodes {
				return fmt.Errorf("a function has more than %d nodes", maxNodes)
			}
			return msgs(x, &f.nodes, func(b []byte) (nodeProto, error) { return decodeNode(b, 0) })
		case 9:
			return msgs(x, &f.opsets, decodeOpset)
		case 10:
			return x.name(&f.domain)
		case 11:
			return msgs(x, &f.defaults, func(b []byte) (attrProto, error) { return decodeAttr(b, 0) })
		case 13:
			return x.name(&f.overload)
		}
		return nil
	})
	return
}

func decodeGraph(b []byte, depth int) (*graphProto, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("graphs are nested more than %d deep", maxDepth)
	}
	g := &graphProto{}
	err := fields(b, func(x field) error {
		switch x.num {
		case 1:
			if len(g.nodes) >= maxNodes {
				return fmt.Errorf("a graph has more than %d nodes", maxNodes)
			}
			return msgs(x, &g.nodes, func(b []byte) (nodeProto, error) {
				n, err := decodeNode(b, depth)
				n.sourceLine = len(g.nodes)
				return n, err
			})
		case 2:
			return x.name(&g.name)
		case 5:
			return msgs(x, &g.inits, decodeTensor)
		case 15:
			g.sparse++
		case 11:
			return msgs(x, &g.inputs, decodeValueInfo)
		case 12:
			return msgs(x, &g.outputs, decodeValueInfo)
		}
		return nil
	})
	return g, err
}

func decodeNode(b []byte, depth int) (n nodeProto, err error) {
	err = fields(b, func(x field) error {
		switch x.num {
		case 1, 2:
			var s string
			if err := x.name(&s); err != nil {
				return err
			}
			if x.num == 1 {
				n.ins = append(n.ins, s)
			} else {
				n.outs = append(n.outs, s)
			}
		case 3:
			return x.name(&n.name)
		case 4:
			return x.name(&n.op)
		case 5:
			return msgs(x, &n.attrs, func(b []byte) (attrProto, error) { return decodeAttr(b, depth) })
		case 7:
			return x.name(&n.domain)
		case 8:
			return x.name(&n.overload)
		}
		return nil
	})
	return
}

func decodeAttr(b []byte, depth int) (a attrProto, err error) {
	err = fields(b, func(x field) error {
		switch x.num {
		case 1:
			return x.name(&a.name)
		case 21:
			return x.name(&a.ref)
		case 20:
			return x.int(&a.typ)
		case 2:
			a.f = math.Float32frombits(uint32(x.u))
			return x.want(protowire.Fixed32Type)
		case 3:
			return x.int(&a.i)
		case 4:
			return x.str(&a.s)
		case 5:
			a.t = &tensorProto{}
			return msg(x, a.t, decodeTensor)
		case 6:
			if err := x.want(protowire.BytesType); err != nil {
				return err
			}
			g, err := decodeGraph(x.b, depth+1)
			a.g = g
			return err
		case 7:
			return x.float32s(&a.floats)
		case 8:
			return x.ints(&a.ints)
		case 9:
			var s string
			if err := x.str(&s); err != nil {
				return err
			}
			a.strs = append(a.strs, s)
		case 10:
			return msgs(x, &a.tensors, decodeTensor)
		case 14:
			if err := x.want(protowire.BytesType); err != nil {
				return err
			}
			t, err := decodeType(x.b, 0)
			a.tp = t
			return err
		case 11, 15, 22, 23:
			a.other = true
		}
		return nil
	})
	if a.typ == 0 && err == nil {
		a.typ = guessAttrType(&a)
	}
	return
}

// guessAttrType serves files of IR version 1, which left the type out.
func guessAttrType(a *attrProto) int64 {
	switch {
	case a.t != nil:
		return attrTensor
	case a.g != nil:
		return attrGraph
	case len(a.floats) > 0:
		return attrFloats
	case len(a.ints) > 0:
		return attrInts
	case len(a.strs) > 0:
		return attrStrings
	case a.s != "":
		return attrString
	case a.f != 0:
		return attrFloat
	case a.i != 0:
		return attrInt
	}
	return 0
}

func decodeTensor(b []byte) (t tensorProto, err error) {
	err = fields(b, func(x field) error {
		switch x.num {
		case 1:
			return x.ints(&t.dims)
		case 2:
			return x.int(&t.dtype)
		case 3:
			t.segment = true
		case 4:
			return x.float32s(&t.f32)
		case 5:
			return x.ints(&t.i32)
		case 6:
			var s string
			if err := x.str(&s); err != nil {
				return err
			}
			t.strs = append(t.strs, s)
		case 7:
			return x.ints(&t.i64)
		case 8:
			return x.name(&t.name)
		case 9:
			t.raw, t.hasRaw = x.b, true
			return x.want(protowire.BytesType)
		case 10:
			return x.float64s(&t.f64)
		case 11:
			return x.ints(&t.u64)
		case 13:
			return msgs(x, &t.external, decodeKV)
		case 14:
			return x.int(&t.location)
		}
		return nil
	})
	return
}

func decodeKV(b []byte) (e kv, err error) {
	err = fields(b, func(x field) error {
		switch x.num {
		case 1:
			return x.name(&e.key)
		case 2:
			return x.name(&e.value)
		}
		return nil
	})
	return
}

func decodeValueInfo(b []byte) (v valueInfo, err error) {
	err = fields(b, func(x field) error {
		switch x.num {
		case 1:
			return x.name(&v.name)
		case 2:
			if err := x.want(protowire.BytesType); err != nil {
				return err
			}
			v.typ, err = decodeType(x.b, 0)
			return err
		}
		return nil
	})
	return
}

func decodeType(b []byte, depth int) (*typeProto, error) {
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("types are nested more than %d deep", maxTypeDepth)
	}
	t := &typeProto{}
	err := fields(b, func(x field) error {
		kinds := map[protowire.Number]string{1: "tensor", 4: "sequence", 5: "map", 8: "sparse", 9: "optional"}
		k, ok := kinds[x.num]
		if !ok {
			return nil
		}
		if err := x.want(protowire.BytesType); err != nil {
			return err
		}
		t.kind = k
		return fields(x.b, func(y field) error { return t.part(y, depth) })
	})
	return t, err
}

func (t *typeProto) part(y field, depth int) error {
	sub := func() (err error) {
		if err := y.want(protowire.BytesType); err != nil {
			return err
		}
		t.elem, err = decodeType(y.b, depth+1)
		return err
	}
	switch t.kind {
	case "tensor":
		switch y.num {
		case 1:
			return y.int(&t.elemType)
		case 2:
			t.hasShape = true
			if err := y.want(protowire.BytesType); err != nil {
				return err
			}
			return fields(y.b, func(z field) error {
				if z.num != 1 {
					return nil
				}
				return msgs(z, &t.dims, decodeDim)
			})
		}
	case "sequence", "optional":
		if y.num == 1 {
			return sub()
		}
	case "map":
		switch y.num {
		case 1:
			return y.int(&t.elemType)
		case 2:
			return sub()
		}
	}
	return nil
}

func decodeDim(b []byte) (d dimProto, err error) {
	err = fields(b, func(x field) error {
		switch x.num {
		case 1:
			d.hasValue = true
			return x.int(&d.value)
		case 2:
			return x.name(&d.param)
		}
		return nil
	})
	return
}
