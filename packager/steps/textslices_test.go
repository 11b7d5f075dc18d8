package steps_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/steps"
)

// bare drives a step by docs/abi.md with nothing in between, to see every resume.
type bare struct {
	m    api.Module
	heap uint32
}

func newBare(t testing.TB, code []byte) *bare {
	t.Helper()
	r := wazero.NewRuntime(t.Context())
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	m, err := r.Instantiate(t.Context(), code)
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{m: m}
	b.heap = uint32(b.call(t, abi.ExportHeap))
	return b
}

func (b *bare) call(t testing.TB, name string, args ...uint64) uint64 {
	t.Helper()
	v, err := b.m.ExportedFunction(name).Call(t.Context(), args...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v[0]
}

type ran struct {
	ids     []int64
	code    uint32
	a, b    int64
	resumes int
	longest time.Duration // of those that did not ask for memory
	spent   time.Duration
	arena   uint32
}

// run hands over raw bytes as rows, starts with an arena of a few bytes and gives exactly what is asked for.
func (b *bare) run(t testing.TB, budget uint32, rows []string) (out ran) {
	t.Helper()
	le := binary.LittleEndian
	mem := b.m.Memory()
	align := func(n uint32) uint32 { return (n + 63) &^ 63 }
	size := uint32(4 * (len(rows) + 1))
	text := strings.Join(rows, "")
	ctx := align(b.heap)
	in := align(ctx + uint32(b.call(t, abi.ExportCtx)))
	outs := in + abi.DescSize
	data := align(outs + 3*abi.DescSize)
	arena := align(data + size + uint32(len(text)))
	reach := func(end uint32) {
		if have := mem.Size(); end > have {
			if _, ok := mem.Grow((end - have + 65535) / 65536); !ok {
				t.Fatalf("no memory up to %d", end)
			}
		}
	}
	reach(arena + 64)
	zero := make([]byte, arena-ctx)
	mem.Write(ctx, zero)
	put := func(at, v uint32) { mem.WriteUint32Le(at, v) }
	put(ctx+abi.CtxMagic, abi.CtxMagicValue)
	put(ctx+abi.CtxArenaBase, arena)
	put(ctx+abi.CtxArenaSize, 16)
	put(ctx+abi.CtxNumInputs, 1)
	put(ctx+abi.CtxInputs, in)
	put(ctx+abi.CtxNumOutputs, 1)
	put(ctx+abi.CtxOutputs, outs)
	put(ctx+abi.CtxBudget, budget)
	put(in+abi.DescDType, uint32(abi.String))
	put(in+abi.DescRank, 1)
	mem.WriteUint64Le(in+abi.DescDims, uint64(len(rows)))
	put(in+abi.DescData, data)
	put(in+abi.DescBytes, size+uint32(len(text)))
	put(in+abi.DescAux, uint32(len(text)))
	at := uint32(0)
	for i, s := range rows {
		at += uint32(len(s))
		put(data+4*uint32(i+1), at)
	}
	mem.Write(data+size, []byte(text))
	status := b.call(t, abi.ExportBind, uint64(ctx))
	out.arena = 16
	for status == uint64(abi.Done) || status == uint64(abi.More) || status == uint64(abi.NeedMemory) {
		start := time.Now()
		status = b.call(t, abi.ExportResume, uint64(ctx))
		took := time.Since(start)
		out.spent += took
		if status != uint64(abi.NeedMemory) {
			out.longest = max(out.longest, took)
		}
		if out.resumes++; out.resumes > 1_000_000+100*len(text) {
			t.Fatalf("%.60q: no end after %d resumes", text, out.resumes)
		}
		if status == uint64(abi.NeedMemory) {
			want, _ := mem.ReadUint32Le(ctx + abi.CtxWant)
			out.arena += want
			if out.arena > 1<<30 {
				t.Fatalf("an arena of %d bytes for %d bytes of text", out.arena, len(text))
			}
			reach(arena + out.arena)
			put(ctx+abi.CtxArenaSize, out.arena)
		}
		if status == uint64(abi.Done) {
			break
		}
	}
	if status == uint64(abi.Failed) {
		out.code, _ = mem.ReadUint32Le(ctx + abi.CtxErrCode)
		a, _ := mem.ReadUint64Le(ctx + abi.CtxErrA)
		v, _ := mem.ReadUint64Le(ctx + abi.CtxErrB)
		out.a, out.b = int64(a), int64(v)
		return out
	}
	from, _ := mem.ReadUint32Le(outs + abi.DescData)
	n, _ := mem.ReadUint32Le(outs + abi.DescBytes)
	raw, _ := mem.Read(from, n)
	for i := 0; i < len(raw); i += 8 {
		out.ids = append(out.ids, int64(le.Uint64(raw[i:])))
	}
	return out
}

func trained(t testing.TB, name string) (file []byte, cases []textCase) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "tokenizers", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var c tokenizerCases
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c.Tokenizer, c.Cases
}

