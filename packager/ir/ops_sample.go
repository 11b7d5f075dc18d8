package ir

import "fmt"

// Sampling at computed positions, and boxes.

func sampleOps() []OpDef {
	return []OpDef{
		{Name: "Sample", Doc: "Y [N,C,P]: X [N,C,spatial...] (1 to 3 dims, f32 or f64) at the positions [N,P,dims] (f64, in elements, in the order of the dims). " +
			"padding_mode zeros, border or reflection (around the centres of the border elements with align_corners, else around their edges).",
			Ins: params("X positions"), Outs: params("Y"), Attrs: []AttrDef{attr("mode", "linear"), attr("padding_mode", "zeros"), attr("align_corners", 0)},
			infer: inferSample},
		{Name: "NonMaxSuppression", Doc: "Rows (batch, class, box) of the boxes chosen. boxes [B,n,4] f32; scores [B,C,n] f32 and order [B,C,n] i64 are the " +
			"scores of each class in falling order and the boxes they belong to. At most max_output (absent: 0) per class.",
			Ins: params("boxes scores order max_output? iou_threshold? score_threshold?"), Outs: params("selected"),
			Attrs: []AttrDef{attr("center_point_box", 0)}, infer: inferNMS},
		{Name: "Det", Doc: "The determinants of X [...,n,n], f32 or f64.", Ins: params("X"), Outs: params("Y"), infer: func(c *inferer) error {
			if err := c.tensors(); err != nil {
				return err
			}
			if err := c.wide(0); err != nil {
				return err
			}
			s := c.shape(0)
			if !s.Ranked {
				c.set(0, c.dtype(0), Unranked())
				return nil
			}
			r := s.Rank()
			if r < 2 {
				return fmt.Errorf("X is %s, want rank 2 or more", s)
			}
			if a, b := s.Dims[r-2], s.Dims[r-1]; a.IsStatic() && b.IsStatic() && a.N != b.N {
				return fmt.Errorf("X is %s, not square", s)
			}
			c.set(0, c.dtype(0), ShapeOf(s.Dims[:r-2]...))
			return nil
		}},
		{Name: "RoiAlign", Doc: "X [N,C,H,W] (f32 or f64) pooled over rois [R,4] (f64: x1 y1 x2 y2) of the images batch [R]: mode avg or max over bilinear samples.",
			Ins: params("X rois batch"), Outs: params("Y"), Attrs: []AttrDef{attr("mode", "avg"), attr("half_pixel", 1), attr("output_height", 1), attr("output_width", 1),
				attr("sampling_ratio", 0), attr("spatial_scale", 1.0)}, infer: inferRoiAlign},
	}
}

func inferSample(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.wide(0); err != nil {
		return err
	}
	if err := c.want(1, c.dtype(1) == F64, "f64"); err != nil {
		return err
	}
	for _, e := range []error{oneOf("mode", c.n.Str("mode"), "nearest", "linear", "cubic"), oneOf("padding_mode", c.n.Str("padding_mode"), "zeros", "border", "reflection")} {
		if e != nil {
			return e
		}
	}
	x, p := c.shape(0), c.shape(1)
	if x.Ranked && (x.Rank() < 3 || x.Rank() > 5) {
		return fmt.Errorf("X is %s, want 1 to 3 spatial dims", x)
	}
	out := unknownDims(3)
	if x.Ranked {
		out.Dims[0], out.Dims[1] = x.Dims[0], x.Dims[1]
	}
	if p.Ranked {
		if p.Rank() != 3 || x.Ranked && p.Dims[2].IsStatic() && p.Dims[2].N != int64(x.Rank()-2) {
			return fmt.Errorf("positions are %s for X of %s", p, x)
		}
		out.Dims[2] = p.Dims[1]
	}
	c.set(0, c.dtype(0), out)
	return nil
}

func inferNMS(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	for i, d := range []DType{F32, F32, I64, I64, F32, F32} {
		if c.has(i) && c.dtype(i) != d {
			return fmt.Errorf("input %d is %s, want %s", i, c.dtype(i), d)
		}
		if r := c.n.In(i); i < 3 && r.Type.Shape.Ranked && r.Type.Shape.Rank() != 3 {
			return fmt.Errorf("input %d is %s, want rank 3", i, r.Type.Shape)
		}
	}
	c.set(0, I64, ShapeOf(Unknown(), Static(3)))
	return nil
}

func inferRoiAlign(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.wide(0); err != nil {
		return err
	}
	if err := c.want(1, c.dtype(1) == F64, "f64"); err != nil {
		return err
	}
	if err := c.want(2, c.dtype(2) == I64, "i64"); err != nil {
		return err
	}
	if err := oneOf("mode", c.n.Str("mode"), "avg", "max"); err != nil {
		return err
	}
	h, w := c.n.Int("output_height"), c.n.Int("output_width")
	if h < 1 || w < 1 || h >= 1<<31 || w >= 1<<31 || c.n.Int("sampling_ratio") >= 1<<20 {
		return fmt.Errorf("output of %d by %d, sampling_ratio %d", h, w, c.n.Int("sampling_ratio"))
	}
	x, rois := c.shape(0), c.shape(1)
	if x.Ranked && x.Rank() != 4 || rois.Ranked && rois.Rank() != 2 {
		return fmt.Errorf("X is %s, rois are %s", x, rois)
	}
	out := ShapeOf(Unknown(), Unknown(), Static(h), Static(w))
	if rois.Ranked {
		out.Dims[0] = rois.Dims[0]
	}
	if x.Ranked {
		out.Dims[1] = x.Dims[1]
	}
	c.set(0, c.dtype(0), out)
	return nil
}
