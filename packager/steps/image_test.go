package steps_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/color/palette"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/steps"
)

func decoder(t testing.TB, c steps.ImageConfig) *engine.Model {
	t.Helper()
	if c.Std[0] == 0 {
		c.Std = [3]float64{1, 1, 1}
	}
	code, err := steps.Image(c)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, engine.Config{Poison: true, MemoryLimit: 64 << 20}, code, []artifact.Port{port("file", "u8")}, []artifact.Port{port("x", "f32")})
}

// compare decodes file at its own size and holds it against want, channel by channel.
func compare(t *testing.T, name string, file []byte, want image.Image, tol float64) {
	t.Helper()
	w, h := want.Bounds().Dx(), want.Bounds().Dy()
	m := decoder(t, steps.ImageConfig{Width: int64(w), Height: int64(h), ChannelsLast: true, Turn: true})
	outs, err := call(t, m, engine.Of(file))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	got, err := engine.Values[float32](outs[0])
	if err != nil {
		t.Fatal(err)
	}
	for y := range h {
		for x := range w {
			c := color.NRGBAModel.Convert(want.At(x, y)).(color.NRGBA)
			for i, v := range []uint8{c.R, c.G, c.B} {
				if g := float64(got[(y*w+x)*3+i]); math.Abs(g-float64(v)) > tol {
					t.Errorf("%s: channel %d at %d,%d is %v, want %d", name, i, x, y, g, v)
					return
				}
			}
		}
	}
}

func fill(m interface{ Set(x, y int, c color.Color) }, w, h int) {
	r := rand.New(rand.NewPCG(3, 4))
	for y := range h {
		for x := range w {
			m.Set(x, y, color.NRGBA{uint8(x*9 + r.IntN(8)), uint8(y * 11), uint8(x * y), 255})
		}
	}
}

func encode(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// interlaced writes m as an Adam7 PNG of 8-bit RGB.
func interlaced(m image.Image) []byte {
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	var raw bytes.Buffer
	z := zlib.NewWriter(&raw)
	for _, p := range [][4]int{{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}} {
		for y := p[1]; y < h && p[0] < w; y += p[3] {
			_, _ = z.Write([]byte{0})
			for x := p[0]; x < w; x += p[2] {
				c := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
				_, _ = z.Write([]byte{c.R, c.G, c.B})
			}
		}
	}
	_ = z.Close()
	out := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(name string, b []byte) {
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		body := append([]byte(name), b...)
		out = binary.BigEndian.AppendUint32(append(out, body...), crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(w)), uint32(h))
	chunk("IHDR", append(head, 8, 2, 0, 0, 1))
	for b := raw.Bytes(); len(b) > 0; { // in many pieces
		n := min(len(b), 97)
		chunk("IDAT", b[:n])
		b = b[n:]
	}
	chunk("IEND", nil)
	return out
}

func TestImagePNG(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {7, 5}, {40, 33}} {
		r := image.Rect(0, 0, size[0], size[1])
		for name, m := range map[string]interface {
			image.Image
			Set(x, y int, c color.Color)
		}{
			"RGB": image.NewRGBA(r), "16 bits": image.NewRGBA64(r), "grey": image.NewGray(r), "16 grey": image.NewGray16(r),
			"palette": image.NewPaletted(r, palette.WebSafe), "4 bits": image.NewPaletted(r, palette.WebSafe[:13]), "1 bit": image.NewPaletted(r, palette.WebSafe[:2]),
		} {
			fill(m, size[0], size[1])
			// 16-bit samples keep their high byte; Go's model rounds down too.
			compare(t, name, encode(t, m), m, 0)
		}
		m := image.NewRGBA(r)
		fill(m, size[0], size[1])
		compare(t, "interlaced", interlaced(m), m, 0)
	}
	m := image.NewNRGBA(image.Rect(0, 0, 3, 2))
	fill(m, 3, 2)
	m.Set(1, 1, color.NRGBA{10, 20, 30, 40}) // alpha is dropped
	compare(t, "alpha", encode(t, m), m, 0)
}

// testdata/jpeg has pictures and what libjpeg-turbo makes of them: see testdata/image.py. The samples are the same.
func TestImageJPEG(t *testing.T) {
	files, err := filepath.Glob("testdata/jpeg/*.jpg")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		r, err := os.ReadFile(strings.TrimSuffix(f, ".jpg") + ".png")
		if err != nil {
			t.Fatal(err)
		}
		want, err := png.Decode(bytes.NewReader(r))
		if err != nil {
			t.Fatal(err)
		}
		compare(t, f, b, want, 0)
	}
}

