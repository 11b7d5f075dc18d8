package xgboost

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/packager/frontend/trees"
)

// model is what a prediction depends on, whatever the file's format.
type model struct {
	objective string
	booster   string
	base      []float32 // one, or one per output
	margin    bool      // base is a margin already (files before 1.0)
	features  int
	outputs   int
	trees     []tree
	info      []int32   // output of each tree
	drop      []float32 // weight of each tree, for dart
	linear    []float32 // gblinear: [features+1][outputs], the bias last
	version   [3]int    // 0.0.0 before 1.0
	names     []string
}

// tree has a value per node. Leaves have left -1.
type tree struct {
	left, right, feature []int32
	cond                 []float32 // threshold, or a leaf's value
	defaultLeft          []int32
	categorical          []int32           // nil without categories
	sets                 map[int32][]int64 // ascending categories that go right
	vector               int               // values per leaf; 1 for a scalar
	leaves               []float32         // of a vector tree
	leafOf               []int32           // of a vector tree: number of a leaf's first value / vector
}

const maxNodes = trees.MaxNodes

// fromDocument reads the structure of save_model.
func fromDocument(v *value) (*model, error) {
	root := at{v, ""}
	if v.kind != object {
		return nil, root.fail("is %s, want an object", v.kind)
	}
	learner, err := root.object("learner")
	if err != nil {
		return nil, err
	}
	param, err := learner.object("learner_model_param")
	if err != nil {
		return nil, err
	}
	m := &model{}
	vs, err := root.ints("version", len(m.version))
	if err != nil {
		return nil, err
	}
	for i, v := range vs {
		m.version[i] = int(v)
	}
	if m.features, err = param.int("num_feature", 1, trees.MaxFeatures); err != nil {
		return nil, err
	}
	classes, err := param.intOr("num_class", 0, 0, trees.MaxOutputs)
	if err != nil {
		return nil, err
	}
	targets, err := param.intOr("num_target", 1, 0, trees.MaxOutputs)
	if err != nil {
		return nil, err
	}
	m.outputs = max(classes, targets, 1)
	if m.base, err = readBase(param, m.outputs); err != nil {
		return nil, err
	}
	if names, ok := learner.has("feature_names"); ok {
		for _, n := range names.v.list {
			m.names = append(m.names, n.str)
		}
	}
	obj, err := learner.object("objective")
	if err != nil {
		return nil, err
	}
	name, err := obj.member("name", text)
	if err != nil {
		return nil, err
	}
	m.objective = name.v.str
	boost, err := learner.object("gradient_booster")
	if err != nil {
		return nil, err
	}
	if name, err = boost.member("name", text); err != nil {
		return nil, err
	}
	m.booster = name.v.str
	switch m.booster {
	case "gblinear":
		model, err := boost.object("model")
		if err != nil {
			return nil, err
		}
		m.linear, err = model.reals("weights", (m.features+1)*m.outputs)
		return m, err
	case "gbtree":
		return m, m.readTrees(boost)
	case "dart":
		inner, err := boost.object("gbtree")
		if err != nil {
			return nil, err
		}
		if err := m.readTrees(inner); err != nil {
			return nil, err
		}
		m.drop, err = boost.reals("weight_drop", len(m.trees))
		return m, err
	}
	return m, nil // lower refuses it, by its name
}

// readBase reads base_score: "5E-1" or, since 3.1, "[5E-1]" with a value for each output.
func readBase(param at, outputs int) ([]float32, error) {
	b, ok := param.has("base_score")
	if !ok {
		return nil, b.fail("is missing")
	}
	if b.v.kind == number {
		return []float32{float32(b.v.num)}, nil
	}
	if b.v.kind != text {
		return nil, b.fail("is %s", b.v.kind)
	}
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.v.str), "["), "]"), ",")
	if len(parts) != 1 && len(parts) != outputs {
		return nil, b.fail("has %d values for %d outputs", len(parts), outputs)
	}
	out := make([]float32, len(parts))
	for i, p := range parts {
		x, err := strconv.ParseFloat(strings.TrimSpace(p), 32)
		if err != nil {
			return nil, b.fail("%q is no number", p)
		}
		out[i] = float32(x)
	}
	return out, nil
}

