package main

import (
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/once"
)

// The released program with a small model holds at most 16 MB, once it has served a while.
func TestResidentMemory(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("links the program")
	}
	exe, err := stripped()
	if err != nil {
		t.Fatal(err)
	}
	const most = 16_000_000 / 1024
	s := committed(t, "v1", "X")
	_, err = s.run(exe, func(pid int, addr string) {
		low := 1 << 30
		for end := time.Now().Add(2 * time.Minute); low > most && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			for range 20 {
				if err := s.ask(addr); err != nil {
					t.Error(err)
					return
				}
			}
			kb, err := vmRSS(pid)
			if err != nil {
				t.Error(err)
				return
			}
			low = min(low, kb)
		}
		t.Logf("resident: %d kB", low)
		if low > most {
			t.Errorf("resident: %d kB, the budget is %d", low, most)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
