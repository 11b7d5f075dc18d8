// Bitsrun reads a bits.Job as JSON from standard input, runs it, and writes the outputs as JSON: the Go counterpart of
// edge-runtime/web/run.mjs. Its argument is the engine's mode: auto, compiler or interpreter.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/engine/bits"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	mode := engine.Auto
	if len(os.Args) > 1 {
		var err error
		if mode, err = engine.ParseMode(os.Args[1]); err != nil {
			return err
		}
	}
	var j bits.Job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	e, err := engine.New(ctx, engine.Config{Mode: mode, Instances: 1, TimeLimit: -1})
	if err != nil {
		return err
	}
	res, err := bits.Run(ctx, e, j)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}
