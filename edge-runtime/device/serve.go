package device

import (
	"log/slog"
	"net"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/monitor"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/edge-runtime/session"
	"github.com/waybill-ml/waybill/internal/diag"
)

// grace is how long running requests may take once the process is asked to stop.
func graceOf(c *config.Serve) time.Duration {
	if c.Grace > 0 {
		return time.Duration(c.Grace)
	}
	return grace
}

func newServer(c *config.Serve, log *slog.Logger) *serve.Server {
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
func listen(cfg *config.Config, file string) ([]net.Listener, error) {
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
