package steps_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/steps"
)

// driven is what a call of a step took: how many pieces, and the longest of them.
type driven struct {
	resumes        int
	longest, total time.Duration
	code           uint32
	arena          uint32
	pieces         []time.Duration
}

// drive calls a step of one output by hand, with one input of a type and shape, and measures each piece.
func drive(t testing.TB, code []byte, dtype uint32, data []byte, dims ...int64) driven {
	t.Helper()
	return driveTo(t, code, 1, dtype, data, dims...)
}

func driveTo(t testing.TB, code []byte, outputs, dtype uint32, data []byte, dims ...int64) driven {
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
	at := (desc + 96*(1+outputs) + 63) &^ 63
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
	put(base+abi.CtxNumOutputs, outputs)
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
		d.pieces = append(d.pieces, took)
		d.longest, d.total = max(d.longest, took), d.total+took
	}
}

func (d driven) String() string {
	return fmt.Sprintf("%d pieces, the longest %v, %v in all, arena %d, code %d", d.resumes, d.longest, d.total, d.arena, d.code)
}

// noise is a picture that neither format can make small.
func noise(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	r := rand.NewPCG(8, 9)
	for i := 0; i+8 <= len(m.Pix); i += 8 {
		binary.LittleEndian.PutUint64(m.Pix[i:], r.Uint64()&0x3f3f3f3f3f3f3f3f+uint64(i>>8&0x7f)*0x0101010101010101)
	}
	return m
}

// Large pictures are decoded in pieces, and in little more memory than their rows need.
func TestImagePieces(t *testing.T) {
	code, err := steps.Image(steps.ImageConfig{Width: 224, Height: 224, Std: [3]float64{1, 1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	const w, h = 2000, 1500
	m := noise(w, h)
	var j bytes.Buffer
	if err := jpeg.Encode(&j, m, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"PNG": encode(t, m), "JPEG": j.Bytes()} {
		d := drive(t, code, 2, b, int64(len(b)))
		t.Logf("%s: %v", name, d)
		if d.code != 0 || d.resumes < 30 {
			t.Errorf("%s: %v", name, d)
		}
		if d.arena > 4<<20 {
			t.Errorf("%s of %d pixels took an arena of %d bytes", name, w*h, d.arena)
		}
	}
}

// A short file that announces a large picture is refused before memory is asked for.
func TestImageAnnounced(t *testing.T) {
	code, err := steps.Image(steps.ImageConfig{Width: 8, Height: 8, Std: [3]float64{1, 1, 1}, MaxPixels: 1 << 27})
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	for _, size := range [][2]uint32{{11000, 11000}, {65535, 2000}} {
		head := be.AppendUint32(be.AppendUint32([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), size[0]), size[1])
		for _, lace := range []byte{0, 1} {
			b := append(bytes.Clone(head), 8, 2, 0, 0, lace, 0, 0, 0, 0)
			b = append(append(b, "\x00\x00\x00\x10IDAT\x78\x9c"...), make([]byte, 80)...)
			if d := drive(t, code, 2, b, int64(len(b))); d.code != 70 || d.arena > 1<<18 {
				t.Errorf("PNG %v: %v", size, d)
			}
		}
		for _, kind := range []byte{0xc0, 0xc2} {
			b := []byte{0xff, 0xd8, 0xff, kind, 0, 17, 8}
			b = be.AppendUint16(be.AppendUint16(b, uint16(size[1])), uint16(size[0]))
			b = append(append(b, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0), make([]byte, 200)...)
			if d := drive(t, code, 2, b, int64(len(b))); d.code != 70 || d.arena > 1<<18 {
				t.Errorf("JPEG %v: %v", size, d)
			}
		}
	}
	huge := be.AppendUint32(be.AppendUint32([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), 1<<31-1), 1<<31-1)
	huge = append(append(huge, 8, 2, 0, 0, 0), make([]byte, 80)...)
	if d := drive(t, code, 2, huge, int64(len(huge))); d.code != 68 || d.resumes != 1 {
		t.Errorf("a side of 2^31 - 1: %v", d)
	}
}
