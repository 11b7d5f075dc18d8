package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
)

// A mistake on the command line is told in two lines; all flags are for those who ask.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		args      string
		code      diag.Code
		want, not string
	}{
		{"status --confg x", diag.Usage, "hint: did you mean --config?", "usage:"},
		{"enroll --out x --label bad", diag.Usage, "hint: waybill-edge enroll --help", "usage:"},
		{"rollback extra", diag.Usage, `surplus argument "extra"`, "usage:"},
		{"status --help", diag.OK, "usage: waybill-edge status", "error:"},
		{"enroll -h", diag.OK, "-trust-digest", "error:"},
	} {
		var out, talk bytes.Buffer
		if code := run(t.Context(), strings.Fields(c.args), &out, &talk); code != c.code || !strings.Contains(talk.String(), c.want) || strings.Contains(talk.String(), c.not) {
			t.Errorf("%s: exit %d\n%s", c.args, code, talk.String())
		}
	}
}
