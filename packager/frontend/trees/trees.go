// Package trees turns forests as boosting libraries store them into the compiler's ml.TreeEnsemble. A split is a list
// of cuts of the number line, which covers thresholds, zero as a missing value and sets of categories alike.
package trees

import (
	"fmt"
	"math"
	"sort"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Bounds of a forest: more is refused before memory is spent on it.
const (
	MaxNodes    = 1 << 25
	MaxFeatures = 1 << 24
	MaxOutputs  = 1 << 16
)

// Split sends a row to the left or right child by one feature. Cuts (ascending) divide the number line into
// len(Cuts)+1 intervals, which go left and right by turns, the first one left iff First. A NaN goes left iff NaN.
// A forest's Mode says to which side of a cut the cut itself belongs.
type Split struct {
	Feature int
	Cuts    []float64
	First   bool
	NaN     bool
}

// Weight is what a leaf adds to an output: Value, or Const plus Coef times the features when there are some.
type Weight struct {
	Output  int
	Value   float64
	Const   float64
	Feature []int
	Coef    []float64
}

// Tree is one tree. Children are indices of Splits, or ^leaf; Root likewise.
type Tree struct {
	Root        int
	Splits      []Split
	Left, Right []int
	Leaves      [][]Weight
}

// Forest collects trees into the attributes of ml.TreeEnsemble.
type Forest struct {
	mode, outputs, features int64

	roots, feature, yes, no, missing []int64
	threshold                        []float64
	leafBegin, target                []int64
	weight                           []float64

	linear               bool
	linBegin, linFeature []int64
	linConst, linCoef    []float64
}

// slot is a place that waits for the index of a node.
type slot struct {
	list *[]int64
	at   int
}

// New starts a forest. mode is ir.TreeLT (a cut belongs to the interval above it) or ir.TreeLEQ (to the one below).
func New(mode int64, features, outputs int) (*Forest, error) {
	if features < 1 || features > MaxFeatures {
		return nil, fmt.Errorf("%d features, want 1 to %d", features, MaxFeatures)
	}
	if outputs < 1 || outputs > MaxOutputs {
		return nil, fmt.Errorf("%d outputs, want 1 to %d", outputs, MaxOutputs)
	}
	return &Forest{mode: mode, outputs: int64(outputs), features: int64(features), leafBegin: []int64{0}, linBegin: []int64{0}}, nil
}

// Len is the number of trees.
func (f *Forest) Len() int { return len(f.roots) }

// Add appends a tree. It fails for a child that does not exist, and for a node or leaf with two parents, which covers
// every cycle. Errors name the node by its index in t; nothing of f may be used after an error.
func (f *Forest) Add(t *Tree) error {
	type todo struct {
		ref, parent int
		slots       []slot
	}
	n := len(t.Splits)
	if len(t.Left) != n || len(t.Right) != n {
		return fmt.Errorf("%d splits, %d left and %d right children", n, len(t.Left), len(t.Right))
	}
	seen, seenLeaf := make([]bool, n), make([]bool, len(t.Leaves))
	f.roots = append(f.roots, 0)
	stack := []todo{{t.Root, -1, []slot{{&f.roots, len(f.roots) - 1}}}}
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if d.ref < 0 {
			l := ^d.ref
			if l >= len(t.Leaves) {
				return fmt.Errorf("node %d: leaf %d does not exist, there are %d", d.parent, l, len(t.Leaves))
			}
			if seenLeaf[l] {
				return fmt.Errorf("node %d: leaf %d has two parents", d.parent, l)
			}
			seenLeaf[l] = true
			at, err := f.leaf(t.Leaves[l])
			if err != nil {
				return fmt.Errorf("leaf %d: %w", l, err)
			}
			fill(d.slots, ^at)
			continue
		}
		if d.ref >= n {
			return fmt.Errorf("node %d: child %d does not exist, there are %d nodes", d.parent, d.ref, n)
		}
		if seen[d.ref] {
			return fmt.Errorf("node %d: child %d has two parents: the tree has a cycle", d.parent, d.ref)
		}
		seen[d.ref] = true
		at, left, right, err := f.split(t.Splits[d.ref])
		if err != nil {
			return fmt.Errorf("node %d: %w", d.ref, err)
		}
		fill(d.slots, at)
		stack = append(stack, todo{t.Right[d.ref], d.ref, right}, todo{t.Left[d.ref], d.ref, left})
	}
	return nil
}

func fill(slots []slot, v int64) {
	for _, s := range slots {
		(*s.list)[s.at] = v
	}
}

