//go:build unix

package lambdaapi_test

import (
	"bytes"
	"net/http"
	"syscall"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi/rapitest"
)

// SIGTERM between events ends the process; during one it is answered first, and no further one is asked for.
func TestSIGTERM(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		s := rapitest.Start(t)
		f := start(t, "ours", s)
		s.WaitAsking(t, 1)
		if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := f.exit(t); code != 0 {
			t.Errorf("exit code %d: %s", code, f.err.String())
		}
	})
	t.Run("busy", func(t *testing.T) {
		s := rapitest.Start(t)
		arrived, release := make(chan struct{}), make(chan struct{})
		url := serveHTTP(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-release })
		f := start(t, "ours", s)
		id := s.Send(rapitest.Event{Payload: plain(`"do":"meet","text":%q`, url)})
		<-arrived
		if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		close(release)
		if r := s.Await(t, id); !bytes.Contains(r.Response, []byte(id)) {
			t.Errorf("%s %s", r.Response, r.Error)
		}
		if code := f.exit(t); code != 0 {
			t.Errorf("exit code %d: %s", code, f.err.String())
		}
	})
}
