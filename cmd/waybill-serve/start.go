package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/ecslog"
	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/monitor"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/verify"
)

// process is a proven model behind a server, which a variant makes reachable.
type process struct {
	o      *options
	getenv func(string) string
	server *serve.Server
	log    *slog.Logger
	stdout io.Writer
}

// startBallast is memory that is never touched, so never resident. While it is there, the garbage of a start, most of it the
// compiler's, is collected every time so much more has come together, rather than every few megabytes.
const startBallast = 32 << 20

// start proves the artifact, and only then answers. Nothing is listened on before: a platform that waits for the port waits
// for the proof.
func start(ctx context.Context, o *options, getenv func(string) string, stdout, stderr io.Writer, open opener) (err error) {
	logTo := ecslog.New
	if o.log == "text" {
		logTo = ecslog.NewText
	}
	log := logTo(stderr, ecslog.Options{Service: "waybill-serve", Version: version.Number})
	began := time.Now()
	ballast := make([]byte, startBallast)
	m, err := open(ctx, o, log)
	goruntime.KeepAlive(ballast)
	if err != nil {
		return err
	}
	log.Info("the artifact is proven", "model", o.model, "digest", m.Digest, "statements", len(m.Proof), "milliseconds", time.Since(began).Milliseconds(), "engine", m.Mode().String())
	p := &process{o: o, getenv: getenv, log: log, stdout: stdout}
	cfg := serve.Config{MaxBody: o.maxBody, Timeout: o.timeout, Metrics: monitor.New(), Log: log}
	if o.variant.routes != nil {
		if _, err := o.variant.routes(p, http.NotFoundHandler()); err != nil {
			return errors.Join(err, m.Close(ctx))
		}
		cfg.Wrap = func(h http.Handler) http.Handler {
			routes, _ := o.variant.routes(p, h) // whose error would have been the same before
			return routes
		}
	}
	p.server = serve.New(cfg)
	p.server.Expect(o.model)
	p.server.Swap(o.model, serve.Model{Digest: m.Digest, Runner: m})
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.grace)
		defer cancel()
		err = errors.Join(err, p.server.Close(end))
	}()
	return o.variant.answer(ctx, p)
}

// open proves and loads the artifact.
func open(ctx context.Context, o *options, log *slog.Logger) (*edge.Opened, error) {
	r := edge.Release{
		From: o.artifact, Model: o.model, Trust: o.trust, TrustDigest: o.trustDigest, Digest: o.digest,
		Evidence: o.evidence, Env: o.environment, Channel: o.channel, Engine: engineConfig(o, log),
	}
	if !o.asOf.IsZero() {
		r.Now = func() time.Time { return o.asOf }
	}
	m, err := edge.Open(ctx, r)
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, diag.Wrap(diag.NotFound, err, "prove the artifact")
	case ctx.Err() != nil:
		return nil, diag.Wrap(diag.Interrupted, context.Cause(ctx), "prove the artifact")
	}
	code := diag.Verification
	if errors.Is(err, edge.ErrNotCompiled) {
		code = diag.Unsupported
	}
	e := diag.Wrap(code, err, "prove the artifact")
	if verify.ReasonOf(err) == verify.Expired {
		_ = e.Hint("build the image anew: waybill image REF")
	}
	return nil, e
}

// engineConfig keeps compiled code where there is a place for it. Without one, as on a read-only root, the model is compiled at
// each start.
func engineConfig(o *options, log *slog.Logger) engine.Config {
	ec := engine.Config{Baked: o.code, Log: func(step, line string) { log.Info("model", "step", step, "line", line) }}
	if o.cache == "" {
		return ec
	}
	dir := filepath.Join(o.cache, "code")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		ec.CacheSecret, err = engine.CacheSecret(filepath.Join(o.cache, "secret"))
	}
	if err != nil {
		log.Warn("the model is compiled at every start", "error", err)
		return ec
	}
	ec.CacheDir = dir
	return ec
}

// variant is how one platform reaches the server.
type variant struct {
	name string
	// routes puts a platform's own paths in front of h, which speaks the Open Inference Protocol; nil: there are none. Whether it
	// fails is a matter of the environment alone.
	routes func(p *process, h http.Handler) (http.Handler, error)
	// answer answers until ctx ends, then drains. The model is proven and serves.
	answer func(ctx context.Context, p *process) error
}

// variants are the platforms; the first is the default. One that is no HTTP server has an answer of its own, which drives
// p.server.Handler() or the model behind it.
func variants() []variant {
	return []variant{
		{name: "plain", answer: listenOn("PORT")},
		{name: "lambda", answer: onLambda},
		{name: "sagemaker", routes: sageMaker, answer: listenOn("SAGEMAKER_BIND_TO_PORT")},
		{name: "vertex", routes: vertex, answer: listenOn("AIP_HTTP_PORT")},
	}
}

func variantNames() (names []string) {
	for _, v := range variants() {
		names = append(names, v.name)
	}
	return names
}

// address is --listen, else every address and the port that the first of the variables names that is set, else 8080.
func address(o *options, getenv func(string) string, variables ...string) string {
	addr := o.listen
	for _, v := range variables {
		if port := getenv(v); addr == "" && port != "" {
			addr = ":" + port
		}
	}
	if addr == "" {
		addr = ":8080"
	}
	return addr
}

// listenOn answers HTTP on the address that the variables name.
func listenOn(variables ...string) func(ctx context.Context, p *process) error {
	return func(ctx context.Context, p *process) error {
		addr := address(p.o, p.getenv, variables...)
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "listen on %s", addr).Hint("set PORT or --listen to an address that is free")
		}
		p.log.Info("serving", "address", l.Addr().String())
		fmt.Fprintf(p.stdout, "%s on http://%s\n", p.o.model, l.Addr())
		return p.server.Serve(ctx, l, p.o.grace)
	}
}
