package onnx

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

func mlTrees() map[string]handler {
	return map[string]handler{
		"TreeEnsembleClassifier": treeClassifier, "TreeEnsembleRegressor": treeRegressor, "TreeEnsemble": treeEnsemble,
	}
}

// forest is an ensemble as the model has it: children are node numbers, or ~leaf.
type forest struct {
	roots  []int64
	nodes  []treeNode
	leaves [][]leafWeight
}

type treeNode struct {
	feature   int64
	mode      int64
	threshold float64
	yes, no   int64
	missing   int64
}

type leafWeight struct {
	target int64
	weight float64
}

// realAttr reads a list of floats, from its f32 attribute or, since ai.onnx.ml 3, from the tensor form.
func (o *op) realAttr(name string) []float64 {
	if o.hasAttr(name + "_as_tensor") {
		o.ignore(name)
		d := o.attrTensor(name + "_as_tensor")
		if d == nil {
			return nil
		}
		if d.DType != ir.F32 && d.DType != ir.F64 {
			o.lacks("%s_as_tensor of %s", name, d.DType)
			return nil
		}
		return d.Floats()
	}
	o.ignore(name + "_as_tensor")
	v := o.attrFloats(name)
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// readForest reads the attributes of TreeEnsembleClassifier and -Regressor; w is "class" or "target".
func (o *op) readForest(w string) *forest {
	o.ignore("nodes_hitrates", "nodes_hitrates_as_tensor")
	tree, id := o.attrInts("nodes_treeids"), o.attrInts("nodes_nodeids")
	feat, mode := o.attrInts("nodes_featureids"), o.attrStrs("nodes_modes")
	yes, no := o.attrInts("nodes_truenodeids"), o.attrInts("nodes_falsenodeids")
	miss, thr := o.attrInts("nodes_missing_value_tracks_true"), o.realAttr("nodes_values")
	wt, wn, wi := o.attrInts(w+"_treeids"), o.attrInts(w+"_nodeids"), o.attrInts(w+"_ids")
	ww := o.realAttr(w + "_weights")
	n := len(id)
	if o.err != nil {
		return nil
	}
	if len(tree) != n || len(feat) != n || len(mode) != n || len(yes) != n || len(no) != n || len(thr) != n || len(miss) != 0 && len(miss) != n {
		o.fail("the nodes_* lists have different lengths")
		return nil
	}
	if len(wn) != len(wt) || len(wi) != len(wt) || len(ww) != len(wt) {
		o.fail("the %s_* lists have different lengths", w)
		return nil
	}
	type key struct{ tree, node int64 }
	at := make(map[key]int64, n)
	for i := range id {
		k := key{tree[i], id[i]}
		if _, dup := at[k]; dup {
			o.fail("node %d of tree %d is given twice", id[i], tree[i])
			return nil
		}
		at[k] = int64(i)
	}
	modes := map[string]int64{"BRANCH_LEQ": ir.TreeLEQ, "BRANCH_LT": ir.TreeLT, "BRANCH_GTE": ir.TreeGTE, "BRANCH_GT": ir.TreeGT,
		"BRANCH_EQ": ir.TreeEQ, "BRANCH_NEQ": ir.TreeNEQ}
	f := &forest{}
	leaf := make([]int64, n) // ~number for a leaf
	for i := range id {
		if mode[i] == "LEAF" {
			f.leaves = append(f.leaves, nil)
			leaf[i] = int64(^(len(f.leaves) - 1))
		} else if _, ok := modes[mode[i]]; !ok {
			o.lacks("node mode %q", mode[i])
			return nil
		}
	}
	for i := range wt {
		k, ok := at[key{wt[i], wn[i]}]
		if !ok {
			o.fail("%s_nodeids names node %d of tree %d, which does not exist", w, wn[i], wt[i])
			return nil
		}
		if leaf[k] == 0 {
			o.lacks("weights at an inner node (%d of tree %d)", wn[i], wt[i])
			return nil
		}
		f.leaves[^leaf[k]] = append(f.leaves[^leaf[k]], leafWeight{wi[i], ww[i]})
	}
	f.nodes = make([]treeNode, n)
	child := make([]bool, n)
	ref := func(i int, t int64) int64 {
		k, ok := at[key{tree[i], t}]
		if !ok {
			o.fail("node %d of tree %d has the child %d, which does not exist", id[i], tree[i], t)
			return 0
		}
		child[k] = true
		if leaf[k] != 0 {
			return leaf[k]
		}
		return k
	}
	for i := range id {
		if leaf[i] != 0 {
			continue
		}
		m := int64(0)
		if len(miss) > 0 {
			m = miss[i]
		}
		f.nodes[i] = treeNode{feat[i], modes[mode[i]], thr[i], ref(i, yes[i]), ref(i, no[i]), m}
		if o.err != nil {
			return nil
		}
	}
	// A tree's root is its one node without a parent; trees count in the order in which they first appear.
	rootOf := map[int64]int{}
	var order []int64
	for i := range id {
		if child[i] {
			continue
		}
		if _, dup := rootOf[tree[i]]; dup {
			o.fail("tree %d has several roots", tree[i])
			return nil
		}
		rootOf[tree[i]] = i
	}
	seen := map[int64]bool{}
	for i := range id {
		if !seen[tree[i]] {
			seen[tree[i]] = true
			order = append(order, tree[i])
		}
	}
	for _, t := range order {
		r, ok := rootOf[t]
		if !ok {
			o.fail("tree %d has no root: its nodes form a cycle", t)
			return nil
		}
		if leaf[r] != 0 {
			f.roots = append(f.roots, leaf[r])
		} else {
			f.roots = append(f.roots, int64(r))
		}
	}
	return f
}

// canonical renumbers nodes in an order in which children come after all their parents, the true child's side first, and
// leaves as a walk meets them, and gives the attributes of ml.TreeEnsemble. Nodes and leaves may be shared.
func (f *forest) canonical(d ir.DType, targets int64, aggregate string, base []float64) (ir.Attrs, error) {
	order, err := f.order()
	if err != nil {
		return nil, err
	}
	at := make([]int64, len(f.nodes))
	for k, i := range order {
		at[i] = int64(k)
	}
	var target []int64
	var weight []float64
	begin, leaf := []int64{0}, map[int64]int64{}
	met := make([]bool, len(f.nodes))
	var stack []int64
	for _, r := range f.roots {
		stack = append(stack[:0], r)
		for len(stack) > 0 {
			r := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			switch _, known := leaf[r]; {
			case r >= 0 && !met[r]:
				met[r] = true
				stack = append(stack, f.nodes[r].no, f.nodes[r].yes)
			case r < 0 && !known:
				leaf[r] = ^int64(len(begin) - 1)
				for _, w := range f.leaves[^r] {
					target, weight = append(target, w.target), append(weight, w.weight)
				}
				begin = append(begin, int64(len(target)))
			}
		}
	}
	ref := func(r int64) int64 {
		if r < 0 {
			return leaf[r]
		}
		return at[r]
	}
	var feature, mode, yes, no, missing []int64
	var threshold []float64
	for _, i := range order {
		n := f.nodes[i]
		feature, mode, missing = append(feature, n.feature), append(mode, n.mode), append(missing, n.missing)
		threshold = append(threshold, n.threshold)
		yes, no = append(yes, ref(n.yes)), append(no, ref(n.no))
	}
	roots := make([]int64, len(f.roots))
	for i, r := range f.roots {
		roots[i] = ref(r)
	}
	list := func(d ir.DType, v []float64) *ir.Data { return ir.FloatData(d, []int64{int64(len(v))}, v) }
	ints := func(v []int64) []int64 { return append([]int64{}, v...) }
	return ir.Attrs{"n_targets": targets, "roots": roots, "node_feature": ints(feature), "node_mode": ints(mode), "node_threshold": list(d, threshold),
		"node_true": ints(yes), "node_false": ints(no), "node_missing_true": ints(missing), "leaf_begin": begin, "leaf_target": ints(target),
		"leaf_weight": list(ir.F64, weight), "aggregate": aggregate, "base_values": list(ir.F64, base)}, nil
}

// order lists the nodes that the roots lead to, parents before children. It fails for cycles and for references to nothing.
func (f *forest) order() ([]int64, error) {
	const fresh, open, done = 0, 1, 2
	state := make([]uint8, len(f.nodes))
	var post, stack []int64
	push := func(r int64) error {
		switch {
		case r < 0 && ^r >= int64(len(f.leaves)):
			return fmt.Errorf("leaf %d does not exist", ^r)
		case r >= int64(len(f.nodes)):
			return fmt.Errorf("node %d does not exist", r)
		case r >= 0 && state[r] == open:
			return fmt.Errorf("node %d leads back to itself", r)
		case r >= 0 && state[r] == fresh:
			stack = append(stack, r)
		}
		return nil
	}
	// The walk is over trees from the last to the first and over false children first: what it leaves, turned round,
	// has the first tree and true children first.
	for k := len(f.roots) - 1; k >= 0; k-- {
		if err := push(f.roots[k]); err != nil {
			return nil, err
		}
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			n := &f.nodes[i]
			if state[i] != fresh {
				stack = stack[:len(stack)-1]
				if state[i] == open {
					state[i] = done
					post = append(post, i)
				}
				continue
			}
			state[i] = open
			for _, r := range []int64{n.yes, n.no} {
				if err := push(r); err != nil {
					return nil, err
				}
			}
		}
	}
	for i, j := 0, len(post)-1; i < j; i, j = i+1, j-1 {
		post[i], post[j] = post[j], post[i]
	}
	return post, nil
}

