package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/header"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
	"github.com/waybill-ml/waybill/packager/screen"
)

// member is one file that goes into a bundle as it is.
type member struct {
	layer artifact.Layer // digest and size are filled in when it has been read
	name  string         // slash-separated path in the project, as the file system has it
	loc   diag.Loc       // where waybill.yaml names it
	data  []byte         // content that was read already; else nil
}

// seen is what one pass over a file tells.
type seen struct {
	digest artifact.Digest
	size   int64
	format string        // of its content: "gguf", "safetensors" ...; "unknown"
	facts  *header.Facts // of formats whose header is read
	doc    []byte        // content of small JSON documents that say something about the model
	pickle string        // why it could run code; only of files that the allow list names
}

const maxJSON = 16 << 20 // a configuration or an index of shards

// take reads a file once: into the store, through the screen, and past the reader of its header.
func (b *Bundle) take(ctx context.Context, st Store, m member, progress func(int64)) (*seen, error) {
	if m.data != nil {
		s := &sniffer{ctx: ctx, name: m.name, file: bytes.NewReader(m.data), size: int64(len(m.data)), allowed: b.allowed[m.name]}
		if err := s.all(m.data); err != nil {
			return nil, b.refuse(m, err)
		}
		d, err := st.PutBytes(ctx, m.layer.Descriptor().MediaType, m.data)
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", m.name, err)
		}
		progress(d.Size)
		s.out.digest, s.out.size = d.Digest, d.Size
		return &s.out, nil
	}
	f, err := b.Project.Open(m.name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.name, err)
	}
	defer f.Close()
	before, err := fsx.Identify(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.name, err)
	}
	s := &sniffer{ctx: ctx, name: m.name, file: f, size: before.Size, allowed: b.allowed[m.name]}
	in, err := st.Import(ctx, f, filepath.Join(b.Project.Dir, filepath.FromSlash(m.name)), store.ImportOptions{Tee: s.piece, Progress: progress})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, b.refuse(m, err)
	}
	if err := unchanged(b.Project, m.name, f, before, in.Size); err != nil {
		return nil, err
	}
	s.out.digest, s.out.size = in.Digest, in.Size
	return &s.out, nil
}

