// Package screen looks at what a file really is before it is packed: a Python pickle, which runs code when it is loaded, alone
// or inside archives, compressed files and numpy arrays; or a pointer of Git LFS that stands where the file should be. It
// goes by content; a name only adds suspicion. It never runs or decodes what it finds.
package screen

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
)

// HeadSize is how many first bytes of a file Pickle and Pointer want; fewer only when the file is shorter.
const HeadSize = 64 << 10

// Bounds on what is looked into.
const (
	maxWalk    = 64 << 20 // bytes of a pickle that are read until it shows what it is; what it has lengths of is skipped
	walkBuffer = 4 << 10
	maxNested  = 64 << 20 // an archive in an archive
	maxUnpack  = 8 << 30  // bytes taken out of a compressed tar
	maxEntries = 1 << 17
	maxDepth   = 4
)

// Pointer tells whether head begins a Git LFS pointer (git-lfs spec.md, version 1 and its predecessor).
func Pointer(head []byte) bool {
	return bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/spec/")) ||
		bytes.HasPrefix(head, []byte("version https://hawser.github.com/spec/"))
}

// Pickle tells why the file could run Python code when it is loaded: "is a Python pickle"; empty when it could not. What
// cannot be looked into is a reason too. head are its first HeadSize bytes, which are not read again; more of it is read
// only when it is an archive, is compressed or goes on like a pickle. An error is one of reading or of ctx.
func Pickle(ctx context.Context, r io.ReaderAt, size int64, name string, head []byte) (string, error) {
	why, err := look(ctx, r, size, strings.ToLower(path.Base(name)), head, &rest{r, int64(len(head)), size, maxWalk}, 0)
	if err != nil {
		return "", fmt.Errorf("look into %s: %w", name, err)
	}
	if why == "" && pickleName(name) && size > 0 {
		why = "is named like a Python pickle"
	}
	return why, nil
}

// pickleName knows the names under which programs load nothing but pickles.
func pickleName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle":
		return true
	}
	return false
}

// archiveName knows names whose readers look for a zip directory at the end of the file, whatever its first bytes are.
func archiveName(name string) bool {
	switch path.Ext(name) {
	case ".zip", ".npz", ".pt", ".pth", ".pt2", ".ptl", ".bin", ".ckpt", ".mar", ".keras":
		return true
	}
	return false
}

// look is Pickle for content at some depth of archives. more is what follows head.
func look(ctx context.Context, r io.ReaderAt, size int64, name string, head []byte, more io.Reader, depth int) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	has := func(s string) bool { return bytes.HasPrefix(head, []byte(s)) }
	switch {
	case has("PK\x03\x04"), has("PK\x05\x06"), archiveName(name) && size > 22 && zipAtEnd(r, size):
		return inZip(ctx, r, size, depth)
	case has("\x93NUMPY"):
		return inArray(head), nil
	case has("\x1f\x8b"):
		return inCompressed(ctx, "gzip", r, size, depth, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
	case has("BZh") && len(head) > 9 && bytes.Equal(head[4:10], []byte("\x31\x41\x59\x26\x53\x59")):
		return inCompressed(ctx, "bzip2", r, size, depth, func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil })
	case len(head) > 2 && head[0] == 0x78 && binary.BigEndian.Uint16(head)%31 == 0 && head[1]&0x20 == 0:
		why, err := inCompressed(ctx, "zlib", r, size, depth, func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) })
		if errors.Is(err, zlib.ErrHeader) {
			err = nil
		}
		return why, err
	case has("\xfd7zXZ\x00"):
		return opaque("xz"), nil
	case has("\x5d\x00\x00") && len(head) > 13 && (bytes.Equal(head[5:13], bytes.Repeat([]byte{0xff}, 8)) || binary.LittleEndian.Uint64(head[5:]) < 1<<40):
		return opaque("lzma"), nil
	case has("\x04\x22\x4d\x18"):
		return opaque("lz4"), nil
	case has("\x28\xb5\x2f\xfd"):
		return opaque("zstd"), nil
	case has("7z\xbc\xaf\x27\x1c"):
		return opaque("7z"), nil
	case has("Rar!\x1a\x07"):
		return opaque("rar"), nil
	case isTar(head):
		return inTar(ctx, io.NewSectionReader(r, 0, size), depth)
	}
	if isPickle(head, more) {
		return "is a Python pickle", nil
	}
	return "", nil
}

func opaque(what string) string {
	return "is compressed with " + what + ", so that it can't be searched for Python pickles"
}

func isTar(head []byte) bool { return len(head) > 262 && string(head[257:262]) == "ustar" }

// zipAtEnd tells whether the last bytes are the end record of a zip directory.
func zipAtEnd(r io.ReaderAt, size int64) bool {
	b := make([]byte, min(size, 22+65535))
	n, err := r.ReadAt(b, size-int64(len(b)))
	return (err == nil || errors.Is(err, io.EOF)) && bytes.Contains(b[:n], []byte("PK\x05\x06"))
}

