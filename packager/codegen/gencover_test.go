package codegen_test

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

// notGenerated are operators of docs/operators.md that random graphs leave out, with the reason.
func notGenerated() map[string]string {
	draws := "it draws random numbers, which the frontend refuses"
	loop := "the frontend refuses whole decoding loops"
	old := "an experiment of ONNX's first operator sets, worked out by hand in the frontend's tests"
	return map[string]string{
		"Bernoulli": draws, "Multinomial": draws, "RandomNormal": draws, "RandomNormalLike": draws, "RandomUniform": draws, "RandomUniformLike": draws,
		"com.microsoft.BeamSearch": loop, "com.microsoft.GreedySearch": loop, "com.microsoft.Sampling": loop, "com.microsoft.WhisperBeamSearch": loop,
		"Crop": old, "ConstantFill": old, "DynamicSlice": old, "GivenTensorFill": old, "MaxRoiPool": "no exporter writes it any more; worked out by hand in the frontend's tests",
		"ATen":                              "the frontend refuses functions of PyTorch",
		"com.microsoft.SparseToDenseMatMul": "the frontend refuses sparse tensors",
	}
}

// tally counts what became of each operator: those of ONNX by their names, canonical ones behind "ir:".
type tally struct {
	graphs, failing, unsupported int
	agreed, failed, lacks        map[string]int
	refused                      map[string]map[string]int
	origin                       map[int]string    // operator of ONNX that a node of the graph in the making comes from
	consts                       map[string]string // and a constant
}

func newTally() *tally {
	return &tally{agreed: map[string]int{}, failed: map[string]int{}, lacks: map[string]int{}, refused: map[string]map[string]int{}}
}

// refuse notes why an attempt led to nothing.
func (c *tally) refuse(op string, err error) {
	var u *frontend.UnsupportedError
	s := err.Error()
	if errors.As(err, &u) {
		s = "not supported: " + u.Reason
	}
	if c.refused[op] == nil {
		c.refused[op] = map[string]int{}
	}
	if len(s) > 200 {
		s = s[:200]
	}
	c.refused[op][s]++
}

// in lists the operators of a graph.
func (c *tally) in(g *ir.Graph) []string {
	seen := map[string]bool{}
	_ = ir.Walk(g.Body, func(_ *ir.Region, n *ir.Node) error {
		seen["ir:"+n.Op] = true
		if op := c.origin[n.ID]; op != "" {
			seen[op] = true
		}
		return nil
	})
	for _, v := range ir.Consts(g.Body) {
		if op := c.consts[v.Name]; op != "" {
			seen[op] = true
		}
	}
	out := make([]string, 0, len(seen))
	for op := range seen {
		out = append(out, op)
	}
	sort.Strings(out)
	return out
}

// note adds what a graph of the given operators showed.
func (c *tally) note(ops []string, v verdict) {
	c.graphs++
	into := c.agreed
	switch {
	case v.bad != "":
		return
	case v.unsupported != nil:
		c.unsupported++
		into = c.lacks
	case v.failed:
		c.failing++
		into = c.failed
	}
	for _, op := range ops {
		into[op]++
	}
}

// wanted lists the operators that graphs must show.
func wanted() []string {
	var out []string
	for op := range onnx.Supported() {
		if notGenerated()[op] == "" {
			out = append(out, op)
		}
	}
	for _, op := range ir.OpNames() {
		out = append(out, "ir:"+op)
	}
	sort.Strings(out)
	return out
}

// missing lists the operators that no graph agreed on so far.
func (c *tally) missing() []string {
	return slices.DeleteFunc(wanted(), func(op string) bool { return c.agreed[op] > 0 })
}

// check wants agreement on every operator, or after a short run on most.
func (c *tally) check(t *testing.T, every bool) {
	t.Helper()
	if m := c.missing(); len(m) > 0 && every || len(m)*10 > len(wanted()) {
		t.Errorf("no graph shows agreement on %s", strings.Join(m, ", "))
	}
	if c.unsupported*10 > c.graphs {
		t.Errorf("%d of %d graphs are not compiled", c.unsupported, c.graphs)
	}
}

func (c *tally) summary() string {
	return fmt.Sprintf("%d graphs, %d of them end in the same error everywhere, %d are not compiled; %d of %d operators agreed", c.graphs, c.failing, c.unsupported,
		len(wanted())-len(c.missing()), len(wanted()))
}

// table is a row per operator: graphs that agreed, that ended in the same error, that the compiler refused, and why attempts led to nothing.
func (c *tally) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-45s %7s %7s %7s\n", "operator", "agreed", "errors", "refused")
	for _, op := range wanted() {
		fmt.Fprintf(&b, "%-45s %7d %7d %7d\n", op, c.agreed[op], c.failed[op], c.lacks[op])
	}
	for op, why := range notGenerated() {
		fmt.Fprintf(&b, "%-45s not generated: %s\n", op, why)
	}
	return b.String()
}

// reasons lists, most frequent first, why attempts at an operator led to nothing.
func (c *tally) reasons(op string) []string {
	var out []string
	for s, n := range c.refused[op] {
		out = append(out, fmt.Sprintf("%5d %s", n, s))
	}
	sort.Sort(sort.Reverse(sort.StringSlice(out)))
	return out
}

// TestOperatorsAreGenerated compares the recipes with the operators that the frontend takes.
func TestOperatorsAreGenerated(t *testing.T) {
	for op := range onnx.Supported() {
		if (recipes()[op] == nil) != (notGenerated()[op] != "") {
			t.Errorf("operator %s must have a recipe for random graphs, or a reason in notGenerated", op)
		}
	}
	for op := range recipes() {
		if name, inner := strings.CutPrefix(op, "ir:"); inner {
			if _, ok := ir.Op(name); !ok {
				t.Errorf("there is no operator %s", op)
			}
		} else if !onnx.Supported()[op] {
			t.Errorf("the frontend has no operator %s", op)
		}
	}
}

// TestShrink makes graphs small that show a certain operator: one node is left at the top, and no other inside.
func TestShrink(t *testing.T) {
	shrunk := 0
	for seed := uint64(1); seed <= 300 && shrunk < 12; seed++ {
		g, ins := randomGraph(t, seed, []string{"Loop", "If", "Tanh", "Gather"}, newTally())
		// The condition: a node of the operator that stands last, at the top or in a body.
		want := ""
		_ = ir.Walk(g.Body, func(_ *ir.Region, n *ir.Node) error {
			want = n.Op
			return nil
		})
		shows := func(h *ir.Graph, _ []*ir.Val) bool {
			found := false
			_ = ir.Walk(h.Body, func(_ *ir.Region, n *ir.Node) error {
				found = found || n.Op == want
				return nil
			})
			return found
		}
		if len(g.Body.Nodes) < 4 {
			continue
		}
		shrunk++
		h, hins := shrink(g, ins, shows)
		if !shows(h, hins) || len(h.Body.Nodes) != 1 || len(h.Body.Results) != 1 || len(hins) != len(h.Body.Params) {
			t.Errorf("seed %d: for %s is left\n%s", seed, want, show(h, hins))
		}
	}
	if shrunk < 12 {
		t.Errorf("only %d graphs were made small", shrunk)
	}
}
