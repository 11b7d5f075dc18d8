package xgboost

import (
	"fmt"
	"math"
	"strings"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/trees"
	"github.com/waybill-ml/waybill/packager/ir"
)

// link is how an objective turns margins into predictions, and base_score into a margin.
type link struct {
	out     trees.Link
	toInner func(float32) float64
}

func objectives() map[string]link {
	same := func(x float32) float64 { return float64(x) }
	log := func(x float32) float64 { return float64(float32(trees.Log(float64(x)))) }
	m := map[string]link{
		"reg:logistic":    {trees.Logistic, trees.Logit},
		"binary:logistic": {trees.Binary, trees.Logit},
		"binary:logitraw": {trees.Identity, trees.Logit},
		"binary:hinge":    {trees.Step, same},
		"multi:softmax":   {trees.Softmax, same},
		"multi:softprob":  {trees.Softmax, same},
	}
	for _, n := range []string{"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"} {
		m[n] = link{trees.Exp, log}
	}
	for _, n := range []string{"reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror",
		"reg:quantileerror", "rank:pairwise", "rank:ndcg", "rank:map"} {
		m[n] = link{trees.Identity, same}
	}
	return m
}

func unsupported(m *model, op, reason string) error {
	return &frontend.UnsupportedError{Op: op, Domain: "xgboost", Node: m.booster, Reason: reason,
		Hint: "train with an objective and booster that docs/trees.md lists, or export the model to ONNX"}
}

// lower makes the graph.
func lower(m *model) (*ir.Graph, error) {
	name := strings.Replace(m.objective, "gpu:", "", 1) // the GPU objectives of old versions
	l, ok := objectives()[name]
	if !ok {
		return nil, unsupported(m, m.objective, "its output transform is not known")
	}
	if name == "binary:logitraw" && !m.before(1, 3) {
		l.toInner = func(x float32) float64 { return float64(x) }
	}
	if m.outputs > 1 && l.out == trees.Binary {
		l.out = trees.Logistic // several labels, each of its own
	}
	if l.out == trees.Softmax && m.outputs < 2 {
		return nil, fmt.Errorf("objective %s with %d classes", m.objective, m.outputs)
	}
	base := make([]float64, m.outputs)
	for i := range base {
		b := m.base[min(i, len(m.base)-1)]
		if base[i] = l.toInner(b); m.margin {
			base[i] = float64(b)
		}
		if math.IsNaN(base[i]) || math.IsInf(base[i], 0) {
			return nil, fmt.Errorf("base_score %v has no margin for %s", b, m.objective)
		}
	}
	g := trees.NewGraph(ir.F32, m.features)
	var s *ir.Value
	switch m.booster {
	case "gbtree", "dart":
		f, err := m.forest()
		if err != nil {
			return nil, err
		}
		if m.baseLast() {
			sum := g.Op("sum", "ml.TreeEnsemble", f.Attrs(ir.F32, nil, true), g.X)
			s = g.Op("scores", "Add", nil, g.Reals("base", ir.F32, []int64{int64(m.outputs)}, base), sum)
			break
		}
		s = g.Op("scores", "ml.TreeEnsemble", f.Attrs(ir.F32, base, true), g.X)
	case "gblinear":
		s = m.linearScores(g, base)
	default:
		return nil, unsupported(m, m.booster, "the booster is not known")
	}
	return g.Finish(s, s, m.outputs, l.out, 1)
}

// before tells whether the file was written by a version before major.minor.
func (m *model) before(major, minor int) bool {
	return m.version[0] < major || m.version[0] == major && m.version[1] < minor
}

// baseLast tells whether the version that wrote the file added the base score after the trees, where newer ones begin
// with it.
func (m *model) baseLast() bool {
	if m.booster == "dart" {
		return m.before(1, 4)
	}
	return m.version[0] > 0 && m.before(1, 3)
}

