package config

import (
	"net"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Serve bounds what clients may ask for. What is not given has the defaults of docs/serving.md.
type Serve struct {
	GRPCListen  string        `json:"grpc_listen,omitempty"` // a second address; both speak REST and gRPC
	MaxBody     byteSize      `json:"max_body,omitzero"`
	MaxBuffered byteSize      `json:"max_buffered,omitzero"`
	MaxInFlight int           `json:"max_in_flight,omitempty"`
	MaxQueue    *int          `json:"max_queue,omitempty"` // 0: nobody waits
	MaxConns    int           `json:"max_connections,omitempty"`
	Timeout     Duration      `json:"timeout,omitzero"`
	BodyTimeout Duration      `json:"body_timeout,omitzero"`
	DrainDelay  Duration      `json:"drain_delay,omitzero"`
	Grace       Duration      `json:"grace,omitzero"`
	Sessions    sessionConfig `json:"sessions,omitzero"`
}

// sessionConfig bounds the streams whose state the server keeps.
type sessionConfig struct {
	Max      int      `json:"max,omitempty"`
	MaxBytes byteSize `json:"max_bytes,omitzero"`
	TTL      Duration `json:"ttl,omitzero"`
	Grace    Duration `json:"grace,omitzero"`
}

// maxSessionGrace is shorter than the time after which the agent closes a model that was replaced.
const maxSessionGrace = 25 * time.Second

// check tells what is wrong.
func (c *Serve) check() error {
	for name, v := range map[string]int{"max_in_flight": c.MaxInFlight, "max_connections": c.MaxConns, "sessions.max": c.Sessions.Max} {
		if v < 0 {
			return diag.Errorf("serve.%s is negative", name)
		}
	}
	if c.MaxQueue != nil && *c.MaxQueue < 0 {
		return diag.Errorf("serve.max_queue is negative")
	}
	if c.MaxBody > 1<<30 {
		return diag.Errorf("serve.max_body is more than 1 GiB")
	}
	if g := time.Duration(c.Sessions.Grace); g > maxSessionGrace {
		return diag.Errorf("serve.sessions.grace is %s, more than %s", g, maxSessionGrace)
	}
	if c.GRPCListen != "" {
		return checkAddr("serve.grpc_listen", c.GRPCListen)
	}
	return nil
}

// checkAddr checks an address to listen on, which the key name holds.
func checkAddr(name, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return diag.Errorf("%s: %q is no address such as 127.0.0.1:8080: %w", name, addr, err)
	}
	return nil
}