// trees emits the ensemble. x is f32 or f64 already.
func (o *op) trees(x *ir.Value, f *forest, targets int64, aggregate string, base []float64) *ir.Value {
	if o.err != nil {
		return x
	}
	a, err := f.canonical(x.Type.DType, targets, aggregate, base)
	if err != nil {
		o.fail("%w", err)
		return x
	}
	return o.emit("ml.TreeEnsemble", a, x)
}

// treeInput gives X as [N,F] in the type that the comparisons run in: f64 stays, everything else becomes f32.
func (o *op) treeInput() *ir.Value {
	x := o.need(0)
	if x.Type.DType != ir.F64 {
		x = o.cast(x, ir.F32)
	}
	if rank(x) == 1 {
		x = o.emit("Unsqueeze", nil, x, o.ints(0))
	}
	return x
}

// treeRegressor: like ONNX Runtime, a single target ignores every post transform but PROBIT.
func treeRegressor(o *op) []*ir.Value {
	f := o.readForest("target")
	targets, agg := o.attrInt("n_targets", 1), o.attrStr("aggregate_function", "SUM")
	base, kind := o.realAttr("base_values"), o.attrStr("post_transform", "NONE")
	x := o.treeInput()
	if o.err != nil {
		return nil
	}
	base, ok := fitBase(base, targets)
	if !ok {
		return o.fail("%d base_values for %d targets", len(base), targets)
	}
	if targets == 1 {
		// Exporters of decision paths and leaf numbers repeat a leaf's weight for each class of the classifier. ONNX Runtime
		// takes the first one, and the library's answer comes out.
		for i, l := range f.leaves {
			if len(l) > 1 {
				f.leaves[i] = l[:1]
			}
		}
	}
	s := o.cast(o.trees(x, f, targets, agg, base), ir.F32)
	return one(o.post(s, kind, int(targets)))
}

