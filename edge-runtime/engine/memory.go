package engine

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// linearMemory backs the memory of one instance.
type linearMemory interface {
	experimental.LinearMemory
	hasWeights() bool // the weights image is mapped in already
}

// plainMemory is the portable fallback: a Go slice that moves when it grows, which is safe because the engine grows
// only while no guest function runs.
type plainMemory struct {
	buf []byte
	max uint64
}

func (m *plainMemory) hasWeights() bool { return false }

// Reallocate implements experimental.LinearMemory.
func (m *plainMemory) Reallocate(size uint64) []byte {
	if size > m.max {
		return nil
	}
	if size > uint64(cap(m.buf)) {
		b := make([]byte, size)
		_ = copyChunks(func() error { runtime.Gosched(); return nil }, b, m.buf)
		m.buf = b
	}
	m.buf = m.buf[:size]
	return m.buf
}

// Free implements experimental.LinearMemory.
func (m *plainMemory) Free() { m.buf = nil }

// WeightsSource tells where the weights image comes from. The zero value means that the module carries its weights in
// data segments.
//
// By default the file is mapped privately and copy on write. A later write to that file, or its truncation, reaches
// such a mapping and can end the process: keep it in a directory that only the runtime writes (0700, the file 0400).
type WeightsSource struct {
	Path    string // file that holds exactly the weights image
	Bytes   []byte // or the image itself; copied into each instance
	Copy    bool   // read the file instead of mapping it, for media that cannot be trusted to stay
	Trusted bool   // do not hash the image: it is covered by fs-verity or a verified image digest
	Private bool   // refuse a file that others can write, also through another name or its directory
}

func (w WeightsSource) empty() bool { return w.Path == "" && w.Bytes == nil }

// weightsImage is an opened, checked weights image, shared by the instances of one model.
type weightsImage struct {
	base, size uint64
	file       *os.File // nil when bytes is set
	bytes      []byte
	want       *artifact.Weights // what its bytes are hashed against; nil when they need not be
}

// openWeights opens the image and checks its size and place against the interface document. Nothing may run on it before check.
func openWeights(src WeightsSource, want *artifact.Weights) (*weightsImage, error) {
	if want == nil {
		if !src.empty() {
			return nil, diag.Errorf("the interface document names no weights, but a weights file was given")
		}
		return nil, nil
	}
	if src.empty() {
		return nil, diag.Errorf("the module needs its weights %s (%d bytes), none were given", want.Path, want.Size)
	}
	if want.Base%abi.PageSize != 0 || want.Size%abi.PageSize != 0 || want.Size < 0 {
		return nil, diag.Errorf("weights at address %d with %d bytes: both must be multiples of %d", want.Base, want.Size, abi.PageSize)
	}
	if uint64(want.Base)+uint64(want.Size) > maxPages*abi.PageSize {
		return nil, diag.Errorf("weights of %d bytes at address %d do not fit into 4 GiB", want.Size, want.Base)
	}
	w := &weightsImage{base: uint64(want.Base), size: uint64(want.Size)}
	if src.Bytes != nil {
		if int64(len(src.Bytes)) != want.Size {
			return nil, diag.Errorf("weights have %d bytes, the interface document says %d", len(src.Bytes), want.Size)
		}
		w.bytes = src.Bytes
	} else {
		f, err := os.Open(src.Path)
		if err != nil {
			return nil, diag.Errorf("open the weights: %w", err)
		}
		st, err := f.Stat()
		if err == nil && src.Private {
			err = ownFile(src.Path, st)
		}
		if err == nil && (st.Size() != want.Size || !st.Mode().IsRegular()) {
			err = diag.Errorf("weights %s have %d bytes, the interface document says %d", src.Path, st.Size(), want.Size)
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		w.file = f
	}
	if src.Copy && w.file != nil {
		b := make([]byte, want.Size)
		_, err := io.ReadFull(io.NewSectionReader(w.file, 0, want.Size), b)
		_ = w.file.Close()
		w.file = nil
		if err != nil {
			return nil, diag.Errorf("read the weights: %w", err)
		}
		w.bytes = b
	}
	if !src.Trusted {
		w.want = want
	}
	return w, nil
}

// check hashes the image.
func (w *weightsImage) check() error {
	if w == nil || w.want == nil {
		return nil
	}
	if w.file != nil {
		return checkChunks(w.file, w.want)
	}
	return checkChunks(byteReaderAt(w.bytes), w.want)
}

// close gives up the file; mappings of it stay valid.
func (w *weightsImage) close() {
	if w != nil && w.file != nil {
		_ = w.file.Close()
	}
}

// copyTo writes the image into an instance's memory.
func (w *weightsImage) copyTo(mem []byte) error {
	if uint64(len(mem)) < w.base+w.size {
		return diag.Errorf("memory of %d bytes is too small for weights that end at %d", len(mem), w.base+w.size)
	}
	dst := mem[w.base : w.base+w.size]
	if w.bytes != nil {
		return copyChunks(func() error { runtime.Gosched(); return nil }, dst, w.bytes)
	}
	_, err := io.ReadFull(io.NewSectionReader(w.file, 0, int64(w.size)), dst)
	if err != nil {
		return diag.Errorf("read the weights: %w", err)
	}
	return nil
}

type byteReaderAt []byte

func (b byteReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// checkChunks hashes the image by chunks on all cores. Without chunk digests the whole-file digest is used.
func checkChunks(r io.ReaderAt, want *artifact.Weights) error {
	if len(want.Chunks) == 0 {
		return checkRange(r, 0, want.Size, want.Digest, sha256.New())
	}
	if want.ChunkSize <= 0 || int64(len(want.Chunks)) != (want.Size+want.ChunkSize-1)/want.ChunkSize {
		return diag.Errorf("the interface document lists %d chunk digests of %d bytes for weights of %d bytes",
			len(want.Chunks), want.ChunkSize, want.Size)
	}
	var (
		wg   sync.WaitGroup
		next = make(chan int)
		errs = make(chan error, len(want.Chunks))
	)
	for range min(runtime.GOMAXPROCS(0), len(want.Chunks)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			h := sha256.New()
			for i := range next {
				off := int64(i) * want.ChunkSize
				if err := checkRange(r, off, min(want.ChunkSize, want.Size-off), want.Chunks[i], h); err != nil {
					errs <- err
				}
			}
		}()
	}
	for i := range want.Chunks {
		next <- i
	}
	close(next)
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func checkRange(r io.ReaderAt, off, n int64, want artifact.Digest, h hash.Hash) error {
	h.Reset()
	if _, err := io.Copy(h, io.NewSectionReader(r, off, n)); err != nil {
		return diag.Errorf("read the weights: %w", err)
	}
	if got := fmt.Sprintf("sha256:%x", h.Sum(nil)); got != string(want) {
		return diag.Errorf("%w: weights bytes %d to %d have digest %s, the interface document says %s",
			ErrIntegrity, off, off+n, got, want)
	}
	return nil
}
