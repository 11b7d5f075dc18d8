package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/faultproxy"
	"github.com/waybill-ml/waybill/oci/registry"
)

// notices collects what a user would see.
type notices struct {
	mu   sync.Mutex
	list []registry.Notice
}

func (n *notices) add(x registry.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, x)
}

func (n *notices) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprint(n.list)
}

// faulty stands in front of an embedded registry.
func faulty(t *testing.T, plan faultproxy.Plan) *faultproxy.Proxy {
	t.Helper()
	host, _ := newServer(t, nil)
	p, err := faultproxy.Start("http://"+host, plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func through(t *testing.T, p *faultproxy.Proxy, repo string, change func(*registry.RemoteOptions)) *registry.Remote {
	t.Helper()
	o := fastOptions()
	if change != nil {
		change(&o)
	}
	r, err := registry.NewRemote(p.Host(), repo, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func manifests(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/")
}

// Every repetition is seen, with its reason, and there is an end to them.
func TestRetriesAreSeen(t *testing.T) {
	p := faulty(t, nil)
	m := newModel(t, "1.0")
	m.push(t, through(t, p, "ml/churn", nil), "1.0")
	var seen notices
	r := through(t, p, "ml/churn", func(o *registry.RemoteOptions) {
		o.Notify, o.Stall, o.Retry.Attempts = seen.add, 500*time.Millisecond, 12
	})
	p.SetPlan(faultproxy.Times(manifests, faultproxy.Unavailable(0), faultproxy.Fault{Kind: faultproxy.Cut, N: 10}, faultproxy.Fault{Kind: faultproxy.Stall, N: 10}))
	if _, _, err := r.Manifest(t.Context(), m.digest); err != nil {
		t.Fatal(err)
	}
	if s := seen.String(); !strings.Contains(s, "503 Service Unavailable; attempt 2 of 12") || !strings.Contains(s, "unexpected EOF; attempt 2 of 12") ||
		!strings.Contains(s, "no byte came for 500ms; attempt 3 of 12") {
		t.Fatalf("notices %s", s)
	}
	r = through(t, p, "ml/churn", nil)
	for _, after := range []string{"3600", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)} {
		f := faultproxy.Unavailable(0)
		f.Header = http.Header{"Retry-After": {after}}
		p.SetPlan(faultproxy.Always(manifests, f))
		p.Reset()
		_, _, err := r.Manifest(t.Context(), m.digest)
		if diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "it asks to come back in ") {
			t.Fatal(diag.Render(err))
		}
		if n, _, _ := p.Count(func(r faultproxy.Record) bool { return strings.Contains(r.Path, "/manifests/") }); n != 1 {
			t.Fatalf("%d requests to a registry that wants none for an hour", n)
		}
	}
}

func (n *notices) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = nil
}
