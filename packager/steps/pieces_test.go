package steps_test

import (
	"bytes"
	"encoding/binary"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/steps"
)

// pieces reports the longest piece of a call, each taken at its best of three runs, in CPU time where the system tells it.
func pieces(b *testing.B, code []byte, dtype abi.DType, data []byte, dims ...int64) {
	b.Helper()
	for b.Loop() {
		var best []time.Duration
		for range 3 {
			d := drive(b, code, uint32(dtype), data, dims...)
			if d.code != 0 && d.code != 64 && d.code != 65 { // rows of several lengths, text without a token
				b.Fatal(d)
			}
			if best == nil {
				best = d.pieces
			}
			for i, p := range d.pieces {
				best[i] = min(best[i], p)
			}
		}
		longest, total := time.Duration(0), time.Duration(0)
		for _, p := range best {
			longest, total = max(longest, p), total+p
		}
		b.ReportMetric(float64(longest.Microseconds()), "longest-us")
		b.ReportMetric(float64(slices.Index(best, longest)), "at")
		b.ReportMetric(float64(total.Microseconds()), "all-us")
		b.ReportMetric(float64(len(best)), "pieces")
	}
}

// BenchmarkImagePieces tells the longest piece of large pictures.
func BenchmarkImagePieces(b *testing.B) {
	m := noise(4000, 3000)
	var j, flat bytes.Buffer
	if err := jpeg.Encode(&j, m, &jpeg.Options{Quality: 90}); err != nil {
		b.Fatal(err)
	}
	clear(m.Pix)
	if err := png.Encode(&flat, m); err != nil {
		b.Fatal(err)
	}
	progressive, err := os.ReadFile(filepath.Join("testdata", "jpeg", "progressive420.jpg"))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		side int64
		file []byte
	}{{"png", 224, encode(b, noise(4000, 3000))}, {"jpeg", 224, j.Bytes()}, {"flat-png", 224, flat.Bytes()}, {"enlarged", steps.MaxSide, progressive}} {
		code, err := steps.Image(steps.ImageConfig{Width: c.side, Height: c.side, Std: [3]float64{1, 1, 1}})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) { pieces(b, code, abi.U8, c.file, int64(len(c.file))) })
	}
}

// BenchmarkAudioPieces tells the longest piece of a minute of sound.
func BenchmarkAudioPieces(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	le := binary.LittleEndian
	var data []byte
	for range 60 * 44100 {
		data = le.AppendUint16(data, uint16(r.Uint32()))
	}
	for name, c := range map[string]steps.AudioConfig{
		"whisper":     {Rate: 16000, Output: "mel", Frame: 400, Hop: 160, Mels: 80, Log: "log10", Range: 8},
		"kaldi":       {Rate: 16000, Scale: 32768, Output: "mel", Frame: 400, Hop: 160, FFT: 512, RemoveDC: true, Window: "povey", Symmetric: true, Frames: "inside", Mels: 80, Log: "ln", Layout: "ntf"},
		"mfcc":        {Rate: 16000, Output: "mfcc", Frame: 8192, Hop: 800, Mels: 512, Coefs: 256, Log: "db", Range: 60, Normalize: "feature", Epsilon: 1e-6},
		"spectrum":    {Rate: 44100, Output: "spectrum", Frame: 8192, Hop: 1024, Log: "db"},
		"rows":        {Rate: 44100, Output: "complex", Frame: 8192, Hop: 1024, Layout: "ntf"},
		"convolution": {Rate: 44100, Output: "spectrum", Frame: 8191, Hop: 4000, Layout: "ntf"},
		"filter":      {Rate: 16001, Output: "waveform", Zeros: 64},
	} {
		c.SourceRate = 44100
		code, err := steps.Audio(c)
		if err != nil {
			b.Fatal(name, err)
		}
		sound := data
		if name == "filter" { // the slow one
			sound = data[:len(data)/20]
		}
		b.Run(name, func(b *testing.B) { pieces(b, code, abi.I16, sound, int64(len(sound)/2)) })
	}
}

// BenchmarkTextPieces tells the longest piece of long texts, for each of several tokenizers the worst of them.
func BenchmarkTextPieces(b *testing.B) {
	files := map[string][]byte{}
	for _, name := range []string{"gpt2", "llama2", "clip", "added", "xlmr", "albert", "unigram-bytes", "bytes-nfkd", "bytes-nfc", "wordpiece", "dropped"} {
		files[name], _ = trained(b, name)
	}
	if dir := os.Getenv("WAYBILL_SCHEMAS"); dir != "" {
		all, err := filepath.Glob(filepath.Join(dir, "tokenizers", "*", "tokenizer.json"))
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range all {
			file, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			files[filepath.Base(filepath.Dir(f))] = file
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	var letters, points strings.Builder
	for letters.Len() < longText {
		letters.WriteByte(byte('a' + r.IntN(26)))
		points.WriteRune(rune(0x4e00 + r.IntN(0x5000)))
	}
	texts := longTexts(longText)
	texts["letters"], texts["characters"] = letters.String(), points.String()
	for name, file := range files {
		code, err := steps.Text(file)
		if err != nil {
			b.Fatal(name, err)
		}
		for what, text := range texts {
			b.Run(name+"/"+what, func(b *testing.B) { textPieces(b, code, text) })
		}
		rows := slices.Repeat([]string{"a"}, 60000)
		b.Run(name+"/rows", func(b *testing.B) { textPieces(b, code, rows...) })
		b.Run(name+"/empty rows", func(b *testing.B) { textPieces(b, code, make([]string, 60000)...) })
	}
}

func textPieces(b *testing.B, code []byte, rows ...string) {
	b.Helper()
	le, end := binary.LittleEndian, uint32(0)
	data := make([]byte, 4)
	for _, r := range rows {
		end += uint32(len(r))
		data = le.AppendUint32(data, end)
	}
	pieces(b, code, abi.String, append(data, strings.Join(rows, "")...), int64(len(rows)))
}
