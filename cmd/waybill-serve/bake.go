package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/edge-runtime/ecslog"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
)

// bake proves the artifact as a start does, writes the code that was compiled for it into the folder that args name first, and prints
// the digest of its index.
func bake(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, open opener) (err error) {
	if len(args) == 0 {
		return diag.New(diag.Usage, "bake: no folder is named")
	}
	o, err := parse(args[1:], getenv, stdout)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(args[0]), "bake-")
	if err != nil {
		return diag.Wrap(diag.Failure, err, "bake")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	o.cache, o.code = work, engine.Baked{}
	m, err := open(ctx, o, ecslog.New(stderr, ecslog.Options{Service: "waybill-serve", Version: version.Number}))
	if err != nil {
		return err
	}
	if err := m.Close(ctx); err != nil {
		return err
	}
	digest, err := engine.Bake(filepath.Join(work, "code"), args[0])
	if err != nil {
		return diag.Wrap(diag.Unsupported, err, "bake")
	}
	_, err = fmt.Fprintln(stdout, digest)
	return err
}
