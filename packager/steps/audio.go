package steps

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"math"
)

//go:embed audio.wasm
var audioModule []byte

// AudioConfig is what Audio makes of a sound. The zero value of each setting is its default; docs/steps.md tells what each does.
type AudioConfig struct {
	Rate       int64 // samples a second that the features are made from; needed
	SourceRate int64 // of raw samples; 0: Rate. A WAV file says its own
	Channel    int64 // 0: the mean of all; else this one, counted from 1
	Scale      float64
	Length     int64 // samples after resampling, cut or filled with zeros; 0: as they come
	MaxSamples int64
	Zeros      int64   // of the resampling filter on each side; 0: 6
	Rolloff    float64 // of the lower rate's band; 0: 0.99

	PreEmphasis      float64
	PreEmphasisFrame bool // each frame for itself, else the whole signal
	RemoveDC         bool
	Frame, Hop, FFT  int64 // samples; FFT 0: Frame
	Window           string
	Symmetric        bool
	AlignStart       bool
	Frames, Pad      string
	DropLast         bool

	Output      string
	Power       int64
	Scaling     string
	Mels        int64
	FMin, FMax  float64
	MelScale    string
	MelArea     bool // norm slaney
	MelStraight bool // shape mel: triangles are straight on the mel axis
	Coefs       int64
	NoOrtho     bool
	Lifter      float64

	Log        string
	Floor      float64 // 0: 1e-10
	Add        float64
	Range      float64
	Reference  float64 // of db; 0: 1
	RefMax     bool
	Normalize  string // "", "feature" or "all"
	MeanOnly   bool
	DDof       int64
	Epsilon    float64
	EpsilonStd bool // added to the standard deviation, else to the variance
	Mean, Std  float64
	Layout     string
}

// The names of settings, in the order of src/audio.c's numbers; the first one is the default, where it has one.
var (
	audioWindows = [...]string{"rect", "hann", "hamming", "povey", "blackman"}
	audioFrames  = [...]string{"inside", "center", "kaldi"}
	audioPads    = [...]string{"zero", "reflect", "symmetric", "edge"}
	audioOutputs = [...]string{"waveform", "complex", "spectrum", "mel", "mfcc"}
	audioScaling = [...]string{"none", "energy", "sum"}
	audioLogs    = [...]string{"none", "ln", "log10", "db"}
	audioLayouts = [...]string{"ft", "nft", "ncft", "tf", "ntf", "nctf"}
	audioWaves   = [...]string{"t", "nt", "nct"}
)

// AudioChoices returns the allowed values of a setting that is one of a few names.
func AudioChoices(key string) []string {
	switch key {
	case "window":
		return audioWindows[:]
	case "frames":
		return audioFrames[:]
	case "pad":
		return audioPads[:]
	case "output":
		return audioOutputs[:]
	case "scaling":
		return audioScaling[:]
	case "log":
		return audioLogs[:]
	case "layout":
		return append(audioLayouts[:], audioWaves[:]...)
	}
	return nil
}

// Limits of Audio.
const (
	MaxFFT     = 8192
	MaxMels    = 1024
	MaxCoefs   = 256
	MaxSamples = 1 << 26
	MinRate    = 1000
	MaxRate    = 768000
)

const (
	audioSymmetric = 1 << iota
	audioStart
	audioDrop
	audioDC
	audioEmphFrame
	audioSlaney
	audioNorm
	audioInMel
	audioRefMax
	audioRange
	audioOrtho
	audioNormalize
	audioAll
	audioVariance
	audioEpsStd
	audioLast
)

// Audio turns a WAV file (u8 [n]) or samples (f32 or i16, [n] or [channels, n]) into features: see src/audio.c.
func Audio(c AudioConfig) ([]byte, error) {
	u, flags, err := c.numbers()
	if err != nil {
		return nil, err
	}
	cfg := binary.LittleEndian.AppendUint32(nil, flags)
	for _, v := range u {
		cfg = binary.LittleEndian.AppendUint32(cfg, uint32(v))
	}
	for _, v := range []float64{c.Scale, c.PreEmphasis, c.Rolloff, c.FMin, c.FMax, c.Floor, c.Add, c.Range, c.Reference, c.Lifter, c.Epsilon, c.Mean, c.Std} {
		cfg = binary.LittleEndian.AppendUint64(cfg, math.Float64bits(v))
	}
	return configure(audioModule, cfg)
}