func (m *model) readTrees(boost at) error {
	body, err := boost.object("model")
	if err != nil {
		return err
	}
	ts, err := body.member("trees", list)
	if err != nil {
		return err
	}
	if m.info, err = body.ints("tree_info", len(ts.v.list)); err != nil {
		return err
	}
	param, err := body.object("gbtree_model_param")
	if err != nil {
		return err
	}
	if n, err := param.intOr("num_trees", len(ts.v.list), 0, math.MaxInt32); err != nil {
		return err
	} else if n != len(ts.v.list) {
		return ts.fail("has %d entries, num_trees is %d", len(ts.v.list), n)
	}
	m.trees = make([]tree, len(ts.v.list))
	for i, v := range ts.v.list {
		a := at{v, fmt.Sprintf("%s[%d]", ts.path, i)}
		if v.kind != object {
			return a.fail("is %s, want an object", v.kind)
		}
		if err := m.trees[i].read(a); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) read(a at) error {
	param, err := a.object("tree_param")
	if err != nil {
		return err
	}
	n, err := param.int("num_nodes", 1, maxNodes)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		to   *[]int32
	}{{"left_children", &t.left}, {"right_children", &t.right}, {"split_indices", &t.feature}, {"default_left", &t.defaultLeft}} {
		if *f.to, err = a.ints(f.name, n); err != nil {
			return err
		}
	}
	if t.cond, err = a.reals("split_conditions", n); err != nil {
		return err
	}
	if t.vector, err = param.intOr("size_leaf_vector", 1, 0, trees.MaxOutputs); err != nil {
		return err
	}
	if t.vector = max(t.vector, 1); t.vector > 1 {
		if err := t.readVectors(a, n); err != nil {
			return err
		}
	}
	if _, ok := a.has("split_type"); !ok {
		return nil // before 1.3 there were no categories
	}
	if t.categorical, err = a.ints("split_type", n); err != nil {
		return err
	}
	return t.readSets(a)
}

// readVectors reads the values of a tree with several outputs: since 3.1 the leaves' own list, numbered by their right
// children, before that base_weights, for all nodes.
func (t *tree) readVectors(a at, n int) (err error) {
	t.leafOf = make([]int32, n)
	if _, ok := a.has("leaf_weights"); !ok {
		for i := range t.leafOf {
			t.leafOf[i] = int32(i)
		}
		t.leaves, err = a.reals("base_weights", n*t.vector)
		return err
	}
	if t.leaves, err = a.reals("leaf_weights", -1); err != nil {
		return err
	}
	for i, l := range t.left {
		if l != -1 {
			continue
		}
		if k := t.right[i]; k < 0 || (int64(k)+1)*int64(t.vector) > int64(len(t.leaves)) {
			return a.fail("node %d: leaf %d of %d values does not exist", i, k, len(t.leaves))
		}
		t.leafOf[i] = t.right[i]
	}
	return nil
}

// readSets reads the categories of the nodes that split by them.
func (t *tree) readSets(a at) error {
	any := false
	for i, k := range t.categorical {
		if k != 0 && k != 1 {
			return a.fail("node %d has split type %d", i, k)
		}
		any = any || k == 1
	}
	if !any {
		t.categorical = nil
		return nil
	}
	nodes, err := a.ints("categories_nodes", -1)
	if err != nil {
		return err
	}
	begin, err := a.ints("categories_segments", len(nodes))
	if err != nil {
		return err
	}
	size, err := a.ints("categories_sizes", len(nodes))
	if err != nil {
		return err
	}
	cats, err := a.ints("categories", -1)
	if err != nil {
		return err
	}
	t.sets = make(map[int32][]int64, len(nodes))
	used := 0
	for i, n := range nodes {
		lo, hi := int64(begin[i]), int64(begin[i])+int64(size[i])
		if _, twice := t.sets[n]; twice || lo < 0 || size[i] < 0 || hi > int64(len(cats)) {
			return a.fail("node %d: its categories are %d to %d of %d", n, lo, hi, len(cats))
		}
		if used += int(size[i]); used > len(cats) {
			return a.fail("node %d: its categories overlap with those of another", n)
		}
		set := make([]int64, 0, size[i])
		for _, c := range cats[lo:hi] {
			if c < 0 || c >= maxCategory || len(set) > 0 && int64(c) <= set[len(set)-1] {
				return a.fail("node %d: category %d is negative, too large or out of order", n, c)
			}
			set = append(set, int64(c))
		}
		t.sets[n] = set
	}
	return nil
}

// maxCategory is where f32 stops to hold every whole number; the library lets larger values go left.
const maxCategory = 1 << 24
