package examples

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/evidence"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := fs.ReadFile(BreastCancer, path.Join("breast-cancer", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

func rows(t *testing.T, name string) [][]string {
	t.Helper()
	var out [][]string
	for _, l := range strings.Split(strings.TrimSpace(string(read(t, name))), "\n") {
		out = append(out, strings.Split(l, ","))
	}
	return out
}

// The two splits are the whole data set, each row once, under the same header.
func TestSplit(t *testing.T) {
	all, train, test := rows(t, "data/wdbc.csv"), rows(t, "data/train.csv"), rows(t, "data/test.csv")
	if len(all) != 570 || len(train)+len(test) != len(all)+1 {
		t.Fatalf("%d rows, split in %d and %d", len(all), len(train), len(test))
	}
	left := map[string]int{}
	for _, r := range all {
		left[strings.Join(r, ",")]++
	}
	for _, r := range append(train, test[1:]...) {
		left[strings.Join(r, ",")]--
	}
	for r, n := range left {
		if n != 0 {
			t.Errorf("row %s: %d too many or too few", r, n)
		}
	}
}

type tensor struct {
	Name     string
	Datatype string
	Shape    []int
	Data     []float64
}

// Every project names the digests of the data files as they are, its golden rows are those of the test split, and its
// metrics are those that the numbers beside it give where they can be recomputed.
func TestProjects(t *testing.T) {
	test := rows(t, "data/test.csv")
	trainDigest, testDigest := digest(read(t, "data/train.csv")), digest(read(t, "data/test.csv"))
	for _, v := range []string{"v1", "v2", "v3", "denied"} {
		var ev evidence.Evaluation
		var ds evidence.Datasets
		for name, to := range map[string]any{"evaluation.json": &ev, "dataset.json": &ds} {
			d := json.NewDecoder(strings.NewReader(string(read(t, v+"/"+name))))
			d.DisallowUnknownFields()
			if err := d.Decode(to); err != nil {
				t.Fatalf("%s/%s: %v", v, name, err)
			}
		}
		if len(ev.Metrics) != 5 {
			t.Errorf("%s: %d metrics", v, len(ev.Metrics))
		}
		for _, m := range ev.Metrics {
			if string(m.DatasetDigest) != testDigest || m.N != int64(len(test)-1) {
				t.Errorf("%s: metric %s is of %s, n %d", v, m.Name, m.DatasetDigest, m.N)
			}
		}
		if len(ds.Datasets) != 2 || string(ds.Datasets[0].Digest) != trainDigest || string(ds.Datasets[1].Digest) != testDigest {
			t.Errorf("%s: dataset.json names other files", v)
		}
		if n := len(read(t, v+"/model.onnx")); n > 3<<20 {
			t.Errorf("%s: model of %d bytes", v, n)
		}
		var g struct {
			Vectors []struct{ Inputs, Reference []tensor }
		}
		if err := json.Unmarshal(read(t, v+"/golden.json"), &g); err != nil {
			t.Fatal(err)
		}
		row := 1
		for _, vec := range g.Vectors {
			x, label, prob := vec.Inputs[0], vec.Reference[0], vec.Reference[1]
			for i := 0; i < x.Shape[0]; i, row = i+1, row+1 {
				for j := 0; j < 30; j++ {
					want, err := strconv.ParseFloat(test[row][j], 32)
					if err != nil || x.Data[i*30+j] != want {
						t.Fatalf("%s: golden row %d column %d is %g, want %g (%v)", v, row, j, x.Data[i*30+j], want, err)
					}
				}
				p := prob.Data[2*i : 2*i+2]
				if math.Abs(p[0]+p[1]-1) > 1e-12 || (label.Data[i] == 1) != (p[1] > p[0]) {
					t.Errorf("%s: row %d: label %g, probabilities %v", v, row, label.Data[i], p)
				}
			}
		}
		if row != 65 {
			t.Errorf("%s: %d golden rows", v, row-1)
		}
	}
}
