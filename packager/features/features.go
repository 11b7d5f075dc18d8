// Package features compiles the features mapping of a project into the model: nodes in front of it turn one input per
// field of a record (a number as f64, a category as text) into the columns of the input that the model was trained on.
// The reference interpreter runs the same nodes, so golden vectors prove them like the rest of the graph.
package features

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/project"
)

// Apply replaces the input of g that m fills by one input for each feature: [rows, 1], f64 (NaN is missing) or string
// ("" is missing). Errors have the position of the mapping, or of the feature, in the project file.
func Apply(g *ir.Graph, m *project.FeatureMap) error {
	at, err := target(g, m)
	if err != nil {
		return err
	}
	x := g.Body.Params[at]
	for _, s := range g.State {
		if s.Input == x.Name {
			return diag.New(diag.Usage, "features: input %q is streaming state", x.Name).At(m.Loc)
		}
	}
	if err := free(g, x, m); err != nil {
		return err
	}
	b := ir.NewBuilder()
	var params, cols []*ir.Value
	for _, f := range m.Features {
		t := ir.Type{DType: ir.F64, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{x.Type.Shape.Dims[0], {N: 1}}}}
		if f.Category {
			t.DType = ir.String
		}
		p := b.Param(f.Name, t)
		params = append(params, p)
		if f.Category {
			cols = append(cols, category(b, f, p))
		} else {
			cols = append(cols, number(b, f, p))
		}
	}
	all := cols[0]
	if len(cols) > 1 {
		all = b.Op(prefix+"columns", "Concat", ir.Attrs{"axis": 1}, cols...)
	}
	out := b.Op(prefix+"input", "Cast", ir.Attrs{"to": x.Type.DType}, all)
	body := b.Region(out)
	if err := splice(g, at, params, body, x); err != nil {
		return diag.Wrap(diag.Usage, err, "features").At(m.Loc)
	}
	return nil
}

// prefix keeps the names of new values apart from the model's.
const prefix = "features."

// target finds the input that m fills.
func target(g *ir.Graph, m *project.FeatureMap) (int, error) {
	width := int64(0)
	for _, f := range m.Features {
		width += int64(f.Columns())
	}
	fits := func(v *ir.Value) string {
		t := v.Type
		switch {
		case t.Kind != ir.Tensor || !t.Shape.Ranked || len(t.Shape.Dims) != 2 || !t.Shape.Dims[1].IsStatic():
			return "it has no fixed number of columns"
		case t.DType != ir.F32 && t.DType != ir.F64 && t.DType != ir.I64 && t.DType != ir.I32:
			return fmt.Sprintf("its columns are %s", t.DType)
		case t.Shape.Dims[1].N != width:
			return fmt.Sprintf("it has %d columns, the features fill %d", t.Shape.Dims[1].N, width)
		}
		return ""
	}
	var found []int
	e := diag.New(diag.Usage, "features: no input of the model has the %d columns that the features fill", width).At(m.Loc)
	for i, v := range g.Body.Params {
		if m.Input != "" && v.Name != m.Input {
			continue
		}
		why := fits(v)
		if why == "" {
			found = append(found, i)
			continue
		}
		e.Line("%s %s: %s", v.Name, v.Type, why)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return 0, diag.New(diag.Usage, "features: %d inputs of the model have %d columns; name one as input", len(found), width).At(m.Loc)
	case m.Input != "" && len(e.Lines) == 0:
		return 0, diag.New(diag.Usage, "features: the model has no input %q", m.Input).At(m.Loc)
	}
	return 0, e
}

// free makes the names of the features available: values inside the model that bear one are renamed, other inputs and
// outputs are errors.
func free(g *ir.Graph, x *ir.Value, m *project.FeatureMap) error {
	want := map[string]project.Feature{}
	for _, f := range m.Features {
		want[f.Name] = f
	}
	fixed := map[*ir.Value]bool{}
	for _, list := range [][]*ir.Value{g.Body.Params, g.Body.Results} {
		for _, v := range list {
			fixed[v] = true
			if f, ok := want[v.Name]; ok && v != x {
				return diag.New(diag.Usage, "feature %q has the name of another input or output of the model", f.Name).At(f.Loc)
			}
		}
	}
	seen := map[*ir.Value]bool{}
	rename := func(v *ir.Value) {
		if v == nil || seen[v] || fixed[v] && v != x {
			return
		}
		seen[v] = true
		if _, clash := want[v.Name]; clash || v == x {
			v.Name = prefix + "model." + v.Name
		}
	}
	rename(x)
	for _, c := range ir.Consts(g.Body) {
		rename(c)
	}
	return ir.Walk(g.Body, func(r *ir.Region, n *ir.Node) error {
		for _, v := range n.Outs {
			rename(v)
		}
		for _, sub := range n.Regions {
			for _, v := range sub.Params {
				rename(v)
			}
		}
		return nil
	})
}

