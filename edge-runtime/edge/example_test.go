package edge_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
)

// place is where the release of the example lies.
type place struct{ dir string }

func (place) Helper()                           {}
func (place) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
func (p place) TempDir() string {
	dir, err := os.MkdirTemp(p.dir, "")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "edge")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// Your program writes edge.Release{From: "neg.tar", Model: "neg", Trust: "trust.jsonl", TrustDigest: "sha256:..."}.
	release := edge.ReleaseForExample(place{dir})

	ctx := context.Background()
	m, err := edge.Open(ctx, release) // trust document, signatures, evidence, every byte, golden vectors
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)
	out, err := m.Predict(ctx, map[string]edge.Tensor{"x": edge.Of([]float32{3, -0.5})})
	if err != nil {
		log.Fatal(err)
	}
	y, err := edge.Values[float32](out["y"])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(y)
	// Output: [-3 0.5]
}
