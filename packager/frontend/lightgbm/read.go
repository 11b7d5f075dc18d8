// Package lightgbm reads LightGBM models in their text format into the compiler's graph. Thresholds, leaf values and
// sums are f64, in the library's order.
package lightgbm

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/trees"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Parse reads a model from memory and gives a verified graph with the input X (f64 [N, features]).
// Errors: *frontend.FormatError for what is damaged, *frontend.UnsupportedError.
func Parse(data []byte) (*ir.Graph, error) {
	if len(data) > 0 && data[0] == '{' {
		return nil, &frontend.UnsupportedError{Op: "dump_model", Domain: "lightgbm", Node: "tree", Reason: "the JSON dump leaves out what predictions need",
			Hint: "save the model as text: booster.save_model('model.txt')"}
	}
	m, err := decode(data)
	if err == nil {
		var g *ir.Graph
		if g, err = lower(m); err == nil {
			g.Producer, g.Columns = strings.TrimSpace("LightGBM "+m.version), trees.Columns(m.names, m.features)
			return g, nil
		}
	}
	var u *frontend.UnsupportedError
	if errors.As(err, &u) {
		return nil, err
	}
	return nil, &frontend.FormatError{Format: frontend.LightGBM, Err: fmt.Errorf("LightGBM model: %w", err)}
}

func unsupported(op, reason string) error {
	return &frontend.UnsupportedError{Op: op, Domain: "lightgbm", Node: "objective", Reason: reason,
		Hint: "train with an objective that docs/trees.md lists, or export the model to ONNX"}
}

// link reads the objective: its name, then parameters like sigmoid:1.
func (m *model) link() (trees.Link, float64, error) {
	if len(m.objective) == 0 { // custom: predictions are raw
		return trees.Identity, 1, nil
	}
	scale, sqrt := 1.0, false
	for _, p := range m.objective[1:] {
		if p == "sqrt" {
			sqrt = true
		}
		if v, ok := strings.CutPrefix(p, "sigmoid:"); ok {
			var err error
			if scale, err = strconv.ParseFloat(v, 64); err != nil || !(scale > 0) || math.IsInf(scale, 0) {
				return 0, 0, fmt.Errorf("objective: sigmoid is %s", short(v))
			}
		}
	}
	one := func(l trees.Link, s float64) (trees.Link, float64, error) {
		if m.perRound != 1 {
			return 0, 0, fmt.Errorf("objective %s with %d trees per iteration", m.objective[0], m.perRound)
		}
		return l, s, nil
	}
	many := func(l trees.Link, s float64) (trees.Link, float64, error) {
		if m.perRound < 2 {
			return 0, 0, fmt.Errorf("objective %s with %d trees per iteration", m.objective[0], m.perRound)
		}
		return l, s, nil
	}
	switch m.objective[0] {
	case "regression", "regression_l2", "regression_l1", "huber", "fair", "quantile", "mape":
		if sqrt {
			return one(trees.SignSquare, 1)
		}
		return one(trees.Identity, 1)
	case "lambdarank", "rank_xendcg", "custom", "none":
		return trees.Identity, 1, nil
	case "poisson", "gamma", "tweedie":
		return one(trees.Exp, 1)
	case "binary":
		return one(trees.Binary, scale)
	case "multiclass":
		return many(trees.Softmax, 1)
	case "multiclassova":
		return many(trees.OneVsAll, scale)
	case "cross_entropy", "xentropy":
		return one(trees.Logistic, 1)
	case "cross_entropy_lambda", "xentlambda":
		return one(trees.Log1pExp, 1)
	}
	return 0, 0, unsupported(short(m.objective[0]), "its output transform is not known")
}

