package ir

// trigOps are the circular and hyperbolic functions of docs/numerics.md, section 2.3.
func trigOps() []OpDef {
	docs := [][2]string{
		{"Sin", "Sine of X in radians."}, {"Cos", "Cosine of X in radians."}, {"Tan", "Tangent of X in radians."},
		{"Asin", "Arc sine; NaN outside [-1, 1]."}, {"Acos", "Arc cosine; NaN outside [-1, 1]."}, {"Atan", "Arc tangent."},
		{"Sinh", "Hyperbolic sine."}, {"Cosh", "Hyperbolic cosine."},
		{"Asinh", "Inverse hyperbolic sine."}, {"Acosh", "Inverse hyperbolic cosine; NaN below 1."},
		{"Atanh", "Inverse hyperbolic tangent; NaN outside [-1, 1]."},
	}
	var out []OpDef
	for _, d := range docs {
		out = append(out, OpDef{Name: d[0], Doc: d[1], Ins: params("X"), Outs: params("Y"), infer: unaryOp(float, "a float")})
	}
	return out
}
