package lightgbm

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/ir"
)

func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// line replaces the first line of a key.
func line(t *testing.T, s, key, value string) string {
	t.Helper()
	i := strings.Index(s, "\n"+key+"=")
	if i < 0 {
		t.Fatalf("no %s", key)
	}
	end := i + 1 + strings.IndexByte(s[i+1:], '\n')
	return s[:i] + "\n" + key + "=" + value + s[end:]
}

func TestDamaged(t *testing.T) {
	for _, c := range []struct{ name, file, key, value, want string }{
		{"cycle to the root", "regression.txt", "left_child", "1 0 -1 4 -3", "tree 0: node 1: child 0 has two parents: the tree has a cycle"},
		{"two parents of a leaf", "regression.txt", "left_child", "-1 -1 -1 -1 -1", "tree 0: node"},
		{"child beyond the end", "regression.txt", "left_child", "99 1 2 3 4", "tree 0: node 0: child 99 does not exist"},
		{"leaf beyond the end", "regression.txt", "left_child", "-99 1 2 3 4", "tree 0: node 0: leaf 98 does not exist"},
		{"feature", "regression.txt", "split_feature", "99 0 0 0 0", "tree 0: node 0: feature 99 of 5"},
		{"few numbers", "regression.txt", "threshold", "1 2", "tree 0: threshold has fewer than 5 numbers"},
		{"no number", "regression.txt", "threshold", "1 2 3 4 x", "tree 0: threshold: number 4"},
		{"NaN", "regression.txt", "threshold", "nan 1 1 1 1", "tree 0: node 0: its threshold is NaN"},
		{"missing kind", "regression.txt", "decision_type", "12 2 2 2 2", "tree 0: node 0: decision type 12"},
		{"numbers", "regression.txt", "threshold", "1.25 2.25 3.25", "tree 0: threshold has 3 numbers, want 5"},
		{"leaves", "regression.txt", "num_leaves", "4000000000", "tree 0: num_leaves="},
		{"many leaves", "regression.txt", "num_leaves", "10000000", "tree 0: leaf_value has fewer than"},
		{"classes", "regression.txt", "num_class", "-1", "header: num_class="},
		{"trees", "regression.txt", "num_tree_per_iteration", "3", "objective regression with 3 trees"},
		{"sizes", "regression.txt", "tree_sizes", "1", "tree_sizes has 1 entries"},
		{"sigmoid", "binary.txt", "objective", "binary sigmoid:-1", "sigmoid is"},
		{"set", "categorical.txt", "threshold", "99 99 99 99 99", "category set 99"},
		{"bits", "categorical.txt", "cat_threshold", "-1", "tree 0: cat_threshold"},
		{"bounds", "categorical.txt", "cat_boundaries", "1 2", "tree 0: cat_boundaries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(line(t, fixture(t, c.file), c.key, c.value)))
			var fe *frontend.FormatError
			if !errors.As(err, &fe) || fe.Format != frontend.LightGBM || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	s := fixture(t, "linear.txt")
	at := strings.Index(s, "\nTree=1\n")
	for _, c := range []struct{ key, value, want string }{
		{"leaf_features", "1", "tree 1: leaf_features has"},
		{"num_features", "1000000 0 0 0 0 0", "tree 1: leaf_features has"},
		{"leaf_coeff", "1", "tree 1: leaf_coeff has"},
	} {
		if _, err := Parse([]byte(s[:at] + line(t, s[at:], c.key, c.value))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.key, err)
		}
	}
}

func TestUnsupported(t *testing.T) {
	_, err := Parse([]byte(line(t, fixture(t, "regression.txt"), "objective", "something_new")))
	var u *frontend.UnsupportedError
	if !errors.As(err, &u) {
		t.Error(err)
	}
	if _, err = Parse([]byte(`{"name": "tree"}`)); !errors.As(err, &u) {
		t.Error(err)
	}
	// A forest of format v2 with a link whose values do not tell whether it was applied.
	s := line(t, line(t, fixture(t, "v2.2.2_rf.txt"), "objective", "poisson"), "version", "v2")
	if _, err = Parse([]byte(s)); !errors.As(err, &u) {
		t.Error(err)
	}
}

func TestTruncated(t *testing.T) {
	for _, name := range []string{"stump.txt", "linear.txt", "categorical.txt"} {
		s := fixture(t, name)
		for i := 0; i < strings.Index(s, "end of trees")+len("end of trees"); i += 1 + i/300 {
			if _, err := Parse([]byte(s[:i])); err == nil {
				t.Errorf("%s cut at %d is accepted", name, i)
			}
		}
		if _, err := Parse([]byte(strings.ReplaceAll(s, "\n", "\r\n"))); err != nil {
			t.Errorf("%s with CRLF: %v", name, err)
		}
	}
}

// TestBounded feeds a small file that asks for much.
func TestBounded(t *testing.T) {
	s := "tree\nversion=v4\nnum_class=1\nmax_feature_idx=0\n\nTree=0\nnum_leaves=16000000\nnum_cat=0\nleaf_value=1\n\nend of trees\n"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Parse([]byte(s))
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%v, %d bytes", err, after.TotalAlloc-before.TotalAlloc)
	}
}

func FuzzParse(f *testing.F) {
	for _, n := range []string{"stump.txt", "linear.txt", "categorical.txt", "missing_zero.txt", "rf_binary.txt", "v2.1.2_rf.txt", "multiclassova.txt"} {
		f.Add([]byte(fixture(f, n)))
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