func lower(m *model) (*ir.Graph, error) {
	l, scale, err := m.link()
	if err != nil {
		return nil, err
	}
	if l, err = m.oldForest(l); err != nil {
		return nil, err
	}
	if len(m.trees)%m.perRound != 0 {
		return nil, fmt.Errorf("%d trees, with %d in each iteration", len(m.trees), m.perRound)
	}
	f, err := trees.New(ir.TreeLEQ, m.features, m.perRound)
	if err != nil {
		return nil, err
	}
	for i := range m.trees {
		t, err := m.trees[i].convert(i % m.perRound)
		if err == nil {
			err = f.Add(t)
		}
		if err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	g := trees.NewGraph(ir.F64, m.features)
	raw := g.Op("scores", "ml.TreeEnsemble", f.Attrs(ir.F64, nil, false), g.X)
	s := raw
	if rounds := len(m.trees) / m.perRound; m.average && rounds > 0 {
		s = g.Op("average", "Div", nil, raw, g.Reals("iterations", ir.F64, nil, []float64{float64(rounds)}))
	}
	return g.Finish(s, raw, m.perRound, l, scale)
}

// oldForest undoes the link of a random forest whose leaves hold predictions already. Up to 2.2.2 the library wrote such
// leaves, from 2.2.3 on margins, both as version v2: only the values tell them apart.
func (m *model) oldForest(l trees.Link) (trees.Link, error) {
	if m.version != "v2" || !m.average || l == trees.Identity {
		return l, nil
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for i := range m.trees {
		for _, v := range m.trees[i].value {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	switch {
	case lo < 0 || m.perRound > 1:
		return l, nil // margins: no link gives negative values but that of sqrt, whose forests the library does not train
	case l == trees.Binary && hi <= 1:
		return trees.BinaryRaw, nil
	case l == trees.Logistic && hi <= 1:
		return trees.Identity, nil
	case l == trees.Binary || l == trees.Logistic:
		return l, nil
	}
	return 0, unsupported(m.objective[0], "a random forest of format v2: its leaves may be margins or predictions, and the file does not tell")
}

// Bits of decision_type.
const (
	categorical = 1
	defaultLeft = 2
	missingNone = 0
	missingZero = 1
	missingNaN  = 2
)

// zero is the largest value that counts as zero: 1e-35 as an f32.
var zero = float64(float32(1e-35))

// belowZero is the largest value that is too negative to count as zero.
var belowZero = math.Nextafter(-zero, math.Inf(-1))

func (t *tree) convert(output int) (*trees.Tree, error) {
	n := len(t.feature)
	out := &trees.Tree{Splits: make([]trees.Split, n), Left: make([]int, n), Right: make([]int, n), Leaves: make([][]trees.Weight, t.leaves)}
	if n == 0 {
		out.Root = ^0
	}
	at := 0
	for i := range out.Leaves {
		w := trees.Weight{Output: output, Value: t.value[i]}
		if t.linear {
			w.Const = t.constant[i]
			for range t.coefs[i] {
				w.Feature, w.Coef = append(w.Feature, int(t.coefFeature[at])), append(w.Coef, t.coef[at])
				at++
			}
			if len(w.Feature) == 0 {
				w.Value = w.Const
			}
		}
		out.Leaves[i] = []trees.Weight{w}
	}
	for i := range out.Splits {
		s, err := t.split(i)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
		out.Splits[i], out.Left[i], out.Right[i] = s, int(t.left[i]), int(t.right[i])
	}
	return out, nil
}

func (t *tree) split(i int) (trees.Split, error) {
	s := trees.Split{Feature: int(t.feature[i]), First: true}
	d, x := t.decision[i], t.threshold[i]
	if d&categorical != 0 {
		return s, t.categories(&s, x)
	}
	left := d&defaultLeft != 0
	if math.IsNaN(x) {
		return s, errors.New("its threshold is NaN")
	}
	// All values that count as zero go the same way: the library drops them when it reads a row.
	cut := x
	if x >= -zero && x < zero {
		if cut = belowZero; x >= 0 {
			cut = zero
		}
	}
	s.Cuts = []float64{cut}
	switch d >> 2 & 3 {
	case missingNone: // NaN is read as zero
		s.NaN = cut >= 0
	case missingNaN:
		s.NaN = left
	case missingZero: // and so is NaN
		s.NaN = left
		switch {
		case left && cut < belowZero:
			s.Cuts = []float64{cut, belowZero, zero} // up to cut left, to belowZero right, zeros left, above right
		case left && cut == belowZero:
			s.Cuts = []float64{zero}
		case !left && cut == zero:
			s.Cuts = []float64{belowZero}
		case !left && cut > zero:
			s.Cuts = []float64{belowZero, zero, cut}
		}
	default:
		return s, fmt.Errorf("decision type %d has an unknown kind of missing values", d)
	}
	return s, nil
}

// categories makes the split by set number x: members go left; NaN, negative and unknown categories right. The value is
// truncated first, so that category 0 begins above -1.
func (t *tree) categories(s *trees.Split, x float64) error {
	if x != math.Trunc(x) || x < 0 || int64(x) >= int64(len(t.catBegin))-1 {
		return fmt.Errorf("category set %v of %d", x, max(len(t.catBegin)-1, 0))
	}
	var set []int64
	for w, bits := range t.catBits[t.catBegin[int(x)]:t.catBegin[int(x)+1]] {
		for b := int64(0); b < 32; b++ {
			if bits>>b&1 != 0 {
				set = append(set, int64(w)*32+b)
			}
		}
	}
	s.First = false
	if s.Cuts = trees.Categories(ir.TreeLEQ, set, -1); len(set) == 0 {
		s.Cuts = []float64{math.Inf(1)} // all are below
	}
	return nil
}