func trainedNames(t testing.TB) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "tokenizers", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	return names
}

// Wherever a resume ends, the tokens are the same; with a budget of one unit it ends after every step.
func TestTextSlices(t *testing.T) {
	once.Skip(t)
	for _, name := range trainedNames(t) {
		file, cases := trained(t, name)
		code, err := steps.Text(file)
		if err != nil {
			t.Fatal(err)
		}
		b := newBare(t, code)
		for _, c := range cases {
			whole := b.run(t, 0, c.Texts)
			if whole.code != 0 || !slices.Equal(whole.ids, slices.Concat(c.IDs...)) {
				t.Fatalf("%s: %.60q: error %d (%d, %d) or other tokens", name, c.Texts, whole.code, whole.a, whole.b)
			}
			for _, budget := range []uint32{1, 97} {
				got := b.run(t, budget, c.Texts)
				if !slices.Equal(got.ids, whole.ids) {
					t.Errorf("%s: %.60q: other tokens with a budget of %d", name, c.Texts, budget)
				}
				if n := len(strings.Join(c.Texts, "")); budget == 1 && got.resumes < n/2 {
					t.Errorf("%s: %.60q: only %d resumes with a budget of 1", name, c.Texts, got.resumes)
				}
			}
		}
	}
}

const longText = 1 << 16

// longTexts are about size bytes each of what is hard for one operation or another.
func longTexts(size int) map[string]string {
	long := func(s string) string { return strings.Repeat(s, size/len(s)) }
	return map[string]string{"words": long("the lowest newest word, "), "one word": long("lower"), "spaces": long(" "), "lines": long("\n"), "marks": "a" + long("\u0301\u0323\u0315"), "unknown": long("\U0010fffd"),
		"clusters": long("\U0001f468\u200d"), "Hangul": long("\uc548"), "ligatures": long("\ufdfa"), "tokens": long("<mask> "), "digits": long("7")}
}

// Long texts are done in many pieces, in memory proportional to their length.
func TestTextLong(t *testing.T) {
	once.Skip(t)
	const size = longText
	if testing.Short() {
		t.Skip("long texts")
	}
	texts := longTexts(size)
	for _, name := range []string{"gpt2", "llama2", "clip", "added", "xlmr", "albert", "unigram-bytes", "bytes-nfkd", "bytes-nfc", "wordpiece", "dropped"} {
		file, _ := trained(t, name)
		code, err := steps.Text(file)
		if err != nil {
			t.Fatal(err)
		}
		b := newBare(t, code)
		for what, text := range texts {
			got := b.run(t, 0, []string{text, "a"})
			if got.code != 0 && got.code != uint32(abi.ErrUser) { // rows of two lengths without padding
				t.Errorf("%s: %s: error %d (%d, %d)", name, what, got.code, got.a, got.b)
			}
			if got.resumes < 2 {
				t.Errorf("%s: %s: %d resumes", name, what, got.resumes)
			}
			if got.arena > 800*size { // U+FDFA becomes 18 code points
				t.Errorf("%s: %s: an arena of %d bytes", name, what, got.arena)
			}
			t.Logf("%-16s %-10s %5d resumes, longest %v, all %v, arena %d MiB", name, what, got.resumes, got.longest, got.spent, got.arena>>20)
		}
	}
}

func TestTextBroken(t *testing.T) {
	file, _ := trained(t, "gpt2")
	code, err := steps.Text(file)
	if err != nil {
		t.Fatal(err)
	}
	b := newBare(t, code)
	for _, s := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80", "\xf0\x80\x80\x80"} {
		if got := b.run(t, 0, []string{"fine", s}); got.code != uint32(abi.ErrString) || got.a != 0 || got.b != 1 {
			t.Errorf("%q: error %d (%d, %d)", s, got.code, got.a, got.b)
		}
	}
	if got := b.run(t, 0, nil); got.code != 0 || len(got.ids) != 0 {
		t.Errorf("no rows: error %d, %v", got.code, got.ids)
	}
}
