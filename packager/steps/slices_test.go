package steps_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
)

// driven is what a call of a step took: how many pieces, and the longest of them.
type driven struct {
	resumes        int
	longest, total time.Duration
	code           uint32
	arena          uint32
}

// drive calls a step by hand, with one input of a type and shape, and measures each piece. The step has one output.
func drive(t testing.TB, code []byte, dtype uint32, data []byte, dims ...int64) driven {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	mod, err := r.Instantiate(ctx, code)
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...uint64) uint32 {
		out, err := mod.ExportedFunction(name).Call(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(out[0])
	}
	mem := mod.Memory()
	base := (run(abi.ExportHeap) + 63) &^ 63
	desc := base + (run(abi.ExportCtx)+63)&^63
	at := desc + 192
	arena := (at + uint32(len(data)) + 63) &^ 63
	grow := func(end uint32) {
		if need := int64(end) - int64(mem.Size()); need > 0 {
			if _, ok := mem.Grow(uint32((need + 65535) >> 16)); !ok {
				t.Fatalf("no %d bytes", end)
			}
		}
	}
	grow(arena + 65536)
	put := func(a uint32, v uint32) { mem.WriteUint32Le(a, v) }
	mem.Write(at, data)
	put(desc+abi.DescDType, dtype)
	put(desc+abi.DescRank, uint32(len(dims)))
	for i, d := range dims {
		mem.WriteUint64Le(desc+abi.DescDims+uint32(8*i), uint64(d))
	}
	put(desc+abi.DescData, at)
	put(desc+abi.DescBytes, uint32(len(data)))
	put(base+abi.CtxMagic, abi.CtxMagicValue)
	put(base+abi.CtxArenaBase, arena)
	put(base+abi.CtxArenaSize, mem.Size()-arena)
	put(base+abi.CtxNumInputs, 1)
	put(base+abi.CtxInputs, desc)
	put(base+abi.CtxNumOutputs, 1)
	put(base+abi.CtxOutputs, desc+96)
	head := func(off uint32) uint32 {
		b, _ := mem.Read(base+off, 4)
		return binary.LittleEndian.Uint32(b)
	}
	var d driven
	status := run(abi.ExportBind, uint64(base))
	resume := mod.ExportedFunction(abi.ExportResume)
	for {
		switch abi.Status(status) {
		case abi.NeedMemory:
			grow(arena + head(abi.CtxArenaSize) + head(abi.CtxWant))
			put(base+abi.CtxArenaSize, mem.Size()-arena)
		case abi.Done:
			if d.resumes > 0 {
				d.arena = head(abi.CtxArenaSize)
				return d
			}
		case abi.Failed:
			d.code, d.arena = head(abi.CtxErrCode), head(abi.CtxArenaSize)
			return d
		}
		start := clock()
		out, err := resume.Call(ctx, uint64(base))
		took := clock() - start
		if err != nil {
			t.Fatal(err)
		}
		status = uint32(out[0])
		d.resumes++
		d.longest, d.total = max(d.longest, took), d.total+took
	}
}

func (d driven) String() string {
	return fmt.Sprintf("%d pieces, the longest %v, %v in all, arena %d, code %d", d.resumes, d.longest, d.total, d.arena, d.code)
}
