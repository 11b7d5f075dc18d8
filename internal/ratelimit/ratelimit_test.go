package ratelimit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1": 1, "500": 500, "10K": 10 << 10, "10k": 10 << 10, "1.5M": 3 << 19, "2G": 2 << 30, " 7M ": 7 << 20} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "M", "-1", "1T", "NaN", "Inf", "1e300", "10 MB", "0.5", "0x10", "1_0K x"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "10M", "1.5G", "-3", "1e9", "NaN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := Parse(s); err == nil && (v < 0 || v > 1<<50) {
			t.Fatalf("Parse(%q) = %d", s, v)
		}
	})
}

// The limiter never lets more through than its rate allows; how much longer it takes is the machine's business.
func TestLimiterIsShared(t *testing.T) {
	const rate, readers, each = 1 << 20, 4, 64 << 10
	l := New(rate)
	start := time.Now()
	var wg sync.WaitGroup
	for range readers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if n, err := io.Copy(io.Discard, l.Reader(t.Context(), bytes.NewReader(make([]byte, each)))); n != each || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		}()
	}
	wg.Wait()
	least := time.Duration(float64(readers*each)/rate*float64(time.Second)) - slack
	if took := time.Since(start); took < least {
		t.Errorf("%d bytes took %v, the rate demands %v at least", readers*each, took, least)
	}
}

func TestLimiterNil(t *testing.T) {
	l := New(0)
	if l != nil {
		t.Fatal("0 is no limit")
	}
	r := strings.NewReader("abc")
	if l.Reader(t.Context(), r) != io.Reader(r) {
		t.Error("no limit should not wrap")
	}
	if err := l.Wait(t.Context(), 1<<30); err != nil {
		t.Error(err)
	}
}

func TestLimiterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(1).Wait(ctx, 1<<20); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
