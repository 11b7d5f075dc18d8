package onnx

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

func attrFs(name string, v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = protowire.AppendFixed32(b, math.Float32bits(x))
	}
	return pbBytes(5, cat(pbStr(1, name), pbBytes(7, b), pbInt(20, attrFloats)))
}

func attrF(name string, v float32) []byte {
	f := protowire.AppendFixed32(protowire.AppendTag(nil, 2, protowire.Fixed32Type), math.Float32bits(v))
	return pbBytes(5, cat(pbStr(1, name), f, pbInt(20, attrFloat)))
}

func attrIs(name string, v ...int64) []byte {
	return pbBytes(5, cat(pbStr(1, name), pbInts(8, v...), pbInt(20, attrInts)))
}

func attrSs(name string, v ...string) []byte {
	b := pbStr(1, name)
	for _, s := range v {
		b = append(b, pbStr(9, s)...)
	}
	return pbBytes(5, cat(b, pbInt(20, attrStrings)))
}

// stump is a tree ensemble of one split, x[0] <= 1, with the weights of the left and the right leaf for the given classes.
func stump(kind string, ids []int64, left, right []float32, more ...[]byte) []byte {
	var tree, nodeIDs, class []int64
	var weights []float32
	for leaf, w := range [][]float32{left, right} {
		for i, id := range ids {
			tree, nodeIDs, class = append(tree, 0), append(nodeIDs, int64(leaf+1)), append(class, id)
			weights = append(weights, w[i])
		}
	}
	w := map[string]string{"Classifier": "class", "Regressor": "target"}[kind]
	attrs := append([][]byte{attrIs("nodes_treeids", 0, 0, 0), attrIs("nodes_nodeids", 0, 1, 2), attrIs("nodes_featureids", 0, 0, 0),
		attrFs("nodes_values", 1, 0, 0), attrSs("nodes_modes", "BRANCH_LEQ", "LEAF", "LEAF"), attrIs("nodes_truenodeids", 1, 0, 0),
		attrIs("nodes_falsenodeids", 2, 0, 0), attrIs("nodes_missing_value_tracks_true", 0, 0, 0), attrIs(w+"_treeids", tree...),
		attrIs(w+"_nodeids", nodeIDs...), attrIs(w+"_ids", class...), attrFs(w+"_weights", weights...)}, more...)
	outs := "label scores"
	if kind == "Regressor" {
		outs = "scores"
	}
	return node("ai.onnx.ml.TreeEnsemble"+kind+" x -> "+outs, attrs...)
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// TestConversions runs small models of odd forms through the frontend and the interpreter.
func TestConversions(t *testing.T) {
	f32 := func(dims []int64, v ...float32) *ir.Data { return ir.F32s(dims, v) }
	two := f32([]int64{2, 1}, 0, 2)
	labels := attrIs("classlabels_int64s", 3, 7)
	for _, c := range []struct {
		name  string
		opset int64
		node  []byte
		x     *ir.Data
		label []int64
		want  []float64
	}{
		// One scored class, weights not negative: compared with 0.5, scores [1-s, s], whatever the post transform.
		{"binary positive", 17, stump("Classifier", []int64{0}, []float32{0.25}, []float32{0.75}, labels, attrS("post_transform", "LOGISTIC")), two,
			[]int64{3, 7}, []float64{0.75, 0.25, 0.25, 0.75}},
		// A negative weight: compared with 0; LOGISTIC takes both signs.
		{"binary mixed", 17, stump("Classifier", []int64{0}, []float32{-1}, []float32{2}, labels, attrS("post_transform", "LOGISTIC")), two,
			[]int64{3, 7}, []float64{sigmoid(1), sigmoid(-1), sigmoid(-2), sigmoid(2)}},
		{"binary mixed raw", 17, stump("Classifier", []int64{0}, []float32{-1}, []float32{2}, labels, attrS("post_transform", "NONE")), two,
			[]int64{3, 7}, []float64{1, -1, -2, 2}},
		{"binary base", 17, stump("Classifier", []int64{0}, []float32{-1}, []float32{2}, labels, attrFs("base_values", 1.5)), two,
			[]int64{7, 7}, []float64{-0.5, 0.5, -3.5, 3.5}},
		{"both classes", 17, stump("Classifier", []int64{0, 1}, []float32{0.75, 0.25}, []float32{0.125, 0.875}, labels), two,
			[]int64{3, 7}, []float64{0.75, 0.25, 0.125, 0.875}},
		{"three classes", 17, stump("Classifier", []int64{0, 1, 2}, []float32{1, 2, 0}, []float32{0, 0, 1}, attrIs("classlabels_int64s", 5, 6, 8), attrFs("base_values", 0, 0, 1.5)), two,
			[]int64{6, 8}, []float64{1, 2, 1.5, 0, 0, 2.5}},
		{"regressor average", 17, stump("Regressor", []int64{0}, []float32{4}, []float32{6}, attrI("n_targets", 1), attrS("aggregate_function", "AVERAGE"), attrFs("base_values", 1)), two,
			nil, []float64{5, 7}},
		{"regressor repeated weight", 17, stump("Regressor", []int64{0, 0}, []float32{4, 5}, []float32{6, 7}, attrI("n_targets", 1)), two,
			nil, []float64{4, 6}},
		// x == 1 or x == 3, with one leaf for both: 2.5 there and 0.5 elsewhere.
		{"shared leaf", 17, node("ai.onnx.ml.TreeEnsembleRegressor x -> scores", attrI("n_targets", 1), attrIs("nodes_treeids", 0, 0, 0, 0), attrIs("nodes_nodeids", 0, 1, 2, 3),
			attrIs("nodes_featureids", 0, 0, 0, 0), attrFs("nodes_values", 1, 3, 0, 0), attrSs("nodes_modes", "BRANCH_EQ", "BRANCH_EQ", "LEAF", "LEAF"),
			attrIs("nodes_truenodeids", 2, 2, 0, 0), attrIs("nodes_falsenodeids", 1, 3, 0, 0), attrIs("target_treeids", 0, 0), attrIs("target_nodeids", 2, 3),
			attrIs("target_ids", 0, 0), attrFs("target_weights", 2.5, 0.5)), f32([]int64{4, 1}, 1, 2, 3, float32(math.NaN())), nil, []float64{2.5, 0.5, 2.5, 0.5}},
		// Node 1, x < 8, is the false child of node 3 and of node 0, which comes before and after it.
		{"shared node", 17, node("ai.onnx.ml.TreeEnsembleRegressor x -> scores", attrI("n_targets", 1), attrIs("nodes_treeids", 0, 0, 0, 0, 0, 0), attrIs("nodes_nodeids", 0, 1, 2, 3, 4, 5),
			attrIs("nodes_featureids", 0, 0, 0, 0, 0, 0), attrFs("nodes_values", 1, 8, 0, 3, 0, 0), attrSs("nodes_modes", "BRANCH_LT", "BRANCH_LT", "LEAF", "BRANCH_EQ", "LEAF", "LEAF"),
			attrIs("nodes_truenodeids", 3, 2, 0, 5, 0, 0), attrIs("nodes_falsenodeids", 1, 4, 0, 1, 0, 0), attrIs("target_treeids", 0, 0, 0), attrIs("target_nodeids", 2, 4, 5),
			attrIs("target_ids", 0, 0, 0), attrFs("target_weights", 10, 20, 30)), f32([]int64{3, 1}, 0, 7, 9), nil, []float64{10, 10, 20}},
		{"linear one row", 17, node("ai.onnx.ml.LinearClassifier x -> label scores", attrFs("coefficients", 1), attrFs("intercepts", -1), attrIs("classlabels_ints", 3, 7)), two,
			[]int64{3, 7}, []float64{2, -1, 0, 1}},
		{"linear one row logistic", 17, node("ai.onnx.ml.LinearClassifier x -> label scores", attrFs("coefficients", 1), attrFs("intercepts", -1),
			attrIs("classlabels_ints", 3, 7), attrS("post_transform", "LOGISTIC")), two, []int64{3, 7}, []float64{sigmoid(1), sigmoid(-1), sigmoid(-1), sigmoid(1)}},
		{"normalizer zero row", 17, node("ai.onnx.ml.Normalizer x -> scores", attrS("norm", "L2")), f32([]int64{2, 2}, 3, 4, 0, 0), nil, []float64{0.6, 0.8, 0, 0}},
		{"imputer nan", 17, node("ai.onnx.ml.Imputer x -> scores", attrFs("imputed_value_floats", 9), attrF("replaced_value_float", float32(math.NaN()))),
			f32([]int64{1, 2}, float32(math.NaN()), 1), nil, []float64{9, 1}},
		// Before opset 13 softmax ran over all dims from the axis on.
		{"old softmax", 9, node("Softmax x -> scores", attrI("axis", 0)), f32([]int64{2, 2}, 0, 0, 0, 0), nil, []float64{0.25, 0.25, 0.25, 0.25}},
		{"new softmax", 13, node("Softmax x -> scores", attrI("axis", 0)), f32([]int64{2, 2}, 0, 0, 0, 0), nil, []float64{0.5, 0.5, 0.5, 0.5}},
		{"old slice", 9, node("Slice x -> scores", attrIs("starts", 1), attrIs("ends", 9), attrIs("axes", 1)), f32([]int64{1, 3}, 1, 2, 3), nil, []float64{2, 3}},
		{"old clip", 6, node("Clip x -> scores", attrF("min", -1), attrF("max", 1)), f32([]int64{3}, -5, 0.5, 5), nil, []float64{-1, 0.5, 1}},
		{"old pad", 2, node("Pad x -> scores", attrIs("pads", 1, 0), attrF("value", 7)), f32([]int64{1}, 1), nil, []float64{7, 1}},
		{"old broadcast", 6, node("Add x x -> scores", attrI("broadcast", 1)), f32([]int64{2}, 1, 2), nil, []float64{2, 4}},
		{"same lower", 11, node("MaxPool x -> scores", attrIs("kernel_shape", 2), attrS("auto_pad", "SAME_LOWER")), f32([]int64{1, 1, 3}, 3, 1, 2), nil, []float64{3, 3, 2}},
		{"sum of three", 13, node("Sum x x x -> scores"), f32([]int64{1}, 2), nil, []float64{6}},
		{"noop reduction", 18, node("ReduceSum x -> scores", attrI("noop_with_empty_axes", 1)), f32([]int64{2}, 1, 2), nil, []float64{1, 2}},
		{"log-sum-exp of infinities", 13, node("ReduceLogSumExp x -> scores", attrI("keepdims", 0)), f32([]int64{2}, float32(math.Inf(-1)), float32(math.Inf(-1))), nil, []float64{math.Inf(-1)}},
	} {
		g := graphParts{nodes: [][]byte{c.node}, ins: [][]byte{info("x", 1, c.x.Dims...)}}
		if c.label != nil {
			g.outs = append(g.outs, info("label", 7))
		}
		g.outs = append(g.outs, info("scores", 1))
		parsed, err := Parse(model(c.opset, g), "")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		out, err := interp.Run(context.Background(), parsed, map[string]*ir.Val{"x": ir.TensorVal(c.x)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.label != nil && !slices.Equal(out["label"].Tensor.Ints(), c.label) {
			t.Errorf("%s: labels %v, want %v", c.name, out["label"].Tensor.Ints(), c.label)
		}
		got := out["scores"].Tensor.Floats()
		ok := len(got) == len(c.want)
		for i := 0; ok && i < len(got); i++ {
			ok = got[i] == c.want[i] || math.Abs(got[i]-c.want[i]) < 1e-6
		}
		if !ok {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestUnsupported checks the typed error of what the frontend cannot convert, with all that a user needs.
func TestUnsupported(t *testing.T) {
	b := model(17, graphParts{nodes: [][]byte{cat(node("ImageDecoder x -> y"), pbStr(3, "boxes"))}, ins: [][]byte{info("x", 1, 2)}, outs: [][]byte{info("y", 1)}})
	_, err := Parse(b, "")
	var u *frontend.UnsupportedError
	if !errors.As(err, &u) {
		t.Fatal(err)
	}
	if u.Op != "ImageDecoder" || u.Node != "boxes" || u.Opset != 17 || u.Hint == "" {
		t.Errorf("%+v", u)
	}
	for _, n := range [][]byte{
		stump("Classifier", []int64{0}, []float32{1}, []float32{2}, attrIs("classlabels_int64s", 3)),
	} {
		_, err := Parse(model(17, graphParts{nodes: [][]byte{n}, ins: [][]byte{info("x", 1, -1, 1)}, outs: [][]byte{info("scores", 1)}}), "")
		if !errors.As(err, &u) || u.Reason == "" {
			t.Errorf("%v", err)
		}
	}
}

// TestHostileTrees gives ensembles whose links are wrong: each is an error, none a panic or an endless walk.
func TestHostileTrees(t *testing.T) {
	tree := func(yes, no, ids []int64) []byte {
		n := make([]int64, len(ids))
		modes, values := make([]string, len(ids)), make([]float32, len(ids))
		for i := range modes {
			modes[i] = "BRANCH_LT"
			if yes[i] < 0 {
				modes[i], yes[i] = "LEAF", 0
			}
		}
		return node("ai.onnx.ml.TreeEnsembleRegressor x -> scores", attrIs("nodes_treeids", n...), attrIs("nodes_nodeids", ids...), attrIs("nodes_featureids", n...),
			attrFs("nodes_values", values...), attrSs("nodes_modes", modes...), attrIs("nodes_truenodeids", yes...), attrIs("nodes_falsenodeids", no...),
			attrIs("target_treeids", 0), attrIs("target_nodeids", ids[len(ids)-1]), attrIs("target_ids", 0), attrFs("target_weights", 1))
	}
	for i, n := range [][]byte{
		tree([]int64{1, 0}, []int64{1, 0}, []int64{0, 1}),                    // a cycle without a root
		tree([]int64{1, 2, -1}, []int64{2, 1, 0}, []int64{0, 1, 2}),          // a node that is its own child
		tree([]int64{5, -1}, []int64{1, 0}, []int64{0, 1}),                   // a child that does not exist
		tree([]int64{-1, -1}, []int64{0, 0}, []int64{0, 1}),                  // two roots
		tree([]int64{-1, -1}, []int64{0, 0}, []int64{1, 1}),                  // one id twice
		tree([]int64{1, 2, 1, -1}, []int64{3, 3, 3, 0}, []int64{0, 1, 2, 3}), // a cycle below the root, through a shared leaf
	} {
		_, err := Parse(model(17, graphParts{nodes: [][]byte{n}, ins: [][]byte{info("x", 1, -1, 1)}, outs: [][]byte{info("scores", 1)}}), "")
		if err == nil {
			t.Errorf("ensemble %d was accepted", i)
		}
	}
	bad := stump("Regressor", []int64{4}, []float32{1}, []float32{2}, attrI("n_targets", 1))
	if _, err := Parse(model(17, graphParts{nodes: [][]byte{bad}, ins: [][]byte{info("x", 1, -1, 1)}, outs: [][]byte{info("scores", 1)}}), ""); err == nil {
		t.Error("a leaf of target 4 of 1 was accepted")
	}
}
