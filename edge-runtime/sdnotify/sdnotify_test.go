//go:build unix

package sdnotify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func env(kv ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i+1 < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(k string) string { return m[k] }
}

func TestSend(t *testing.T) {
	dir, err := os.MkdirTemp("", "n") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	addrs := []string{filepath.Join(dir, "s")}
	if runtime.GOOS == "linux" {
		addrs = append(addrs, fmt.Sprintf("@waybill-test-%d", os.Getpid()))
	}
	for _, addr := range addrs {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(env("NOTIFY_SOCKET", addr, "WATCHDOG_USEC", "1500000", "WATCHDOG_PID", "42"), 42)
		if err != nil || n.Interval() != 1500*time.Millisecond {
			t.Fatalf("%v, %v", n, err)
		}
		if err := n.Send(Ready, Status("serving\nREADY=0"), Extend(time.Minute)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1000)
		if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		k, err := l.Read(buf)
		if got := string(buf[:k]); err != nil || got != "READY=1\nSTATUS=serving READY=0\nEXTEND_TIMEOUT_USEC=60000000" {
			t.Errorf("%s: %q, %v", addr, got, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := n.Send(Watchdog); err == nil {
			t.Errorf("%s: nobody listens, and it was sent", addr)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env      []string
		enabled  bool
		interval time.Duration
		bad      bool
	}{
		{nil, false, 0, false},
		{[]string{"WATCHDOG_USEC", "1000000"}, false, 0, false},
		{[]string{"NOTIFY_SOCKET", "/run/x"}, true, 0, false},
		{[]string{"NOTIFY_SOCKET", "@x", "WATCHDOG_USEC", "1000000"}, true, time.Second, false},
		{[]string{"NOTIFY_SOCKET", "@x", "WATCHDOG_USEC", "1000000", "WATCHDOG_PID", "7"}, true, time.Second, false},
		{[]string{"NOTIFY_SOCKET", "@x", "WATCHDOG_USEC", "1000000", "WATCHDOG_PID", "8"}, true, 0, false},
		{[]string{"NOTIFY_SOCKET", "@x", "WATCHDOG_USEC", "soon"}, true, 0, true},
		{[]string{"NOTIFY_SOCKET", "@x", "WATCHDOG_USEC", "0"}, true, 0, true},
		{[]string{"NOTIFY_SOCKET", "@x", "WATCHDOG_USEC", "99999999999999999"}, true, 0, true},
		{[]string{"NOTIFY_SOCKET", "vsock:2:1"}, false, 0, true},
		{[]string{"NOTIFY_SOCKET", "@"}, false, 0, true},
	} {
		n, err := New(env(c.env...), 7)
		if n.Enabled() != c.enabled || n.Interval() != c.interval || (err != nil) != c.bad {
			t.Errorf("%v: %+v, %v", c.env, n, err)
		}
	}
	if err := (Notifier{}).Send(Ready); err != nil {
		t.Error(err)
	}
}
