package environments

import (
	"errors"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
)

type wrongTarget struct{ field string }

func (w *wrongTarget) Error() string  { return "targets" + w.field + ": wrong" }
func (w *wrongTarget) Field() string  { return w.field }
func (w *wrongTarget) Hint() []string { return []string{"another one"} }

// Who knows the targets looks at them, and what it finds gets a position in the file.
func TestParseTargets(t *testing.T) {
	const text = `version: 1
environments:
  prod:
    namespace: ml
    policy: {digest: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
    targets:
      - kind: first
      - kind: second
        settings:
          memory: 12
`
	for field, at := range map[string]string{"[1].settings.memory": "e.yaml:10:19", "[1].settings.cpu": "e.yaml:9:9", "[1].kind": "e.yaml:8:15", "[0]": "e.yaml:7:9", "": "e.yaml:7:7", "[7]": "e.yaml:7:7"} {
		var seen []map[string]any
		_, err := ParseTargets("e.yaml", []byte(text), nil, func(l []map[string]any) error { seen = l; return &wrongTarget{field} })
		var e *diag.Error
		if !errors.As(err, &e) || e.Code != diag.Usage || !strings.Contains(err.Error(), "wrong") || len(e.Hints) != 1 || len(seen) != 2 {
			t.Errorf("%s: %v", field, err)
			continue
		}
		if e.Loc.String() != at && !(field == "[1].settings.cpu" && e.Loc.Line >= 9) {
			t.Errorf("%s: at %s, want %s", field, e.Loc, at)
		}
	}
	if _, err := ParseTargets("e.yaml", []byte(text), nil, func([]map[string]any) error { return nil }); err != nil {
		t.Error(err)
	}
}
