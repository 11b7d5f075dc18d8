package codegen

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func sequenceLowering() map[string]lowerer {
	// ofElements is a lowerer whose kernel depends on the element type of a sequence's tensors.
	ofElements := func(elem func(n *ir.Node) ir.Type, k func(kernel.DT) *kernel.Kernel, a, b string) lowerer {
		return func(c *compiler, n *ir.Node) error {
			d, err := kernel.DTypeOf(abi.DType(elem(n).DType))
			if err != nil {
				return unsupported(n, "a sequence of %s", elem(n).DType)
			}
			c.step(k(d), c.outs(n), c.ins(n), ai(n.Int(a)), ai(n.Int(b)))
			return nil
		}
	}
	return map[string]lowerer{
		"SequenceConstruct":  plain(kernel.ListOf(abi.Sequence)),
		"SequenceEmpty":      plain(kernel.ListOf(abi.Sequence)),
		"SequenceInsert":     plain(kernel.SequenceInsert()),
		"SequenceErase":      plain(kernel.SequenceErase()),
		"SequenceAt":         plain(kernel.SequenceAt()),
		"SequenceLength":     plain(kernel.SequenceLength()),
		"Optional":           plain(kernel.ListOf(abi.Optional)),
		"OptionalHasElement": plain(kernel.OptionalHas()),
		"OptionalGetElement": plain(kernel.OptionalGet()),
		"ConcatFromSequence": ofElements(func(n *ir.Node) ir.Type { return *n.Ins[0].Type.Elem }, kernel.ConcatFromSequence, "axis", "new_axis"),
		"SplitToSequence":    ofElements(func(n *ir.Node) ir.Type { return n.Ins[0].Type }, kernel.SplitToSequence, "axis", "keepdims"),
	}
}

// listType is the kernels' view of a type; nil when it holds something else than sequences, optionals and tensors.
func listType(t ir.Type) *kernel.ListType {
	switch t.Kind {
	case ir.Tensor:
		l := &kernel.ListType{Kind: abi.Tensor, DType: abi.DType(t.DType), Rank: t.Shape.Rank()}
		for _, d := range t.Shape.Dims {
			n := int64(-1)
			if d.IsStatic() {
				n = d.N
			}
			l.Dims = append(l.Dims, n)
		}
		return l
	case ir.Sequence, ir.Optional:
		if e := listType(*t.Elem); e != nil {
			return &kernel.ListType{Kind: map[ir.Kind]abi.Kind{ir.Sequence: abi.Sequence, ir.Optional: abi.Optional}[t.Kind], Rank: -1, Elem: e}
		}
	}
	return nil
}

// detached drops what does not matter to a copy, so that outputs share their kernels.
func detached(l *kernel.ListType) *kernel.ListType {
	if l.Elem == nil {
		return &kernel.ListType{DType: l.DType, Rank: -1}
	}
	return &kernel.ListType{Kind: l.Kind, Rank: -1, Elem: detached(l.Elem)}
}

// checkable tells whether an input of this type can be taken over: string elements are not checked there yet.
func checkable(l *kernel.ListType) bool {
	if l == nil || l.Elem != nil {
		return l != nil && checkable(l.Elem)
	}
	_, err := kernel.DTypeOf(l.DType)
	return err == nil
}
