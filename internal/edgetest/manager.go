//go:build unix

package edgetest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/sdnotify"
)

// manager is the other end of sd_notify.
type manager struct {
	t    *testing.T
	Addr string
	conn *net.UnixConn
}

func NewManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, Addr: filepath.Join(SocketDir(t), "n")}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.Addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m.conn = c
	return m
}

// next is the next datagram, "" when none comes within d.
func (m *manager) next(d time.Duration) string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(buf[:n])
}

// Await reads until a datagram has the line.
func (m *manager) Await(line string) string {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if got := m.next(time.Until(deadline)); strings.Contains("\n"+got+"\n", "\n"+line+"\n") {
			return got
		}
	}
	m.t.Fatalf("%s did not come", line)
	return ""
}

// Silent reads what is there and then sees that no sign of life comes for d.
func (m *manager) Silent(d time.Duration) bool {
	for m.next(10*time.Millisecond) != "" {
	}
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		if got := m.next(time.Until(end)); strings.Contains(got, sdnotify.Watchdog) {
			return false
		}
	}
	return true
}

func (m *manager) Env(interval string) func(string) string {
	return func(k string) string {
		return map[string]string{"NOTIFY_SOCKET": m.Addr, "WATCHDOG_USEC": interval}[k]
	}
}
