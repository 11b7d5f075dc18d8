package xgboost

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/ir"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edit changes a JSON fixture; change gets the learner.
func edit(t *testing.T, name string, change func(doc map[string]any)) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(fixture(t, name), &doc); err != nil {
		t.Fatal(err)
	}
	change(doc)
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func path(doc map[string]any, keys ...string) map[string]any {
	for _, k := range keys {
		doc = doc[k].(map[string]any)
	}
	return doc
}

func tree0(doc map[string]any) map[string]any {
	return path(doc, "learner", "gradient_booster", "model")["trees"].([]any)[0].(map[string]any)
}

func set(list string, i int, v any) func(map[string]any) {
	return func(doc map[string]any) { tree0(doc)[list].([]any)[i] = v }
}

func TestDamaged(t *testing.T) {
	for _, c := range []struct {
		name, file string
		change     func(doc map[string]any)
		want       string
	}{
		{"cycle to the root", "squarederror.json", set("left_children", 1, 0), "tree 0: node 1: child 0 has two parents: the tree has a cycle"},
		{"cycle to itself", "squarederror.json", set("right_children", 2, 2), "tree 0: node 2: child 2 has two parents"},
		{"two parents", "squarederror.json", set("left_children", 2, 3), "tree 0: node 2: child 3 has two parents"},
		{"child beyond the end", "squarederror.json", set("left_children", 0, 1e6), "tree 0: node 0: child"},
		{"negative child", "squarederror.json", set("right_children", 0, -5), "tree 0: node 0: child"},
		{"feature", "squarederror.json", set("split_indices", 0, 99), "tree 0: node 0: feature 99 of 5"},
		{"fraction as a child", "squarederror.json", set("left_children", 0, 1.5), "trees[0].left_children: entry 0 is 1.5"},
		{"short list", "squarederror.json", func(d map[string]any) { tree0(d)["split_conditions"] = []any{1} }, "split_conditions: has 1 entries"},
		{"no list", "squarederror.json", func(d map[string]any) { delete(tree0(d), "default_left") }, "default_left: is missing"},
		{"nodes", "squarederror.json", func(d map[string]any) { path(tree0(d), "tree_param")["num_nodes"] = "4000000000" }, "num_nodes: 4e+09 is no whole number"},
		{"group", "squarederror.json", func(d map[string]any) {
			path(d, "learner", "gradient_booster", "model")["tree_info"].([]any)[0] = 7
		}, "output 7 of 1"},
		{"category", "categorical.json", func(d map[string]any) { tree0(d)["categories"].([]any)[0] = -1 }, "node 0: category -1"},
		{"categories", "categorical.json", func(d map[string]any) { tree0(d)["categories_sizes"].([]any)[0] = 1000 }, "node 0: its categories are 0 to 1000"},
		{"no categories", "categorical.json", func(d map[string]any) { tree0(d)["categories_nodes"].([]any)[0] = 100 }, "tree 0: node 0: there are no categories"},
		{"leaf vector", "multi_output_tree.json", set("right_children", 14, 100), "trees[0]: node 14: leaf 100"},
		{"base score", "binary_logistic.json", func(d map[string]any) { path(d, "learner", "learner_model_param")["base_score"] = "2" }, "base_score 2 has no margin"},
		{"base score text", "binary_logistic.json", func(d map[string]any) { path(d, "learner", "learner_model_param")["base_score"] = "x" }, "is no number"},
		{"features", "binary_logistic.json", func(d map[string]any) { path(d, "learner", "learner_model_param")["num_feature"] = "0" }, "num_feature: 0"},
		{"dart", "dart.json", func(d map[string]any) { path(d, "learner", "gradient_booster")["weight_drop"] = []any{1} }, "weight_drop: has 1 entries"},
		{"linear", "gblinear.json", func(d map[string]any) { path(d, "learner", "gradient_booster", "model")["weights"] = []any{1} }, "weights: has 1 entries, want 6"},
		{"no learner", "gblinear.json", func(d map[string]any) { delete(d, "learner") }, "learner: is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(edit(t, c.file, c.change))
			var fe *frontend.FormatError
			if !errors.As(err, &fe) || fe.Format != frontend.XGBoost || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestUnsupported(t *testing.T) {
	for _, c := range []struct {
		op     string
		change func(doc map[string]any)
	}{
		{"my:objective", func(d map[string]any) { path(d, "learner", "objective")["name"] = "my:objective" }},
		{"gbforest", func(d map[string]any) { path(d, "learner", "gradient_booster")["name"] = "gbforest" }},
	} {
		_, err := Parse(edit(t, "squarederror.json", c.change))
		var u *frontend.UnsupportedError
		if !errors.As(err, &u) || u.Op != c.op {
			t.Errorf("%s: %v", c.op, err)
		}
	}
}

// TestTruncated cuts files of each format everywhere: always an error, never a panic.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"depth0.json", "gblinear_logistic_ubj.ubj", "categorical_onehot_ubj.ubj", "v1.0_tree.model", "v1.0_dart.model", "v1.0_linear.model"} {
		b := fixture(t, name)
		if _, err := Parse(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		end := len(b)
		if strings.HasSuffix(name, ".model") {
			end = len(b) - 200 // attributes at the end are not read
		}
		for i := 0; i < end; i += 1 + i/500 {
			if _, err := Parse(b[:i]); err == nil {
				t.Errorf("%s cut at %d of %d is accepted", name, i, len(b))
			}
		}
	}
}

// TestBounded feeds small files that ask for much.
func TestBounded(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"deep JSON", "{\"learner\":" + strings.Repeat("[", 1<<20), "more than 64 levels"},
		{"deep UBJ", "{U\x07learner" + strings.Repeat("[", 1<<20), "more than 64 levels"},
		{"huge typed list", "{U\x07learner[$d#L\x00\x00\x00\x10\x00\x00\x00\x00", "the length 6.8719476736e+10 in a file"},
		{"list without payload", "{U\x07learner[$Z#l\x7f\xff\xff\xff", "a list of the type 'Z'"},
		{"negative length", "{U\x07learnerSi\xff", "the length -1"},
		{"huge text", "{L\x7f\xff\xff\xff\xff\xff\xff\xff", "in a file of"},
		{"same key", `{"learner":1,"learner":2}`, "there twice"},
		{"mixed list", `{"learner":[1,"a"]}`, "mixes numbers"},
		{"long number", `{"learner":[` + strings.Repeat("1", 100) + `]}`, "more than 64 characters"},
		{"trailing", `{"learner":{}} x`, "something follows"},
		{"no value", `{"learner":}`, "where a value belongs"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse([]byte(c.data))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%s: %d bytes of memory", c.name, n)
		}
	}
}

