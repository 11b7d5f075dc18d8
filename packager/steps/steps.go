// Package steps holds the built-in pre- and postprocessing steps: WebAssembly modules built by build.sh from the C
// sources in src, each given its configuration when a project is packed. A configured module is self-contained, and its bytes depend
// on the built-in and the configuration alone.
package steps

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

//go:embed topk.wasm
var topkModule []byte

// MaxK bounds how many classes TopK gives.
const MaxK = 1024

// TopK gives the k best of each row of scores: see src/topk.c. labels are the names of the classes in the model's order;
// without any, the classes are numbers.
func TopK(k int64, labels []string) ([]byte, error) {
	if k < 1 || k > MaxK {
		return nil, fmt.Errorf("k is %d, allowed are 1 to %d", k, MaxK)
	}
	if len(labels) > 0 && int64(len(labels)) < k {
		return nil, fmt.Errorf("k is %d, and there are %d labels", k, len(labels))
	}
	le := binary.LittleEndian
	cfg := le.AppendUint32(nil, uint32(k))
	cfg = le.AppendUint32(cfg, uint32(len(labels)))
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
