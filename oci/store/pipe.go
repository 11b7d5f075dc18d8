package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"github.com/waybill-ml/waybill/oci/artifact"
)

const (
	copySize  = 256 << 10 // the buffer of a transfer
	copyDepth = 4         // buffers of one transfer: 1 MiB
)

// pump moves r to its end through h, and through sink when that is not nil, with h at work on another core beside reading
// and writing. It returns how many bytes went through sink and h. Each buffer is hashed as it was written, so the hash is
// that of what the sink got, whatever r's file becomes meanwhile. No goroutine outlives the call.
func pump(r io.Reader, h hash.Hash, sink io.Writer) (int64, error) {
	head := make([]byte, 8<<10)
	n, err := fill(r, head)
	if err != nil { // most blobs are short
		return one(h, sink, head[:n], err)
	}
	buf := make([]byte, copySize)
	copy(buf, head)
	n, err = fill(r, buf[len(head):])
	n += len(head)
	if err != nil {
		return one(h, sink, buf[:n], err)
	}
	free, full := make(chan []byte, copyDepth), make(chan []byte, copyDepth)
	done := make(chan struct{})
	for range copyDepth - 1 {
		free <- nil // allocated when it is needed
	}
	go func() {
		defer close(done)
		for b := range full {
			h.Write(b)
			free <- b[:cap(b)]
		}
	}()
	defer func() { close(full); <-done }()
	var total int64
	for {
		if sink != nil && n > 0 {
			m, werr := sink.Write(buf[:n])
			if werr != nil {
				full <- buf[:m]
				return total + int64(m), werr
			}
		}
		full <- buf[:n]
		total += int64(n)
		if err != nil {
			return total, eof(err)
		}
		if buf = <-free; buf == nil {
			buf = make([]byte, copySize)
		}
		n, err = fill(r, buf)
	}
}

// one is pump for the last, or only, piece of a stream; err is why it is the last.
func one(h hash.Hash, sink io.Writer, b []byte, err error) (int64, error) {
	n := len(b)
	if sink != nil && n > 0 {
		var werr error
		if n, werr = sink.Write(b); werr != nil {
			err = werr
		}
	}
	h.Write(b[:n])
	return int64(n), eof(err)
}

// fill reads until b is full or r has an end or a failure, which it returns as it is: io.ReadFull would make one of the
// two, so that a connection that was cut (io.ErrUnexpectedEOF) passed for the end.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

func eof(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func sum(h hash.Hash) artifact.Digest {
	return artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// digestOf hashes what r gives.
func digestOf(r io.Reader) (artifact.Digest, int64, error) {
	h := sha256.New()
	n, err := pump(r, h, nil)
	return sum(h), n, err
}
