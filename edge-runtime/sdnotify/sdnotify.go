// Package sdnotify tells the service manager how the process is: the protocol of sd_notify(3), which is one datagram of
// lines to a unix socket. Without a manager that asks for it everything here does nothing.
package sdnotify

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// States that the manager knows.
const (
	Ready     = "READY=1"
	Reloading = "RELOADING=1" // see Reload
	Stopping  = "STOPPING=1"
	Watchdog  = "WATCHDOG=1"
)

// Status is a line for people, as systemctl status shows it.
func Status(text string) string { return "STATUS=" + oneLine(text) }

// Extend asks for d more to start or to stop.
func Extend(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds())
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// Notifier sends to one manager. The zero value sends nothing. Safe for concurrent use.
type Notifier struct {
	addr     string
	watchdog time.Duration
}

// New reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID through getenv; pid is that of this process, for which the watchdog
// must be meant. A value that cannot be used is an error, and the Notifier then sends nothing.
func New(getenv func(string) string, pid int) (Notifier, error) {
	n := Notifier{addr: getenv("NOTIFY_SOCKET")}
	switch {
	case n.addr == "":
		return Notifier{}, nil
	case len(n.addr) < 2 || n.addr[0] != '/' && n.addr[0] != '@':
		return Notifier{}, fmt.Errorf("NOTIFY_SOCKET is %q: only paths and abstract unix sockets (@...) are known", n.addr)
	}
	usec := getenv("WATCHDOG_USEC")
	if usec == "" {
		return n, nil
	}
	if p := getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(pid) {
		return n, nil // another process is watched
	}
	v, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || v <= 0 || v > int64(1000*time.Hour/time.Microsecond) {
		return n, fmt.Errorf("WATCHDOG_USEC is %q, no number of microseconds", usec)
	}
	n.watchdog = time.Duration(v) * time.Microsecond
	return n, nil
}

// Enabled tells whether there is a manager to tell.
func (n Notifier) Enabled() bool { return n.addr != "" }

// Interval is the time after which the manager takes a process that sent no Watchdog for dead; 0: it does not watch.
func (n Notifier) Interval() time.Duration { return n.watchdog }

// Send sends lines in one datagram.
func (n Notifier) Send(lines ...string) error {
	if n.addr == "" {
		return nil
	}
	// The net package takes a leading @ for an abstract address itself.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.addr, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer c.Close()
	err = c.SetWriteDeadline(time.Now().Add(time.Second)) // a manager that hangs must not hang us
	if err == nil {
		_, err = c.Write([]byte(strings.Join(lines, "\n")))
	}
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