// number fills in what is missing.
func number(b *ir.Builder, f project.Feature, p *ir.Value) *ir.Value {
	name := prefix + f.Name
	if f.Default == nil && !f.Required {
		return p // NaN reaches the model
	}
	missing := b.Op(name+".missing", "Not", nil, b.Op(name+".present", "Equal", nil, p, p))
	if f.Default != nil {
		return b.Op(name+".filled", "Where", nil, missing, b.Const(name+".default", ir.F64s(nil, []float64{*f.Default})), p)
	}
	// The index 1 into one element fails the call; x - 0 is x, for -0 too.
	at := b.Op(name+".missing_index", "Cast", ir.Attrs{"to": ir.I64}, missing)
	zero := b.Op(name+".required", "Gather", nil, b.Const(name+".zero", ir.F64s([]int64{1}, []float64{0})), at)
	return b.Op(name+".checked", "Sub", nil, p, zero)
}

// category looks the text up, then encodes its index.
func category(b *ir.Builder, f project.Feature, p *ir.Value) *ir.Value {
	name := prefix + f.Name
	n := int64(len(f.Values))
	keys := append([]string{}, f.Values...)
	index := make([]int64, n)
	for i := range index {
		index[i] = int64(i)
	}
	def := n // the place of what is none of the values
	if f.DefaultValue != nil {
		for i, v := range f.Values {
			if v == *f.DefaultValue {
				keys, index = append(keys, ""), append(index, int64(i))
				if f.Unknown == project.UnknownDefault {
					def = int64(i)
				}
			}
		}
	}
	at := b.Op(name+".index", "ml.LabelEncoder", ir.Attrs{
		"keys": ir.Strs([]int64{int64(len(keys))}, keys), "values": ir.I64s([]int64{int64(len(index))}, index), "default": ir.I64s([]int64{1}, []int64{def}),
	}, p)
	// Row k of the table is what value k becomes; without a row for unknown texts, one of them is an index out of range.
	rows, cols := n, int64(f.Columns())
	if f.Unknown == project.UnknownIgnore {
		rows++
	}
	table := make([]float64, rows*cols)
	for k := range rows {
		switch {
		case !f.OneHot:
			table[k] = float64(k)
			if k == n {
				table[k] = -1
			}
		case k < n:
			table[k*cols+k] = 1
		}
	}
	flat := b.Op(name+".row", "Squeeze", nil, at, b.Const(name+".axis", ir.I64s([]int64{1}, []int64{1})))
	return b.Op(name+".encoded", "Gather", nil, b.Const(name+".table", ir.F64s([]int64{rows, cols}, table)), flat)
}

// splice puts the nodes of body in front of g and its result in the place of the parameter x.
func splice(g *ir.Graph, at int, params []*ir.Value, body *ir.Region, x *ir.Value) error {
	last := 0
	if err := ir.Walk(g.Body, func(_ *ir.Region, n *ir.Node) error {
		last = max(last, n.ID)
		return nil
	}); err != nil {
		return err
	}
	if last > math.MaxInt32 {
		return fmt.Errorf("node number %d is too large", last)
	}
	for _, n := range body.Nodes {
		n.ID += last
		n.Name = n.Outs[0].Name
	}
	end := body.Nodes[len(body.Nodes)-1]
	end.Outs[0] = x // the model goes on reading the value it knows
	ps := append([]*ir.Value{}, g.Body.Params[:at]...)
	ps = append(ps, params...)
	g.Body.Params = append(ps, g.Body.Params[at+1:]...)
	g.Body.Nodes = append(append([]*ir.Node{}, body.Nodes...), g.Body.Nodes...)
	return ir.Verify(g)
}
