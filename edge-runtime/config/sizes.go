package config

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
)

// byteSize is a number of bytes, written as a number or as "512kB", "64MiB" and the like.
type byteSize uint64

var byteUnits = []struct {
	name string
	n    float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}

// UnmarshalJSON implements json.Unmarshaler.
func (b *byteSize) UnmarshalJSON(raw []byte) error {
	text := string(raw)
	if len(raw) > 0 && raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
	}
	for _, u := range byteUnits {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || v < 0 || v*u.n > math.MaxInt64 || v*u.n != math.Trunc(v*u.n) {
			break
		}
		*b = byteSize(v * u.n)
		return nil
	}
	return diag.Errorf("%s is not a number of bytes like 1000000, \"512kB\" or \"64MiB\"", text)
}

// MarshalJSON implements json.Marshaler.
func (b byteSize) MarshalJSON() ([]byte, error) { return strconv.AppendUint(nil, uint64(b), 10), nil }
