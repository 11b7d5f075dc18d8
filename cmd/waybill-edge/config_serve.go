package main

import (
	"fmt"
	"net"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/monitor"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/edge-runtime/session"
	"github.com/waybill-ml/waybill/internal/diag"
)

// serveConfig bounds what clients may ask for. What is not given has the defaults of docs/serving.md.
type serveConfig struct {
	GRPCListen  string        `json:"grpc_listen,omitempty"` // a second address; both speak REST and gRPC
	MaxBody     byteSize      `json:"max_body,omitzero"`
	MaxBuffered byteSize      `json:"max_buffered,omitzero"`
	MaxInFlight int           `json:"max_in_flight,omitempty"`
	MaxQueue    *int          `json:"max_queue,omitempty"` // 0: nobody waits
	MaxConns    int           `json:"max_connections,omitempty"`
	Timeout     duration      `json:"timeout,omitzero"`
	BodyTimeout duration      `json:"body_timeout,omitzero"`
	DrainDelay  duration      `json:"drain_delay,omitzero"`
	Grace       duration      `json:"grace,omitzero"`
	Sessions    sessionConfig `json:"sessions,omitzero"`
}

// sessionConfig bounds the streams whose state the server keeps.
type sessionConfig struct {
	Max      int      `json:"max,omitempty"`
	MaxBytes byteSize `json:"max_bytes,omitzero"`
	TTL      duration `json:"ttl,omitzero"`
	Grace    duration `json:"grace,omitzero"`
}

// maxSessionGrace is shorter than the time after which the agent closes a model that was replaced.
const maxSessionGrace = 25 * time.Second

// check tells what is wrong.
func (c *serveConfig) check() error {
	for name, v := range map[string]int{"max_in_flight": c.MaxInFlight, "max_connections": c.MaxConns, "sessions.max": c.Sessions.Max} {
		if v < 0 {
			return fmt.Errorf("serve.%s is negative", name)
		}
	}
	if c.MaxQueue != nil && *c.MaxQueue < 0 {
		return fmt.Errorf("serve.max_queue is negative")
	}
	if c.MaxBody > 1<<30 {
		return fmt.Errorf("serve.max_body is more than 1 GiB")
	}
	if g := time.Duration(c.Sessions.Grace); g > maxSessionGrace {
		return fmt.Errorf("serve.sessions.grace is %s, more than %s", g, maxSessionGrace)
	}
	if c.GRPCListen != "" {
		if _, _, err := net.SplitHostPort(c.GRPCListen); err != nil {
			return fmt.Errorf("serve.grpc_listen: %w", err)
		}
	}
	return nil
}

// grace is how long running requests may take once the process is asked to stop.
func (c *serveConfig) grace() time.Duration {
	if c.Grace > 0 {
		return time.Duration(c.Grace)
	}
	return grace
}

func (c *serveConfig) server(log func(line string)) *serve.Server {
	sc := serve.Config{
		MaxBody: int64(c.MaxBody), MaxBuffered: int64(c.MaxBuffered), MaxInFlight: c.MaxInFlight, MaxConns: c.MaxConns,
		Timeout: time.Duration(c.Timeout), BodyTimeout: time.Duration(c.BodyTimeout), DrainDelay: time.Duration(c.DrainDelay),
		Sessions: session.Config{
			Max: c.Sessions.Max, MaxBytes: int64(c.Sessions.MaxBytes), TTL: time.Duration(c.Sessions.TTL), Grace: time.Duration(c.Sessions.Grace),
		},
		Metrics: monitor.New(), Log: log,
	}
	if c.MaxQueue != nil {
		if sc.MaxQueue = *c.MaxQueue; sc.MaxQueue == 0 {
			sc.MaxQueue = -1
		}
	}
	return serve.New(sc)
}

// listen opens the addresses that are served on, the first of them that of cfg.Listen.
func listen(cfg *config, file string) ([]net.Listener, error) {
	var all []net.Listener
	for key, addr := range map[string]string{"listen": cfg.Listen, "serve.grpc_listen": cfg.Serve.GRPCListen} {
		if addr == "" {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			for _, open := range all {
				_ = open.Close()
			}
			return nil, diag.Wrap(diag.Failure, err, "listen on %s", addr).Hint("set %q in %s to a free port, or to port 0", key, file)
		}
		if key == "listen" {
			all = append([]net.Listener{l}, all...)
		} else {
			all = append(all, l)
		}
	}
	return all, nil
}
