package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/internal/diag"
)

// A place that is not reached has the exit code of a registry that is not, whatever kind of place it is.
func TestCodeOf(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, gone, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, unreached := http.DefaultClient.Do(req)
	if unreached == nil {
		_ = res.Body.Close()
		t.Skip("another program took the port")
	}
	for _, c := range []struct {
		err  error
		want diag.Code
	}{
		{fmt.Errorf("look up channel prod: %w", unreached), diag.Registry},
		{agent.ErrNoTarget, diag.NotFound},
		{diag.Wrap(diag.Usage, unreached, "x"), diag.Usage},
		{errors.New("disk"), diag.Failure},
		{nil, diag.OK},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}
