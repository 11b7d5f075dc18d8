package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func rnnOps() map[string]handler {
	return map[string]handler{
		"RNN":  recurrent("RNN", []string{"Tanh"}),
		"GRU":  recurrent("GRU", []string{"Sigmoid", "Tanh"}),
		"LSTM": recurrent("LSTM", []string{"Sigmoid", "Tanh", "Tanh"}),
	}
}

// defaults of activation_alpha and activation_beta by activation
func activationDefaults(name string) (alpha, beta float32, ok bool) {
	switch name {
	case "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus":
		return 0, 0, true
	case "LeakyRelu":
		return 0.01, 0, true
	case "ThresholdedRelu", "Elu":
		return 1, 0, true
	case "HardSigmoid":
		return 0.2, 0.5, true
	case "ScaledTanh", "Affine":
		return 1, 1, true
	}
	return 0, 0, false
}

func recurrent(name string, defaults []string) handler {
	return func(o *op) []*ir.Value {
		o.ignore("output_sequence") // opset 1: whether Y is wanted, which its name says too
		x := o.need(0)
		hidden := o.attrInt("hidden_size", 0)
		if s := o.need(2).Type.Shape; hidden == 0 && s.Rank() == 3 && s.Dims[2].IsStatic() {
			hidden = s.Dims[2].N
		}
		dir := o.attrStr("direction", "forward")
		acts := o.attrStrs("activations")
		if len(acts) == 0 {
			acts = append([]string{}, defaults...)
			if dir == "bidirectional" {
				acts = append(acts, defaults...)
			}
		}
		alphas, betas := o.attrFloats("activation_alpha"), o.attrFloats("activation_beta")
		full := make([]string, len(acts))
		fa, fb := make([]float64, len(acts)), make([]float64, len(acts))
		for i, act := range acts {
			canon := canonicalActivation(act)
			a, b, ok := activationDefaults(canon)
			if !ok {
				return o.lacks("activation %q", act)
			}
			// alpha and beta are consumed in order by the activations that have them.
			if takesAlpha(canon) && len(alphas) > 0 {
				a, alphas = alphas[0], alphas[1:]
			}
			if takesBeta(canon) && len(betas) > 0 {
				b, betas = betas[0], betas[1:]
			}
			full[i], fa[i], fb[i] = canon, float64(a), float64(b)
		}
		attrs := ir.Attrs{"direction": dir, "hidden_size": hidden, "activations": full, "activation_alpha": fa, "activation_beta": fb,
			"clip": o.attrFloat("clip", 0)}
		switch name {
		case "GRU":
			attrs["linear_before_reset"] = o.attrInt("linear_before_reset", 0)
		case "LSTM":
			attrs["input_forget"] = o.attrInt("input_forget", 0)
		}
		layout := o.attrInt("layout", 0)
		ins := []*ir.Value{x, o.need(1), o.need(2), o.in(3), o.in(4), o.in(5), o.in(6), o.in(7)}
		outs := 2
		if name == "LSTM" {
			outs = 3
		} else {
			ins = ins[:6]
		}
		swap := func(v *ir.Value, perm ...int64) *ir.Value {
			if v == nil || layout == 0 {
				return v
			}
			return o.emit("Transpose", ir.Attrs{"perm": perm}, v)
		}
		ins[0] = swap(ins[0], 1, 0, 2)
		for _, i := range []int{5, 6} {
			if i < len(ins) {
				ins[i] = swap(ins[i], 1, 0, 2)
			}
		}
		y := o.emitN(name, attrs, outs, ins...)
		if layout != 0 {
			y[0] = swap(y[0], 2, 0, 1, 3)
			for i := 1; i < outs; i++ {
				y[i] = swap(y[i], 1, 0, 2)
			}
		}
		return y
	}
}

// canonicalActivation maps the case-insensitive spellings.
func canonicalActivation(s string) string {
	for _, n := range []string{"Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Affine"} {
		if len(n) == len(s) && equalFold(n, s) {
			return n
		}
	}
	return s
}

func equalFold(a, b string) bool {
	for i := 0; i < len(a); i++ {
		if a[i]|0x20 != b[i]|0x20 {
			return false
		}
	}
	return true
}

func takesAlpha(act string) bool {
	switch act {
	case "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Affine":
		return true
	}
	return false
}

func takesBeta(act string) bool {
	return act == "ScaledTanh" || act == "HardSigmoid" || act == "Affine"
}
