package demo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The answers that the demo accepts are scikit-learn's, and a single wrong one is noticed.
func TestCompare(t *testing.T) {
	r, err := readRows("../../examples/breast-cancer")
	if err != nil {
		t.Fatal(err)
	}
	if r.n != 64 || len(r.x) != 64*30 {
		t.Fatalf("%d rows, %d values", r.n, len(r.x))
	}
	for v, a := range r.answers {
		good := func() reply {
			return reply{label: append([]float64{}, a.label...), prob: append([]float64{}, a.prob...)}
		}
		if d, err := r.compare(good(), v); err != nil || d != 0 {
			t.Errorf("%s: %g, %v", v, d, err)
		}
		near := good()
		near.prob[5] += 9e-7
		if d, err := r.compare(near, v); err != nil || d < 8e-7 {
			t.Errorf("%s within the tolerance: %g, %v", v, d, err)
		}
		for name, spoil := range map[string]func(*reply){
			"label":       func(r *reply) { r.label[63] = 1 - r.label[63] },
			"probability": func(r *reply) { r.prob[127] += 2e-6 },
			"fewer":       func(r *reply) { r.label = r.label[1:] },
			"none":        func(r *reply) { *r = reply{} },
		} {
			bad := good()
			spoil(&bad)
			if _, err := r.compare(bad, v); err == nil {
				t.Errorf("%s: a wrong %s was accepted", v, name)
			}
		}
	}
	if _, err := r.compare(reply{label: r.answers["v1"].label, prob: r.answers["v1"].prob}, "v2"); err == nil {
		t.Error("version 1's answers pass as version 2's")
	}
}

// A client with one failed request, or an answer under another digest, does not pass.
func TestClientCounts(t *testing.T) {
	w := &world{digests: map[string]string{"v1": "a"}}
	for name, c := range map[string]*client{
		"none":   {},
		"failed": {total: 9, failed: 1, first: os.ErrDeadlineExceeded},
		"other":  {total: 9, digests: map[string]string{"v1": "b"}},
	} {
		c.cancel = func() {}
		if c.stop(w) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := &client{total: 9, digests: map[string]string{"v1": "a"}, cancel: func() {}}
	if err := good.stop(w); err != nil {
		t.Error(err)
	}
}

func TestShell(t *testing.T) {
	if got := shell([]string{"a", "it's", "b c", "x=1"}); got != `a 'it'\''s' 'b c' x=1` {
		t.Error(got)
	}
	if got := short("r@sha256:" + strings.Repeat("ab", 32) + " x"); got != "r@sha256:abababababab... x" {
		t.Error(got)
	}
}

func TestModuleRoot(t *testing.T) {
	root, err := moduleRoot(".")
	if err == nil {
		t.Errorf("a relative folder gave %s", root)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if root, err = moduleRoot(wd); err != nil || filepath.Base(filepath.Join(wd, "..", "..")) != filepath.Base(root) {
		t.Errorf("%s, %v", root, err)
	}
	if _, err := moduleRoot(t.TempDir()); err == nil {
		t.Error("found the module outside of it")
	}
}
