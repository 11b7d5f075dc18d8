package main

import (
	"context"
	"io"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/device"
	"github.com/waybill-ml/waybill/internal/redact"
)

// runAgent is the command run: until SIGTERM or an interrupt.
func runAgent(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("run", "run [--config FILE] [-v]", stderr)
	path := f.configFlag()
	verbose := f.Bool("v", false, "log more")
	if err := f.parse(args); err != nil {
		return err
	}
	cfg, err := config.Load(*path)
	if err != nil {
		return err
	}
	log := cfg.Log.Logger(stderr, *verbose, redact.New(cfg.Secrets()...))
	return advise(device.Run(ctx, cfg, *path, certificates(), log, stdout), *path)
}
