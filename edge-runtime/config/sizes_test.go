package config

import (
	"encoding/json"
	"testing"
)

func TestByteSize(t *testing.T) {
	for text, want := range map[string]uint64{`0`: 0, `17`: 17, `"17"`: 17, `"512kB"`: 512000, `"1.5MiB"`: 3 << 19, `"2 GB"`: 2e9, `"9B"`: 9} {
		var b byteSize
		if err := json.Unmarshal([]byte(text), &b); err != nil || uint64(b) != want {
			t.Errorf("%s: %d, %v", text, b, err)
		}
	}
	for _, text := range []string{`-1`, `"12parsec"`, `"kB"`, `0.5`, `1e30`, `"1e30GB"`, `""`, `[]`, `null1`, `"NaN"`, `"Inf"`, `"0x10"`} {
		var b byteSize
		if err := json.Unmarshal([]byte(text), &b); err == nil {
			t.Errorf("%s is %d", text, b)
		}
	}
}
