// Command embed predicts with a model inside of a Go program. It takes an OCI layout folder (what `waybill save` writes, unpacked), the digest
// that `waybill verify` printed, and a row of numbers for the model's first input: embed DIR DIGEST 1 2 3
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: embed DIR DIGEST NUMBER...")
		os.Exit(2)
	}
	var row []float32
	for _, a := range os.Args[3:] {
		v, err := strconv.ParseFloat(a, 32)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		row = append(row, float32(v))
	}
	out, err := predict(context.Background(), os.Args[1], os.Args[2], row)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for name, t := range out {
		fmt.Println(name, t)
	}
}

func predict(ctx context.Context, dir, digest string, row []float32) (map[string]edge.Tensor, error) {
	rt, err := edge.New(ctx, edge.Config{MemoryLimit: 256 << 20})
	if err != nil {
		return nil, err
	}
	defer rt.Close(ctx)
	files, err := edge.Layout(dir, digest) // every byte is checked against the digest
	if err != nil {
		return nil, err
	}
	m, err := rt.Load(ctx, files)
	if err != nil {
		return nil, err
	}
	if err := m.Probe(ctx); err != nil { // the golden vectors, bit for bit
		return nil, err
	}
	input := m.Interface().Inputs[0].Name
	return m.Predict(ctx, map[string]edge.Tensor{input: edge.Of(row, 1, int64(len(row)))})
}
