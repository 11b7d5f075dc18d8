// Package interp runs a graph slowly and plainly: it is the oracle that compiled modules are compared with, bit for
// bit. It shares no code with codegen. Every rounding follows docs/numerics.md; products stand in explicit
// conversions, so that no compiler may fuse them with a sum. Package math serves for bit patterns, square roots,
// floor and absolute values only, which are exact on every machine.
package interp

import (
	"context"
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Run evaluates g on the inputs, given by name, and returns its outputs by name. All inputs are needed; sizes that
// share a symbol must agree. NaNs are canonicalised at the outputs. The graph must be verified. An operator without
// an implementation gives *UnsupportedError.
func Run(ctx context.Context, g *ir.Graph, inputs map[string]*ir.Val) (map[string]*ir.Val, error) {
	m := &machine{ctx: ctx, vals: map[*ir.Value]*value{}}
	syms := map[string]int64{}
	for _, p := range g.Body.Params {
		in := inputs[p.Name]
		if in == nil {
			return nil, fmt.Errorf("input %q is missing", p.Name)
		}
		v, err := decode(in)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", p.Name, err)
		}
		if err := bind(p.Type, v, syms); err != nil {
			return nil, fmt.Errorf("input %q: %w", p.Name, err)
		}
		m.vals[p] = v
	}
	for name := range inputs {
		if !hasParam(g, name) {
			return nil, fmt.Errorf("there is no input %q", name)
		}
	}
	if err := m.region(g.Body); err != nil {
		return nil, err
	}
	out := map[string]*ir.Val{}
	for _, r := range g.Body.Results {
		v, err := m.get(r)
		if err != nil {
			return nil, err
		}
		out[r.Name] = v.encode(true)
	}
	return out, nil
}

func hasParam(g *ir.Graph, name string) bool {
	for _, p := range g.Body.Params {
		if p.Name == name {
			return true
		}
	}
	return false
}

// Eval evaluates one node without regions on concrete inputs (nil for absent ones). Passes fold integer, bool and
// string constants and move float ones with it.
func Eval(ctx context.Context, n *ir.Node, ins []*ir.Data) ([]*ir.Data, error) {
	if len(n.Regions) > 0 {
		return nil, errors.New("a node with regions cannot be evaluated on its own")
	}
	c := &call{n: n, m: &machine{ctx: ctx}}
	for _, d := range ins {
		if d == nil {
			c.ins = append(c.ins, nil)
			continue
		}
		t, err := fromData(d)
		if err != nil {
			return nil, err
		}
		c.ins = append(c.ins, &value{kind: ir.Tensor, t: t})
	}
	outs, err := c.eval()
	if err != nil {
		return nil, err
	}
	res := make([]*ir.Data, len(outs))
	for i, v := range outs {
		if v.kind != ir.Tensor {
			return nil, errors.New("the result is not a tensor")
		}
		res[i] = v.t.data(false)
	}
	return res, nil
}

// UnsupportedError names an operator that the interpreter does not implement.
type UnsupportedError struct{ Op, Node, Reason string }

