package trees_test

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
)

func lines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		out = append(out, sc.Text())
	}
	return out
}

func float(t *testing.T, s string) float64 {
	t.Helper()
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// dense reads a table of numbers and leaves out the first skip columns.
func dense(t *testing.T, path string, skip int) [][]float64 {
	t.Helper()
	var out [][]float64
	for _, l := range lines(t, path) {
		var row []float64
		for _, s := range strings.Fields(l)[skip:] {
			row = append(row, float(t, s))
		}
		out = append(out, row)
	}
	return out
}

// sparse reads LIBSVM rows of width features; what is absent is fill.
func sparse(t *testing.T, path string, width int, fill float64) [][]float64 {
	t.Helper()
	var out [][]float64
	for _, l := range lines(t, path) {
		row := make([]float64, width)
		for i := range row {
			row[i] = fill
		}
		for _, s := range strings.Fields(l)[1:] {
			k, v, _ := strings.Cut(s, ":")
			i, err := strconv.Atoi(k)
			if err != nil || i >= width {
				t.Fatalf("feature %q of %d", k, width)
			}
			row[i] = float(t, v)
		}
		out = append(out, row)
	}
	return out
}

func flat(rows [][]float64) []float64 {
	var out []float64
	for _, r := range rows {
		out = append(out, r...)
	}
	return out
}

// TestCorpus compares models of older versions of the libraries with the predictions stored beside them.
func TestCorpus(t *testing.T) {
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		t.Skip("set WAYBILL_CORPORA to the folder of the corpora")
	}
	dir := filepath.Join(root, "native", "leaves")
	at := func(name string) string { return filepath.Join(dir, name) }
	agaricus := func(t *testing.T) [][]float64 { return sparse(t, at("agaricus_test.libsvm"), 127, math.NaN()) }
	dermatology := func(t *testing.T) [][]float64 { return sparse(t, at("dermatology_test.libsvm"), 33, 0) }
	for _, c := range []struct {
		model, want string
		raw         bool
		rows        func(t *testing.T) [][]float64
	}{
		{"xgagaricus.json", "xgagaricus_true_predictions.txt", false, agaricus},
		{"xgagaricus.ubj", "xgagaricus_true_predictions.txt", false, agaricus},
		{"xgagaricus.model", "xgagaricus_true_predictions.txt", false, agaricus},
		{"xgdermatology.json", "xgdermatology_true_predictions.txt", true, dermatology},
		{"xgdermatology.ubj", "xgdermatology_true_predictions.txt", true, dermatology},
		{"xgdermatology.model", "xgdermatology_true_predictions.txt", true, dermatology},
		{"genlin_fmtp_gamma_AvgClaimAmount.model", "genlin_fmtp_gamma_AvgClaimAmount_true_predictions.txt", false,
			func(t *testing.T) [][]float64 {
				return dense(t, at("genlin_fmtp_gamma_AvgClaimAmount_features.tsv"), 0)
			}},
		{"lg_kddcup99.model", "lg_kddcup99_true_predictions.txt", true, func(t *testing.T) [][]float64 { return dense(t, at("kddcup99_test.tsv"), 0) }},
		{"lg_rf_iris.model", "lg_rf_iris_true_predictions.txt", false, func(t *testing.T) [][]float64 { return sparse(t, at("iris_test.libsvm"), 4, 0) }},
		{"lgmulticlass.model", "lgmulticlass_true_predictions.txt", false, func(t *testing.T) [][]float64 { return dense(t, at("multiclass_test.tsv"), 1) }},
		{"lgmulticlass.model", "lgmulticlass_true_raw_predictions.txt", true, func(t *testing.T) [][]float64 { return dense(t, at("multiclass_test.tsv"), 1) }},
	} {
		t.Run(c.model+"/"+c.want, func(t *testing.T) {
			want := flat(dense(t, at(c.want), 0))
			got := predict(t, at(c.model), c.rows(t))
			if c.raw {
				check(t, got, want, nil)
			} else {
				check(t, got, nil, want)
			}
		})
	}
	for _, m := range []string{at("model_simple.txt"), filepath.Join(root, "native", "treelite", "mushroom", "mushroom.model")} { // no predictions are known
		t.Run(filepath.Base(m), func(t *testing.T) { predict(t, m, [][]float64{{}, {1, 2}}) })
	}
	t.Run("lg_breast_cancer.txt", func(t *testing.T) { sameLeaves(t, dir) })
}

// sameLeaves compares the margin with the sum of the leaves that the library says it reached.
func sameLeaves(t *testing.T, dir string) {
	var values [][]float64
	for _, l := range lines(t, filepath.Join(dir, "lg_breast_cancer.txt")) {
		if v, ok := strings.CutPrefix(l, "leaf_value="); ok {
			var row []float64
			for _, s := range strings.Fields(v) {
				row = append(row, float(t, s))
			}
			values = append(values, row)
		}
	}
	var want []float64
	for _, l := range dense(t, filepath.Join(dir, "lg_breast_cancer_data_pred_leaves.txt"), 0) {
		sum := 0.0
		for i, leaf := range l {
			sum += values[i][int(leaf)]
		}
		want = append(want, sum)
	}
	got := predict(t, filepath.Join(dir, "lg_breast_cancer.txt"), dense(t, filepath.Join(dir, "lg_breast_cancer_data.txt"), 0))
	near(t, "margin", margin(got).Floats(), want, 1e-9)
}

func margin(got map[string]*ir.Data) *ir.Data {
	if m := got["margin"]; m != nil {
		return m
	}
	return got["prediction"]
}
