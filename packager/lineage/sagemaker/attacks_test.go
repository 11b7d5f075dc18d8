package sagemaker

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/lineage"
)

// Names and links that lead out of the folder are refused, and nothing is written outside. What writes the files, asked without these
// checks, goes where they lead.
func TestArchivesStayInTheirFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege")
	}
	top := t.TempDir()
	dir, outside := filepath.Join(top, "in"), filepath.Join(top, "outside")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, items := range [][]item{
		{{name: "../outside/m.txt", text: booster}},
		{{name: "a/../../outside/m.txt", text: booster}},
		{{name: "d", text: outside, kind: tar.TypeSymlink}, {name: "d/m.txt", text: booster}},
		{{name: "m.txt", text: outside + "/m.txt", kind: tar.TypeLink}},
	} {
		if _, err := unpack(t.Context(), bytes.NewReader(archive(t, items...)), "model.tar.gz", dir, 1000); err == nil {
			t.Errorf("%q is unpacked", items[0].name)
		}
		if list, err := os.ReadDir(outside); err != nil || len(list) != 0 {
			t.Fatalf("%q: written outside: %v, %v", items[0].name, list, err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"../outside/name", "d/link"} {
		if _, err := lineage.Copy(t.Context(), filepath.Join(dir, filepath.FromSlash(name)), strings.NewReader(booster), 1000); err != nil {
			t.Fatal(err)
		}
		if list, err := os.ReadDir(outside); err != nil || len(list) != i+1 {
			t.Errorf("%s leads nowhere: this test shows nothing: %v, %v", name, list, err)
		}
	}
}
