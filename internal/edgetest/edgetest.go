// Package edgetest is for tests of the device's program and its parts: a publisher with a registry, models, a service manager.
package edgetest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Eventually waits until ok, for what happens beside the command that caused it.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in a minute it did not happen that %s", what)
		}
	}
}

func Slot(version string, fill byte, since time.Time) *state.Slot {
	return &state.Slot{Digest: artifact.Digest("sha256:" + strings.Repeat(string(fill)+"b", 32)), Version: version, Name: "m", Since: since, Committed: since}
}

// TwoChannels is a device like that of the documentation.
func TwoChannels() agent.Status {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	roll := time.Date(2026, 11, 19, 14, 2, 0, 0, time.UTC)
	s := agent.Status{At: at, Running: true, AgentState: "running", Trust: 7, ClockOK: true, Journal: journal.Head{Entries: 1204}, JournalState: "verified", Free: 212e6}
	prod := agent.ChannelStatus{
		Channel: "prod", Model: "churn", State: agent.StateCommitted, Current: Slot("2.0", '9', at.Add(-76*time.Hour)), Previous: Slot("1.4", '7', at), Seq: 41,
		Health:       &agent.Stats{Requests: 1_200_000, P99: 400 * time.Microsecond},
		LastRollback: &state.Note{At: roll, From: Slot("", 'e', at).Digest, To: Slot("", '9', at).Digest, Reason: "latency budget: p99 41ms over 5ms in 300 requests"},
	}
	prod.Serving = prod.Current.Digest
	vision := agent.ChannelStatus{
		Channel: "vision", Model: "ppe", State: string(state.Trial), Current: Slot("3.0", '7', at), Candidate: Slot("3.1", 'c', at.Add(-12*time.Second)), TrialEnds: at.Add(48 * time.Second),
		Health: &agent.Stats{Requests: 318, P99: 6100 * time.Microsecond},
	}
	vision.Serving = vision.Candidate.Digest
	s.Channels = []agent.ChannelStatus{prod, vision}
	return s
}

// SocketDir is a directory whose path is short enough for a socket.
func SocketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// CheckMetrics has promtool check an exposition.
func CheckMetrics(t *testing.T, text string) {
	t.Helper()
	cmd := exec.Command(Tool(t, "promtool"), "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// Tool finds a program that a test needs; without it the test is skipped, or fails where all tools must be there.
func Tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("WAYBILL_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is needed: %v", name, err)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}
