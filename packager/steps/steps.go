// Package steps holds the built-in pre- and postprocessing steps: WebAssembly modules built by build.sh from the C
// sources in src, each given its configuration when a project is packed. A configured module is self-contained, and its bytes depend
// on the built-in and the configuration alone.
package steps

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

//go:embed topk.wasm
var topkModule []byte

// MaxK bounds how many classes TopK gives.
const MaxK = 1024

// TopK gives the k best of each row of scores: see src/topk.c. labels are the names of the classes in the model's order;
// without any, they are the keys of the maps that ZipMap gives, or numbers. outputs are the element types that the project
// declares for classes and scores: a sequence without a map tells none.
func TopK(k int64, labels []string, outputs ...string) ([]byte, error) {
	if k < 1 || k > MaxK {
		return nil, fmt.Errorf("k is %d, allowed are 1 to %d", k, MaxK)
	}
	if len(labels) > 0 && int64(len(labels)) < k {
		return nil, fmt.Errorf("k is %d, and there are %d labels", k, len(labels))
	}
	le := binary.LittleEndian
	cfg := le.AppendUint32(nil, uint32(k))
	cfg = le.AppendUint32(cfg, uint32(len(labels)))
	flags := uint32(0)
	if len(outputs) > 0 && outputs[0] == "string" {
		flags |= 1
	}
	if len(outputs) > 1 && outputs[1] == "f64" {
		flags |= 2
	}
	cfg = le.AppendUint32(cfg, flags)
	if len(labels) > 0 {
		at := 0
		cfg = le.AppendUint32(cfg, 0)
		for i, l := range labels {
			if !utf8.ValidString(l) {
				return nil, fmt.Errorf("label %d is not UTF-8", i+1)
			}
			at += len(l)
			cfg = le.AppendUint32(cfg, uint32(at))
		}
		for _, l := range labels {
			cfg = append(cfg, l...)
		}
	}
	return configure(topkModule, cfg)
}

//go:embed image.wasm
var imageModule []byte

// ImageConfig is what Image does with a picture: resized to Width x Height, each 8-bit channel v becomes (v - Mean) / Std.
type ImageConfig struct {
	Width, Height int64
	Mean, Std     [3]float64 // in units of 0 to 255, in the order of the output's channels
	ChannelsLast  bool       // [1, H, W, 3] instead of [1, 3, H, W]
	BGR           bool
	Turn          bool  // as the EXIF orientation says
	MaxPixels     int64 // of the picture in the file; 0 means 2^25
}

// MaxSide bounds the output of Image.
const MaxSide = 4096

// Image decodes a PNG or JPEG file (u8 [n]) to f32: see src/image.c.
func Image(c ImageConfig) ([]byte, error) {
	if c.Width < 1 || c.Height < 1 || c.Width > MaxSide || c.Height > MaxSide {
		return nil, fmt.Errorf("the size is %dx%d, each side must be 1 to %d", c.Width, c.Height, MaxSide)
	}
	if c.MaxPixels == 0 {
		c.MaxPixels = 1 << 25
	}
	if c.MaxPixels < 1 || c.MaxPixels > 1<<27 {
		return nil, fmt.Errorf("max_pixels is %d, allowed are 1 to %d", c.MaxPixels, 1<<27)
	}
	flags := uint32(0)
	if c.ChannelsLast {
		flags |= 1
	}
	if c.BGR {
		flags |= 2
	}
	if c.Turn {
		flags |= 4
	}
	var cfg []byte
	for _, v := range []uint32{uint32(c.Width), uint32(c.Height), flags, uint32(c.MaxPixels)} {
		cfg = binary.LittleEndian.AppendUint32(cfg, v)
	}
	var scale [3]float64
	for i, s := range c.Std {
		if !(s > 0) || math.IsInf(s, 0) || math.IsNaN(c.Mean[i]) || math.IsInf(c.Mean[i], 0) {
			return nil, fmt.Errorf("mean %v, std %v: std must be above zero, both finite", c.Mean, c.Std)
		}
		scale[i] = 1 / s
	}
	for _, v := range append(c.Mean[:], scale[:]...) {
		cfg = binary.LittleEndian.AppendUint32(cfg, math.Float32bits(float32(v)))
	}
	return configure(imageModule, cfg)
}
