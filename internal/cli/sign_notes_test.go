package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// A stranger who may write to the registry attaches an unsigned provenance of their own. It comes along with a pull, and the
// publisher who then signs must not make it true: only what pack put into the own store is signed. With that mark set by
// hand, which is the check left out, the same command signs it.
func TestStrangersStatementIsNotSigned(t *testing.T) {
	x := newTrial(t, "")
	line := func(s string) string { t.Helper(); return x.must(strings.Fields(s)...) }
	project, err := filepath.Abs("../../examples/breast-cancer/v1")
	if err != nil {
		t.Fatal(err)
	}
	x.must("pack", project)
	line("keys generate --role publisher")
	pinned := line("push breast-cancer:1.0.0 {REG}/ml/bc:1")
	_, digest, _ := strings.Cut(pinned, "@")

	ref, err := registry.ParseRef(x.reg + "/ml/bc@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	p, err := registry.Open(t.Context(), ref, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, subject, err := p.Manifest(t.Context(), artifact.Digest(digest))
	if err != nil {
		t.Fatal(err)
	}
	s, err := evidence.NewStatement(evidence.TypeProvenance, "breast-cancer", subject.Digest, map[string]any{
		"buildDefinition": map[string]any{"buildType": "https://example.com/elsewhere", "externalParameters": map[string]any{}, "internalParameters": map[string]any{}, "resolvedDependencies": []any{}},
		"runDetails":      map[string]any{"builder": map[string]any{"id": "https://example.com/stranger"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{raw, []byte(artifact.EmptyConfig)} {
		if _, err := registry.PushBytes(t.Context(), p, artifact.MediaTypeStatement, b); err != nil {
			t.Fatal(err)
		}
	}
	note, err := artifact.BuildStatement(subject, raw, evidence.TypeProvenance)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.PushManifest(t.Context(), note, artifact.MediaTypeManifest, "stranger"); err != nil {
		t.Fatal(err)
	}

	publisher := newTrial(t, x.dir)
	publisher.home = filepath.Join(t.TempDir(), "home")
	publisher.must("pull", x.reg+"/ml/bc:1", "bc:1")
	sign := func() string {
		t.Helper()
		code, out, errs := publisher.run("sign", "bc:1", "--key", "publisher.key")
		if code != 0 {
			t.Fatalf("exit code %d\n%s%s", code, out, errs)
		}
		return errs
	}
	if errs := sign(); !strings.Contains(errs, "left alone") || strings.Contains(errs, "signed too") {
		t.Fatalf("a statement that came with a pull was signed\n%s", errs)
	}
	st, err := store.Open(t.Context(), filepath.Join(publisher.home, "store"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.PutManifest(t.Context(), note, artifact.MediaTypeManifest, store.PutOptions{Made: true}); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if errs := sign(); !strings.Contains(errs, "provenance") || !strings.Contains(errs, "signed too") {
		t.Fatalf("with the mark it was not signed either: the test proves nothing\n%s", errs)
	}
}
