package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/waybill-ml/waybill/edge-runtime/doctor"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
)

// runDoctor is the command doctor.
func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("doctor", "doctor [--config FILE] [--offline] [--output json]", stderr)
	path, output := f.configFlag(), f.outputFlag()
	offline := f.Bool("offline", false, "ask nothing over the network")
	if err := f.parse(args); err != nil {
		return err
	}
	if err := checkOutput("doctor", *output); err != nil {
		return err
	}
	x := doctor.New(*path)
	x.Offline = *offline
	d, err := x.Diagnose(ctx)
	if err != nil {
		return err
	}
	if *output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(d); err != nil {
			return err
		}
	} else if err := doctor.Print(stdout, d.Checks, ui.Columns(stdout)); err != nil {
		return err
	}
	if d.Failed > 0 {
		return diag.New(diag.Failure, "%s of %d failed", ui.Plural(d.Failed, "check"), len(d.Checks))
	}
	fmt.Fprintf(stderr, "%d checks, none failed, %s\n", len(d.Checks), ui.Plural(d.Warned, "warning"))
	return nil
}