// split emits the search tree over the cuts and gives its root and the places that wait for either child.
func (f *Forest) split(s Split) (root int64, left, right []slot, err error) {
	switch {
	case s.Feature < 0 || int64(s.Feature) >= f.features:
		return 0, nil, nil, fmt.Errorf("feature %d of %d", s.Feature, f.features)
	case len(s.Cuts) == 0:
		return 0, nil, nil, fmt.Errorf("a split without a threshold")
	case len(f.feature)+len(s.Cuts) > MaxNodes:
		return 0, nil, nil, fmt.Errorf("more than %d nodes", MaxNodes)
	case len(s.Cuts) > 1 && !sort.Float64sAreSorted(s.Cuts):
		return 0, nil, nil, fmt.Errorf("unsorted cuts")
	}
	goesLeft := func(interval int) bool { return s.First == (interval%2 == 0) }
	nanInterval := 0
	if goesLeft(0) != s.NaN {
		nanInterval = 1
	}
	type todo struct {
		lo, hi int // intervals
		slot   *slot
	}
	root = int64(len(f.feature))
	stack := []todo{{0, len(s.Cuts), nil}}
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if d.lo == d.hi {
			if goesLeft(d.lo) {
				left = append(left, *d.slot)
			} else {
				right = append(right, *d.slot)
			}
			continue
		}
		mid, k := (d.lo+d.hi)/2, len(f.feature) // intervals lo..mid are below Cuts[mid]
		if d.slot != nil {
			fill([]slot{*d.slot}, int64(k))
		}
		f.feature, f.threshold = append(f.feature, int64(s.Feature)), append(f.threshold, s.Cuts[mid])
		f.yes, f.no = append(f.yes, 0), append(f.no, 0)
		miss := int64(0)
		if nanInterval >= d.lo && nanInterval <= mid {
			miss = 1
		}
		f.missing = append(f.missing, miss)
		stack = append(stack, todo{mid + 1, d.hi, &slot{&f.no, k}}, todo{d.lo, mid, &slot{&f.yes, k}})
	}
	return root, left, right, nil
}

func (f *Forest) leaf(ws []Weight) (int64, error) {
	if len(f.target)+len(ws) > MaxNodes {
		return 0, fmt.Errorf("more than %d leaf weights", MaxNodes)
	}
	for _, w := range ws {
		if w.Output < 0 || int64(w.Output) >= f.outputs {
			return 0, fmt.Errorf("output %d of %d", w.Output, f.outputs)
		}
		if len(w.Coef) != len(w.Feature) {
			return 0, fmt.Errorf("%d coefficients for %d features", len(w.Coef), len(w.Feature))
		}
		f.target, f.weight = append(f.target, int64(w.Output)), append(f.weight, w.Value)
		for i, x := range w.Feature {
			if x < 0 || int64(x) >= f.features {
				return 0, fmt.Errorf("feature %d of %d", x, f.features)
			}
			f.linear = true
			f.linFeature, f.linCoef = append(f.linFeature, int64(x)), append(f.linCoef, w.Coef[i])
		}
		f.linBegin, f.linConst = append(f.linBegin, int64(len(f.linFeature))), append(f.linConst, w.Const)
	}
	f.leafBegin = append(f.leafBegin, int64(len(f.target)))
	return int64(len(f.leafBegin) - 2), nil
}

// Attrs are the attributes of ml.TreeEnsemble for an X of type d. base is empty or has a value per output; narrow adds
// in f32 and starts at base.
func (f *Forest) Attrs(d ir.DType, base []float64, narrow bool) ir.Attrs {
	reals := func(d ir.DType, v []float64) *ir.Data { return ir.FloatData(d, []int64{int64(len(v))}, v) }
	ints := func(v []int64) []int64 { return append([]int64{}, v...) }
	modes := make([]int64, len(f.feature))
	for i := range modes {
		modes[i] = f.mode
	}
	a := ir.Attrs{"n_targets": f.outputs, "roots": ints(f.roots), "node_feature": ints(f.feature), "node_mode": modes,
		"node_threshold": reals(d, f.threshold), "node_true": ints(f.yes), "node_false": ints(f.no), "node_missing_true": ints(f.missing),
		"leaf_begin": f.leafBegin, "leaf_target": ints(f.target), "leaf_weight": reals(ir.F64, f.weight), "base_values": reals(ir.F64, base)}
	if narrow {
		a["accumulate"] = "F32"
	}
	if f.linear {
		a["linear_begin"], a["linear_feature"] = f.linBegin, f.linFeature
		a["linear_const"], a["linear_coef"] = reals(ir.F64, f.linConst), reals(ir.F64, f.linCoef)
	}
	return a
}

// Categories gives the cuts around the categories of a set, ascending and unique, for truncated values: category c
// holds every x whose integer part is c. zero is the cut below category 0. The first interval is outside of the set; an
// empty set has no cuts.
func Categories(mode int64, set []int64, zero float64) []float64 {
	edge := func(c int64) float64 {
		x := float64(c)
		if c == 0 {
			x = zero
		}
		if mode == ir.TreeLEQ && c != 0 {
			x = math.Nextafter(x, math.Inf(-1)) // x <= pred(c) is x < c
		}
		return x
	}
	var cuts []float64
	for i := 0; i < len(set); {
		j := i
		for j+1 < len(set) && set[j+1] == set[j]+1 {
			j++
		}
		cuts = append(cuts, edge(set[i]), edge(set[j]+1))
		i = j + 1
	}
	return cuts
}
