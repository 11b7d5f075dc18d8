package ir

import "fmt"

// Operators of the ai.onnx.ml domain that have no exact form in the others. The frontend lowers the rest:
//
//	Scaler                Cast to f32, Sub offset, Mul scale
//	Normalizer            Abs/Mul + ReduceSum or ReduceMax, Where(norm == 0, 1, norm), Div
//	Binarizer             Greater + Cast
//	Imputer               Where(X == replaced or X != X, value, X)
//	FeatureVectorizer     Cast + Reshape + Concat
//	ArrayFeatureExtractor Gather on the last axis
//	CategoryMapper        ml.LabelEncoder
//	LinearRegressor       Gemm + post transform
//	LinearClassifier      Gemm + post transform; label = Gather(classes, ArgMax) or, for one score, Where(score > 0)
//	SVM*                  MatMul and element-wise operators
//	TreeEnsemble*         ml.TreeEnsemble + post transform + label choice
//
// Post transforms: LOGISTIC is Sigmoid, SOFTMAX is Softmax on the last axis, SOFTMAX_ZERO and PROBIT are spelled out
// in element-wise operators.

// Modes of a tree node: the true child is taken when the comparison of feature value and threshold holds.
const (
	TreeLEQ = 0
	TreeLT  = 1
	TreeGTE = 2
	TreeGT  = 3
	TreeEQ  = 4
	TreeNEQ = 5
)

func mlOps() []OpDef {
	return []OpDef{
		{Name: "ml.TreeEnsemble", Doc: "Scores [N,n_targets] of X [N,F] over a forest, in X's element type (f32 or f64; frontends cast integers). " +
			"roots, node_true and node_false hold a node's index, or ~leaf (negative). A child's index is always greater than its parent's, " +
			"so every walk ends; a child may have several parents (set membership becomes a chain of EQ nodes). A node compares " +
			"x = X[n, node_feature] with node_threshold by node_mode (TreeLEQ ... TreeNEQ): true goes to node_true, and NaN also where " +
			"node_missing_true is 1 (EQ with a NaN is false, NEQ true). Leaf l adds leaf_weight[k] to target leaf_target[k] for k in " +
			"[leaf_begin[l], leaf_begin[l+1]). leaf_weight and base_values are f64 always, and so are the sums. Per target: SUM starts at 0 and adds " +
			"trees in the order of roots, then base_values[target] last; AVERAGE divides the sum by the number of trees before base_values; MIN " +
			"and MAX take the extreme weight that a leaf gave the target (0 where none did), then add base_values. One rounding to X's type " +
			"ends it. base_values is empty (nothing is added) or has n_targets elements. accumulate F32 (SUM of an f32 X only) starts at base_values " +
			"instead, and rounds each leaf weight and each sum to f32. Linear leaves (f64 X only): entry k with linear_begin[k] < linear_begin[k+1] " +
			"adds linear_const[k], then in order linear_coef[j] * X[n, linear_feature[j]], for j in between; leaf_weight[k] instead where one of those " +
			"features is NaN. Without linear leaves these lists are empty.",
			Ins: params("X"), Outs: params("scores"), infer: inferTrees,
			Attrs: []AttrDef{need("n_targets", AttrInt), need("roots", AttrInts), need("node_feature", AttrInts), need("node_mode", AttrInts),
				need("node_threshold", AttrData), need("node_true", AttrInts), need("node_false", AttrInts), need("node_missing_true", AttrInts),
				need("leaf_begin", AttrInts), need("leaf_target", AttrInts), need("leaf_weight", AttrData), attr("aggregate", "SUM"),
				need("base_values", AttrData), attr("accumulate", "F64"), attr("linear_begin", []int64{}), attr("linear_feature", []int64{}),
				attr("linear_const", F64s([]int64{0}, nil)), attr("linear_coef", F64s([]int64{0}, nil))}},
		{Name: "ml.LabelEncoder", Doc: "values[i] where X equals keys[i] (unique; a NaN key matches every NaN, -0 equals +0), else default's one element.",
			Ins: params("X"), Outs: params("Y"), infer: inferLabelEncoder,
			Attrs: []AttrDef{need("keys", AttrData), need("values", AttrData), need("default", AttrData)}},
		{Name: "ml.OneHotEncoder", Doc: "f32 [X's dims..., len(cats)]: 1 where X (i64 or string) equals the category (the last one of equals), else 0. An unknown value gives zeros, " +
			"or a run-time error for zeros=0.",
			Ins: params("X"), Outs: params("Y"), infer: inferMLOneHot, Attrs: []AttrDef{need("cats", AttrData), attr("zeros", 1)}},
		{Name: "ml.ZipMap", Doc: "Row n of X [N,C] (f32) becomes the map of classes[c] (i64 or string) to X[n,c]; a 1-D X is one row.",
			Ins: params("X"), Outs: params("Z"), infer: inferZipMap, Attrs: []AttrDef{need("classes", AttrData)}},
	}
}

