package interp_test

import (
	"context"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// constGraph wraps one line of nodes over constants; r is the only result.
func constGraph(consts, nodes string) string {
	return "graph \"t\" {\n" + consts + "\n" + nodes + "\nresult r\n}"
}

// TestOperators checks operators against results worked out by hand (or stated by ONNX's documentation).
func TestOperators(t *testing.T) {
	for _, c := range []struct{ name, consts, nodes, want string }{
		{"gemm", `const a f32[1,2](1, 2) const b f32[2,2](1, 2, 3, 4) const c f32[2](10, 20)`,
			`r f32[1,2] = Gemm(a, b, c) {alpha=float:2, beta=float:0.5, transA=0, transB=0} #0 "n"`, `f32[1,2](19, 30)`},
		{"gemm trans", `const a f32[2,1](1, 2) const b f32[2,2](1, 2, 3, 4)`,
			`r f32[1,2] = Gemm(a, b) {alpha=float:1, beta=float:1, transA=1, transB=1} #0 "n"`, `f32[1,2](5, 11)`},
		{"matmul vector", `const a f32[2](1, 2) const b f32[2,2](1, 2, 3, 4)`, `r f32[2] = MatMul(a, b) #0 "n"`, `f32[2](7, 10)`},
		{"conv", `const x f32[1,1,3](1, 2, 3) const w f32[1,1,2](1, 10) const b f32[1](100)`,
			`r f32[1,1,4] = Conv(x, w, b) {auto_pad="NOTSET", dilations=[1], group=1, kernel_shape=[2], pads=[1, 1], strides=[1]} #0 "n"`,
			`f32[1,1,4](110, 121, 132, 103)`},
		{"conv groups dilation", `const x f32[1,2,3](1, 2, 3, 4, 5, 6) const w f32[2,1,2](1, 1, 1, -1)`,
			`r f32[1,2,1] = Conv(x, w) {auto_pad="NOTSET", dilations=[2], group=2, kernel_shape=[2], pads=[0, 0], strides=[1]} #0 "n"`,
			`f32[1,2,1](4, -2)`},
		{"max pool ceil", `const x f32[1,1,4](1, 5, 2, 3)`,
			`r f32[1,1,2], i i64[1,1,2] = MaxPool(x) {auto_pad="NOTSET", ceil_mode=1, dilations=[1], kernel_shape=[3], pads=[0, 0], storage_order=0, strides=[2]} #0 "n"`,
			`f32[1,1,2](5, 3)`},
		{"max pool ceil, less than a window", `const x f32[1,1,2](5, 1)`,
			`r f32[1,1,1], i i64[1,1,1] = MaxPool(x) {auto_pad="NOTSET", ceil_mode=1, dilations=[1], kernel_shape=[3], pads=[0, 0], storage_order=0, strides=[2]} #0 "n"`,
			`f32[1,1,1](5)`},
		{"average pool ceil, less than a window", `const x f32[1,1,2](5, 1)`,
			`r f32[1,1,1] = AveragePool(x) {auto_pad="NOTSET", ceil_mode=1, count_include_pad=0, dilations=[1], kernel_shape=[4], pads=[0, 0], strides=[3]} #0 "n"`,
			`f32[1,1,1](3)`},
		{"average pool pads", `const x f32[1,1,2](2, 4)`,
			`r f32[1,1,2] = AveragePool(x) {auto_pad="NOTSET", ceil_mode=0, count_include_pad=1, dilations=[1], kernel_shape=[2], pads=[1, 0], strides=[1]} #0 "n"`,
			`f32[1,1,2](1, 3)`},
		{"slice back", `const x i64[5](0, 1, 2, 3, 4) const s i64[1](-1) const e i64[1](-9223372036854775808) const a i64[1](0) const k i64[1](-2)`,
			`r i64[3] = Slice(x, s, e, a, k) #0 "n"`, `i64[3](4, 2, 0)`},
		{"pad reflect", `const x f32[3](1, 2, 3) const p i64[2](2, 1)`, `r f32[6] = Pad(x, p) {mode="reflect"} #0 "n"`, `f32[6](3, 2, 1, 2, 3, 2)`},
		{"pad edge crop", `const x f32[3](1, 2, 3) const p i64[2](-1, 2)`, `r f32[4] = Pad(x, p) {mode="edge"} #0 "n"`, `f32[4](2, 3, 3, 3)`},
		{"gather strings", `const x string[2]("no", "yes") const i i64[3](1, 0, -1)`, `r string[3] = Gather(x, i) {axis=0} #0 "n"`, `string[3]("yes", "no", "yes")`},
		{"reshape copies", `const x i64[2,3](1, 2, 3, 4, 5, 6) const s i64[3](0, -1, 1)`, `r i64[2,3,1] = Reshape(x, s) {allowzero=0} #0 "n"`, `i64[2,3,1](1, 2, 3, 4, 5, 6)`},
		{"divide", `const a i64[3](7, -7, -9223372036854775808) const b i64[3](2, 2, -1)`, `r i64[3] = Div(a, b) #0 "n"`, `i64[3](3, -3, -9223372036854775808)`},
		{"mod", `const a i64[2](-7, 7) const b i64[2](3, -3)`, `r i64[2] = Mod(a, b) {fmod=0} #0 "n"`, `i64[2](2, -2)`},
		{"cast saturates", `const a f32[5](-1.5, 300, 2.9, 1e30, -1e30)`, `r u8[5] = Cast(a) {to=dtype:u8} #0 "n"`, `u8[5](0, 255, 2, 255, 0)`},
		{"mean", `const x f32[2,2](1, 2, 3, 5) const a i64[1](1)`, `r f32[2] = ReduceMean(x, a) {keepdims=0} #0 "n"`, `f32[2](1.5, 4)`},
		{"argmax ties", `const x f32[1,4](1, 3, 3, 2)`, `r i64[1] = ArgMax(x) {axis=1, keepdims=0, select_last_index=0} #0 "n"`, `i64[1](1)`},
		{"argmax last", `const x f32[1,4](1, 3, 3, 2)`, `r i64[1] = ArgMax(x) {axis=1, keepdims=0, select_last_index=1} #0 "n"`, `i64[1](2)`},
		{"topk", `const x f32[4](1, 3, 3, 2) const k i64[1](3)`, `v f32[3], r i64[3] = TopK(x, k) {axis=0, largest=1, sorted=1} #0 "n"`, `i64[3](1, 2, 3)`},
		{"softmax", `const x f32[2](0, 0)`, `r f32[2] = Softmax(x) {axis=0} #0 "n"`, `f32[2](0.5, 0.5)`},
		{"range", `const a i64[](10) const b i64[](4) const d i64[](-3)`, `r i64[2] = Range(a, b, d) #0 "n"`, `i64[2](10, 7)`},
		{"one hot", `const x i64[2](1, -1) const d i64[](3) const v f32[2](0, 5)`, `r f32[2,3] = OneHot(x, d, v) {axis=-1} #0 "n"`, `f32[2,3](0, 5, 0, 0, 0, 5)`},
		// A node on feature 0 (<= 0.5, NaN to the true side) over leaf A (target 0: 1) and leaf B (target 1: 2), then a tree of leaf A alone.
		{"trees", `const x f32[3,1](0, 1, 0.5)`,
			`r f32[3,2] = ml.TreeEnsemble(x) {accumulate="F64", aggregate="SUM", base_values=f64[2](0.25, 0), leaf_begin=[0, 1, 2], leaf_target=[0, 1], leaf_weight=f64[2](1, 2), linear_begin=[], linear_const=f64[0](), linear_coef=f64[0](), linear_feature=[], ` +
				`n_targets=2, node_false=[-2], node_feature=[0], node_missing_true=[1], node_mode=[0], node_threshold=f32[1](0.5), node_true=[-1], roots=[0, -1]} #0 "n"`,
			`f32[3,2](2.25, 0, 1.25, 2, 2.25, 0)`},
		{"trees average min", `const x f64[1,1](3)`,
			`r f64[1,1] = ml.TreeEnsemble(x) {accumulate="F64", aggregate="MIN", base_values=f64[0](), leaf_begin=[0, 1, 2], leaf_target=[0, 0], leaf_weight=f64[2](4, 2), linear_begin=[], linear_const=f64[0](), linear_coef=f64[0](), linear_feature=[], ` +
				`n_targets=1, node_false=[], node_feature=[], node_missing_true=[], node_mode=[], node_threshold=f64[0](), node_true=[], roots=[-1, -2]} #0 "n"`,
			`f64[1,1](2)`},
		{"label encoder", `const x string[3]("b", "?", "a")`, `r i64[3] = ml.LabelEncoder(x) {default=i64[1](-1), keys=string[2]("a", "b"), values=i64[2](10, 20)} #0 "n"`,
			`i64[3](20, -1, 10)`},
		{"one hot encoder", `const x i64[2](5, 9)`, `r f32[2,2] = ml.OneHotEncoder(x) {cats=i64[2](9, 7), zeros=1} #0 "n"`, `f32[2,2](0, 0, 1, 0)`},
		{"tokenizer", `const x string[2]("Über den Fluß", "x")`,
			`r string[2,3] = ms.Tokenizer(x) {mark=0, mincharnum=2, pad_value="#", separators=strings[], tokenexp="\\pL+"} #0 "n"`,
			`string[2,3]("Über", "den", "Fluß", "#", "#", "#")`},
		{"tokenizer characters", `const x string[1]("aé")`,
			`r string[1,4] = ms.Tokenizer(x) {mark=1, mincharnum=1, pad_value="", separators=strings[""], tokenexp=""} #0 "n"`, `string[1,4]("\x02", "a", "é", "\x03")`},
		{"normalizer", `const x string[3]("The", "Ärger", "OF")`,
			`r string[1] = StringNormalizer(x) {case_change_action="UPPER", is_case_sensitive=0, stopwords=strings["the", "of"]} #0 "n"`, `string[1]("ÄRGER")`},
		// 1-grams 7 and 8, the 2-gram "7 8", also with one item skipped.
		{"tfidf", `const x i64[4](7, 8, 7, 9)`,
			`r f32[3] = TfIdfVectorizer(x) {max_gram_length=2, max_skip_count=1, min_gram_length=1, mode="TFIDF", ngram_counts=[0, 2], ngram_indexes=[2, 0, 1], ` +
				`pool=i64[4](7, 8, 7, 8), weights=f32[3](0.5, 1, 10)} #0 "n"`, `f32[3](1, 10, 1)`},
		// One step of an LSTM with zero weights but for the biases' forget gate: c = sigmoid(0)*c0 + sigmoid(0)*tanh(0), h = sigmoid(0)*tanh(c).
		{"lstm", `const x f32[1,1,1](3) const w f32[1,4,1](0, 0, 0, 0) const r0 f32[1,4,1](0, 0, 0, 0) const h f32[1,1,1](0) const c f32[1,1,1](8)`,
			`_, _, r f32[1,1,1] = LSTM(x, w, r0, _, _, h, c) {activation_alpha=floats[0, 0, 0], activation_beta=floats[0, 0, 0], activations=strings["Sigmoid", "Tanh", "Tanh"], ` +
				`clip=float:0, direction="forward", hidden_size=1, input_forget=0} #0 "n"`, `f32[1,1,1](4)`},
		{"loop", `const m i64[](3) const s i64[](10)`,
			`_, r i64[?] = Loop(m, _, s) #0 "n"
			   region () { param i i64[] param c bool[] param a i64[] b i64[] = Add(a, i) #1 "b" result c, b, b }`, `i64[3](10, 11, 13)`},
		{"scan", `const s f32[](0) const x f32[3](1, 2, 4)`,
			`_, r f32[3] = Scan(s, x) {num_scan_inputs=1, scan_input_axes=[0], scan_input_directions=[1], scan_output_axes=[0], scan_output_directions=[0]} #0 "n"
			   region () { param a f32[] param e f32[] b f32[] = Add(a, e) #1 "b" result b, b }`, `f32[3](4, 6, 7)`},
	} {
		g, err := ir.Parse(constGraph(c.consts, c.nodes))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want, err := ir.Parse(constGraph("const r "+c.want, ""))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		out, err := interp.Run(context.Background(), g, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := same(out["r"], ir.TensorVal(want.Body.Results[0].Const)); err != nil {
			t.Errorf("%s: %v: %v", c.name, err, out["r"].Tensor)
		}
	}
}

// TestRuntimeErrors checks that what depends on the data fails with the node's name, and what is asked of Run itself.
func TestRuntimeErrors(t *testing.T) {
	const text = `graph "g" {
  param x f32[N,2]
  param i i64[K]
  a f32[?,2] = Gather(x, i) {axis=0} #0 "pick"
  result a
}`
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	x := ir.TensorVal(ir.F32s([]int64{2, 2}, make([]float32, 4)))
	idx := func(v ...int64) *ir.Val { return ir.TensorVal(ir.I64s([]int64{int64(len(v))}, v)) }
	for _, c := range []struct {
		in   map[string]*ir.Val
		want string
	}{
		{map[string]*ir.Val{"x": x, "i": idx(2)}, `node "pick" (Gather): index 2`},
		{map[string]*ir.Val{"x": x}, `input "i" is missing`},
		{map[string]*ir.Val{"x": x, "i": idx(0), "j": x}, `no input "j"`},
		{map[string]*ir.Val{"x": idx(1), "i": idx(0)}, "element type i64"},
		{map[string]*ir.Val{"x": ir.TensorVal(ir.F32s([]int64{2, 3}, make([]float32, 6))), "i": idx(0)}, "want [N,2]"},
	} {
		if _, err := interp.Run(context.Background(), g, c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := interp.Run(ctx, g, map[string]*ir.Val{"x": x, "i": idx(0)}); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}
