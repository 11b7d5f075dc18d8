package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi"
	"github.com/waybill-ml/waybill/internal/diag"
)

// unsaid is the variant of a process that was told none: where Lambda's Runtime API is, there is no port to answer on.
func unsaid(getenv func(string) string) string {
	if _, ok := lambdaapi.FromEnv(getenv); ok {
		return "lambda"
	}
	return variants()[0].name
}

// onLambda answers Lambda's events instead of a port.
func onLambda(ctx context.Context, p *process) error {
	cfg, ok := lambdaapi.FromEnv(p.getenv)
	if !ok {
		return diag.New(diag.Usage, "the variant is lambda, and there is no Runtime API: %s is not set", lambdaapi.EnvAPI).Hint("waybill-serve --variant plain")
	}
	cfg.Handler, cfg.Grace, cfg.Log = p.server.Handler(), p.o.grace, p.log
	cfg.Model = func() (string, error) { return p.o.model, nil }
	p.log.Info("serving", "runtime", "lambda", "concurrency", cfg.Concurrency)
	fmt.Fprintf(p.stdout, "%s on lambda\n", p.o.model)
	if err := lambdaapi.Run(ctx, cfg); err != nil {
		return diag.Wrap(diag.Failure, err, "answer Lambda's events")
	}
	return nil
}

// tellLambda reports err, which ends the process before it served, to where a caller of the function sees it. It gives err back.
func tellLambda(ctx context.Context, getenv func(string) string, err error) error {
	cfg, ok := lambdaapi.FromEnv(getenv)
	if !ok || err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	kind := "Waybill.InitFailed"
	switch diag.CodeOf(err) {
	case diag.Verification:
		kind = "Waybill.NotVerified"
	case diag.NotFound:
		kind = "Waybill.NotFound"
	case diag.Usage:
		kind = "Waybill.Usage"
	}
	tell, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if e := lambdaapi.InitError(tell, cfg, kind, err); e != nil {
		return fmt.Errorf("%w (and Lambda was not told: %w)", err, e)
	}
	return err
}

// toldLambda is open with its errors reported.
func toldLambda(getenv func(string) string, open opener) opener {
	return func(ctx context.Context, o *options, log *slog.Logger) (*edge.Opened, error) {
		m, err := open(ctx, o, log)
		return m, tellLambda(ctx, getenv, err)
	}
}