func inferTrees(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	d := c.dtype(0)
	if err := c.want(0, d == F32 || d == F64, "f32 or f64"); err != nil {
		return err
	}
	s := c.shape(0)
	batch, features := Unknown(), Unknown()
	if s.Ranked {
		if s.Rank() != 2 {
			return fmt.Errorf("X is %s, want rank 2", s)
		}
		batch, features = s.Dims[0], s.Dims[1]
	}
	if err := checkTrees(c.n, d, features); err != nil {
		return err
	}
	c.set(0, d, ShapeOf(batch, Static(c.n.Int("n_targets"))))
	return nil
}

// checkTrees verifies the invariants that codegen relies on for memory safety and termination.
func checkTrees(n *Node, d DType, features Dim) error {
	targets := n.Int("n_targets")
	nodes := int64(len(n.Ints("node_feature")))
	leaves := int64(len(n.Ints("leaf_begin"))) - 1
	weights := int64(len(n.Ints("leaf_target")))
	if targets < 1 || leaves < 0 {
		return fmt.Errorf("%d targets, %d leaves", targets, leaves)
	}
	for _, name := range []string{"node_mode", "node_true", "node_false", "node_missing_true"} {
		if int64(len(n.Ints(name))) != nodes {
			return fmt.Errorf("%s has %d entries for %d nodes", name, len(n.Ints(name)), nodes)
		}
	}
	for _, a := range []struct {
		name string
		d    DType
		n    int64
	}{{"node_threshold", d, nodes}, {"leaf_weight", F64, weights}} {
		if t := n.Data(a.name); t.DType != a.d || t.Len() != a.n || len(t.Dims) != 1 {
			return fmt.Errorf("%s is %s, want %s[%d]", a.name, t.Type(), a.d, a.n)
		}
	}
	if b := n.Data("base_values"); b.DType != F64 || len(b.Dims) != 1 || b.Len() != 0 && b.Len() != targets {
		return fmt.Errorf("base_values is %s, want f64[%d] or empty", b.Type(), targets)
	}
	switch a := n.Str("aggregate"); a {
	case "SUM", "AVERAGE", "MIN", "MAX":
	default:
		return fmt.Errorf("aggregate %q", a)
	}
	ref := func(what string, i int, v, after int64) error {
		if v >= nodes || v < -leaves || v >= 0 && v <= after {
			return fmt.Errorf("%s[%d] is %d, for %d nodes and %d leaves", what, i, v, nodes, leaves)
		}
		return nil
	}
	for i, r := range n.Ints("roots") {
		if err := ref("roots", i, r, -1); err != nil {
			return err
		}
	}
	tr, fa, mode, miss := n.Ints("node_true"), n.Ints("node_false"), n.Ints("node_mode"), n.Ints("node_missing_true")
	for i, f := range n.Ints("node_feature") {
		if f < 0 || features.IsStatic() && f >= features.N {
			return fmt.Errorf("node_feature[%d] is %d, X has %s features", i, f, features)
		}
		if err := ref("node_true", i, tr[i], int64(i)); err != nil {
			return err
		}
		if err := ref("node_false", i, fa[i], int64(i)); err != nil {
			return err
		}
		if mode[i] < TreeLEQ || mode[i] > TreeNEQ || miss[i] < 0 || miss[i] > 1 {
			return fmt.Errorf("node %d has mode %d, node_missing_true %d", i, mode[i], miss[i])
		}
	}
	prev := int64(0)
	for i, b := range n.Ints("leaf_begin") {
		if b < prev || b > weights || i == 0 && b != 0 || int64(i) == leaves && b != weights {
			return fmt.Errorf("leaf_begin[%d] is %d, for %d weights", i, b, weights)
		}
		prev = b
	}
	for i, t := range n.Ints("leaf_target") {
		if t < 0 || t >= targets {
			return fmt.Errorf("leaf_target[%d] is %d of %d targets", i, t, targets)
		}
	}
	switch a := n.Str("accumulate"); {
	case a != "F64" && a != "F32":
		return fmt.Errorf("accumulate %q", a)
	case a == "F32" && (d != F32 || n.Str("aggregate") != "SUM"):
		return fmt.Errorf("accumulate F32 with aggregate %s of %s", n.Str("aggregate"), d)
	}
	return checkLinearLeaves(n, d, features, weights)
}

