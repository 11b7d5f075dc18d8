package ir

import "fmt"

// smallOps convert to floating point types of 8 bits or fewer.
func smallOps() []OpDef {
	return []OpDef{
		{Name: "CastSmall", Doc: "Conversion of a number or bool to a float type of 8 bits or fewer, rounded once from f64 (docs/numerics.md, 3.2). saturate: " +
			"beyond the largest value comes that value, else infinity or NaN. round_mode (f8e8m0 only): up, down or nearest.",
			Ins: params("X"), Outs: params("Y"),
			Attrs: []AttrDef{need("to", AttrDType), attr("saturate", 1), attr("round_mode", "up")}, infer: func(c *inferer) error {
				if err := c.tensors(); err != nil {
					return err
				}
				to := c.n.DType("to")
				if !to.IsSmallFloat() || c.dtype(0) == String {
					return fmt.Errorf("cast from %s to %s", c.dtype(0), to)
				}
				if m := c.n.Str("round_mode"); m != "up" && m != "down" && m != "nearest" {
					return fmt.Errorf("round_mode %q", m)
				}
				c.set(0, to, c.shape(0))
				return nil
			}},
	}
}
