package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// The state file tells which blocks of a partial file were written whole: a header of fixed length, then one byte per
// block. A byte is written after its block and by one call, so a process that is killed loses at most what it wrote of the
// blocks under way. After a power cut the file may claim more than the disk has: the hash over everything finds that.
const (
	stateSchema  = "https://github.com/waybill-ml/waybill/schema/partial/v1"
	headerLen    = 1024
	maxBlocks    = 2048
	minBlock     = 16 << 10
	maxValidator = 256
	maxSize      = 1 << 50
	blockMissing = '.'
	blockDone    = '#'
)

// header is what the state is about.
type header struct {
	Schema    string          `json:"schema"`
	Digest    artifact.Digest `json:"digest"`
	Size      int64           `json:"size"`
	Block     int64           `json:"block"`
	Validator string          `json:"validator"` // strong ETag of the server, or ""
}

// blockSize divides a blob into at most maxBlocks blocks of at least minBlock bytes, in steps of a page.
func blockSize(size int64) int64 {
	b := (size + maxBlocks - 1) / maxBlocks
	return max((b+4095)&^4095, minBlock)
}

func blocksOf(size, block int64) int { return int((size + block - 1) / block) }

func (h header) encode() ([]byte, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(b) >= headerLen {
		return nil, errors.New("header too long")
	}
	b = append(b, bytes.Repeat([]byte{' '}, headerLen-1-len(b))...)
	return append(b, '\n'), nil
}

// parseState reads a state file and gives one bool per block. Whatever is not exactly what this package writes is an error:
// then the download starts anew.
func parseState(b []byte) (header, []bool, error) {
	var h header
	if len(b) < headerLen || b[headerLen-1] != '\n' {
		return h, nil, errors.New("no header")
	}
	if err := strictjson.Decode(bytes.TrimRight(b[:headerLen-1], " "), &h); err != nil {
		return h, nil, err
	}
	if h.Schema != stateSchema {
		return h, nil, fmt.Errorf("schema is %q", h.Schema)
	}
	if _, err := artifact.ParseDigest(string(h.Digest)); err != nil {
		return h, nil, err
	}
	if h.Size < 0 || h.Size > maxSize || h.Block != blockSize(h.Size) || len(h.Validator) > maxValidator {
		return h, nil, errors.New("header does not fit together")
	}
	marks := b[headerLen:]
	if len(marks) != blocksOf(h.Size, h.Block) {
		return h, nil, fmt.Errorf("%d blocks, want %d", len(marks), blocksOf(h.Size, h.Block))
	}
	done := make([]bool, len(marks))
	for i, m := range marks {
		switch m {
		case blockDone:
			done[i] = true
		case blockMissing:
		default:
			return h, nil, fmt.Errorf("block %d is marked %q", i, m)
		}
	}
	return h, done, nil
}

// readState reads the state of d from f; ok is false when there is none that can be used.
func readState(f *os.File, d artifact.Descriptor) (h header, done []bool, ok bool) {
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, headerLen+maxBlocks+1), headerLen+maxBlocks+1))
	if err != nil {
		return h, nil, false
	}
	h, done, err = parseState(b)
	return h, done, err == nil && h.Digest == d.Digest && h.Size == d.Size
}

// newState writes the state of a download that has nothing yet.
func newState(f *os.File, d artifact.Descriptor) (header, []bool, error) {
	h := header{Schema: stateSchema, Digest: d.Digest, Size: d.Size, Block: blockSize(d.Size)}
	n := blocksOf(d.Size, h.Block)
	b, err := h.encode()
	if err != nil {
		return h, nil, err
	}
	if err := f.Truncate(0); err != nil {
		return h, nil, err
	}
	_, err = f.WriteAt(append(b, bytes.Repeat([]byte{blockMissing}, n)...), 0)
	return h, make([]bool, n), err
}
