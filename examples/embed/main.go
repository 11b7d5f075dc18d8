// Command embed predicts with a model inside of a Go program. It takes what `waybill save` wrote (or the folder of an OCI layout or store),
// the name of the model, the signed trust document, its digest, and a row of numbers for the model's first input:
// embed churn.tar churn trust.jsonl sha256:... 1 2 3
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
)

func main() {
	if len(os.Args) < 6 {
		fmt.Fprintln(os.Stderr, "usage: embed FILE MODEL TRUST TRUST-DIGEST NUMBER...")
		os.Exit(2)
	}
	var row []float32
	for _, a := range os.Args[5:] {
		v, err := strconv.ParseFloat(a, 32)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		row = append(row, float32(v))
	}
	out, err := predict(context.Background(), edge.Release{From: os.Args[1], Model: os.Args[2], Trust: os.Args[3], TrustDigest: os.Args[4]}, row)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for name, t := range out {
		fmt.Println(name, t)
	}
}

func predict(ctx context.Context, release edge.Release, row []float32) (map[string]edge.Tensor, error) {
	m, err := edge.Open(ctx, release) // trust document, signatures, evidence, every byte, golden vectors
	if err != nil {
		return nil, err
	}
	defer m.Close(ctx)
	input := m.Interface().Inputs[0].Name
	return m.Predict(ctx, map[string]edge.Tensor{input: edge.Of(row, 1, int64(len(row)))})
}
