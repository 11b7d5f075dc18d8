package config

import (
	"strings"
	"testing"
	"time"
)

func TestShadowConfig(t *testing.T) {
	ok := &Shadow{}
	if err := ok.check(); err != nil || ok.Requests != 200 || *ok.Sample != 1 || time.Duration(ok.Duration) != 5*time.Minute {
		t.Errorf("defaults: %+v, %v", ok, err)
	}
	half, none := 0.5, 0.0
	for want, s := range map[string]*Shadow{
		"requests":                   {Requests: -1},
		"sample: 0 is not above 0":   {Sample: &none},
		"max_different: 2 is not":    {MaxDifferent: 2, Sample: &half},
		"rtol, atol or p99_ratio is": {RTol: -1},
	} {
		if err := s.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", s, err, want)
		}
	}
}