func (e *UnsupportedError) Error() string {
	s := fmt.Sprintf("the interpreter does not implement %s (node %q)", e.Op, e.Node)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// value is a runtime value.
type value struct {
	kind  ir.Kind
	t     *tensor
	elems []*value
	keys  *tensor
}

func decode(v *ir.Val) (*value, error) {
	out := &value{kind: v.Kind}
	if v.Kind == ir.Tensor {
		if v.Tensor == nil {
			return nil, errors.New("the tensor is nil")
		}
		t, err := fromData(v.Tensor)
		out.t = t
		return out, err
	}
	for _, e := range v.Elems {
		d, err := decode(e)
		if err != nil {
			return nil, err
		}
		out.elems = append(out.elems, d)
	}
	if v.Keys != nil {
		k, err := fromData(v.Keys)
		if err != nil {
			return nil, err
		}
		out.keys = k
	}
	return out, nil
}

func (v *value) encode(canon bool) *ir.Val {
	out := &ir.Val{Kind: v.kind}
	if v.kind == ir.Tensor {
		out.Tensor = v.t.data(canon)
		return out
	}
	for _, e := range v.elems {
		out.Elems = append(out.Elems, e.encode(canon))
	}
	if v.keys != nil {
		out.Keys = v.keys.data(canon)
	}
	return out
}

// bind checks an input against its declared type; symbols get their size here.
func bind(t ir.Type, v *value, syms map[string]int64) error {
	if t.Kind != v.kind {
		return fmt.Errorf("want %s", t)
	}
	if t.Kind != ir.Tensor {
		for _, e := range v.elems {
			if err := bind(*t.Elem, e, syms); err != nil {
				return err
			}
		}
		return nil
	}
	if v.t.dt != t.DType {
		return fmt.Errorf("element type %s, want %s", v.t.dt, t.DType)
	}
	if !t.Shape.Ranked {
		return nil
	}
	if len(v.t.dims) != len(t.Shape.Dims) {
		return fmt.Errorf("dims %v, want %s", v.t.dims, t.Shape)
	}
	for i, d := range t.Shape.Dims {
		n := v.t.dims[i]
		switch {
		case d.Any:
		case d.Sym == "":
			if n != d.N {
				return fmt.Errorf("dims %v, want %s", v.t.dims, t.Shape)
			}
		default:
			if old, ok := syms[d.Sym]; ok && old != n {
				return fmt.Errorf("dims %v: %s is %d elsewhere", v.t.dims, d.Sym, old)
			}
			if d.Max > 0 && n > d.Max {
				return fmt.Errorf("dims %v: %s is over its bound", v.t.dims, d)
			}
			syms[d.Sym] = n
		}
	}
	return nil
}

type machine struct {
	ctx  context.Context
	vals map[*ir.Value]*value
}

func (m *machine) get(v *ir.Value) (*value, error) {
	if x, ok := m.vals[v]; ok {
		return x, nil
	}
	if v.Const == nil {
		return nil, fmt.Errorf("value %q was not computed", v.Name)
	}
	t, err := fromData(v.Const)
	if err != nil {
		return nil, fmt.Errorf("constant %q: %w", v.Name, err)
	}
	x := &value{kind: ir.Tensor, t: t}
	m.vals[v] = x
	return x, nil
}

func (m *machine) region(r *ir.Region) error {
	for _, n := range r.Nodes {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		c := &call{n: n, m: m}
		for _, in := range n.Ins {
			if in == nil {
				c.ins = append(c.ins, nil)
				continue
			}
			v, err := m.get(in)
			if err != nil {
				return ir.NodeError(n, err)
			}
			c.ins = append(c.ins, v)
		}
		outs, err := c.eval()
		if err != nil {
			var u *UnsupportedError
			if errors.As(err, &u) {
				return err
			}
			return ir.NodeError(n, err)
		}
		for i, o := range n.Outs {
			if o == nil {
				continue
			}
			if i >= len(outs) || outs[i] == nil {
				return ir.NodeError(n, fmt.Errorf("output %d was not computed", i))
			}
			if err := agrees(o.Type, outs[i]); err != nil {
				return ir.NodeError(n, fmt.Errorf("output %q: %w", o.Name, err))
			}
			m.vals[o] = outs[i]
		}
	}
	return nil
}

// agrees checks a result against its declared type: inference and execution must not contradict each other.
func agrees(t ir.Type, v *value) error {
	if v.kind != ir.Tensor || t.Kind != ir.Tensor {
		if v.kind != t.Kind {
			return fmt.Errorf("computed another kind of value than %s", t)
		}
		return nil
	}
	if got := ir.TensorOf(v.t.dt, ir.StaticShape(v.t.dims...)); !t.Compatible(got) {
		return fmt.Errorf("computed %s, declared %s", got, t)
	}
	return nil
}

// call is one execution of a node.
type call struct {
	n   *ir.Node
	m   *machine
	ins []*value
}

// t gives tensor input i, nil when absent.
func (c *call) t(i int) *tensor {
	if i >= len(c.ins) || c.ins[i] == nil {
		return nil
	}
	return c.ins[i].t
}

func (c *call) unsupported(reason string) error {
	return &UnsupportedError{Op: c.n.Op, Node: c.n.Name, Reason: reason}
}

func tensors(ts ...*tensor) []*value {
	out := make([]*value, len(ts))
	for i, t := range ts {
		if t != nil {
			out[i] = &value{kind: ir.Tensor, t: t}
		}
	}
	return out
}

// eval dispatches on the operator.
func (c *call) eval() ([]*value, error) {
	one := func(t *tensor, err error) ([]*value, error) {
		if err != nil {
			return nil, err
		}
		return tensors(t), nil
	}
	switch c.n.Op {
	case "Identity":
		return []*value{c.ins[0]}, nil
	case "Add", "Sub", "Mul", "Div", "Min", "Max", "Mod", "And", "Or", "Xor":
		return one(c.arith())
	case "Pow":
		return one(c.pow())
	case "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual":
		return one(c.compare())
	case "Not", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Relu":
		return one(c.unary())
	case "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh":
		return one(c.unary())
	case "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift":
		return one(c.bitwise())
	case "BitwiseNot":
		return one(c.bitwiseNot())
	case "BitCast":
		return one(c.bitCast())
	case "CumSum", "CumProd":
		return one(c.cumulative())
	case "CastSmall":
		return one(c.castSmall())
	case "Cast":
		return one(c.cast())
	case "Where":
		return one(c.where())
	case "Softmax":
		return one(c.softmax())
	case "Shape":
		return one(c.shape())
	case "Size":
		return one(scalarInt(int64(c.t(0).len())))
	case "Reshape":
		return one(c.reshape())
	case "Flatten":
		return one(c.flatten())
	case "Squeeze":
		return one(c.squeeze())
	case "Unsqueeze":
		return one(c.unsqueeze())
	case "Concat":
		return one(c.concat())
	case "Slice":
		return one(c.slice())
	case "Gather":
		return one(c.gather())
	case "Expand":
		return one(c.expand())
	case "ConstantOfShape":
		return one(c.constantOfShape())
	case "Transpose":
		return one(c.transpose())
	case "Pad":
		return one(c.pad())
	case "Split":
		ts, err := c.split()
		return tensors(ts...), err
	case "Tile":
		return one(c.tile())
	case "Range":
		return one(c.rng())
	case "OneHot":
		return one(c.oneHot())
	case "MatMul":
		return one(c.matMul())
	case "Gemm":
		return one(c.gemm())
	case "Conv":
		return one(c.conv())
	case "MaxPool":
		ts, err := c.maxPool()
		return tensors(ts...), err
	case "AveragePool":
		return one(c.averagePool())
	case "BatchNormalization":
		return one(c.batchNorm())
	case "LSTM", "GRU", "RNN":
		ts, err := c.recurrent()
		return tensors(ts...), err
	case "ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin":
		return one(c.reduce())
	case "ArgMax", "ArgMin":
		return one(c.arg())
	case "TopK":
		ts, err := c.topK()
		return tensors(ts...), err
	case "Sample", "NonMaxSuppression", "Det", "RoiAlign":
		return c.sampling()
	case "Resize", "ConvTranspose":
		return c.image()
	case "If":
		return c.ifOp()
	case "Loop":
		return c.loop()
	case "Scan":
		return c.scan()
	case "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "ConcatFromSequence",
		"SplitToSequence", "Optional", "OptionalHasElement", "OptionalGetElement":
		return c.lists()
	case "StringConcat":
		return one(c.stringConcat())
	case "Allowed":
		return one(c.allowed())
	case "NumberToText":
		return one(c.numberToText())
	case "TextToNumber":
		return one(c.textToNumber())
	case "StringSplit":
		ts, err := c.stringSplit()
		return tensors(ts...), err
	case "RegexFullMatch":
		return one(c.regexFullMatch())
	case "Trilu":
		return one(c.trilu())
	case "GatherElements":
		return one(c.gatherElements())
	case "GatherND":
		return one(c.gatherND())
	case "ScatterElements":
		return one(c.scatterElements())
	case "ScatterND":
		return one(c.scatterND())
	case "NonZero":
		return one(c.nonZero())
	case "UniqueRows":
		ts, err := c.uniqueRows()
		return tensors(ts...), err
	case "ReverseSequence":
		return one(c.reverseSequence())
	case "EyeLike":
		return one(c.eyeLike())
	case "ml.TreeEnsemble":
		return one(c.trees())
	case "ml.LabelEncoder":
		return one(c.labelEncoder())
	case "ml.OneHotEncoder":
		return one(c.mlOneHot())
	case "ml.ZipMap":
		return c.zipMap()
	case "StringNormalizer":
		return one(c.stringNormalizer())
	case "ms.Tokenizer":
		return one(c.tokenizer())
	case "TfIdfVectorizer":
		return one(c.tfIdf())
	}
	return nil, c.unsupported("")
}

func scalarInt(v int64) (*tensor, error) {
	return &tensor{dt: ir.I64, dims: []int64{}, ints: []int64{v}}, nil
}
