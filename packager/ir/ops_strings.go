package ir

import (
	"fmt"
	"regexp"
)

func stringOps() []OpDef {
	return []OpDef{
		{Name: "StringConcat", Doc: "The texts of X followed by those of Y, with broadcasting.", Ins: params("X Y"), Outs: params("Z"),
			infer: func(c *inferer) error {
				if err := c.texts(); err != nil {
					return err
				}
				s, err := Broadcast(c.shape(0), c.shape(1))
				c.set(0, String, s)
				return err
			}},
		{Name: "StringSplit", Doc: "Y: the parts of each text of X between occurrences of delimiter, found from the left, at most maxsplit of them (negative: all), " +
			"padded with empty texts to the largest number of parts; Z: how many parts each has. An empty delimiter is runs of white space " +
			"(Unicode's White_Space and U+001C to U+001F), which do not count at the ends.",
			Ins: params("X"), Outs: params("Y Z"), Attrs: []AttrDef{attr("delimiter", ""), attr("maxsplit", -1)}, infer: func(c *inferer) error {
				if err := c.texts(); err != nil {
					return err
				}
				s := c.shape(0)
				c.set(1, I64, s)
				if s.Ranked {
					s = ShapeOf(append(s.Clone().Dims, Unknown())...)
				}
				c.set(0, String, s)
				return nil
			}},
		{Name: "NumberToText", Doc: "X's elements as text: integers in decimal, true as 1; floats by the shortest digits that give them back (docs/numerics.md, section 3.2).",
			Ins: params("X"), Outs: params("Y"), infer: func(c *inferer) error {
				if err := c.tensors(); err != nil {
					return err
				}
				d := c.dtype(0)
				c.set(0, String, c.shape(0))
				return c.want(0, d == Bool || numeric(d) && d.Bits() >= 8 && !d.IsSmallFloat(), "a number of at least 8 bits")
			}},
		{Name: "TextToNumber", Doc: "The numbers that X's texts name, of the element type `to`; another text is a run-time error (docs/numerics.md, section 3.2).",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{need("to", AttrDType)}, infer: func(c *inferer) error {
				if err := c.texts(); err != nil {
					return err
				}
				d := c.n.DType("to")
				if d != Bool && (!numeric(d) || d.Bits() < 8 || d.IsSmallFloat()) {
					return fmt.Errorf("a cast of texts to %s", d)
				}
				c.set(0, d, c.shape(0))
				return nil
			}},
		{Name: "RegexFullMatch", Doc: "Whether the RE2 expression pattern matches the whole text.", Ins: params("X"), Outs: params("Y"),
			Attrs: []AttrDef{need("pattern", AttrString)}, infer: func(c *inferer) error {
				if _, err := regexp.Compile(c.n.Str("pattern")); err != nil {
					return err
				}
				c.set(0, Bool, c.shape(0))
				return c.texts()
			}},
	}
}

// texts checks that all inputs are string tensors.
func (c *inferer) texts() error {
	if err := c.tensors(); err != nil {
		return err
	}
	for i := range c.n.Ins {
		if c.dtype(i) != String {
			return fmt.Errorf("input %d is %s, want string", i, c.dtype(i))
		}
	}
	return nil
}