func checkLinearLeaves(n *Node, d DType, features Dim, weights int64) error {
	begin, feature := n.Ints("linear_begin"), n.Ints("linear_feature")
	entries := int64(0)
	if len(begin) > 0 {
		entries = weights
		if d != F64 || int64(len(begin)) != weights+1 || begin[0] != 0 || begin[weights] != int64(len(feature)) {
			return fmt.Errorf("linear_begin has %d entries for %d weights of %s", len(begin), weights, d)
		}
	} else if len(feature) > 0 {
		return fmt.Errorf("linear_feature without linear_begin")
	}
	for i := 1; i < len(begin); i++ {
		if begin[i] < begin[i-1] {
			return fmt.Errorf("linear_begin[%d] is %d after %d", i, begin[i], begin[i-1])
		}
	}
	for i, f := range feature {
		if f < 0 || features.IsStatic() && f >= features.N {
			return fmt.Errorf("linear_feature[%d] is %d, X has %s features", i, f, features)
		}
	}
	for _, a := range []struct {
		name string
		n    int64
	}{{"linear_const", entries}, {"linear_coef", int64(len(feature))}} {
		if t := n.Data(a.name); t.DType != F64 || t.Len() != a.n || len(t.Dims) != 1 {
			return fmt.Errorf("%s is %s, want f64[%d]", a.name, t.Type(), a.n)
		}
	}
	return nil
}

func inferLabelEncoder(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	k, v, d := c.n.Data("keys"), c.n.Data("values"), c.n.Data("default")
	if k.DType != c.dtype(0) || len(k.Dims) != 1 || len(v.Dims) != 1 || k.Len() != v.Len() || d.DType != v.DType || d.Len() != 1 {
		return fmt.Errorf("X is %s, keys %s, values %s, default %s", c.dtype(0), k.Type(), v.Type(), d.Type())
	}
	c.set(0, v.DType, c.shape(0))
	return nil
}

func inferMLOneHot(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	cats := c.n.Data("cats")
	if cats.DType != c.dtype(0) || len(cats.Dims) != 1 || cats.DType != I64 && cats.DType != String {
		return fmt.Errorf("X is %s, cats %s", c.dtype(0), cats.Type())
	}
	s := c.shape(0)
	if s.Ranked {
		s = ShapeOf(append(s.Clone().Dims, Static(cats.Len()))...)
	}
	c.set(0, F32, s)
	return nil
}

func inferZipMap(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, c.dtype(0) == F32, "f32"); err != nil {
		return err
	}
	cl, s := c.n.Data("classes"), c.shape(0)
	if len(cl.Dims) != 1 || cl.DType != I64 && cl.DType != String {
		return fmt.Errorf("classes is %s", cl.Type())
	}
	if r := s.Rank(); s.Ranked && (r < 1 || r > 2 || s.Dims[r-1].IsStatic() && s.Dims[r-1].N != cl.Len()) {
		return fmt.Errorf("X is %s for %d classes", s, cl.Len())
	}
	c.out[0] = SequenceOf(MapOf(cl.DType, TensorOf(F32, StaticShape())))
	return nil
}