// linearScores adds as the library does, in f32: bias and base first, then the features in order; a missing feature adds
// nothing. The bias is the weight of a leading column of ones. The library's linear predictor takes the first base score
// for every output, and so does this.
func (m *model) linearScores(g *trees.Graph, base []float64) *ir.Value {
	k := int64(m.outputs)
	w := make([]float64, 0, len(m.linear))
	for i := 0; i < m.outputs; i++ {
		w = append(w, float64(m.linear[m.features*m.outputs+i]+float32(base[0])))
	}
	for _, x := range m.linear[:m.features*m.outputs] {
		w = append(w, float64(x))
	}
	zero := g.Reals("nothing", ir.F32, nil, []float64{0})
	x := g.Op("present", "Where", nil, g.Op("there", "Equal", nil, g.X, g.X), g.X, zero)
	x = g.Op("padded", "Pad", ir.Attrs{"mode": "constant"}, x, g.Ints("padding", 0, 1, 0, 0), g.Reals("ones", ir.F32, nil, []float64{1}))
	return g.Op("scores", "MatMul", nil, x, g.Reals("weights", ir.F32, []int64{int64(m.features) + 1, k}, w))
}

func (m *model) forest() (*trees.Forest, error) {
	f, err := trees.New(ir.TreeLT, m.features, m.outputs)
	if err != nil {
		return nil, err
	}
	for i := range m.trees {
		t, err := m.tree(i)
		if err == nil {
			err = f.Add(t)
		}
		if err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return f, nil
}

// tree converts tree number i. A row goes left iff x < threshold; with categories, iff its category is not in the set.
func (m *model) tree(i int) (*trees.Tree, error) {
	t := &m.trees[i]
	n := len(t.left)
	if t.vector > 1 && t.vector != m.outputs {
		return nil, fmt.Errorf("leaves of %d values, the model has %d outputs", t.vector, m.outputs)
	}
	if t.vector > 1 && m.drop != nil {
		return nil, unsupported(m, "dart", "with several values in a leaf")
	}
	out := &trees.Tree{Splits: make([]trees.Split, n), Left: make([]int, n), Right: make([]int, n)}
	ref := make([]int, n)
	for j := range ref {
		ref[j] = j
		if t.left[j] != -1 {
			continue
		}
		ref[j] = ^len(out.Leaves)
		out.Leaves = append(out.Leaves, m.leaf(i, t, j))
	}
	out.Root = ref[0]
	for j := range ref {
		if ref[j] < 0 {
			continue
		}
		l, r := int(t.left[j]), int(t.right[j])
		if l < 0 || r < 0 || l >= n || r >= n {
			if t.left[j] == math.MaxInt32 || l < -1 || r < 0 {
				// A node that pruning deleted keeps no valid children; the walk from the root never comes here.
				l, r = n, n
			}
		}
		s := trees.Split{Feature: int(t.feature[j]), Cuts: []float64{float64(t.cond[j])}, First: true, NaN: t.defaultLeft[j] != 0}
		if t.categorical != nil && t.categorical[j] == 1 {
			set, ok := t.sets[int32(j)]
			if !ok {
				return nil, fmt.Errorf("node %d: there are no categories for it", j)
			}
			if s.Cuts = trees.Categories(ir.TreeLT, set, 0); len(set) == 0 {
				s.Cuts = []float64{math.Inf(-1)} // below it is nothing
				s.First = false
			}
		} else if math.IsNaN(s.Cuts[0]) {
			return nil, fmt.Errorf("node %d: its threshold is NaN", j)
		}
		out.Splits[j], out.Left[j], out.Right[j] = s, at0(ref, l), at0(ref, r)
	}
	return out, nil
}

// at0 is ref[i], or a child that does not exist: an error for whoever walks there.
func at0(ref []int, i int) int {
	if i >= len(ref) {
		return len(ref)
	}
	return ref[i]
}

func (m *model) leaf(i int, t *tree, j int) []trees.Weight {
	if t.vector > 1 {
		at := int(t.leafOf[j]) * t.vector
		ws := make([]trees.Weight, t.vector)
		for k := range ws {
			ws[k] = trees.Weight{Output: k, Value: float64(t.leaves[at+k])}
		}
		return ws
	}
	v := t.cond[j]
	if m.drop != nil {
		v *= m.drop[i]
	}
	return []trees.Weight{{Output: int(m.info[i]), Value: float64(v)}}
}
