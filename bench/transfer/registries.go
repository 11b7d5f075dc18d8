package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// server is a running registry. All of them keep their content on disk and speak plain http on a loopback port.
type server struct {
	name, addr, root string
	stop             func()
}

const distributionConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
`

// startServer starts the registry of a kind on an empty folder below dir.
func (b *bench) startServer(ctx context.Context, kind string) (*server, error) {
	root, err := os.MkdirTemp(b.dir, "registry-")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	var args []string
	switch kind {
	case "embedded":
		args = []string{b.waybill, "registry", "serve", "--addr", addr, "--root", filepath.Join(root, "data")}
	case "docker-registry", "distribution":
		cfg := filepath.Join(root, "config.yml")
		if err := os.WriteFile(cfg, fmt.Appendf(nil, distributionConfig, filepath.Join(root, "data"), addr), 0o600); err != nil {
			return nil, err
		}
		bin := b.tools[kind]
		args = []string{bin, "serve", cfg}
	default:
		return nil, fmt.Errorf("unknown registry %q", kind)
	}
	run, cancel := context.WithCancel(ctx)
	c := exec.CommandContext(run, args[0], args[1:]...)
	c.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	var log strings.Builder
	c.Stderr = &log
	if err := c.Start(); err != nil {
		cancel()
		return nil, err
	}
	s := &server{name: kind, addr: addr, root: root, stop: func() {
		cancel()
		_ = c.Wait()
		_ = os.RemoveAll(root)
	}}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v2/", nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			return s, nil
		}
		if time.Since(start) > time.Minute {
			s.stop()
			return nil, errors.Join(err, errors.New(log.String()))
		}
	}
}

// freeAddr finds a port that nobody listens on now.
func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