// unchanged compares what f was before it was read with what it is now, and with the file of that name now.
func unchanged(p *project.Project, name string, f *os.File, before fsx.Identity, read int64) error {
	changed := func() error {
		return diag.New(diag.Failure, "%s was changed while it was packed", name).Hint("wait until nothing writes to it, then: waybill pack")
	}
	after, err := fsx.Identify(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if after != before || read != after.Size {
		return changed()
	}
	g, err := p.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return changed()
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer g.Close()
	if now, err := fsx.Identify(g); err != nil || now != before {
		return changed()
	}
	return nil
}

// pickleError and pointerError say why a file is not packed.
type pickleError struct{ why string }

func (e *pickleError) Error() string { return e.why }

type pointerError struct{}

func (*pointerError) Error() string { return "is a Git LFS pointer, not the file itself" }

// refuse gives the errors of the screen and of header readers their place, code and hint.
func (b *Bundle) refuse(m member, err error) error {
	return refused(b.Project, m.name, m.loc, err)
}

func refused(p *project.Project, name string, loc diag.Loc, err error) error {
	var pk *pickleError
	var h *header.FormatError
	var lfs *pointerError
	switch {
	case errors.As(err, &lfs):
		return diag.New(diag.Usage, "%s %v", name, lfs).At(loc).Hint("%s", lfsPull(p.Dir, name))
	case errors.As(err, &pk):
		return diag.New(diag.Usage, "%s %s", name, pk.why).At(loc).
			Line("who loads it runs whatever code is in it").
			Hint("convert it to safetensors or ONNX; to ship it nevertheless add to %s: allow_pickle: [%s]", p.File, yamlText(name))
	case errors.As(err, &h):
		return diag.Wrap(diag.Failure, h, "%s is damaged", name).At(loc).Hint("fetch or export the file again: it may have been cut off")
	}
	return err
}

// lfsPull is the command that fetches the content of one file.
func lfsPull(dir, name string) string {
	return "git lfs pull --include=" + shellWord(lineage.GitPath(dir, name))
}

// shellWord quotes s for a POSIX shell where it needs it.
func shellWord(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/+=@%,", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// yamlText quotes s for YAML where it needs it.
func yamlText(s string) string {
	if shellWord(s) == s {
		return s
	}
	b, _ := json.Marshal(s) // a string always encodes
	return string(b)
}

// check refuses a file of a project whose content is in memory, as take does. It returns why the file could run code when the
// project allows that.
func check(ctx context.Context, p *project.Project, name string, loc diag.Loc, data []byte) (string, error) {
	s := &sniffer{ctx: ctx, name: name, file: bytes.NewReader(data), size: int64(len(data)), allowed: allowed(p)[name]}
	if err := s.first(data[:min(len(data), screen.HeadSize)]); err != nil {
		return "", refused(p, name, loc, err)
	}
	return s.out.pickle, nil
}

func allowed(p *project.Project) map[string]bool {
	out := map[string]bool{}
	for _, f := range p.AllowPickle {
		out[f.Path] = true
	}
	return out
}

// sniffer looks at content that passes by in pieces, from the start. It keeps the header of the formats it knows, and
// nothing of others.
type sniffer struct {
	ctx     context.Context // of the one pass
	name    string
	file    io.ReaderAt // for archives, whose directory is at their end
	size    int64
	allowed bool

	out  seen
	n    int64  // bytes that passed
	keep []byte // as far as a header is not whole
	next int    // bytes at which it is tried again
	read func(io.Reader, int64) (header.Facts, error)
	json bool
}

// all takes the whole content at once.
func (s *sniffer) all(b []byte) error {
	if err := s.piece(b); err != nil {
		return err
	}
	return s.end()
}

// piece takes the next bytes. The first piece is the whole file or has at least screen.HeadSize bytes.
func (s *sniffer) piece(b []byte) error {
	if s.n == 0 {
		if err := s.first(b[:min(len(b), screen.HeadSize)]); err != nil {
			return err
		}
	}
	s.n += int64(len(b))
	if s.read == nil && !s.json {
		return nil
	}
	s.keep = append(s.keep, b...)
	if s.json {
		if len(s.keep) > maxJSON {
			s.json, s.keep = false, nil
		}
		return nil
	}
	if len(s.keep) < s.next && s.n < s.size {
		return nil
	}
	return s.try(s.n >= s.size)
}

// try reads the header out of what is kept; when that is too little, again once it is twice as much.
func (s *sniffer) try(last bool) error {
	f, err := s.read(bytes.NewReader(s.keep), s.size)
	var fe *header.FormatError
	switch {
	case err == nil:
		s.out.facts = &f
	case errors.As(err, &fe) && fe.Short && !last && len(s.keep) < 2*header.MaxHeader:
		s.next = 2 * len(s.keep)
		return nil
	default:
		return err
	}
	s.read, s.keep = nil, nil
	return nil
}

// end is called behind the last piece.
func (s *sniffer) end() error {
	if s.n == 0 {
		if err := s.first(nil); err != nil {
			return err
		}
	}
	if s.read != nil {
		return s.try(true)
	}
	if s.json {
		s.out.doc, s.keep = s.keep, nil
	}
	return nil
}

// first looks at the beginning: what the file is, and whether it may be packed at all.
func (s *sniffer) first(head []byte) error {
	if screen.Pointer(head) {
		return &pointerError{}
	}
	why, err := screen.Pickle(s.ctx, s.file, s.size, s.name, head)
	if err != nil {
		return err
	}
	if why != "" {
		if !s.allowed {
			return &pickleError{why}
		}
		s.out.pickle = why
	}
	s.out.format = formatOf(head, s.name)
	s.next = len(head)
	switch s.out.format {
	case "gguf":
		s.read = header.GGUF
	case "safetensors":
		s.read = header.SafeTensors
	}
	s.json = isModelJSON(path.Base(s.name))
	return nil
}

// isModelJSON knows the documents beside weights that say something about the model.
func isModelJSON(base string) bool {
	return base == "config.json" || strings.HasSuffix(base, ".safetensors.index.json")
}

// formatOf names the format of a file's content, as the config of ModelPack and the facts call it.
func formatOf(head []byte, name string) string {
	if bytes.HasPrefix(head, []byte("ftrt")) {
		return "tensorrt"
	}
	f := frontend.Detect(head[:min(len(head), frontend.HeadSize)], path.Base(name))
	if strings.HasSuffix(strings.ToLower(name), ".safetensors") {
		f = frontend.SafeTensors // damaged perhaps: the reader says where
	}
	switch f {
	case frontend.Unknown, frontend.LFSPointer:
		return "unknown"
	case frontend.Zip:
		switch strings.ToLower(path.Ext(name)) {
		case ".pt", ".pth", ".bin", ".ckpt", ".pt2":
			return "pytorch"
		case ".keras":
			return "keras"
		}
	}
	return string(f)
}

// each runs work for 0 to n-1 on all cores and returns the error of the lowest index that failed by itself. Work in progress
// is cancelled by an error.
func each(ctx context.Context, n int, work func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, n)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				if errs[i] = work(ctx, i); errs[i] != nil {
					cancel()
				}
			}
		}()
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	var cancelled error
	for _, err := range errs {
		if errors.Is(err, context.Canceled) {
			cancelled = err
		} else if err != nil {
			return err
		}
	}
	if cancelled == nil {
		cancelled = context.Cause(ctx)
	}
	return cancelled
}

// DryStore is a Store that keeps nothing: it only works out digests. It is safe for concurrent use.
type DryStore struct{}

// PutBytes describes b.
func (DryStore) PutBytes(_ context.Context, mediaType string, b []byte) (artifact.Descriptor, error) {
	return artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(b), Size: int64(len(b))}, nil
}

// PutManifest describes b.
func (DryStore) PutManifest(_ context.Context, b []byte, mediaType string, _ store.PutOptions) (artifact.Descriptor, error) {
	return artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(b), Size: int64(len(b))}, nil
}

// Import hashes a file.
func (DryStore) Import(ctx context.Context, f fsx.File, path string, o store.ImportOptions) (store.Imported, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	var at int64
	for {
		if err := ctx.Err(); err != nil {
			return store.Imported{}, err
		}
		n, err := f.ReadAt(buf, at)
		at += int64(n)
		h.Write(buf[:n])
		if n > 0 && o.Tee != nil {
			if err := o.Tee(buf[:n]); err != nil {
				return store.Imported{}, err
			}
		}
		if n > 0 && o.Progress != nil {
			o.Progress(int64(n))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return store.Imported{}, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return store.Imported{Digest: artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), Size: at, How: store.HowCopy}, nil
}
