//go:build unix

package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/sdnotify"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// A real agent under a manager: it is ready once it serves, gives signs of life, is killed when it hangs, and its successor serves the
// same model.
func TestServiceManager(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1 := p.Pack("v1")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(50 * time.Millisecond), MinRequests: 1000})
	m := edgetest.NewManager(t)
	t.Setenv("NOTIFY_SOCKET", m.Addr)
	t.Setenv("WATCHDOG_USEC", "3000000")
	d.start()
	if got := m.Await(sdnotify.Ready); !strings.Contains(got, "STATUS=serving on ") {
		t.Errorf("ready: %q", got)
	}
	m.Await(sdnotify.Watchdog)
	p.Publish(p.Change(v1))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.Await(sdnotify.Watchdog)
	if out, err := d.do("status", "--output", "json"); err != nil || !strings.Contains(out, `"watchdogSeconds": 3`) {
		t.Errorf("%v\n%s", err, out)
	}
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.Await(sdnotify.Reloading)
	m.Await(sdnotify.Ready)
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !m.Silent(3 * time.Second) {
		t.Error("a stopped process gave a sign of life")
	}
	d.kill() // as the manager does
	d.start()
	m.Await(sdnotify.Ready)
	m.Await(sdnotify.Watchdog)
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("the successor answers with %s, %v", got, err)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	m.Await(sdnotify.Stopping)
}