// Without orientation: exif a picture stays as it is stored; EXIF in a PNG counts too.
func TestImageOrientation(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 5, 3))
	fill(m, 5, 3)
	plain := encode(t, m)
	chunk := func(body string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(body)-4))
		b = binary.BigEndian.AppendUint32(append(b, body...), crc32.ChecksumIEEE([]byte(body)))
		return append(append(bytes.Clone(plain[:33]), b...), plain[33:]...)
	}
	six := image.NewRGBA(image.Rect(0, 0, 3, 5)) // a quarter turn clockwise
	for y := range 3 {
		for x := range 5 {
			six.Set(2-y, x, m.At(x, y))
		}
	}
	little := "eXIfII*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
	big := "eXIfMM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
	compare(t, "little-endian", chunk(little), six, 0)
	compare(t, "big-endian", chunk(big), six, 0)
	for name, b := range map[string][]byte{
		"cut": chunk(little[:20]), "directory outside": chunk("eXIfII*\x00\xff\xff\xff\xff\x01\x00\x12\x01\x03\x00\x01"), "orientation 9": chunk(strings.Replace(little, "\x06", "\x09", 1)),
	} {
		compare(t, name, b, m, 0)
	}
	outs, err := call(t, decoder(t, steps.ImageConfig{Width: 5, Height: 3}), engine.Of(chunk(little)))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := call(t, decoder(t, steps.ImageConfig{Width: 5, Height: 3}), engine.Of(plain)); err != nil || !engine.Equal(outs[0], again[0]) {
		t.Errorf("a picture was turned unasked: %v", err)
	}
}

// Resizing is bilinear with pixel centres at halves; then normalising and the layout.
func TestImageResize(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 13, 9))
	fill(m, 13, 9)
	c := steps.ImageConfig{Width: 6, Height: 17, Mean: [3]float64{10, 20, 30}, Std: [3]float64{2, 4, 8}, BGR: true}
	outs, err := call(t, decoder(t, c), engine.Of(encode(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := engine.Values[float32](outs[0])
	if err != nil || len(got) != 3*6*17 || outs[0].Shape[1] != 3 {
		t.Fatal(outs[0].Shape, err)
	}
	at := func(x, y, ch int) float64 {
		p := m.RGBAAt(min(x, 12), min(y, 8))
		return float64([]uint8{p.B, p.G, p.R}[ch])
	}
	for ch := range 3 {
		for y := range 17 {
			for x := range 6 {
				sx, sy := max((float64(x)+.5)*13/6-.5, 0), max((float64(y)+.5)*9/17-.5, 0)
				x0, y0 := int(sx), int(sy)
				fx, fy := sx-float64(x0), sy-float64(y0)
				v := (at(x0, y0, ch)*(1-fx)+at(x0+1, y0, ch)*fx)*(1-fy) + (at(x0, y0+1, ch)*(1-fx)+at(x0+1, y0+1, ch)*fx)*fy
				v = (v - c.Mean[ch]) / c.Std[ch]
				if g := float64(got[(ch*17+y)*6+x]); math.Abs(g-v) > 1e-3 {
					t.Fatalf("channel %d at %d,%d: %v, want %v", ch, x, y, g, v)
				}
			}
		}
	}
}

func seeds(t testing.TB) [][]byte {
	m := image.NewRGBA(image.Rect(0, 0, 19, 11))
	fill(m, 19, 11)
	g := image.NewPaletted(m.Rect, palette.WebSafe[:13])
	fill(g, 19, 11)
	out := [][]byte{encode(t, m), encode(t, g), interlaced(m), nil, {0x89, 'P'}, {0xff, 0xd8}}
	files, _ := filepath.Glob("testdata/jpeg/*.jpg")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// decodes runs a file through m: an answer, the step's own error or the memory limit, never a trap.
func decodes(t testing.TB, m *engine.Model, b []byte) {
	_, err := call(t, m, engine.Of(b))
	var g *engine.GuestError
	if err != nil && !errors.As(err, &g) && !errors.Is(err, engine.ErrMemoryLimit) {
		t.Fatalf("%v\n%x", err, b)
	}
}

func TestImageDamaged(t *testing.T) {
	once.Skip(t)
	m := decoder(t, steps.ImageConfig{Width: 4, Height: 4, MaxPixels: 1 << 16})
	r := rand.New(rand.NewPCG(5, 6))
	for _, s := range seeds(t) {
		for i := 0; i < len(s); i += 1 + len(s)/200 {
			decodes(t, m, s[:i])
		}
		for range 400 {
			b := bytes.Clone(s)
			for k := 0; k <= r.IntN(4) && len(b) > 0; k++ {
				b[r.IntN(len(b))] = byte(r.IntN(256))
			}
			decodes(t, m, b)
		}
	}
	huge := encode(t, image.NewGray(image.Rect(0, 0, 2000, 2000))) // compressed to little
	var g *engine.GuestError
	if _, err := call(t, m, engine.Of(huge)); !errors.As(err, &g) || g.Code != 68 {
		t.Errorf("a picture above max_pixels: %v", err)
	}
}

func FuzzImage(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	m := decoder(f, steps.ImageConfig{Width: 4, Height: 4, MaxPixels: 1 << 16})
	f.Fuzz(func(t *testing.T, b []byte) { decodes(t, m, b) })
}