func inZip(ctx context.Context, r io.ReaderAt, size int64, depth int) (string, error) {
	const unread = "is a zip archive that can't be searched for Python pickles"
	z, err := zip.NewReader(r, size)
	if err != nil {
		if errors.Is(err, zip.ErrFormat) {
			return unread + ": it is damaged", nil
		}
		return "", err
	}
	if len(z.File) > maxEntries {
		return fmt.Sprintf("%s: it has %d files", unread, len(z.File)), nil
	}
	if depth == maxDepth {
		return unread + ": archives in archives", nil
	}
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if strings.HasSuffix(f.Name, "/") && f.UncompressedSize64 == 0 {
			continue
		}
		why, err := inEntry(ctx, f, depth)
		if err != nil {
			return "", err
		}
		if why != "" {
			return "is a zip archive in which " + f.Name + " " + why, nil
		}
	}
	return "", nil
}

// inEntry looks at one file of a zip archive. What cannot be read is a reason, not an error: the archive is at fault.
func inEntry(ctx context.Context, f *zip.File, depth int) (string, error) {
	const unread = "can't be searched for Python pickles"
	if f.Flags&1 != 0 {
		return unread + ": it is encrypted", nil
	}
	rc, err := f.Open()
	if err != nil {
		return unread + ": " + err.Error(), nil
	}
	defer rc.Close()
	return inStream(ctx, rc, f.Name, depth+1)
}

// inStream looks at content that can only be read forward. Archives among it are read into memory, up to maxNested.
func inStream(ctx context.Context, r io.Reader, name string, depth int) (string, error) {
	const unread = "can't be searched for Python pickles"
	head, err := readHead(r)
	if err != nil {
		return unread + ": " + err.Error(), nil
	}
	base := strings.ToLower(path.Base(name))
	if pickleName(base) && len(head) > 0 {
		return "is named like a Python pickle", nil
	}
	nested := isTar(head) || archiveName(base)
	for _, magic := range []string{"PK\x03\x04", "PK\x05\x06", "\x1f\x8b", "BZh", "\x78"} {
		nested = nested || bytes.HasPrefix(head, []byte(magic))
	}
	if !nested {
		return look(ctx, bytes.NewReader(head), int64(len(head)), base, head, io.LimitReader(r, maxWalk), depth)
	}
	rest, err := io.ReadAll(io.LimitReader(r, maxNested+1-int64(len(head))))
	if err != nil {
		return unread + ": " + err.Error(), nil
	}
	if len(head)+len(rest) > maxNested {
		if !archiveName(base) || bytes.HasPrefix(head, []byte("PK")) || bytes.HasPrefix(head, []byte("\x1f\x8b")) || isTar(head) {
			return fmt.Sprintf("%s: it is an archive of more than %d bytes in an archive", unread, maxNested), nil
		}
		return look(ctx, bytes.NewReader(head), int64(len(head)), "", head, io.MultiReader(bytes.NewReader(rest), r), depth)
	}
	all := append(head, rest...)
	head = all[:min(len(all), HeadSize)]
	return look(ctx, bytes.NewReader(all), int64(len(all)), base, head, bytes.NewReader(all[len(head):]), depth)
}

func readHead(r io.Reader) ([]byte, error) {
	head := make([]byte, HeadSize)
	n, err := io.ReadFull(r, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], err
}

func inCompressed(ctx context.Context, what string, r io.ReaderAt, size int64, depth int, open func(io.Reader) (io.Reader, error)) (string, error) {
	if depth == maxDepth {
		return opaque(what), nil
	}
	z, err := open(io.NewSectionReader(r, 0, size))
	if err != nil {
		if what == "zlib" { // two bytes are a weak sign
			return "", nil
		}
		return opaque(what) + ": it is damaged", nil
	}
	head, err := readHead(z)
	if err != nil {
		if what == "zlib" && len(head) == 0 {
			return "", nil
		}
		if len(head) == 0 {
			return opaque(what) + ": it is damaged", nil
		}
	}
	var why string
	if isTar(head) {
		why, err = inTar(ctx, io.LimitReader(io.MultiReader(bytes.NewReader(head), z), maxUnpack), depth+1)
	} else {
		why, err = inStream(ctx, io.MultiReader(bytes.NewReader(head), io.LimitReader(z, maxUnpack)), "", depth+1)
	}
	if why != "" {
		why = "is compressed with " + what + ", and inside it " + why
	}
	return why, err
}

func inTar(ctx context.Context, r io.Reader, depth int) (string, error) {
	const unread = "is a tar archive that can't be searched for Python pickles"
	if depth >= maxDepth {
		return unread + ": archives in archives", nil
	}
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil || n > maxEntries {
			return unread + ": it is damaged or too large", nil
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		why, err := inStream(ctx, t, h.Name, depth+1)
		if err != nil {
			return "", err
		}
		if why != "" {
			return "is a tar archive in which " + h.Name + " " + why, nil
		}
	}
}

// objectType is the type of a numpy array, or of a field of one, whose elements are Python objects.
var objectType = regexp.MustCompile(`['"][<>|=]?O[0-9]*['"]`)

// inArray reads the header of a numpy file (numpy.lib.format).
func inArray(head []byte) string {
	const object = "is a numpy file with Python objects in it, which are a pickle"
	if len(head) < 10 {
		return ""
	}
	n, at := int(binary.LittleEndian.Uint16(head[8:])), 10
	if head[6] >= 2 {
		if len(head) < 12 {
			return ""
		}
		n, at = int(min(binary.LittleEndian.Uint32(head[8:]), 1<<30)), 12
	}
	text := head[at:min(len(head), at+n)]
	if objectType.Match(text) {
		return object
	}
	if at+n > len(head) {
		return "is a numpy file whose header can't be read: it has more bytes than are looked at"
	}
	return ""
}
