package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/sense"
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
	return fmt.Errorf("%s is not a number of bytes like 1000000, \"512kB\" or \"64MiB\"", text)
}

// MarshalJSON implements json.Marshaler.
func (b byteSize) MarshalJSON() ([]byte, error) { return strconv.AppendUint(nil, uint64(b), 10), nil }

// shadowConfig compares a new model with the one that serves before its trial. What is not given: 200 requests within 5m, every
// one of them, bit for bit.
type shadowConfig struct {
	Requests     int64    `json:"requests,omitempty"`
	Duration     duration `json:"duration,omitzero"`
	Sample       *float64 `json:"sample,omitempty"`
	MaxDifferent float64  `json:"max_different,omitempty"`
	RTol         float64  `json:"rtol,omitempty"`
	ATol         float64  `json:"atol,omitempty"`
	P99Ratio     float64  `json:"p99_ratio,omitempty"`
}

func (s *shadowConfig) check() error {
	if s == nil {
		return nil
	}
	if s.Requests == 0 {
		s.Requests = 200
	}
	if s.Duration == 0 {
		s.Duration = duration(5 * time.Minute)
	}
	if s.Sample == nil {
		all := 1.0
		s.Sample = &all
	}
	switch {
	case s.Requests < 0:
		return errors.New("requests is negative")
	case !(*s.Sample > 0 && *s.Sample <= 1):
		return fmt.Errorf("sample: %v is not above 0 and at most 1", *s.Sample)
	case !(s.MaxDifferent >= 0 && s.MaxDifferent <= 1):
		return fmt.Errorf("max_different: %v is not between 0 and 1", s.MaxDifferent)
	case !(s.RTol >= 0 && s.ATol >= 0 && s.P99Ratio >= 0):
		return errors.New("rtol, atol or p99_ratio is negative")
	}
	return nil
}

func (s *shadowConfig) shadow() agent.Shadow {
	if s == nil {
		return agent.Shadow{}
	}
	return agent.Shadow{
		Requests: s.Requests, Duration: time.Duration(s.Duration), Sample: *s.Sample, MaxDifferent: s.MaxDifferent,
		RTol: s.RTol, ATol: s.ATol, P99Ratio: s.P99Ratio,
	}
}

// freeMemory is the memory that the system says a new model could have.
func freeMemory() (free uint64, known bool) {
	m := sense.Source{Root: os.DirFS("/")}.Memory()
	if !m.Known {
		return 0, false
	}
	return uint64(*m.FreeBytes), true
}
