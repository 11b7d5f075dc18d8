package onnx

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
)

// since.txt lists, operator by operator, the operator sets in which the specification changed it (onnx 1.23, by
// onnx.defs.get_all_schemas_with_history).
//
//go:embed since.txt
var sinceText string

// experiments were operators of ONNX's own domain before it had opset 1's final list, or are ONNX Runtime's in that domain;
// the specification has no history of them.
func experiments() []string {
	return []string{"ATen", "Affine", "ConstantFill", "Crop", "DynamicSlice", "GivenTensorFill", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh",
		"SimplifiedLayerNormalization"}
}

// Versions gives for each operator that the frontend converts the operator sets that changed it, in rising order: all of them are
// handled. Operators of com.microsoft have version 1, and so have ONNX's early experiments.
func Versions() map[string][]int64 {
	out := map[string][]int64{}
	known := handlers()
	for _, line := range strings.Split(strings.TrimSpace(sinceText), "\n") {
		f := strings.Fields(line)
		e, ok := known[f[0]]
		if !ok {
			continue
		}
		for _, s := range f[1:] {
			if v, err := strconv.ParseInt(s, 10, 64); err == nil && v >= e.since && v <= e.known {
				out[f[0]] = append(out[f[0]], v)
			}
		}
	}
	for name := range known {
		if len(out[name]) == 0 && (strings.HasPrefix(name, "com.microsoft.") || slices.Contains(experiments(), name)) {
			out[name] = []int64{1}
		}
	}
	return out
}

// Missing lists operators of the specification that the frontend does not convert, as Supported spells them.
func Missing() []string {
	var out []string
	for _, line := range strings.Split(strings.TrimSpace(sinceText), "\n") {
		name, _, _ := strings.Cut(line, " ")
		if _, ok := handlers()[name]; !ok {
			out = append(out, name)
		}
	}
	return out
}

// Refused gives the operators that the frontend knows only to say why it cannot take them, with the reason.
func Refused() map[string]string {
	draws, loop := "random draws", "whole decoding loops"
	return map[string]string{
		"Bernoulli": draws, "Multinomial": draws, "RandomNormal": draws, "RandomNormalLike": draws, "RandomUniform": draws, "RandomUniformLike": draws,
		"com.microsoft.BeamSearch": loop, "com.microsoft.GreedySearch": loop, "com.microsoft.Sampling": loop, "com.microsoft.WhisperBeamSearch": loop,
		"com.microsoft.SparseToDenseMatMul": "sparse tensors", "ATen": "functions of PyTorch",
	}
}
