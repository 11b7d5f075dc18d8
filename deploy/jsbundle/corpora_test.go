package jsbundle

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

// corpusModels is a choice of kinds: dense, convolution, recurrent, trees, strings, maps, transformer.
func corpusModels() []string {
	return []string{"models/gonnx_mlp", "models/mnist_8", "models/gonnx_gru", "models/sklearn_randomforest_iris", "models/vespa_dummy_transformer",
		"models/tract_qlstm_3-2-3_T3_S1", "models/deeploy_CCT_FP32_CCT_2_32_32_128_Opset20", "models/blazeface_front",
		"models-sklearn/adult_onehot_logreg", "models-sklearn/bc_gradboost", "models-sklearn/digits_kmeans", "models/onnxmltools_onehot_bikesharing"}
}

// The same bits as the runtime on every host, for real models and their own data. WAYBILL_BITS_MODELS is a pattern of folders
// to take instead.
func TestCorporaSameBits(t *testing.T) {
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		t.Skip("WAYBILL_CORPORA is not set: the real models are not here")
	}
	names := corpusModels()
	if p := os.Getenv("WAYBILL_BITS_MODELS"); p != "" {
		names = nil
		dirs, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(p)))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			rel, err := filepath.Rel(root, d)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, filepath.ToSlash(rel))
		}
	}
	var ws []*world
	var dirs []string
	for _, name := range names {
		w := corpusWorld(t, filepath.Join(root, filepath.FromSlash(name)))
		if w == nil {
			continue
		}
		b, dir := w.bundle(t, Options{Limits: Limits{1 << 30, 128 << 20, 1 << 30}})
		if len(b.WorkerFiles()) == 0 {
			t.Fatal("no Worker")
		}
		ws, dirs = append(ws, w), append(dirs, dir)
	}
	if len(ws) < len(names)/2 || len(ws) == 0 {
		t.Fatalf("only %d of %d models could be tried", len(ws), len(names))
	}
	t.Run("node", func(t *testing.T) {
		tool(t, "node")
		for i, w := range ws {
			t.Run(w.iface.Name, func(t *testing.T) {
				url, _ := nodeServer(t, dirs[i])
				sameAnswers(t, w, url, calls(w))
			})
		}
	})
	t.Run("workerd", func(t *testing.T) {
		tool(t, os.Getenv("WAYBILL_WORKERD"), "workerd")
		for i, w := range ws {
			t.Run(w.iface.Name, func(t *testing.T) {
				url, log := workerd(t, dirs[i])
				sameAnswers(t, w, url, calls(w))
				if t.Failed() {
					t.Log(log)
				}
			})
		}
	})
	t.Run("chromium", func(t *testing.T) {
		if _, err := exec.LookPath("chromium"); err != nil {
			tool(t, os.Getenv("WAYBILL_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
		}
		browserCalls(t, ws, dirs)
	})
}

// corpusWorld compiles a model and takes the first of its data sets as golden vector; nil when it has none, or needs more than a Worker has.
func corpusWorld(t *testing.T, dir string) *world {
	t.Helper()
	file := build.ModelIn(dir)
	if file == "" {
		return nil
	}
	src, err := build.OpenSource(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(t.Context(), src, build.Options{Name: filepath.Base(dir), Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	sets, err := build.DataSets(dir)
	if err != nil || len(sets) == 0 {
		t.Logf("%s: no test data: %v", dir, err)
		return nil
	}
	c, err := build.ReadCase(sets[0], &m.Source)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range c.Inputs {
		if in.Kind != "" && in.Kind != "tensor" {
			t.Logf("%s: input %s is a %s, which the protocol cannot carry", dir, in.Name, in.Kind)
			return nil
		}
	}
	if m.Interface.Weights != nil && 2*m.Interface.Weights.Size > 90<<20 {
		t.Logf("%s: %d bytes of weights are too much for a Worker", dir, m.Interface.Weights.Size)
		return nil
	}
	return packed(t, m, [][]artifact.GoldenTensor{c.Inputs}...)
}
