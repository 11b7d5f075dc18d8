package screen

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// noise is a file of random bytes, which counts those that are read of it.
type noise struct {
	head  []byte // other first bytes
	block []byte // what it has over and over
	size  int64
	read  int64
}

func (f *noise) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), f.size-off))
	for i := range n {
		if at := off + i; at < int64(len(f.head)) {
			p[i] = f.head[at]
		} else {
			p[i] = f.block[at%int64(len(f.block))]
		}
	}
	f.read += n
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// screened is the answer on f, and the bytes that were read of it behind its head.
func screened(t *testing.T, f *noise) (string, int64) {
	t.Helper()
	head := make([]byte, min(HeadSize, f.size))
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	f.read = 0
	why, err := Pickle(context.Background(), f, f.size, "weights", head)
	if err != nil {
		t.Fatal(err)
	}
	return why, f.read
}

// Random bytes that happen to be operations with lengths are not read a second time.
func TestFewExtraReads(t *testing.T) {
	const most = 32 << 10
	rnd := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 1<<20+1)
	for i := range block {
		block[i] = byte(rnd.Uint32())
	}
	check := func(what string, head []byte) {
		t.Helper()
		if _, n := screened(t, &noise{head: head, block: block, size: 1 << 30}); n > most {
			t.Errorf("%s: %d bytes were read again", what, n)
		}
	}
	for i := range 2000 {
		n := int(rnd.Uint32N(uint32(len(block) - 64)))
		check(fmt.Sprintf("random %d", i), block[n:n+64])
	}
	for _, op := range []byte{'T', 'X', 'B', 0x8b, 0x8d, 0x8e, 0x96} {
		for _, prefix := range []string{"", "N", "NN", "NNN", "\x80\x04", "\x80\x04N", "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00"} {
			for _, length := range []uint64{HeadSize, 64<<20 - 1, 1 << 29, 1<<30 - 20, 1<<30 + 1, 1<<32 - 1, 1 << 39} {
				if op != 0x8d && op != 0x8e && op != 0x96 && length > 1<<32-1 {
					continue
				}
				b := append([]byte(prefix), op)
				if op >= 0x8d {
					b = binary.LittleEndian.AppendUint64(b, length)
				} else {
					b = binary.LittleEndian.AppendUint32(b, uint32(length))
				}
				check(fmt.Sprintf("%q, operation %q, length %d", prefix, op, length), b)
			}
		}
	}
}

// A call behind content larger than what is ever read is found, with or without the operation that names the protocol.
func TestCallBehindContent(t *testing.T) {
	const call = "0cposix\nsystem\n(Vid\ntR."
	for _, prefix := range []string{"", "\x80\x04"} {
		b := append([]byte(prefix), 'B')
		b = binary.LittleEndian.AppendUint32(b, maxWalk+12345)
		f := &noise{head: b, block: make([]byte, 16), size: int64(len(b)) + maxWalk + 12345 + int64(len(call))}
		end := io.NewSectionReader(f, 0, f.size-int64(len(call)))
		r := &joined{end, call}
		head := make([]byte, HeadSize)
		if _, err := r.ReadAt(head, 0); err != nil {
			t.Fatal(err)
		}
		f.read = 0
		why, err := Pickle(context.Background(), r, f.size, "weights", head)
		if err != nil || why != "is a Python pickle" || f.read > 32<<10 {
			t.Errorf("%q: %q, %v, %d bytes were read again", prefix, why, err, f.read)
		}
	}
}

// joined is a section and a text behind it.
type joined struct {
	*io.SectionReader
	tail string
}

func (j *joined) ReadAt(p []byte, off int64) (int, error) {
	var n int
	if off < j.Size() {
		n, _ = j.SectionReader.ReadAt(p[:min(int64(len(p)), j.Size()-off)], off)
	}
	if n == len(p) {
		return n, nil
	}
	m, err := strings.NewReader(j.tail).ReadAt(p[n:], off+int64(n)-j.Size())
	return n + m, err
}

// What is skipped and what is read in small steps is the same content, however it comes.
func TestSource(t *testing.T) {
	for name, p := range pickles() {
		for cut := range min(len(p), 64) {
			b := []byte(p)
			r := &rest{bytes.NewReader(b), int64(cut), int64(len(b)), maxWalk}
			if !isPickle(b[:cut], r) || !isPickle(b[:cut], bytes.NewReader(b[cut:])) {
				t.Errorf("%s, head of %d bytes: no pickle", name, cut)
			}
		}
	}
	r := &rest{bytes.NewReader(make([]byte, 100)), 10, 100, 20}
	if b, err := io.ReadAll(r); err != nil || len(b) != 20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if r.skip(71) || !r.skip(0) {
		t.Error("skip behind the end")
	}
}
