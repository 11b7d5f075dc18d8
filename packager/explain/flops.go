package explain

import "github.com/waybill-ml/waybill/packager/ir"

// flops counts the operations of one run of a node, by the definition of Node.FLOPs. Operators that only move data do
// none; what is not listed, or depends on the data, is unknown.
func flops(n *ir.Node) Count {
	out, in := elements(n.Out(0)), elements(n.In(0))
	two := Exactly(2)
	switch n.Op {
	case "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Gather", "Expand", "ConstantOfShape", "Transpose", "Split",
		"Tile", "Shape", "Size", "Pad", "BitCast", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth",
		"Range", "OneHot", "EyeLike", "Trilu", "ScatterND", "ReverseSequence", "ml.OneHotEncoder", "ml.LabelEncoder", "ml.ZipMap", "CastSmall",
		"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "Optional", "OptionalHasElement",
		"OptionalGetElement":
		return Count{}
	case "Add", "Sub", "Mul", "Div", "Min", "Max", "Mod", "Pow", "And", "Or", "Xor", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual",
		"Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Relu", "Where", "Cast",
		"Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
		"BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift":
		return out
	case "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ArgMax", "ArgMin", "GlobalAveragePool", "GlobalMaxPool":
		return in
	case "MatMul":
		a := n.In(0)
		if a == nil || a.Type.Shape.Rank() < 1 {
			return Unknown()
		}
		return two.Times(dim(a.Type.Shape.Dims[a.Type.Shape.Rank()-1])).Times(out)
	case "Gemm":
		a := n.In(0)
		if a == nil || a.Type.Shape.Rank() != 2 {
			return Unknown()
		}
		k := 1
		if n.Int("transA") != 0 {
			k = 0
		}
		c := two.Times(dim(a.Type.Shape.Dims[k])).Times(out)
		if n.In(2) != nil {
			c = c.Plus(out)
		}
		return c
	case "Conv", "ConvTranspose":
		w := n.In(1)
		if w == nil || w.Type.Shape.Rank() < 3 {
			return Unknown()
		}
		// One element of the output of Conv, or of the input of ConvTranspose, meets a filter of this many weights.
		filter, over := product(w.Type.Shape.Dims[1:]), out
		if n.Op == "ConvTranspose" {
			over = in
		}
		c := two.Times(filter).Times(over)
		if n.In(2) != nil {
			c = c.Plus(out)
		}
		return c
	case "RNN", "GRU", "LSTM": // the products with W and R at every step; the few operations per gate are left out
		x, w, r := n.In(0), n.In(1), n.In(2)
		if x == nil || x.Type.Shape.Rank() != 3 {
			return Unknown()
		}
		return two.Times(elements(w).Plus(elements(r))).Times(dim(x.Type.Shape.Dims[0])).Times(dim(x.Type.Shape.Dims[1]))
	case "ml.TreeEnsemble": // the longest walk through every tree; rows whose walks end earlier do less
		x := n.In(0)
		if x == nil || x.Type.Shape.Rank() != 2 {
			return Unknown()
		}
		return dim(x.Type.Shape.Dims[0]).Times(Exactly(treeSteps(n)))
	case "Resize": // 2 taps an axis for linear, 4 for cubic; each tap is a product and a sum
		width, ok := map[string]int64{"linear": 2, "cubic": 4}[n.Str("mode")]
		switch {
		case !ok: // nearest moves data
			return Count{}
		case n.Int("antialias") != 0: // as many taps as the scale asks for
			return Unknown()
		}
		taps := int64(1)
		for range n.Ints("axes") {
			taps *= width
		}
		return two.Times(Exactly(taps)).Times(out)
	case "BatchNormalization": // a product and a sum; the few operations per channel are left out
		return two.Times(out)
	case "Softmax": // maximum, difference, exponential, sum, quotient
		return Exactly(5).Times(out)
	case "AveragePool", "MaxPool":
		c := out
		for _, k := range n.Ints("kernel_shape") {
			c = c.Times(Exactly(k))
		}
		return c
	}
	return Unknown()
}

// treeSteps adds up the depths of all trees: a comparison for each node on the longest way to a leaf, and the addition
// of the leaf's weight.
func treeSteps(n *ir.Node) int64 {
	yes, no := n.Ints("node_true"), n.Ints("node_false")
	depth := make([]int64, len(yes)) // children come after their parents, so walk backwards
	at := func(i int64) int64 {
		if i < 0 || i >= int64(len(depth)) {
			return 0
		}
		return depth[i]
	}
	for i := len(yes) - 1; i >= 0; i-- {
		depth[i] = 1 + max(at(yes[i]), at(no[i]))
	}
	total := int64(0)
	for _, r := range n.Ints("roots") {
		total += at(r) + 1
	}
	return total
}
