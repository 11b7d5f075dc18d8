package channel_test

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/channel"
)

func TestAudienceNames(t *testing.T) {
	for _, s := range []string{"edge-s", "Jetson_Orin.16", "a", strings.Repeat("x", 63)} {
		if err := channel.ValidClass(s); err != nil {
			t.Error(err)
		}
		if err := channel.ValidLabel(s); err != nil {
			t.Error(err)
		}
	}
	if err := channel.ValidLabel("example.com/site"); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"", "bogus/..", "/", "..", "-a", "edge s", "edge\n", "é", "a=b", strings.Repeat("x", 64)} {
		if channel.ValidClass(s) == nil {
			t.Errorf("class %q passed", s)
		}
		if s != "bogus/.." && channel.ValidLabel(s) == nil {
			t.Errorf("label %q passed", s)
		}
	}
}
