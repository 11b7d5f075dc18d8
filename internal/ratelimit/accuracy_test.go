package ratelimit

import (
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// endless gives bytes for ever, whatever size is asked for.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Over any span the bytes that pass are those of the rate, within what unused time is made up for and one piece of each reader:
// never more, and, when there is always somebody who wants to read, never noticeably less. Readers share evenly. The clock is
// the test's.
func TestAccuracy(t *testing.T) {
	for _, c := range []struct {
		rate    int64
		readers int
	}{{1000, 1}, {1000, 3}, {512_000, 1}, {512_000, 4}, {1 << 20, 7}, {50 << 20, 2}} {
		synctest.Test(t, func(t *testing.T) {
			l := New(c.rate)
			const seconds = 60
			got := make([][seconds]int64, c.readers) // by reader and second
			start := time.Now()
			var wg sync.WaitGroup
			for i := range c.readers {
				wg.Go(func() {
					r, buf := l.Reader(t.Context(), endless{}), make([]byte, 128<<10)
					for {
						n, err := r.Read(buf)
						at := int(time.Since(start) / time.Second)
						if err != nil || at >= seconds {
							return
						}
						got[i][at] += int64(n)
					}
				})
			}
			wg.Wait()
			burst := float64(c.rate)*slack.Seconds() + float64(c.readers*l.Chunk())
			var total int64
			for s := range seconds {
				sum := int64(0)
				for i := range got {
					sum += got[i][s]
				}
				total += sum
				if float64(sum) > float64(c.rate)+burst || float64(sum) < float64(c.rate)-burst {
					t.Errorf("%d B/s, %d readers: %d bytes in second %d", c.rate, c.readers, sum, s)
				}
				if most := float64(c.rate)*float64(s+1) + burst; float64(total) > most {
					t.Errorf("%d B/s, %d readers: %d bytes in %d s, at most %.0f", c.rate, c.readers, total, s+1, most)
				}
			}
			if want := float64(c.rate) * seconds; float64(total) < want-burst || float64(total) > want+burst {
				t.Errorf("%d B/s, %d readers: %d bytes in a minute, want %.0f", c.rate, c.readers, total, want)
			}
			for i := range got {
				var own int64
				for _, n := range got[i] {
					own += n
				}
				if fair := total / int64(c.readers); own < fair*9/10 || own > fair*11/10 {
					t.Errorf("%d B/s: reader %d of %d has %d of %d bytes", c.rate, i, c.readers, own, total)
				}
			}
		})
	}
}

// A pause gives no right to a burst, and a limit that all share holds for one that has a limit of its own besides.
func TestAccuracyAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, own := New(100_000), New(20_000)
		time.Sleep(time.Hour)
		start := time.Now()
		read := func(r io.Reader, n int64) time.Duration {
			if m, err := io.CopyN(io.Discard, r, n); m != n || err != nil {
				t.Error(m, err)
			}
			return time.Since(start)
		}
		if took := read(l.Reader(t.Context(), endless{}), 1_000_000); took < 9900*time.Millisecond || took > 10*time.Second {
			t.Errorf("1 MB at 100 kB/s took %s after a pause of an hour", took)
		}
		start = time.Now()
		var wg sync.WaitGroup
		var slow, fast time.Duration
		wg.Go(func() { slow = read(Reader(t.Context(), endless{}, nil, l, own), 200_000) })
		wg.Go(func() { fast = read(l.Reader(t.Context(), endless{}), 800_000) })
		wg.Wait()
		if slow < 9900*time.Millisecond || slow > 11*time.Second {
			t.Errorf("200 kB at 20 kB/s took %s", slow)
		}
		if fast < 9800*time.Millisecond || fast > 10500*time.Millisecond { // what the slow one leaves: 80 kB/s
			t.Errorf("800 kB beside it took %s", fast)
		}
	})
}

// Everything that is read passes, in order.
func TestReaderKeepsContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := strings.Repeat("0123456789", 5000)
		b, err := io.ReadAll(New(1000).Reader(t.Context(), strings.NewReader(s)))
		if err != nil || string(b) != s {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
}
