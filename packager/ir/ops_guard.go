package ir

// Guards stop a run that asks for what a module does not do.

func guardOps() []OpDef {
	return []OpDef{
		{Name: "Allowed", Doc: "A true scalar where every element of X is true; else the run ends with the error ErrUnsupported, A = what: 1 for random draws.",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{need("what", AttrInt)}, infer: func(c *inferer) error {
				if err := c.tensors(); err != nil {
					return err
				}
				c.set(0, Bool, StaticShape())
				return c.want(0, c.dtype(0) == Bool, "bool")
			}},
	}
}
