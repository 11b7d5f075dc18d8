package ir

import "fmt"

// Control flow. Bodies are regions; whatever they use from outside is in their Captures.

func controlOps() []OpDef {
	return []OpDef{
		{Name: "If", Doc: "Regions then, else; neither has parameters; outputs are the results of the one that cond (one bool) chooses.",
			Ins: params("cond"), Outs: params("outputs*?"), Regions: 2, infer: inferIf},
		{Name: "Loop", Doc: "Body parameters: iteration number (i64 scalar), condition (bool scalar), carried values. Results: condition, carried " +
			"values, then scan outputs, which are stacked along a new first dim. M (i64) and cond absent mean no limit and true.",
			Ins: params("M? cond? carried*?"), Outs: params("outputs*?"), Regions: 1, infer: inferLoop},
		{Name: "Scan", Doc: "The last num_scan_inputs inputs are cut along scan_input_axes (direction 1: backwards); the ones before are state. Body " +
			"parameters: states, then one element of each scan input. Results: states, then one element of each scan output, stacked along " +
			"scan_output_axes (direction 1: from the end). The lists have one entry per scan input or output.",
			Ins: params("inputs*"), Outs: params("outputs*?"), Regions: 1,
			Attrs: []AttrDef{need("num_scan_inputs", AttrInt), need("scan_input_axes", AttrInts), need("scan_input_directions", AttrInts),
				need("scan_output_axes", AttrInts), need("scan_output_directions", AttrInts)},
			infer: inferScan},
	}
}

func inferIf(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, c.dtype(0) == Bool, "bool"); err != nil {
		return err
	}
	th, el := c.n.Regions[0], c.n.Regions[1]
	if len(th.Params) != 0 || len(el.Params) != 0 {
		return fmt.Errorf("a branch has parameters")
	}
	if len(th.Results) != len(c.n.Outs) || len(el.Results) != len(c.n.Outs) {
		return fmt.Errorf("branches give %d and %d values for %d outputs", len(th.Results), len(el.Results), len(c.n.Outs))
	}
	for i := range c.out {
		t, err := Join(th.Results[i].Type, el.Results[i].Type)
		if err != nil {
			return fmt.Errorf("output %d: %w", i, err)
		}
		c.out[i] = t
	}
	return nil
}

func inferLoop(c *inferer) error {
	body := c.n.Regions[0]
	carried := max(len(c.n.Ins)-2, 0)
	if len(body.Params) != 2+carried {
		return fmt.Errorf("body has %d parameters, want %d", len(body.Params), 2+carried)
	}
	scans := len(body.Results) - 1 - carried
	if scans < 0 || len(c.n.Outs) != carried+scans {
		return fmt.Errorf("body gives %d values for %d carried ones and %d outputs", len(body.Results), carried, len(c.n.Outs))
	}
	if c.has(0) && c.typ(0).Kind == Tensor && c.dtype(0) != I64 {
		return fmt.Errorf("the trip count is %s, want i64", c.dtype(0))
	}
	for i, cond := range []*Value{c.n.In(1), body.Results[0]} {
		if cond != nil && (cond.Type.Kind != Tensor || cond.Type.DType != Bool) {
			return fmt.Errorf("the %s is %s, want bool", []string{"condition", "body's condition"}[i], cond.Type)
		}
	}
	for i := 0; i < carried; i++ {
		t, err := Join(body.Params[2+i].Type, body.Results[1+i].Type)
		if err == nil {
			t, err = Join(t, c.typ(2+i))
		}
		if err != nil {
			return fmt.Errorf("carried value %d: %w", i, err)
		}
		c.out[i] = t
	}
	for i := 0; i < scans; i++ {
		t, err := stacked(body.Results[1+carried+i].Type, 0, Unknown())
		if err != nil {
			return err
		}
		c.out[carried+i] = t
	}
	return nil
}

// stacked is the type of elements of type t joined along a new axis of size d.
func stacked(t Type, axis int64, d Dim) (Type, error) {
	if t.Kind != Tensor {
		return Type{}, fmt.Errorf("scan output of type %s, want a tensor", t)
	}
	if !t.Shape.Ranked {
		return t, nil
	}
	a, err := Axis(axis, t.Shape.Rank()+1)
	if err != nil {
		return Type{}, err
	}
	dims := append([]Dim(nil), t.Shape.Dims[:a]...)
	dims = append(dims, d)
	dims = append(dims, t.Shape.Dims[a:]...)
	return TensorOf(t.DType, ShapeOf(dims...)), nil
}

func inferScan(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	body, scanIns := c.n.Regions[0], int(c.n.Int("num_scan_inputs"))
	states := len(c.n.Ins) - scanIns
	if scanIns < 1 || states < 0 {
		return fmt.Errorf("num_scan_inputs is %d of %d inputs", scanIns, len(c.n.Ins))
	}
	outs := len(body.Results) - states
	if len(body.Params) != len(c.n.Ins) || outs < 0 || len(c.n.Outs) != len(body.Results) {
		return fmt.Errorf("body takes %d and gives %d values, for %d inputs and %d outputs", len(body.Params), len(body.Results), len(c.n.Ins), len(c.n.Outs))
	}
	inAxes, outAxes := c.n.Ints("scan_input_axes"), c.n.Ints("scan_output_axes")
	if len(inAxes) != scanIns || len(c.n.Ints("scan_input_directions")) != scanIns ||
		len(outAxes) != outs || len(c.n.Ints("scan_output_directions")) != outs {
		return fmt.Errorf("axes or directions do not fit %d scan inputs and %d scan outputs", scanIns, outs)
	}
	length := Unknown()
	for i := 0; i < scanIns; i++ {
		s := c.shape(states + i)
		if !s.Ranked {
			continue
		}
		a, err := Axis(inAxes[i], s.Rank())
		if err != nil {
			return err
		}
		if d := s.Dims[a]; length.Any || d.IsStatic() {
			length = d
		}
	}
	for i := 0; i < states; i++ {
		t, err := Join(body.Params[i].Type, body.Results[i].Type)
		if err != nil {
			return fmt.Errorf("state %d: %w", i, err)
		}
		c.out[i] = t
	}
	for i := 0; i < outs; i++ {
		t, err := stacked(body.Results[states+i].Type, outAxes[i], length)
		if err != nil {
			return err
		}
		c.out[states+i] = t
	}
	return nil
}
