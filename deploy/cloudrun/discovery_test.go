package cloudrun_test

import (
	"sync"
	"testing"

	"github.com/waybill-ml/waybill/deploy/google/googletest"
)

var discovery = sync.OnceValues(func() (*googletest.Discovery, error) { return googletest.Load("run/v2/run-api.json") })

func load(tb testing.TB) *googletest.Discovery {
	tb.Helper()
	d, err := discovery()
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestDiscoveryRefuses(t *testing.T) {
	d := load(t)
	const svc = "GoogleCloudRunV2Service"
	for body, ok := range map[string]bool{
		`{"template":{"revision":"a","timeout":"60s"},"etag":"x"}`:         true,
		`{"traffic":[{"type":"TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"}]}`:   true,
		`{"template":{"timeout":"1m"}}`:                                    false,
		`{"traffic":[{"type":"LATEST"}]}`:                                  false,
		`{"traffic":[{"percent":"100"}]}`:                                  false,
		`{"traffic":[{"revisionName":"a"}]}`:                               false,
		`{"uid":"x"}`:                                                      false,
		`{"generation":"1"}`:                                               false,
		`{"template":{"containers":[{"resources":{"limits":{"cpu":1}}}]}}`: false,
		`[]`: false,
	} {
		if err := d.Check(svc, []byte(body), false); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}