// fitBase spreads one base value over all targets.
func fitBase(base []float64, targets int64) ([]float64, bool) {
	if len(base) == 1 && targets > 1 && targets < 1<<20 {
		for int64(len(base)) < targets {
			base = append(base, base[0])
		}
	}
	return base, len(base) == 0 || int64(len(base)) == targets
}

// treeEnsemble is the operator of ai.onnx.ml 5, whose leaves have lists of their own.
func treeEnsemble(o *op) []*ir.Value {
	o.ignore("nodes_hitrates")
	feat, yes, no := o.attrInts("nodes_featureids"), o.attrInts("nodes_truenodeids"), o.attrInts("nodes_falsenodeids")
	yesLeaf, noLeaf, miss := o.attrInts("nodes_trueleafs"), o.attrInts("nodes_falseleafs"), o.attrInts("nodes_missing_value_tracks_true")
	modes, splits := o.attrTensor("nodes_modes"), o.attrTensor("nodes_splits")
	ids, weights, members := o.attrInts("leaf_targetids"), o.attrTensor("leaf_weights"), o.attrTensor("membership_values")
	roots, targets := o.attrInts("tree_roots"), o.attrInt("n_targets", 1)
	agg, kind := o.attrInt("aggregate_function", 1), o.attrInt("post_transform", 0)
	x := o.need(0)
	if o.err != nil {
		return nil
	}
	n := len(feat)
	real := func(d *ir.Data) bool { return d != nil && (d.DType == ir.F32 || d.DType == ir.F64) }
	if modes == nil || modes.DType != ir.U8 || !real(splits) || !real(weights) || members != nil && !real(members) {
		return o.lacks("tensors of these element types, or without modes, splits or weights")
	}
	if len(yes) != n || len(no) != n || len(yesLeaf) != n || len(noLeaf) != n || modes.Len() != int64(n) || splits.Len() != int64(n) ||
		len(miss) != 0 && len(miss) != n || weights.Len() != int64(len(ids)) {
		return o.fail("the lists have different lengths")
	}
	if agg < 0 || agg > 3 || kind < 0 || kind > 4 {
		return o.lacks("aggregate function %d, post transform %d", agg, kind)
	}
	f := &forest{roots: roots}
	for i, t := range ids {
		f.leaves = append(f.leaves, []leafWeight{{t, weights.Float(i)}})
	}
	ref := func(leaf, i int64) int64 {
		if leaf != 0 {
			return ^i
		}
		return i
	}
	var sets [][]float64
	if members != nil {
		set := []float64{}
		for _, v := range members.Floats() {
			if math.IsNaN(v) {
				sets, set = append(sets, set), []float64{}
				continue
			}
			set = append(set, v)
		}
	}
	for i := 0; i < n; i++ {
		t := treeNode{feat[i], modes.Int(i), splits.Float(i), ref(yesLeaf[i], yes[i]), ref(noLeaf[i], no[i]), 0}
		if len(miss) > 0 {
			t.missing = miss[i]
		}
		if yes[i] < 0 || no[i] < 0 {
			return o.fail("node %d has a negative child", i)
		}
		f.nodes = append(f.nodes, t)
	}
	// Set membership: a chain of EQ nodes that share the true child.
	for i := 0; i < n; i++ {
		t := &f.nodes[i]
		if t.mode != 6 {
			continue
		}
		if len(sets) == 0 {
			return o.fail("there are fewer sets in membership_values than MEMBER nodes")
		}
		set := sets[0]
		sets = sets[1:]
		t.mode, t.threshold = ir.TreeEQ, math.NaN() // the empty set: never
		if len(set) == 0 {
			continue
		}
		t.threshold = set[0]
		last := i
		for _, v := range set[1:] {
			f.nodes = append(f.nodes, treeNode{t.feature, ir.TreeEQ, v, f.nodes[i].yes, f.nodes[last].no, t.missing})
			f.nodes[last].no = int64(len(f.nodes) - 1)
			last = len(f.nodes) - 1
			t = &f.nodes[i]
		}
	}
	for i := range f.nodes { // a root whose children are the same leaf is a tree of one leaf
		if t := &f.nodes[i]; t.yes < 0 && t.yes == t.no {
			for k, r := range f.roots {
				if r == int64(i) {
					f.roots[k] = t.yes
				}
			}
		}
	}
	if x.Type.DType != ir.F64 && x.Type.DType != ir.F32 {
		return o.lacks("inputs of %s", x.Type.DType)
	}
	s := o.trees(x, f, targets, []string{"AVERAGE", "SUM", "MIN", "MAX"}[agg], nil)
	return one(o.post(s, []string{"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"}[kind], int(targets)))
}

