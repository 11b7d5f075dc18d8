package trees_test

import (
	"math"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend/trees"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestSplitIntervals walks splits of up to six cuts and compares with the definition of a Split, in both modes.
func TestSplitIntervals(t *testing.T) {
	for _, mode := range []int64{ir.TreeLT, ir.TreeLEQ} {
		for n := 1; n <= 6; n++ {
			for bits := range 4 {
				s := trees.Split{First: bits&1 != 0, NaN: bits&2 != 0}
				for i := range n {
					s.Cuts = append(s.Cuts, float64(i*i)-2)
				}
				f, err := trees.New(mode, 1, 1)
				if err != nil {
					t.Fatal(err)
				}
				tree := &trees.Tree{Splits: []trees.Split{s}, Left: []int{^0}, Right: []int{^1}, Leaves: [][]trees.Weight{{{Value: 1}}, {{Value: 2}}}}
				if err := f.Add(tree); err != nil {
					t.Fatal(err)
				}
				xs := []float64{math.NaN(), math.Inf(-1), math.Inf(1), 0.5}
				for _, c := range s.Cuts {
					xs = append(xs, c, c-0.25, c+0.25)
				}
				g := trees.NewGraph(ir.F64, 1)
				y := g.Op("y", "ml.TreeEnsemble", f.Attrs(ir.F64, nil, false), g.X)
				gr, err := g.Finish(y, y, 1, trees.Identity, 1)
				if err != nil {
					t.Fatal(err)
				}
				got, err := interp.Run(t.Context(), gr, map[string]*ir.Val{"X": ir.TensorVal(ir.F64s([]int64{int64(len(xs)), 1}, xs))})
				if err != nil {
					t.Fatal(err)
				}
				for i, x := range xs {
					k := 0
					for _, c := range s.Cuts {
						if x > c || x == c && mode == ir.TreeLT {
							k++
						}
					}
					left := s.First == (k%2 == 0)
					if x != x {
						left = s.NaN
					}
					if (got["prediction"].Tensor.Float(i) == 1) != left {
						t.Errorf("mode %d, %+v: %v goes left: %v", mode, s, x, !left)
					}
				}
			}
		}
	}
}

func TestAddRefuses(t *testing.T) {
	leaf := [][]trees.Weight{{{}}}
	one := []trees.Split{{Cuts: []float64{1}}}
	for _, c := range []struct {
		tree trees.Tree
		want string
	}{
		{trees.Tree{Splits: one, Left: []int{0}, Right: []int{^0}, Leaves: leaf}, "node 0: child 0 has two parents: the tree has a cycle"},
		{trees.Tree{Splits: one, Left: []int{^0}, Right: []int{^0}, Leaves: leaf}, "node 0: leaf 0 has two parents"},
		{trees.Tree{Splits: one, Left: []int{^3}, Right: []int{^0}, Leaves: leaf}, "node 0: leaf 3 does not exist"},
		{trees.Tree{Splits: one, Left: []int{5}, Right: []int{^0}, Leaves: leaf}, "node 0: child 5 does not exist"},
		{trees.Tree{Splits: []trees.Split{{}}, Left: []int{^0}, Right: []int{^0}, Leaves: leaf}, "without a threshold"},
		{trees.Tree{Splits: []trees.Split{{Cuts: []float64{2, 1}}}, Left: []int{^0}, Right: []int{^0}, Leaves: leaf}, "unsorted"},
		{trees.Tree{Splits: []trees.Split{{Feature: 9, Cuts: []float64{2}}}, Left: []int{^0}, Right: []int{^0}, Leaves: leaf}, "feature 9 of 1"},
		{trees.Tree{Root: ^0, Leaves: [][]trees.Weight{{{Output: 4}}}}, "output 4 of 1"},
		{trees.Tree{Root: ^0, Leaves: [][]trees.Weight{{{Feature: []int{3}, Coef: []float64{1}}}}}, "feature 3 of 1"},
	} {
		f, err := trees.New(ir.TreeLT, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Add(&c.tree); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
