package onnx

func trigOps() map[string]handler {
	t := map[string]handler{}
	for _, name := range []string{"Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"} {
		t[name] = unaryOp(name)
	}
	return t
}