// classFacts tells whether some leaf scores class 0 and class 1, and whether no weight is negative.
func (f *forest) classFacts() (n0, n1, allPositive bool) {
	allPositive = true
	for _, l := range f.leaves {
		for _, w := range l {
			n0, n1 = n0 || w.target == 0, n1 || w.target == 1
			allPositive = allPositive && w.weight >= 0
		}
	}
	return
}

// treeClassifier: with more than two classes the label is that of the first largest score; two have rules of their own.
func treeClassifier(o *op) []*ir.Value {
	f := o.readForest("class")
	classes, base := o.classes("classlabels_int64s"), o.realAttr("base_values")
	kind := o.attrStr("post_transform", "NONE")
	x := o.treeInput()
	if o.err != nil {
		return nil
	}
	n := classes.Len()
	switch {
	case n < 2:
		return o.lacks("%d class labels", n)
	case n == 2:
		return o.binaryTrees(x, f, classes, base, kind)
	}
	base, ok := fitBase(base, n)
	if !ok {
		return o.fail("%d base_values for %d classes", len(base), n)
	}
	s := o.cast(o.trees(x, f, n, "SUM", base), ir.F32)
	return []*ir.Value{o.labelOf(s, classes), o.post(s, kind, int(n))}
}

// binaryTrees handles two labels, by the rules of docs/numerics.md. Most exporters score class 0 only: its raw score is
// compared with 0.5 when no weight is negative, else with 0, and the scores become [1-s, s] or [-s, s] (LOGISTIC: their
// sigmoids).
func (o *op) binaryTrees(x *ir.Value, f *forest, classes *ir.Data, base []float64, kind string) []*ir.Value {
	n0, n1, allPositive := f.classFacts()
	if len(base) > 2 {
		return o.fail("%d base_values for 2 classes", len(base))
	}
	yes, no := pick(classes, []int{1}), pick(classes, []int{0})
	join := func(a, b *ir.Value) *ir.Value { return o.emit("Concat", ir.Attrs{"axis": 1}, a, b) }
	if n1 {
		if len(base) == 1 {
			base = append(base, 0)
		}
		s := o.cast(o.trees(x, f, 2, "SUM", base), ir.F32)
		column := func(i int64) *ir.Value { return o.emit("Gather", ir.Attrs{"axis": 1}, s, o.ints(i)) }
		other := o.like(s, 0)
		if n0 {
			other = column(0)
		}
		label := o.chooseLabel(o.emit("Greater", nil, column(1), other), yes, no)
		return []*ir.Value{label, o.post(s, kind, 2)}
	}
	if len(base) == 2 {
		base = base[1:]
	}
	s := o.cast(o.trees(x, f, 1, "SUM", base), ir.F32)
	limit := 0.0
	if allPositive {
		limit = 0.5
	}
	label := o.chooseLabel(o.emit("Greater", nil, s, o.like(s, limit)), yes, no)
	var two *ir.Value
	switch {
	case kind == "PROBIT":
		p := o.probit(s)
		two = join(o.emit("Sub", nil, o.like(s, 1), p), p)
	case allPositive:
		two = join(o.emit("Sub", nil, o.like(s, 1), s), s)
	default:
		two = join(o.emit("Neg", nil, s), s)
		if kind == "LOGISTIC" {
			two = o.post(two, kind, 2)
		}
	}
	return []*ir.Value{label, two}
}
