package screen

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func why(t *testing.T, name string, b []byte) string {
	t.Helper()
	s, err := Pickle(context.Background(), bytes.NewReader(b), int64(len(b)), name, b[:min(len(b), HeadSize)])
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

func zipOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, err = io.WriteString(w, files[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(b []byte) []byte {
	var o bytes.Buffer
	w := gzip.NewWriter(&o)
	_, _ = w.Write(b)
	_ = w.Close()
	return o.Bytes()
}

func zl(b []byte) []byte {
	var o bytes.Buffer
	w := zlib.NewWriter(&o)
	_, _ = w.Write(b)
	_ = w.Close()
	return o.Bytes()
}

// What Python's pickle module makes of {"w": [1.5, "x"], "n": None} and of a call of os.system, by protocol, and variants by hand.
func pickles() map[string]string {
	return map[string]string{
		"data 0": "(dp0\nVw\np1\n(lp2\nF1.5\naVx\np3\nasVn\np4\nNs.",
		"data 1": "}q\x00(X\x01\x00\x00\x00wq\x01]q\x02(G?\xf8\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00xq\x03eX\x01\x00\x00\x00nq\x04Nu.",
		"data 2": "\x80\x02}q\x00(X\x01\x00\x00\x00wq\x01]q\x02(G?\xf8\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00xq\x03eX\x01\x00\x00\x00nq\x04Nu.",
		"data 4": "\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01w\x94]\x94(G?\xf8\x00\x00\x00\x00\x00\x00\x8c\x01x\x94e\x8c\x01n\x94Nu.",
		"call 0": "cposix\nsystem\np0\n(Vid\np1\ntp2\nRp3\n.",
		"call 1": "cposix\nsystem\nq\x00(X\x02\x00\x00\x00idq\x01tq\x02Rq\x03.",
		"call 4": "\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
		// What has run has run: garbage behind the call saves nobody.
		"call, then garbage":     "cos\nsystem\n(S'id'\ntR\xff\xff garbage",
		"inst":                   "(S'id'\nios\nsystem\n.",
		"obj":                    "(cos\nsystem\nS'id'\no.",
		"a long line, then call": "V" + strings.Repeat("x", 200<<10) + "\ncos\nsystem\n(S'id'\ntR.",
		"cut":                    "\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01w",
		"torch, old":             "\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
		"joblib, raw array":      "\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x06joblib\x94\x8c\x01W\x94\x93\x94)\x81\xff\xff\xff\xff",
	}
}

func TestPickles(t *testing.T) {
	for name, p := range pickles() {
		if got := why(t, "weights.bin", []byte(p)); got != "is a Python pickle" {
			t.Errorf("%s: %q", name, got)
		}
		for what, c := range map[string]struct {
			b    []byte
			want string
		}{
			"gzip":       {gz([]byte(p)), "is compressed with gzip, and inside it is a Python pickle"},
			"zlib":       {zl([]byte(p)), "is compressed with zlib, and inside it is a Python pickle"},
			"zip":        {zipOf(t, "a/readme", "text", "a/data", p), "is a zip archive in which a/data is a Python pickle"},
			"zip in zip": {zipOf(t, "x.zip", string(zipOf(t, "y", p))), "is a zip archive in which x.zip is a zip archive in which y is a Python pickle"},
			"tar":        {tarOf(t, "readme", "text", "w", p), "is a tar archive in which w is a Python pickle"},
			"tar.gz":     {gz(tarOf(t, "w", p)), "is compressed with gzip, and inside it is a tar archive in which w is a Python pickle"},
		} {
			if got := why(t, "model.weights", c.b); got != c.want {
				t.Errorf("%s in %s: %q, want %q", name, what, got, c.want)
			}
		}
	}
}

func npy(descr string) string {
	h := "{'descr': " + descr + ", 'fortran_order': False, 'shape': (1,), }\n"
	return "\x93NUMPY\x01\x00" + string([]byte{byte(len(h)), 0}) + h + "\x80\x04N."
}

func TestSuspects(t *testing.T) {
	pre := string(zipOf(t, "data.pkl", "N."))
	for _, c := range []struct{ name, content, want string }{
		{"a.npy", npy("'|O'"), "numpy file with Python objects"},
		{"a.npy", npy("[('x', '<f4'), ('y', 'O')]"), "numpy file with Python objects"},
		{"a.npz", string(zipOf(t, "x.npy", npy("'<f4'"), "y.npy", npy("'|O8'"))), "in which y.npy is a numpy file with Python objects"},
		{"a.npy", "\x93NUMPY\x02\x00\xff\xff\xff\x7f", "header can't be read"},
		{"model.pt", string(zipOf(t, "archive/data.pkl", "whatever")), "in which archive/data.pkl is named like a Python pickle"},
		{"model.bin", "prefix that hides the archive" + pre, "in which data.pkl"},
		{"model.pkl", "no pickle at all", "is named like a Python pickle"},
		{"model.JOBLIB", "x", "is named like a Python pickle"},
		{"m.xz", "\xfd7zXZ\x00\x00", "compressed with xz"},
		{"m.lz4", "\x04\x22\x4d\x18", "compressed with lz4"},
		{"m.zst", "\x28\xb5\x2f\xfd", "compressed with zstd"},
		{"m.lzma", "\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00", "compressed with lzma"},
		{"m.7z", "7z\xbc\xaf\x27\x1c", "compressed with 7z"},
		{"m.gz", "\x1f\x8b\x08\x00", "damaged"},
		{"m.zip", "PK\x03\x04 and nothing more", "damaged"},
	} {
		if got := why(t, c.name, []byte(c.content)); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	deep := []byte(pickles()["call 4"])
	for range 8 {
		deep = zipOf(t, "x.zip", string(deep))
	}
	if got := why(t, "m.zip", deep); !strings.Contains(got, "archives in archives") {
		t.Errorf("eight archives: %q", got)
	}
}

// What is packed every day is no pickle.
func TestInnocent(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "README.md": "# Model\n\nIt works.\n", "vocab.txt": "[PAD]\ncat\ncow\ncar\n.\n",
		"words.txt": "cat\ndog\n", "dot.txt": ".", "I.txt": "I like it.\n", "V.md": "Version 1.\n.\n", "S.md": "Some text.\nNone.\n",
		"base64.txt": strings.Repeat("Vm9yd2FydHM", 20000), "numbers.csv": "1,2,3\n4,5,6\n", "zeros.bin": string(make([]byte, 100)),
		"model.gguf": "GGUF\x03\x00\x00\x00", "m.safetensors": "\x02\x00\x00\x00\x00\x00\x00\x00{}", "engine.plan": "ftrt\x00\x00",
		"config.json": `{"a": 1}`, "serve.py": "class A:\n    pass\n", "x.bin": "\x78\x01 not zlib at all", "raw.bin": "\x80\x04\xff\xff raw", "MARK.txt": "(text in brackets)\n",
	} {
		if got := why(t, name, []byte(content)); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, b := range map[string][]byte{
		"a.npy": []byte(npy("'<f4'")), "a.npz": zipOf(t, "x.npy", npy("'<f4'")), "m.keras": zipOf(t, "config.json", "{}", "model.weights.h5", "\x89HDF\r\n\x1a\n"),
		"m.tar.gz": gz(tarOf(t, "model.onnx", "\x08\x07\x12\x07pytorch", "dir/readme", "text")), "text.gz": gz([]byte("text")),
	} {
		if got := why(t, name, b); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestPointer(t *testing.T) {
	if !Pointer([]byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")) || Pointer([]byte("version 2\n")) {
		t.Error("Pointer")
	}
}

func TestErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Pickle(ctx, bytes.NewReader(nil), 0, "x", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	want := errors.New("disk")
	if _, err := Pickle(context.Background(), errReader{want}, 100, "x", []byte("PK\x03\x04")); !errors.Is(err, want) {
		t.Errorf("disk: %v", err)
	}
}

type errReader struct{ err error }

func (e errReader) ReadAt(p []byte, _ int64) (int, error) { return iotest.ErrReader(e.err).Read(p) }

// Only the pickle among the real files is one.
func TestCorpora(t *testing.T) {
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: the shared corpora are not here")
	}
	n, found := 0, 0
	for _, sub := range []string{"formats", "models", "native", "datasets", "inputs", "onnx-simple"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			head, err := readHead(f)
			if err != nil {
				return err
			}
			got, err := Pickle(context.Background(), f, info.Size(), d.Name(), head)
			if err != nil {
				return err
			}
			n++
			if isPkl := filepath.Ext(p) == ".pkl"; isPkl != (got != "") {
				t.Errorf("%s: %q", p, got)
			} else if isPkl {
				found++
				if got != "is a Python pickle" {
					t.Errorf("%s: %q", p, got)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d files, %d pickles", n, found)
	if found == 0 || n < 100 {
		t.Errorf("%d files, %d pickles", n, found)
	}
}

func FuzzScreen(f *testing.F) {
	for _, p := range pickles() {
		if len(p) < 1000 {
			f.Add([]byte(p))
			f.Add(gz([]byte(p)))
		}
	}
	f.Add([]byte(npy("'|O'")))
	f.Add([]byte("PK\x03\x04"))
	f.Add([]byte("# text\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Pickle(context.Background(), bytes.NewReader(b), int64(len(b)), "x", b[:min(len(b), HeadSize)])
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if isPickle(b, bytes.NewReader(nil)) && s == "" && !bytes.HasPrefix(b, []byte("x")) {
			t.Fatal("a pickle that was let through")
		}
	})
}
