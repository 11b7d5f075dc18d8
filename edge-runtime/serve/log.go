package serve

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// requestAttrs are those of a request under their names in the Elastic Common Schema. What clients say is text of strangers:
// whoever writes the log bounds and cleans it. The query is left out, since credentials are put there.
func requestAttrs(r *http.Request, arrived time.Time) []slog.Attr {
	as := []slog.Attr{
		slog.String("http.request.method", r.Method), slog.String("url.path", r.URL.Path), slog.Duration("event.duration", time.Since(arrived)),
		slog.String("http.version", strings.TrimPrefix(r.Proto, "HTTP/")), slog.String("user_agent.original", r.UserAgent()),
		slog.String("event.kind", "event"), slog.Any("event.category", []string{"web"}),
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil && net.ParseIP(host) != nil {
		as = append(as, slog.String("client.ip", host))
	}
	if r.ContentLength >= 0 {
		as = append(as, slog.Int64("http.request.body.bytes", r.ContentLength))
	}
	return as
}

// logFailure logs what is the server's own fault. A gRPC call has a code and no HTTP status that tells anything.
func (s *Server) logFailure(r *http.Request, arrived time.Time, he *httpError) {
	if he.status < 500 || he.status == http.StatusServiceUnavailable {
		return
	}
	as := append(requestAttrs(r, arrived), slog.Any("event.type", []string{"error"}), slog.String("event.outcome", "failure"), slog.Any("error", he.err))
	if isGRPC(r) {
		as = append(as, slog.String("error.code", code(he.status).String()))
	} else {
		as = append(as, slog.Int("http.response.status_code", he.status))
	}
	s.cfg.Log.LogAttrs(r.Context(), slog.LevelError, "request failed", as...)
}

// logged writes a line for each request when the log takes such lines, and costs nothing when it does not.
func (s *Server) logged(h http.Handler) http.Handler {
	if !s.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived := time.Now()
		o := &observed{ResponseWriter: w}
		h.ServeHTTP(o, r)
		if o.status == 0 {
			o.status = http.StatusOK
		}
		outcome := "success"
		if o.status >= 400 || grpcFailed(w.Header()) {
			outcome = "failure"
		}
		s.cfg.Log.LogAttrs(r.Context(), slog.LevelDebug, "request", append(requestAttrs(r, arrived),
			slog.Int("http.response.status_code", o.status), slog.Int64("http.response.body.bytes", o.bytes),
			slog.Any("event.type", []string{"access"}), slog.String("event.outcome", outcome))...)
	})
}

// grpcFailed reads the status of a gRPC call out of its trailers, or out of the headers of an answer without a body.
func grpcFailed(h http.Header) bool {
	status := cmp.Or(h.Get("Grpc-Status"), h.Get(http.TrailerPrefix+"Grpc-Status"))
	return status != "" && status != "0"
}

// observed keeps what was answered. Flush and Unwrap let streams and deadlines through.
type observed struct {
	http.ResponseWriter
	status int
	bytes  int64
}

var _ http.Flusher = (*observed)(nil)

// WriteHeader implements http.ResponseWriter.
func (o *observed) WriteHeader(status int) {
	if o.status == 0 && status >= 200 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (o *observed) Write(b []byte) (int, error) {
	n, err := o.ResponseWriter.Write(b)
	o.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher.
func (o *observed) Flush() { _ = http.NewResponseController(o.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }
