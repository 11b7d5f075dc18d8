package fetch

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func TestBlocks(t *testing.T) {
	for _, size := range []int64{0, 1, minBlock, minBlock + 1, 1 << 20, 1<<20 + 1, 16 << 20, 16<<20 + 1, 1 << 30, 1<<30 + 12345, 1 << 40, maxSize} {
		b := blockSize(size)
		n := blocksOf(size, b)
		if b < minBlock || b%4096 != 0 || n > maxBlocks || int64(n)*b < size || size > 0 && int64(n-1)*b >= size {
			t.Errorf("%d bytes: %d blocks of %d", size, n, b)
		}
		if size > 16<<20 && b*100 > size { // four connections lose less than 1 % when they are killed
			t.Errorf("%d bytes: a block of %d is too much to lose", size, b)
		}
	}
}

func stateFile(t testing.TB) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestState(t *testing.T) {
	d := artifact.Descriptor{Digest: artifact.DigestOf([]byte("x")), Size: 100 << 10}
	f := stateFile(t)
	h, done, err := newState(f, d)
	if err != nil || len(done) != 7 {
		t.Fatalf("%d blocks, %v", len(done), err)
	}
	h.Validator = `"abc & <def>"`
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{blockDone}, headerLen+3); err != nil {
		t.Fatal(err)
	}
	got, done, ok := readState(f, d)
	if !ok || got != h || !done[3] || done[2] {
		t.Fatalf("%+v %v %v", got, done, ok)
	}
	for name, other := range map[string]artifact.Descriptor{
		"digest": {Digest: artifact.DigestOf([]byte("y")), Size: d.Size}, "size": {Digest: d.Digest, Size: d.Size + 1}} {
		if _, _, ok := readState(f, other); ok {
			t.Errorf("taken for the state of another %s", name)
		}
	}
}

// Whatever stands in a state file, it is refused or fits together exactly.
func FuzzState(f *testing.F) {
	d := artifact.Descriptor{Digest: artifact.DigestOf([]byte("x")), Size: 100 << 10}
	sf := stateFile(f)
	if _, _, err := newState(sf, d); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(sf.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:headerLen])
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), blockDone))
	f.Add(bytes.Replace(good, []byte("."), []byte("#"), -1))
	f.Add(bytes.Replace(good, []byte(`"size":102400`), []byte(`"size":-10240`), 1))
	f.Add(bytes.Replace(good, []byte(`"block":16384`), []byte(`"block":00000`), 1))
	f.Add(bytes.Replace(good, []byte(`"block":16384`), []byte(`"block":1    `), 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, done, err := parseState(b)
		if err != nil {
			return
		}
		if h.Size < 0 || h.Block < minBlock || len(done) > maxBlocks || int64(len(done))*h.Block < h.Size || len(b) != headerLen+len(done) {
			t.Fatalf("%+v with %d blocks", h, len(done))
		}
		again, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		if h2, _, err := parseState(append(again, b[headerLen:]...)); err != nil || h2 != h {
			t.Fatalf("%+v became %+v, %v", h, h2, err)
		}
	})
}
