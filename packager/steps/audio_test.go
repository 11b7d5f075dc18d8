package steps_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/steps"
)

// listener loads the step audio for inputs of a type.
func listener(t testing.TB, c steps.AudioConfig, dtype string, e engine.Config) *engine.Model {
	t.Helper()
	code, err := steps.Audio(c)
	if err != nil {
		t.Fatal(err)
	}
	e.Poison = true
	return load(t, e, code, []artifact.Port{port("sound", dtype)}, []artifact.Port{port("x", "f32")})
}

func floats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// testdata/audio.json is what other libraries make of the same sounds; audio.py says how it came to be.
func TestAudioAgainstLibraries(t *testing.T) {
	b, err := os.ReadFile("testdata/audio.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Sounds map[string][]byte
		Cases  []struct {
			Name, Sound         string
			Config              steps.AudioConfig
			Shape               []int64
			Want, File, Samples []byte
			Channels            int64
			Tol, Rel            float64
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Cases) < 50 {
		t.Fatalf("%d cases", len(doc.Cases))
	}
	for _, c := range doc.Cases {
		t.Run(c.Name, func(t *testing.T) {
			in, dtype := engine.Of(c.File), "u8"
			switch {
			case c.Samples != nil:
				f := floats(c.Samples)
				in, dtype = engine.Of(f), "f32"
				if c.Channels > 0 {
					in = engine.Of(f, c.Channels, int64(len(f))/c.Channels)
				}
			case c.Sound != "":
				raw := doc.Sounds[c.Sound]
				v := make([]int16, len(raw)/2)
				for i := range v {
					v[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
				}
				in, dtype = engine.Of(v), "i16"
			}
			var first []engine.Tensor
			for _, budget := range []uint32{0, 1} { // slicing changes no bit
				outs, err := call(t, listener(t, c.Config, dtype, engine.Config{Budget: budget}), in)
				if err != nil {
					t.Fatal(err)
				}
				if first != nil && !engine.Equal(first[0], outs[0]) {
					t.Error("small pieces give other bits")
				}
				first = outs
			}
			got, err := engine.Values[float32](first[0])
			if err != nil || !slices.Equal(first[0].Shape, c.Shape) {
				t.Fatalf("shape %v, want %v (%v)", first[0].Shape, c.Shape, err)
			}
			worst := 0.0
			for i, w := range floats(c.Want) {
				d := math.Abs(float64(got[i])-float64(w)) - c.Rel*math.Abs(float64(w))
				if worst = max(worst, d); !(d <= c.Tol) {
					t.Fatalf("element %d is %v, want %v within %g", i, got[i], w, c.Tol)
				}
			}
			t.Logf("largest difference %.2g", worst)
		})
	}
}

// riff writes a WAV file of one fmt chunk and the samples' bytes.
func riff(tag, channels, bits uint16, rate uint32, data []byte) []byte {
	le := binary.LittleEndian
	frame := channels * (bits / 8)
	b := append([]byte("RIFF\x00\x00\x00\x00WAVEfmt "), 16, 0, 0, 0)
	b = le.AppendUint16(le.AppendUint16(b, tag), channels)
	b = le.AppendUint32(le.AppendUint32(b, rate), rate*uint32(frame))
	b = le.AppendUint16(le.AppendUint16(b, frame), bits)
	b = le.AppendUint32(append(b, "data"...), uint32(len(data)))
	b = append(b, data...)
	le.PutUint32(b[4:], uint32(len(b)-8))
	return b
}

func TestAudioErrors(t *testing.T) {
	mel := steps.AudioConfig{Rate: 16000, Frame: 400, Hop: 160, Mels: 20, MaxSamples: 50000}
	m := listener(t, mel, "u8", engine.Config{MemoryLimit: 8 << 20})
	data := make([]byte, 2000)
	good := riff(1, 1, 16, 16000, data)
	huge := bytes.Clone(good)
	binary.LittleEndian.PutUint32(huge[40:], 0xfffffff0)
	open := bytes.Clone(good)
	binary.LittleEndian.PutUint32(open[40:], 0xffffffff)
	for name, c := range map[string]struct {
		file []byte
		code abi.Code
	}{
		"as it should be":               {good, 0},
		"a length nobody knew":          {open, 0},
		"nothing":                       {nil, 70},
		"not a WAV":                     {[]byte("OggS00000000000000000000000"), 64},
		"cut":                           {good[:30], 70},
		"more promised than there":      {huge, 70},
		"mu-law":                        {riff(7, 1, 8, 16000, data), 66},
		"12 bits":                       {riff(1, 1, 12, 16000, data), 66},
		"no channels":                   {riff(1, 0, 16, 16000, data), 65},
		"a rate of zero":                {riff(1, 1, 16, 0, data), 67},
		"a rate beyond all":             {riff(1, 1, 16, 1<<31, data), 67},
		"no sample":                     {riff(1, 1, 16, 16000, nil), 69},
		"stretched beyond the limit":    {riff(1, 1, 8, 1000, make([]byte, 4000)), 68},
		"more samples than are allowed": {riff(1, 1, 8, 16000, make([]byte, 60000)), 68},
	} {
		_, err := call(t, m, engine.Of(c.file))
		var g *engine.GuestError
		if c.code == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if !errors.As(err, &g) || g.Code != c.code {
			t.Errorf("%s: %v, want code %d", name, err, c.code)
		}
	}
	var g *engine.GuestError
	inside := mel
	inside.Frames = "inside"
	if _, err := call(t, listener(t, inside, "f32", engine.Config{}), engine.Of(make([]float32, 399))); !errors.As(err, &g) || g.Code != 69 || g.A != 399 || g.B != 400 {
		t.Errorf("fewer samples than a frame: %v", err)
	}
	second := mel
	second.Channel = 2
	if _, err := call(t, listener(t, second, "u8", engine.Config{}), engine.Of(good)); !errors.As(err, &g) || g.Code != 71 {
		t.Errorf("a channel that is not there: %v", err)
	}
	if _, err := call(t, m, engine.Of(riff(1, 1, 8, 8000, make([]byte, 10)))); err != nil {
		t.Errorf("ten samples, mirrored: %v", err)
	}
	for _, bad := range []func(*steps.AudioConfig){
		func(c *steps.AudioConfig) { c.Rate = 0 }, func(c *steps.AudioConfig) { c.FFT = 399 }, func(c *steps.AudioConfig) { c.Mels = 0 },
		func(c *steps.AudioConfig) { c.FMax = 8001 }, func(c *steps.AudioConfig) { c.FMin, c.FMax = 50, 50 }, func(c *steps.AudioConfig) { c.Window = "kaiser" },
		func(c *steps.AudioConfig) { c.Layout = "t" }, func(c *steps.AudioConfig) { c.Range = 80 }, func(c *steps.AudioConfig) { c.Output = "spectrum" },
		func(c *steps.AudioConfig) { c.Output, c.Coefs = "mfcc", 21 }, func(c *steps.AudioConfig) { c.Scale = math.NaN() }, func(c *steps.AudioConfig) { c.Hop = 0 },
		func(c *steps.AudioConfig) { c.Log, c.Floor = "ln", -1 }, func(c *steps.AudioConfig) { c.Rolloff = 1.5 }, func(c *steps.AudioConfig) { c.Log, c.Reference = "ln", 2 },
	} {
		c := mel
		bad(&c)
		if _, err := steps.Audio(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// A NaN or an infinity in the sound reaches only the frames that hold it, and leaves as the canonical NaN.
func TestAudioNaN(t *testing.T) {
	x := make([]float32, 4000)
	x[1000], x[3000] = math.Float32frombits(0xffc12345), float32(math.Inf(1))
	for _, n := range []int64{128, 127, 375} {
		outs, err := call(t, listener(t, steps.AudioConfig{Rate: 16000, Output: "spectrum", Frame: n, Hop: 100, Frames: "inside", Layout: "tf", Log: "db"}, "f32", engine.Config{}), engine.Of(x))
		if err != nil {
			t.Fatal(err)
		}
		v, err := engine.Values[float32](outs[0])
		if err != nil {
			t.Fatal(err)
		}
		w := int(outs[0].Shape[1])
		for r := range int(outs[0].Shape[0]) {
			inside := func(i int) bool { return i >= r*100 && i < r*100+int(n) }
			// The window is zero at its first sample, and 0 times infinity is NaN as well.
			for _, f := range v[r*w : (r+1)*w] {
				switch {
				case inside(1000) || inside(3000):
					if math.Float32bits(f) != 0x7fc00000 && !math.IsInf(float64(f), 1) {
						t.Fatalf("n %d, frame %d has %v (%08x)", n, r, f, math.Float32bits(f))
					}
				case f != -100:
					t.Fatalf("n %d, frame %d has %v", n, r, f)
				}
			}
		}
	}
}

func hears(t testing.TB, m *engine.Model, b []byte) {
	_, err := call(t, m, engine.Of(b))
	var g *engine.GuestError
	if err != nil && !errors.As(err, &g) && !errors.Is(err, engine.ErrMemoryLimit) {
		t.Fatalf("%v\n%x", err, b)
	}
}

func FuzzAudio(f *testing.F) {
	f.Add(riff(1, 1, 16, 16000, make([]byte, 900)))
	f.Add(riff(3, 2, 64, 44100, bytes.Repeat([]byte{1, 2, 0xf0, 0x7f, 0x80}, 200)))
	f.Add(append(riff(1, 3, 24, 8001, make([]byte, 90)), "LIST\x03\x00\x00\x00abc"...))
	f.Add([]byte("RF64\xff\xff\xff\xffWAVEds64"))
	f.Add([]byte{})
	m := listener(f, steps.AudioConfig{Rate: 8000, Frame: 100, Hop: 50, Output: "mfcc", Mels: 10, Coefs: 5, Log: "db", Range: 50, Normalize: "feature", MaxSamples: 1 << 14}, "u8", engine.Config{MemoryLimit: 16 << 20})
	f.Fuzz(func(t *testing.T, b []byte) { hears(t, m, b) })
}