// numbers fills in the defaults, checks the settings against each other and returns the integers of the module's
// configuration. It leaves the inverse in Std.
func (c *AudioConfig) numbers() (u []int64, flags uint32, err error) {
	var output, window, frames, pad, scaling, log int
	pick := func(key, value, standard string, to *int) {
		if value == "" {
			value = standard
		}
		names := AudioChoices(key)
		for i, n := range names {
			if n == value {
				*to = i
				return
			}
		}
		if err == nil {
			err = fmt.Errorf("%s is %q, allowed are %q", key, value, names)
		}
	}
	within := func(key string, v *int64, standard, low, high int64) {
		if *v == 0 {
			*v = standard
		}
		if err == nil && (*v < low || *v > high) {
			err = fmt.Errorf("%s is %d, allowed are %d to %d", key, *v, low, high)
		}
	}
	pick("output", c.Output, "mel", &output)
	pick("window", c.Window, "hann", &window)
	pick("frames", c.Frames, "center", &frames)
	pick("pad", c.Pad, "reflect", &pad)
	pick("scaling", c.Scaling, "none", &scaling)
	pick("log", c.Log, "none", &log)
	within("rate", &c.Rate, 0, MinRate, MaxRate)
	within("source_rate", &c.SourceRate, c.Rate, MinRate, MaxRate)
	within("channel", &c.Channel, 0, 0, 65535)
	within("max_samples", &c.MaxSamples, 1<<24, 1, MaxSamples)
	within("length", &c.Length, 0, 0, MaxSamples)
	within("resample.zeros", &c.Zeros, 6, 1, 64)
	fallback(&c.Rolloff, .99)
	fallback(&c.Scale, 1)
	fallback(&c.Floor, 1e-10)
	fallback(&c.Reference, 1)
	fallback(&c.Std, 1)
	wave := output == 0
	if wave {
		c.Frame, c.Hop, c.FFT = 1, 1, 1
	}
	within("frame", &c.Frame, 0, 1, MaxFFT)
	within("hop", &c.Hop, 0, 1, MaxSamples)
	within("fft", &c.FFT, c.Frame, c.Frame, MaxFFT)
	within("power", &c.Power, 2, 1, 2)
	within("normalize.ddof", &c.DDof, 0, 0, 1)
	if output >= 3 {
		within("mel.count", &c.Mels, 0, 1, MaxMels)
	}
	if output == 4 {
		within("mfcc.count", &c.Coefs, 0, 1, min(c.Mels, MaxCoefs))
	}
	fallback(&c.FMax, float64(c.Rate)/2)
	for _, v := range []float64{c.Scale, c.PreEmphasis, c.Rolloff, c.FMin, c.FMax, c.Floor, c.Add, c.Range, c.Reference, c.Lifter, c.Epsilon, c.Mean, c.Std} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, 0, fmt.Errorf("a setting is %v", v)
		}
	}
	switch {
	case err != nil:
	case c.Rolloff <= 0 || c.Rolloff > 1:
		err = fmt.Errorf("resample.rolloff is %v, it must be above 0 and at most 1", c.Rolloff)
	case output >= 3 && !(0 <= c.FMin && c.FMin < c.FMax && c.FMax <= float64(c.Rate)/2):
		err = fmt.Errorf("mel filters from %v to %v Hz: they must lie between 0 and half the rate, %v", c.FMin, c.FMax, float64(c.Rate)/2)
	case c.MelScale != "" && c.MelScale != "htk" && c.MelScale != "slaney":
		err = fmt.Errorf("mel.scale is %q, allowed are htk and slaney", c.MelScale)
	case output >= 3 && c.Mels == 0, output < 3 && c.Mels != 0:
		err = fmt.Errorf("mel goes with output mel and mfcc")
	case output != 4 && c.Coefs != 0:
		err = fmt.Errorf("mfcc goes with output mfcc")
	case output < 2 && log != 0:
		err = fmt.Errorf("log goes with output spectrum, mel and mfcc")
	case log == 0 && (c.Range != 0 || c.RefMax || c.Reference != 1 || c.Add != 0):
		err = fmt.Errorf("range, reference and add go with log")
	case log != 3 && c.Reference != 1:
		err = fmt.Errorf("a reference other than max goes with log: db")
	case c.Floor < math.SmallestNonzeroFloat32 && log != 0:
		err = fmt.Errorf("floor is %v, it must be above zero", c.Floor)
	case c.Range < 0 || c.Lifter < 0 || c.Epsilon < 0 || c.Add < 0:
		err = fmt.Errorf("range, lifter, epsilon and add must not be below zero")
	case c.Reference <= 0 || c.Std <= 0:
		err = fmt.Errorf("reference and std must be above zero")
	case wave && (c.PreEmphasisFrame || c.RemoveDC || c.DropLast):
		err = fmt.Errorf("settings of frames, and output waveform has none")
	case c.Normalize != "" && c.Normalize != "feature" && c.Normalize != "all":
		err = fmt.Errorf("normalize.of is %q, allowed are feature and all", c.Normalize)
	}
	if err != nil {
		return nil, 0, err
	}
	axes, last, err := c.axes(wave)
	if err != nil {
		return nil, 0, err
	}
	for _, f := range []struct {
		set bool
		bit uint32
	}{
		{c.Symmetric, audioSymmetric}, {c.AlignStart, audioStart}, {c.DropLast, audioDrop}, {c.RemoveDC, audioDC}, {c.PreEmphasisFrame, audioEmphFrame},
		{c.MelScale == "slaney", audioSlaney}, {c.MelArea, audioNorm}, {c.MelStraight, audioInMel}, {c.RefMax, audioRefMax}, {c.Range > 0, audioRange},
		{!c.NoOrtho, audioOrtho}, {c.Normalize != "", audioNormalize}, {c.Normalize == "all", audioAll}, {!c.MeanOnly, audioVariance}, {c.EpsilonStd, audioEpsStd}, {last, audioLast},
	} {
		if f.set {
			flags |= f.bit
		}
	}
	c.Std = 1 / c.Std
	return []int64{c.Rate, c.SourceRate, c.MaxSamples, c.Length, c.Frame, c.Hop, c.FFT, int64(window), int64(frames), int64(pad), int64(output), c.Power,
		int64(scaling), c.Mels, c.Coefs, int64(log), int64(axes), c.Zeros, c.DDof, c.Channel - 1, 0}, flags, nil
}

// axes tells how many axes of 1 stand in front of the features, and whether the features, not time, vary fastest.
func (c *AudioConfig) axes(wave bool) (int, bool, error) {
	names := audioLayouts[:]
	value := c.Layout
	if wave {
		names = audioWaves[:]
	}
	if value == "" {
		value = names[1]
	}
	for i, n := range names {
		if n == value {
			return i % 3, i >= 3, nil
		}
	}
	return 0, false, fmt.Errorf("layout is %q, allowed with this output are %q", value, names)
}

func fallback(v *float64, standard float64) {
	if *v == 0 {
		*v = standard
	}
}
