package config

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func TestFactoryConfig(t *testing.T) {
	d := artifact.DigestOf(nil)
	for want, f := range map[string]*Factory{
		"source is missing":  {Digest: d, Release: []artifact.Digest{d}},
		"digest: ":           {Source: "x", Release: []artifact.Digest{d}},
		"release is missing": {Source: "x", Digest: d},
		"release[0]: ":       {Source: "x", Digest: d, Release: []artifact.Digest{"v1"}},
		"epoch is negative":  {Source: "x", Digest: d, Release: []artifact.Digest{d}, Epoch: -1},
		"":                   {Source: "x", Digest: d, Release: []artifact.Digest{d}, Epoch: 1},
	} {
		if err := f.check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", f, err, want)
		}
	}
}
