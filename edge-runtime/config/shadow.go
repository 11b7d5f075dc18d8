package config

import (
	"errors"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Shadow compares a new model with the one that serves before its trial. What is not given: 200 requests within 5m, every
// one of them, bit for bit.
type Shadow struct {
	Requests     int64    `json:"requests,omitempty"`
	Duration     Duration `json:"duration,omitzero"`
	Sample       *float64 `json:"sample,omitempty"`
	MaxDifferent float64  `json:"max_different,omitempty"`
	RTol         float64  `json:"rtol,omitempty"`
	ATol         float64  `json:"atol,omitempty"`
	P99Ratio     float64  `json:"p99_ratio,omitempty"`
}

func (s *Shadow) check() error {
	if s == nil {
		return nil
	}
	if s.Requests == 0 {
		s.Requests = 200
	}
	if s.Duration == 0 {
		s.Duration = Duration(5 * time.Minute)
	}
	if s.Sample == nil {
		all := 1.0
		s.Sample = &all
	}
	switch {
	case s.Requests < 0:
		return errors.New("requests is negative")
	case !(*s.Sample > 0 && *s.Sample <= 1):
		return diag.Errorf("sample: %v is not above 0 and at most 1", *s.Sample)
	case !(s.MaxDifferent >= 0 && s.MaxDifferent <= 1):
		return diag.Errorf("max_different: %v is not between 0 and 1", s.MaxDifferent)
	case !(s.RTol >= 0 && s.ATol >= 0 && s.P99Ratio >= 0):
		return errors.New("rtol, atol or p99_ratio is negative")
	}
	return nil
}
