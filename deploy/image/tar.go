package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// entry is one entry of a layer: a folder when its name ends in a slash, a symbolic link when it leads somewhere, else a file.
type entry struct {
	name string
	file string          // on this machine
	sum  artifact.Digest // that file must have, if any: it may have changed since it was checked
	link string
	mode int64
	data []byte // in place of file
}

// writeTar writes entries as they stand, owned by root and of the first second of 1970.
func writeTar(w io.Writer, es []entry) error {
	tw := tar.NewWriter(w)
	for _, e := range es {
		if err := writeEntry(tw, e); err != nil {
			return err
		}
	}
	return tw.Close()
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Mode: 0o644, Format: tar.FormatUSTAR, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: size}
}

func writeEntry(tw *tar.Writer, e entry) error {
	h := header(e.name, int64(len(e.data)))
	h.Mode = e.mode
	switch {
	case e.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		return tw.WriteHeader(h)
	case e.name[len(e.name)-1] == '/':
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
		return tw.WriteHeader(h)
	case e.file == "":
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(e.data)
		return err
	}
	f, err := os.Open(e.file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size = st.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	return copyChecked(tw, f, e.file, e.sum) // a file that grows or shrinks meanwhile is an error of the writer
}

// copyChecked copies a file that must have the digest want, if any is given.
func copyChecked(w io.Writer, f io.Reader, name string, want artifact.Digest) error {
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), f); err != nil {
		return err
	}
	if got := artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))); want != "" && got != want {
		return diag.New(diag.Verification, "%s has changed since it was checked: it has digest %s, not %s", name, got, want)
	}
	return nil
}

// layerOf hashes the tar of the entries; opening it writes it again.
func layerOf(es []entry) (blob, error) {
	h := sha256.New()
	n := &counter{w: h}
	if err := writeTar(n, es); err != nil {
		return blob{}, err
	}
	d := artifact.Descriptor{MediaType: mediaTypeLayer, Digest: artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), Size: n.n}
	return blob{d, func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeTar(w, es)) }() // ends when r is read to its end or closed
		return r, nil
	}}, nil
}

type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
