package project

import (
	"reflect"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/steps"
)

const ears = minimal + `steps:
  - name: ears
    builtin: audio
    inputs: [{name: sound, type: u8, shape: [N]}]
    outputs: [{name: x, type: f32}]
    config:
`

func audioOf(lines string) (*steps.AudioConfig, error) {
	p, err := Parse("waybill.yaml", []byte(ears+"      "+strings.ReplaceAll(lines, "\n", "\n      ")+"\n"))
	if err != nil {
		return nil, err
	}
	return p.Steps[0].Audio, nil
}

func TestAudio(t *testing.T) {
	for lines, want := range map[string]steps.AudioConfig{
		"{rate: 16000, output: waveform}": {Rate: 16000, Output: "waveform"},
		`rate: 16000
source_rate: 8000
channel: 0
scale: 32768
length: 480000
max_samples: 1000000
resample: {zeros: 16, rolloff: 0.95}
preemphasis: 0.97
preemphasis_of: frame
remove_dc: true
frame: 400
hop: 160
fft: 512
window: povey
symmetric: true
align: start
frames: inside
pad: symmetric
drop_last: true
output: mfcc
power: 1
scaling: sum
mel: {count: 80, fmin: 20, fmax: 7600, scale: slaney, norm: slaney, shape: mel}
mfcc: {count: 13, norm: none, lifter: 22}
log: db
floor: 1e-7
add: 0.001
range: 80
reference: max
normalize: {of: all, variance: false, ddof: 1, epsilon: 1e-5, epsilon_of: std}
mean: -4.5
std: 4
layout: nctf`: {Rate: 16000, SourceRate: 8000, Channel: 1, Scale: 32768, Length: 480000, MaxSamples: 1000000, Zeros: 16, Rolloff: .95, PreEmphasis: .97,
			PreEmphasisFrame: true, RemoveDC: true, Frame: 400, Hop: 160, FFT: 512, Window: "povey", Symmetric: true, AlignStart: true, Frames: "inside", Pad: "symmetric", DropLast: true,
			Output: "mfcc", Power: 1, Scaling: "sum", Mels: 80, FMin: 20, FMax: 7600, MelScale: "slaney", MelArea: true, MelStraight: true, Coefs: 13, NoOrtho: true, Lifter: 22,
			Log: "db", Floor: 1e-7, Add: .001, Range: 80, RefMax: true, Normalize: "all", MeanOnly: true, DDof: 1, Epsilon: 1e-5, EpsilonStd: true, Mean: -4.5, Std: 4, Layout: "nctf"},
		"{rate: 16000, output: spectrum, frame: 400, hop: 160, log: db, reference: 0.5, normalize: {}}": {Rate: 16000, Output: "spectrum", Frame: 400, Hop: 160, Log: "db", Reference: .5, Normalize: "feature"},
	} {
		got, err := audioOf(lines)
		if err != nil {
			t.Error(err)
			continue
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("got  %+v\nwant %+v", *got, want)
		}
		if _, err := steps.Audio(*got); err != nil {
			t.Error(err)
		}
	}
	for lines, part := range map[string]string{
		"{output: waveform}":                          `11:7: config: key "rate" is missing`,
		"{rate: 16000}":                               `key "output" is missing`,
		"{rate: 16000, output: mel, frame: 400}":      `key "hop" is missing`,
		"{rate: 16000, output: wave}":                 `output is "wave"`,
		"{rate: 100, output: waveform}":               `rate is 100`,
		"{rate: 16000, output: waveform, std: 0}":     `std is 0, it must be above zero`,
		"{rate: 16000, output: waveform, channel: a}": `channel`,
		"{rate: 16000, output: waveform, mel: 80}":    `mel must be`,
		"{rate: 16000, output: waveform, hop: 0}":     `hop is 0`,
		"{rate: 16000, output: waveform, hopp: 2}":    `hopp`,
		"{rate: 16000, output: waveform, fft: 9000}":  `fft is 9000`,
	} {
		if _, err := audioOf(lines); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q", lines, err, part)
		}
	}
}
