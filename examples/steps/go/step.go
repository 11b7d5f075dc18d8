//go:build wasip1

// A pre- or postprocessing step in Go: it standardises each column of an f64 matrix, then reports the result and the
// largest magnitude of each row. Build it as a library ("reactor") for WASI:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o standardize.wasm ./examples/steps/go
//
// What a step may use: memory, the fixed clock and random stream, stdout (it goes to the runtime's log). There are no
// files and no network. Go code compiled for wasm gives the same bits on every host as long as it keeps to + - * /
// and math.Sqrt: wasm has no fused multiply-add, and the compiler's wasm back end never makes one.
package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
)

// rowsPerResume bounds one resume to well under 2 ms.
const rowsPerResume = 4096

// Everything a call needs lives here, keyed by the context's address; a step that is not declared reentrant is started
// anew for each call, so one entry is all there will be.
type call struct {
	rows, cols int
	in         []float64
	mean, std  []float64
	out, peak  []float64
	next       int // next row; -1 before the statistics
}

var (
	blocks = map[uintptr][]byte{} // memory handed to the host, kept alive until it is freed
	calls  = map[uint32]*call{}
)

//go:wasmexport waybill_abi
func version() uint32 { return abi.Version }

//go:wasmexport waybill_ctx
func contextSize() uint32 { return abi.CtxHeader }

//go:wasmexport waybill_alloc
func alloc(size uint32) uint32 {
	b := make([]byte, uint64(size)+abi.Align)
	p := (uintptr(unsafe.Pointer(&b[0])) + abi.Align - 1) &^ (abi.Align - 1)
	blocks[p] = b
	return uint32(p)
}

//go:wasmexport waybill_free
func free(p uint32) { delete(blocks, uintptr(p)) }

// at views guest memory: addresses that the host wrote are addresses in the Go heap.
func at(p uint32, n int) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(p))), n) }

func u32(b []byte, off int) uint32       { return binary.LittleEndian.Uint32(b[off:]) }
func setU32(b []byte, off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }

func fail(ctx []byte, code abi.Code, a, b int64) uint32 {
	setU32(ctx, abi.CtxErrCode, uint32(code))
	binary.LittleEndian.PutUint64(ctx[abi.CtxErrA:], uint64(a))
	binary.LittleEndian.PutUint64(ctx[abi.CtxErrB:], uint64(b))
	return uint32(abi.Failed)
}

//go:wasmexport waybill_bind
func bind(p uint32) uint32 {
	ctx := at(p, abi.CtxHeader)
	if u32(ctx, abi.CtxMagic) != abi.CtxMagicValue || u32(ctx, abi.CtxNumInputs) != 1 || u32(ctx, abi.CtxNumOutputs) != 2 {
		return fail(ctx, abi.ErrABI, int64(u32(ctx, abi.CtxNumInputs)), int64(u32(ctx, abi.CtxNumOutputs)))
	}
	d := at(u32(ctx, abi.CtxInputs), abi.DescSize)
	if t := u32(d, abi.DescDType); t != uint32(abi.F64) {
		return fail(ctx, abi.ErrDType, 0, int64(t))
	}
	if r := u32(d, abi.DescRank); r != 2 {
		return fail(ctx, abi.ErrRank, 0, int64(r))
	}
	c := &call{next: -1}
	c.rows = int(binary.LittleEndian.Uint64(d[abi.DescDims:]))
	c.cols = int(binary.LittleEndian.Uint64(d[abi.DescDims+8:]))
	if n := c.rows * c.cols; n > 0 {
		c.in = unsafe.Slice((*float64)(unsafe.Pointer(uintptr(u32(d, abi.DescData)))), n)
	}
	c.out, c.peak = make([]float64, c.rows*c.cols), make([]float64, c.rows)
	calls[p] = c
	return uint32(abi.Done)
}

//go:wasmexport waybill_resume
func resume(p uint32) uint32 {
	ctx, c := at(p, abi.CtxHeader), calls[p]
	if c == nil {
		return fail(ctx, abi.ErrState, 0, 0)
	}
	if c.next < 0 {
		c.statistics()
		c.next = 0
		fmt.Printf("standardize: %d rows, %d columns\n", c.rows, c.cols)
		return uint32(abi.More)
	}
	for end := min(c.next+rowsPerResume, c.rows); c.next < end; c.next++ {
		c.row(c.next)
	}
	if c.next < c.rows {
		return uint32(abi.More)
	}
	outs := u32(ctx, abi.CtxOutputs)
	c.put(at(outs, abi.DescSize), c.out, c.rows, c.cols)
	c.put(at(outs+abi.DescSize, abi.DescSize), c.peak, c.rows)
	return uint32(abi.Done)
}

// part is never asked for: resume does not return Parallel.
//
//go:wasmexport waybill_part
func part(p, _ uint32) uint32 { return fail(at(p, abi.CtxHeader), abi.ErrState, 0, 0) }

func (c *call) statistics() {
	c.mean, c.std = make([]float64, c.cols), make([]float64, c.cols)
	for j := range c.cols {
		sum := 0.0
		for i := range c.rows {
			sum += c.in[i*c.cols+j]
		}
		c.mean[j] = sum / float64(max(c.rows, 1))
		sq := 0.0
		for i := range c.rows {
			d := c.in[i*c.cols+j] - c.mean[j]
			sq += d * d
		}
		c.std[j] = math.Sqrt(sq / float64(max(c.rows, 1)))
		if c.std[j] == 0 {
			c.std[j] = 1
		}
	}
}

func (c *call) row(i int) {
	for j := range c.cols {
		v := (c.in[i*c.cols+j] - c.mean[j]) / c.std[j]
		c.out[i*c.cols+j] = v
		c.peak[i] = max(c.peak[i], math.Abs(v))
	}
}

// put fills an output descriptor. The slice stays alive in c until the next bind.
func (c *call) put(d []byte, v []float64, dims ...int) {
	clear(d)
	setU32(d, abi.DescKind, uint32(abi.Tensor))
	setU32(d, abi.DescDType, uint32(abi.F64))
	setU32(d, abi.DescRank, uint32(len(dims)))
	for i, n := range dims {
		binary.LittleEndian.PutUint64(d[abi.DescDims+8*i:], uint64(n))
	}
	if len(v) > 0 {
		setU32(d, abi.DescData, uint32(uintptr(unsafe.Pointer(&v[0]))))
	}
	setU32(d, abi.DescBytes, uint32(8*len(v)))
}