func TestNumbers(t *testing.T) {
	v, err := parseJSON([]byte("[0.1, 16777217, -Infinity, Infinity, NaN, true, false, -0.0, 1e39, 1E-46]"))
	if err != nil {
		t.Fatal(err)
	}
	want := []float64{float64(float32(0.1)), 16777217, math.Inf(-1), math.Inf(1), math.NaN(), 1, 0, math.Copysign(0, -1), math.Inf(1), 0}
	for i, w := range want {
		if g := v.nums[i]; math.Float64bits(g) != math.Float64bits(w) && (g == g || w == w) {
			t.Errorf("number %d is %v, want %v", i, g, w)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, n := range []string{"depth0.json", "categorical.json", "gblinear.json", "dart.json", "multi_output_tree.json", "categorical_onehot_ubj.ubj",
		"gblinear_logistic_ubj.ubj", "v1.0_tree.model", "v1.0_dart.model", "v1.0_linear.model"} {
		f.Add(fixture(f, n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Parse(b)
		if err == nil {
			err = ir.Verify(g)
		} else if g != nil {
			t.Error("a graph and an error")
		} else {
			return
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// XGBoost 1.0 wrote its statistics with C's names for NaN and the infinities.
func TestNumbersOfC(t *testing.T) {
	v, err := parseJSON([]byte("[-nan, nan, -nan(ind), inf, -inf]"))
	if err != nil {
		t.Fatal(err)
	}
	want := []float64{math.NaN(), math.NaN(), math.NaN(), math.Inf(1), math.Inf(-1)}
	for i, w := range want {
		if g := v.nums[i]; g != w && (g == g || w == w) {
			t.Errorf("number %d is %v, want %v", i, g, w)
		}
	}
	if _, err := parseJSON([]byte("[-nano]")); err == nil {
		t.Error("-nano was accepted")
	}
}
