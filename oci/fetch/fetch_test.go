package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// memory gives bytes that it has, as a server would that keeps to the rules.
type memory struct {
	mu    sync.Mutex
	b     []byte
	opens int
	whole bool // no ranges
	extra int  // bytes after the end, under no length
}

func (m *memory) Where() string { return "memory" }

func (m *memory) Open(_ context.Context, d artifact.Descriptor, from, to int64, _ string) (*Part, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opens++
	if to < 0 || m.whole {
		return &Part{Body: io.NopCloser(bytes.NewReader(append(bytes.Clone(m.b), make([]byte, m.extra)...))), To: d.Size, Whole: true}, nil
	}
	return &Part{Body: io.NopCloser(bytes.NewReader(m.b[from:to])), From: from, To: to, Validator: `"v"`}, nil
}

func (m *memory) Again(_ context.Context, _ string, err error, failures int) error {
	if failures > 3 {
		return diag.Wrap(diag.Registry, err, "memory")
	}
	return nil
}

func content(n int) ([]byte, artifact.Descriptor) {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i>>7 ^ i)
	}
	return b, artifact.Descriptor{Digest: artifact.DigestOf(b), Size: int64(n)}
}

func target(t *testing.T) (Target, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return Target{Root: root, Name: "final", Partial: "final.partial"}, dir
}

func names(t *testing.T, dir string) string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestFile(t *testing.T) {
	for _, n := range []int{0, 1, minBlock - 1, minBlock, minBlock + 1, minSegment, minSegment + 1, 3*minSegment + 777} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(n, whole), func(t *testing.T) {
				b, d := content(n)
				tg, dir := target(t)
				var got int64
				var mu sync.Mutex
				o := Options{Progress: func(n int64) { mu.Lock(); got += n; mu.Unlock() }}
				src := &memory{b: b, whole: whole}
				res, err := File(t.Context(), src, d, tg, o)
				if err != nil || res.Present || res.Fetched != d.Size || got != d.Size {
					t.Fatalf("%+v %v, progress %d", res, err, got)
				}
				if is, err := os.ReadFile(filepath.Join(dir, "final")); err != nil || !bytes.Equal(is, b) || names(t, dir) != "final" {
					t.Fatalf("%d bytes, %v; %s", len(is), err, names(t, dir))
				}
				src.opens = 0
				if res, err = File(t.Context(), src, d, tg, o); err != nil || !res.Present || src.opens != 0 || names(t, dir) != "final" {
					t.Fatalf("again: %+v %v; %s", res, err, names(t, dir))
				}
			})
		}
	}
}

