package onnx

import (
	"strings"
	"testing"
)

// FuzzComposed feeds the composed operators with attributes and input forms of all kinds: errors are fine, panics are not.
func FuzzComposed(f *testing.F) {
	ops := []string{"Attention", "RotaryEmbedding", "TensorScatter", "CausalConvWithState", "LinearAttention", "ai.onnx.preview.FlexAttention",
		"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LpNormalization", "LRN",
		"BatchNormalization", "Hardmax", "Shrink", "SwiGLU", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "Dropout", "com.microsoft.Attention", "com.microsoft.MultiHeadAttention", "com.microsoft.QAttention",
		"com.microsoft.GroupQueryAttention", "com.microsoft.RotaryEmbedding", "com.microsoft.MatMulNBits", "com.microsoft.GatherBlockQuantized", "com.microsoft.DynamicQuantizeLSTM",
		"com.microsoft.EmbedLayerNormalization", "com.microsoft.SkipLayerNormalization", "com.microsoft.FusedMatMul", "com.microsoft.QGemm", "com.microsoft.Inverse",
		"com.microsoft.UnfoldTensor", "com.microsoft.NhwcMaxPool", "com.microsoft.CDist", "com.microsoft.QLinearConv"}
	names := []string{"axis", "num_groups", "q_num_heads", "kv_num_heads", "num_heads", "size", "p", "rotary_embedding_dim", "is_causal", "stash_type",
		"softmax_precision", "training_mode", "left_window_size", "qk_matmul_output_mode", "interleaved", "spatial", "ignore_index",
		"hidden_size", "N", "K", "bits", "block_size", "dim", "step", "transA", "transBatchB", "do_rotary", "unidirectional", "channels_last"}
	for i := range ops {
		f.Add(uint8(i), uint8(4), uint8(3), uint16(0xffff), int64(2), int64(1), int64(2), int64(3), int64(4), true)
		f.Add(uint8(i), uint8(3), uint8(7), uint16(0x0f0f), int64(-1), int64(0), int64(2), int64(-1), int64(6), false)
	}
	f.Fuzz(func(t *testing.T, which, rank, count uint8, mask uint16, attr, d0, d1, d2, d3 int64, mixed bool) {
		op := ops[int(which)%len(ops)]
		dims := []int64{d0, d1, d2, d3, d1, d2}
		var g graphParts
		spec := op
		for i := 0; i < int(count%8); i++ {
			name := string(rune('a' + i))
			if mask>>i&1 == 0 && i > 0 {
				spec += " _"
				continue
			}
			spec += " " + name
			elem, n := int64(1), int(rank%7)
			if mixed {
				elem, n = []int64{1, 10, 11, 7, 9, 6, 16, 8}[(int(attr&7)+i)&7], (n+i)%7
			}
			g.ins = append(g.ins, info(name, elem, dims[:n]...))
		}
		g.outs = [][]byte{info("y", 1), info("z", 1)}
		var attrs [][]byte
		for i, n := range names {
			if mask>>(i&15)&1 != 0 {
				attrs = append(attrs, attrI(n, attr))
			}
		}
		g.nodes = [][]byte{node(spec+" -> y z", attrs...)}
		for _, opset := range []int64{1, 13, 18, 28} {
			b := cat(model(opset, g), pbBytes(8, cat(pbStr(1, "ai.onnx.preview"), pbInt(2, 1))))
			if _, err := Parse(b, ""); err != nil && strings.Contains(err.Error(), "not consistent") {
				t.Errorf("%s, opset %d: %v", op, opset, err)
			}
		}
	})
}
