package cli_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// verdictScriptCommands are for scripts about verdicts:
//
//	detach REF DIGEST       delete the referrer of REF in a registry that carries the bundle DIGEST
//	decided cmd args...     run cmd, which ends with exit code 0 or 4: what it decides is not the point
//	readonly NAME ADDR [N]  a registry that shows what the one at ADDR has and takes only the first N manifests (0) and
//	                        their blobs; NAME is its address
func verdictScriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"detach": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: detach REF DIGEST")
			}
			ctx := context.Background()
			ref, err := registry.ParseRef(args[0])
			ts.Check(err)
			place, d := placeOf(ts, args[0])
			refs, err := place.Referrers(ctx, d.Digest)
			ts.Check(err)
			for _, r := range refs {
				raw, _, err := place.Manifest(ctx, r.Digest)
				ts.Check(err)
				m, err := artifact.ParseManifest(raw)
				ts.Check(err)
				if len(m.Layers) == 0 || string(m.Layers[0].Digest) != args[1] {
					continue
				}
				rq, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://"+ref.Host+"/v2/"+ref.Repo+"/manifests/"+string(r.Digest), nil)
				ts.Check(err)
				resp, err := http.DefaultClient.Do(rq)
				ts.Check(err)
				ts.Check(resp.Body.Close())
				if resp.StatusCode != http.StatusAccepted {
					ts.Fatalf("delete %s: %s", r.Digest, resp.Status)
				}
				return
			}
			ts.Fatalf("no referrer of %s carries %s", args[0], args[1])
		},
		"decided": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) == 0 {
				ts.Fatalf("usage: decided cmd args...")
			}
			var x *exec.ExitError
			if err := ts.Exec(args[0], args[1:]...); err != nil && (!errors.As(err, &x) || x.ExitCode() != 4) {
				ts.Check(err)
			}
		},
		"readonly": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < 2 || len(args) > 3 {
				ts.Fatalf("usage: readonly NAME ADDR [N]")
			}
			var left atomic.Int64
			if len(args) == 3 {
				n, err := strconv.ParseInt(args[2], 10, 64)
				ts.Check(err)
				left.Store(n)
			}
			to, err := url.Parse("http://" + strings.TrimPrefix(args[1], "http://"))
			ts.Check(err)
			proxy := httputil.NewSingleHostReverseProxy(to)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				write := r.Method != http.MethodGet && r.Method != http.MethodHead
				manifest := write && strings.Contains(r.URL.Path, "/manifests/")
				if write && (left.Load() <= 0 || manifest && left.Add(-1) < 0) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusForbidden)
					_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"this registry is read-only"}]}`))
					return
				}
				proxy.ServeHTTP(w, r)
			}))
			ts.Defer(s.Close)
			ts.Setenv(args[0], strings.TrimPrefix(s.URL, "http://"))
		},
	}
}