// Nothing but the comparison of the digests keeps altered bytes from the final name: without it they get there.
func TestOnlyTheHashStopsAlteredBytes(t *testing.T) {
	b, d := content(3 * minSegment)
	altered := bytes.Clone(b)
	altered[minSegment+5] ^= 1
	for _, whole := range []bool{false, true} {
		tg, dir := target(t)
		_, err := File(t.Context(), &memory{b: altered, whole: whole}, d, tg, Options{})
		msg := diag.Render(err)
		if diag.CodeOf(err) != diag.Verification || !strings.Contains(msg, "want "+string(d.Digest)) || !strings.Contains(msg, "got  "+string(artifact.DigestOf(altered))) {
			t.Fatal(msg)
		}
		if names(t, dir) != "" {
			t.Errorf("left behind: %s", names(t, dir))
		}
		dl := &download{src: &memory{b: altered, whole: whole}, d: d, t: tg, what: "x",
			o: Options{Slots: NewSlots(2), Progress: func(int64) {}, Say: func(string, string) {}, hook: func(string, int) {}}}
		if _, _, err := dl.run(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if err := dl.commit(); err != nil {
			t.Fatal(err)
		}
		if is, err := os.ReadFile(filepath.Join(dir, "final")); err != nil || !bytes.Equal(is, altered) {
			t.Errorf("without the comparison: %d bytes, %v; the test proves nothing", len(is), err)
		}
	}
}

func TestWrongSize(t *testing.T) {
	b, d := content(minSegment + 5)
	for name, src := range map[string]*memory{"longer": {b: b, whole: true, extra: 1}, "endless": {b: b, whole: true, extra: 1 << 20}, "shorter": {b: b[:minSegment], whole: true}} {
		tg, dir := target(t)
		_, err := File(t.Context(), src, d, tg, Options{})
		if diag.CodeOf(err) != diag.Verification || !strings.Contains(diag.Render(err), string(d.Digest)) {
			t.Errorf("%s: %v", name, err)
		}
		if names(t, dir) != "" {
			t.Errorf("%s: left behind %s", name, names(t, dir))
		}
	}
	for _, bad := range []artifact.Descriptor{{Digest: "sha256:..", Size: 1}, {Digest: d.Digest, Size: -1}, {Digest: d.Digest, Size: maxSize + 1}} {
		tg, dir := target(t)
		if _, err := File(t.Context(), &memory{b: b}, bad, tg, Options{}); diag.CodeOf(err) != diag.Verification || names(t, dir) != "" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A process that dies after the last byte and before the name leaves everything for the next one, which fetches nothing.
func TestCrashBeforeTheName(t *testing.T) {
	b, d := content(2*minSegment + 99)
	tg, dir := target(t)
	func() {
		defer func() { _ = recover() }()
		_, _ = File(t.Context(), &memory{b: b}, d, tg, Options{hook: func(event string, _ int) {
			if event == "commit" {
				panic("crash")
			}
		}})
	}()
	if _, err := os.Stat(filepath.Join(dir, "final")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	src := &memory{b: b}
	res, err := File(t.Context(), src, d, tg, Options{})
	if err != nil || res.Resumed != d.Size || res.Fetched != 0 || src.opens != 0 || names(t, dir) != "final" {
		t.Fatalf("%+v %v, %d requests; %s", res, err, src.opens, names(t, dir))
	}
}

// Links that wait under the names of partial file and state are not followed.
func TestPlantedLinks(t *testing.T) {
	b, d := content(2 * minSegment)
	for _, name := range []string{"final", "final.partial", "final.partial.state"} {
		tg, dir := target(t)
		victim := filepath.Join(dir, "victim")
		if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("victim", filepath.Join(dir, name)); err != nil {
			t.Skip("no symbolic links here:", err)
		}
		if _, err := File(t.Context(), &memory{b: b}, d, tg, Options{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if is, err := os.ReadFile(victim); err != nil || string(is) != "precious" {
			t.Errorf("%s: written through the link: %q %v", name, is, err)
		}
		if fi, err := os.Lstat(filepath.Join(dir, "final")); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("%s: final is %v, %v", name, fi, err)
		}
	}
}

func TestReplaceIsAsked(t *testing.T) {
	b, d := content(100)
	tg, dir := target(t)
	if err := os.WriteFile(filepath.Join(dir, "final"), bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if _, err := File(t.Context(), &memory{b: b}, d, tg, Options{Replace: func(string) error { return no }}); !errors.Is(err, no) || names(t, dir) != "final" {
		t.Fatalf("%v; %s", err, names(t, dir))
	}
	if res, err := File(t.Context(), &memory{b: b}, d, tg, Options{}); err != nil || res.Fetched != 100 {
		t.Fatalf("%+v %v", res, err)
	}
}

// A state file with any content never leads to wrong bytes under the final name.
func TestStateIsNotBelieved(t *testing.T) {
	b, d := content(2*minSegment + 5)
	good := func(t *testing.T, mark byte) []byte {
		f := stateFile(t)
		if _, done, err := newState(f, d); err != nil || len(done) == 0 {
			t.Fatal(err)
		}
		s, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return append(s[:headerLen:headerLen], bytes.Repeat([]byte{mark}, len(s)-headerLen)...)
	}
	for name, state := range map[string][]byte{"all done": good(t, blockDone), "none done": good(t, blockMissing), "half": good(t, blockDone)[:headerLen+5], "empty": {}, "noise": bytes.Repeat([]byte{7}, 3000)} {
		t.Run(name, func(t *testing.T) {
			tg, dir := target(t)
			if err := os.WriteFile(filepath.Join(dir, "final.partial.state"), state, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "final.partial"), make([]byte, len(b)), 0o600); err != nil {
				t.Fatal(err)
			}
			res, err := File(t.Context(), &memory{b: b}, d, tg, Options{})
			if is, rerr := os.ReadFile(filepath.Join(dir, "final")); err != nil || rerr != nil || !bytes.Equal(is, b) || (res.Restarts == 1) != (name == "all done") || names(t, dir) != "final" {
				t.Fatalf("%+v %v %v; %s", res, err, rerr, names(t, dir))
			}
		})
	}
}
