package codegen_test

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// tree makes one random tree as lists; nodes are numbered in the order in which they are made, leaves too.
type randomTree struct {
	feature, yes, no, yesLeaf, noLeaf, miss []int64
	mode                                    []int
	split                                   []float64
	leaves                                  int64
}

func (g *generator) tree(features int) *randomTree {
	t := &randomTree{}
	var grow func(depth int) (id, leaf int64)
	grow = func(depth int) (int64, int64) {
		if depth > 0 && (depth > 3 || g.bit() == 0) {
			t.leaves++
			return t.leaves - 1, 1
		}
		i := len(t.feature)
		t.feature, t.mode = append(t.feature, int64(g.n(features))), append(t.mode, g.n(6))
		t.split, t.miss = append(t.split, g.reals(1)[0]), append(t.miss, int64(g.bit()))
		t.yes, t.no, t.yesLeaf, t.noLeaf = append(t.yes, 0), append(t.no, 0), append(t.yesLeaf, 0), append(t.noLeaf, 0)
		a, al := grow(depth + 1)
		b, bl := grow(depth + 1)
		t.yes[i], t.yesLeaf[i], t.no[i], t.noLeaf[i] = a, al, b, bl
		return int64(i), 0
	}
	grow(0)
	return t
}

var (
	treeModes      = []string{"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}
	postTransforms = []string{"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"}
)

// forest makes the nodes_* and the given weight lists of ai.onnx.ml 1 to 3.
func (g *generator) forest(features, targets int, what string) attrs {
	var tree, id, feat, yes, no, miss, wt, wn, wi []int64
	var mode []string
	var split, weight []float64
	for k := range 1 + g.n(3) {
		t := g.tree(features)
		n := int64(len(t.feature))
		ref := func(i, leaf int64) int64 { return i + leaf*n }
		for i := range t.feature {
			tree, id, feat = append(tree, int64(k)), append(id, int64(i)), append(feat, t.feature[i])
			yes, no = append(yes, ref(t.yes[i], t.yesLeaf[i])), append(no, ref(t.no[i], t.noLeaf[i]))
			miss, mode, split = append(miss, t.miss[i]), append(mode, treeModes[t.mode[i]]), append(split, t.split[i])
		}
		for l := range t.leaves {
			tree, id, feat, yes, no = append(tree, int64(k)), append(id, n+l), append(feat, 0), append(yes, 0), append(no, 0)
			miss, mode, split = append(miss, 0), append(mode, "LEAF"), append(split, 0)
			for range 1 + g.n(2) {
				wt, wn, wi, weight = append(wt, int64(k)), append(wn, n+l), append(wi, int64(g.n(targets))), append(weight, g.reals(1)[0])
			}
		}
	}
	at := attrs{"nodes_treeids": tree, "nodes_nodeids": id, "nodes_featureids": feat, "nodes_truenodeids": yes, "nodes_falsenodeids": no, "nodes_modes": mode, "nodes_values": split,
		what + "_treeids": wt, what + "_nodeids": wn, what + "_ids": wi, what + "_weights": weight}
	if g.bit() == 0 {
		at["nodes_missing_value_tracks_true"] = miss
	}
	return at
}

// rows makes a matrix of n features.
func (g *generator) rows(n int) made {
	if g.one(8) {
		return g.of(ir.F32, int64(n))
	}
	return g.of(choose(g, ir.F32, ir.F32, ir.F32, ir.F64, ir.I64, ir.I32), g.dim(), int64(n))
}

// labels are class labels as an attribute.
func (g *generator) labels(at attrs, ints string, n int) attrs {
	if g.bit() == 0 {
		at[ints] = g.between(n, -5, 20)
	} else {
		s := make([]string, n)
		for i := range s {
			s[i] = string(rune('a'+i)) + choose(g, "", "é", "x")
		}
		at["classlabels_strings"] = s
	}
	return at
}

// mlRecipes are the operators of ai.onnx.ml.
func mlRecipes() map[string]recipe {
	post := func(g *generator) attrs { return g.some(attrs{"post_transform": postTransforms[g.n(5)]}) }
	encoder := func(g *generator, op string) bool {
		kinds := []struct {
			name string
			dt   ir.DType
		}{{"int64s", ir.I64}, {"strings", ir.String}, {"floats", ir.F32}}
		n := 1 + g.n(5)
		list := func(k int) any {
			switch k {
			case 0:
				return g.between(n, -4, 4)
			case 1:
				return g.strs(int64(n)).Strings
			}
			v := g.reals(n)
			if g.one(4) {
				v[0] = math.NaN()
			}
			return v
		}
		a, b := g.n(3), g.n(3)
		at := attrs{"keys_" + kinds[a].name: list(a), "values_" + kinds[b].name: list(b)}
		switch b {
		case 0:
			at["default_int64"] = -7
		case 1:
			at["default_string"] = "none"
		default:
			at["default_float"] = 0.5
		}
		return g.on(op, 1, at, g.of(kinds[a].dt, g.dims()...))
	}
	linear := func(g *generator, op string) bool {
		f, n := 1+g.n(4), 1+g.n(3)
		at := plus(post(g), attrs{"coefficients": g.reals(f * n)})
		if g.bit() == 0 || op == "ai.onnx.ml.LinearClassifier" && n == 1 {
			at["intercepts"] = g.reals(n)
		}
		if op == "ai.onnx.ml.LinearRegressor" {
			at["targets"] = n
			return g.on(op, 1, at, g.rows(f))
		}
		c := n
		if n == 1 {
			c = 2
		}
		return g.on(op, -2, g.labels(at, "classlabels_ints", c), g.rows(f))
	}
	return map[string]recipe{
		"ai.onnx.ml.ArrayFeatureExtractor": func(g *generator) bool {
			x := g.thing(1)
			n := x.d.Dims[len(x.d.Dims)-1]
			return g.on("ai.onnx.ml.ArrayFeatureExtractor", 1, nil, x, g.indices(n, int64(1+g.n(4))))
		},
		"ai.onnx.ml.Binarizer": func(g *generator) bool {
			return g.on("ai.onnx.ml.Binarizer", 1, g.some(attrs{"threshold": g.reals(1)[0]}), g.of(choose(g, ir.F32, ir.F64, ir.I32, ir.I64), g.dims()...))
		},
		"ai.onnx.ml.CategoryMapper": func(g *generator) bool {
			n := 1 + g.n(4)
			at := attrs{"cats_int64s": g.between(n, -3, 3), "cats_strings": g.strs(int64(n)).Strings, "default_int64": -9, "default_string": "?"}
			return g.on("ai.onnx.ml.CategoryMapper", 1, at, g.of(choose(g, ir.String, ir.I64), g.dims()...))
		},
		"ai.onnx.ml.FeatureVectorizer": func(g *generator) bool {
			n := g.dim()
			var ins []made
			var dims []int64
			for range 1 + g.n(3) {
				d := 1 + int64(g.n(4))
				dims = append(dims, d)
				ins = append(ins, g.of(choose(g, ir.F32, ir.F64, ir.I64, ir.I32), n, d))
			}
			return g.on("ai.onnx.ml.FeatureVectorizer", 1, attrs{"inputdimensions": dims}, ins...)
		},
		"ai.onnx.ml.Imputer": func(g *generator) bool {
			n := 1 + int64(g.n(4))
			if g.bit() == 0 {
				return g.on("ai.onnx.ml.Imputer", 1, attrs{"imputed_value_int64s": g.between(choose(g, 1, int(n)), -9, 9), "replaced_value_int64": g.n(3)}, g.of(ir.I64, g.dim(), n))
			}
			return g.on("ai.onnx.ml.Imputer", 1, attrs{"imputed_value_floats": g.reals(choose(g, 1, int(n))), "replaced_value_float": choose(g, math.NaN(), 0, 1)}, g.of(g.f32or64(), g.dim(), n))
		},
		"ai.onnx.ml.LabelEncoder": func(g *generator) bool {
			if g.one(4) {
				n := 1 + int64(g.n(4))
				k, v := choose(g, ir.F64, ir.I32, ir.I16, ir.F32, ir.I64, ir.String), choose(g, ir.F64, ir.I32, ir.I16, ir.F32, ir.I64, ir.String)
				return g.on("ai.onnx.ml.LabelEncoder", 1, attrs{"keys_tensor": g.data(k, n), "values_tensor": g.data(v, n), "default_tensor": g.data(v, 1)}, g.of(k, g.dims()...))
			}
			return encoder(g, "ai.onnx.ml.LabelEncoder@"+choose(g, "2", "4"))
		},
		"ai.onnx.ml.LinearClassifier": func(g *generator) bool { return linear(g, "ai.onnx.ml.LinearClassifier") },
		"ai.onnx.ml.LinearRegressor":  func(g *generator) bool { return linear(g, "ai.onnx.ml.LinearRegressor") },
		"ai.onnx.ml.Normalizer": func(g *generator) bool {
			return g.on("ai.onnx.ml.Normalizer", 1, g.some(attrs{"norm": choose(g, "MAX", "L1", "L2")}), g.rows(1+g.n(5)))
		},
		"ai.onnx.ml.OneHotEncoder": func(g *generator) bool {
			n := 1 + g.n(4)
			if g.bit() == 0 {
				return g.on("ai.onnx.ml.OneHotEncoder", 1, attrs{"cats_strings": g.strs(int64(n)).Strings, "zeros": g.bit()}, g.of(ir.String, g.dims()...))
			}
			x := g.of(choose(g, ir.I64, ir.I32, ir.F32, ir.F64), g.dims()...)
			return g.on("ai.onnx.ml.OneHotEncoder", 1, attrs{"cats_int64s": g.between(n, -3, 3), "zeros": choose(g, 0, 1, 1)}, x)
		},
		"ai.onnx.ml.SVMClassifier": func(g *generator) bool {
			f, n := 1+g.n(3), 2+g.n(2)
			per := g.between(n, 1, 2)
			total := int64(0)
			for _, v := range per {
				total += v
			}
			at := plus(post(g), g.some(attrs{"kernel_type": choose(g, "LINEAR", "POLY", "RBF", "SIGMOID")}))
			at = plus(at, attrs{"kernel_params": []float64{0.5, 0.25, choose(g, 2.0, 3.0)}, "vectors_per_class": per, "support_vectors": g.reals(f * int(total)), "coefficients": g.reals(int(total) * (n - 1)), "rho": g.reals(n * (n - 1) / 2)})
			return g.on("ai.onnx.ml.SVMClassifier", -2, g.labels(at, "classlabels_ints", n), g.rows(f))
		},
		"ai.onnx.ml.SVMRegressor": func(g *generator) bool {
			f, n := 1+g.n(3), 1+g.n(4)
			at := plus(post(g), g.some(attrs{"kernel_type": choose(g, "LINEAR", "POLY", "RBF", "SIGMOID"), "one_class": g.bit()}))
			at = plus(at, attrs{"kernel_params": []float64{0.5, 0.25, choose(g, 2.0, 3.0)}, "n_supports": n, "support_vectors": g.reals(f * n), "coefficients": g.reals(n), "rho": g.reals(1)})
			return g.on("ai.onnx.ml.SVMRegressor", 1, at, g.rows(f))
		},
		"ai.onnx.ml.Scaler": func(g *generator) bool {
			n := 1 + g.n(4)
			return g.on("ai.onnx.ml.Scaler", 1, g.some(attrs{"offset": g.reals(choose(g, 1, n)), "scale": g.reals(choose(g, 1, n))}), g.rows(n))
		},
		"ai.onnx.ml.TreeEnsemble": func(g *generator) bool {
			f, targets, dt := 1+g.n(4), 1+g.n(3), g.f32or64()
			all := &randomTree{}
			var roots, modes []int64
			for range 1 + g.n(3) {
				t := g.tree(f)
				at := int64(len(all.feature))
				roots = append(roots, at)
				for i := range t.feature {
					move := func(v, leaf int64) int64 {
						if leaf != 0 {
							return v + all.leaves
						}
						return v + at
					}
					all.yes, all.no = append(all.yes, move(t.yes[i], t.yesLeaf[i])), append(all.no, move(t.no[i], t.noLeaf[i]))
					modes = append(modes, int64(t.mode[i]))
				}
				all.feature, all.split, all.miss = append(all.feature, t.feature...), append(all.split, t.split...), append(all.miss, t.miss...)
				all.yesLeaf, all.noLeaf = append(all.yesLeaf, t.yesLeaf...), append(all.noLeaf, t.noLeaf...)
				all.leaves += t.leaves
			}
			n := int64(len(all.feature))
			at := attrs{"nodes_featureids": all.feature, "nodes_truenodeids": all.yes, "nodes_falsenodeids": all.no, "nodes_trueleafs": all.yesLeaf, "nodes_falseleafs": all.noLeaf,
				"nodes_missing_value_tracks_true": all.miss, "nodes_modes": ir.IntData(ir.U8, []int64{n}, modes), "nodes_splits": ir.FloatData(dt, []int64{n}, all.split),
				"leaf_targetids": g.between(int(all.leaves), 0, int64(targets-1)), "leaf_weights": ir.FloatData(dt, []int64{all.leaves}, g.reals(int(all.leaves))), "tree_roots": roots,
				"n_targets": targets, "aggregate_function": g.n(4), "post_transform": g.n(5)}
			return g.on("ai.onnx.ml.TreeEnsemble", 1, at, g.of(dt, g.dim(), int64(f)))
		},
		"ai.onnx.ml.TreeEnsembleClassifier": func(g *generator) bool {
			f, n := 1+g.n(4), 2+g.n(2)
			at := plus(g.forest(f, n, "class"), post(g))
			if g.one(3) {
				at["base_values"] = g.reals(n)
			}
			return g.on("ai.onnx.ml.TreeEnsembleClassifier@3", -2, g.labels(at, "classlabels_int64s", n), g.rows(f))
		},
		"ai.onnx.ml.TreeEnsembleRegressor": func(g *generator) bool {
			f, n := 1+g.n(4), 1+g.n(3)
			at := plus(g.forest(f, n, "target"), post(g))
			at["n_targets"] = n
			if g.one(3) {
				at["base_values"] = g.reals(n)
			}
			at["aggregate_function"] = choose(g, "SUM", "SUM", "AVERAGE", "MIN", "MAX")
			return g.on("ai.onnx.ml.TreeEnsembleRegressor@3", 1, at, g.rows(f))
		},
		"ai.onnx.ml.ZipMap": func(g *generator) bool {
			n := 1 + g.n(4)
			at := attrs{"classlabels_int64s": g.perm(n)}
			if g.bit() == 0 {
				at = attrs{"classlabels_strings": []string{"a", "b", "", "dé"}[:n]}
			}
			if g.one(4) {
				return g.on("ai.onnx.ml.ZipMap", 1, at, g.of(ir.F32, int64(n)))
			}
			return g.on("ai.onnx.ml.ZipMap", 1, at, g.of(ir.F32, g.dim(), int64(n)))
		},
	}
}

// innerRecipes are canonical operators, or forms of them, that no operator of ONNX becomes.
func innerRecipes() map[string]recipe {
	return map[string]recipe{
		"ir:CastSmall": func(g *generator) bool {
			to := choose(g, ir.F8E4M3FN, ir.F8E4M3FNUZ, ir.F8E5M2, ir.F8E5M2FNUZ, ir.F8E8M0, ir.F4E2M1)
			return g.add("CastSmall", ir.Attrs{"to": to, "saturate": g.bit(), "round_mode": choose(g, "up", "down", "nearest")}, 1, g.num(0))
		},
		"ir:UniqueRows": func(g *generator) bool { return g.add("UniqueRows", ir.Attrs{"sorted": g.bit()}, 3, g.thing(1)) },
		"ir:Sample": func(g *generator) bool {
			n := 1 + g.n(3)
			mode := choose(g, "nearest", "linear", "cubic")
			if n == 3 {
				mode = choose(g, "nearest", "linear")
			}
			b, dt := g.dim(), g.f32or64()
			return g.add("Sample", ir.Attrs{"mode": mode, "padding_mode": choose(g, "zeros", "border", "reflection"), "align_corners": g.bit()}, 1,
				g.of(dt, append([]int64{b, g.dim()}, g.between(n, 1, 4)...)...), g.fresh(ir.F64, b, g.dim(), int64(n)))
		},
		"ir:ml.TreeEnsemble": func(g *generator) bool {
			f, targets := 1+g.n(3), 1+g.n(2)
			t := g.tree(f)
			var modes, yes, no []int64
			for i := range t.feature {
				modes = append(modes, int64(t.mode[i]))
				ref := func(v, leaf int64) int64 {
					if leaf != 0 {
						return ^v
					}
					return v
				}
				yes, no = append(yes, ref(t.yes[i], t.yesLeaf[i])), append(no, ref(t.no[i], t.noLeaf[i]))
			}
			n, l := int64(len(t.feature)), t.leaves
			begin, members := []int64{0}, int64(0)
			for range l {
				members += int64(g.n(3))
				begin = append(begin, members)
			}
			at := ir.Attrs{"n_targets": targets, "roots": []int64{0}, "node_feature": t.feature, "node_mode": modes, "node_threshold": ir.F64s([]int64{n}, t.split), "node_true": yes, "node_false": no,
				"node_missing_true": t.miss, "leaf_begin": begin, "leaf_target": g.between(int(members), 0, int64(targets-1)), "leaf_weight": ir.F64s([]int64{members}, g.reals(int(members))),
				"base_values": ir.F64s([]int64{0}, nil)}
			if g.bit() == 0 {
				at["base_values"] = ir.F64s([]int64{int64(targets)}, g.reals(targets))
			}
			dt := ir.F64
			if g.bit() == 0 { // linear leaves
				lb, terms := []int64{0}, int64(0)
				for range members {
					terms += int64(g.n(3))
					lb = append(lb, terms)
				}
				at["linear_begin"], at["linear_feature"] = lb, g.between(int(terms), 0, int64(f-1))
				at["linear_const"], at["linear_coef"] = ir.F64s([]int64{members}, g.reals(int(members))), ir.F64s([]int64{terms}, g.reals(int(terms)))
			} else {
				dt = ir.F32
				th := ir.FloatData(ir.F32, []int64{n}, t.split)
				at["node_threshold"], at["accumulate"] = th, "F32"
			}
			return g.add("ml.TreeEnsemble", at, 1, g.of(dt, g.dim(), int64(f)))
		},
	}
}
