package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// die is kill -9 of this process.
func die() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {}
}

// deadly is a runtime and a shadower that end the process for one digest.
type deadly struct {
	*fakeRuntime
	victim artifact.Digest
	at     string // load, probe, shadow
}

type deadlyModel struct {
	*fakeModel
	kill bool
}

func (d deadly) Load(ctx context.Context, b Bundle) (Model, error) {
	if b.Slot.Digest == d.victim && d.at == "load" {
		die()
	}
	m, err := d.fakeRuntime.Load(ctx, b)
	if err != nil || b.Slot.Digest != d.victim || d.at != "probe" {
		return m, err
	}
	return &deadlyModel{m.(*fakeModel), true}, nil
}

func (m *deadlyModel) Probe(context.Context, bool) (state.Proof, error) { die(); panic("unreachable") }

func (d deadly) Shadow(_, candidate Model, _ Shadow) (ShadowRun, error) {
	if d.at == "shadow" && candidate.(*fakeModel).digest == d.victim {
		die()
	}
	return &fakeShadower{results: []shadow.Result{{Compared: 200}}}, nil
}

// device of the second process: one life of the agent on the real file system below the working directory.
func oneLife(t *testing.T, at string) {
	w := newWorld(t)
	v2 := w.model("2.0 good")
	run := deadly{&fakeRuntime{}, v2.Digest, at}
	if at == "committed" || at == "alone" {
		run.at = ""
		if _, err := os.Stat("armed"); err == nil {
			run.at = "load"
		}
	}
	w.runtime, w.shadows = run, run
	if at == "alone" {
		aloneLife(w, v2)
		return
	}
	d, err := w.boot(fsx.OS{}, w.reg, func(c *Config) {
		c.Channels[0].Shadow = Shadow{Requests: 200, Duration: time.Minute, Sample: 1}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range []string{"1.0 good", "2.0 good"} {
		w.publish(w.change(w.model(v)))
		if i == 0 && d.channel().Seq > 0 {
			continue // seen in a former life
		}
		if at == "trial" && i == 1 {
			d.clock.onSleep = func() {
				if d.server.current() == v2.Digest {
					die()
				}
			}
		}
		_ = d.pollOnce()
	}
	if err := d.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("serves %s\n", d.server.seen[len(d.server.seen)-1])
}

// A model that ends the process (kill -9 of a real one, on the real file system) while it is loaded, proved, compared, on trial, or
// loaded again after it was committed: after a few restarts the old one serves, and stays.
func TestKilledAgainAndAgain(t *testing.T) {
	if at := os.Getenv("WAYBILL_AGENT_LIFE"); at != "" {
		oneLife(t, at)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	v1, v2 := w.model("1.0 good").Digest, w.model("2.0 good").Digest
	for at, most := range map[string]int{"load": 3, "probe": 3, "shadow": 3, "trial": 1, "committed": 6} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.MkdirAll(dir+"/var/lib", 0o700); err != nil {
				t.Fatal(err)
			}
			life := func() (out string, killed bool) {
				cmd := exec.Command(exe, "-test.run=^TestKilledAgainAndAgain$")
				cmd.Env, cmd.Dir = append(os.Environ(), "WAYBILL_AGENT_LIFE="+at), dir
				b, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if errors.As(err, &exit) && !exit.Exited() || err != nil && strings.TrimSpace(string(b)) == "" {
					return string(b), true
				}
				if err != nil {
					t.Fatalf("%v\n%s", err, b)
				}
				return string(b), false
			}
			if at == "committed" {
				if out, killed := life(); killed || !strings.Contains(out, "serves "+string(v2)) {
					t.Fatalf("first life: %s", out)
				}
				if err := os.WriteFile(dir+"/armed", nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			kills := 0
			for {
				out, killed := life()
				if !killed {
					if !strings.Contains(out, "serves "+string(v1)) {
						t.Fatalf("after %d kills: %s", kills, out)
					}
					break
				}
				if kills++; kills > most {
					t.Fatalf("killed %d times and no end", kills)
				}
			}
			if kills == 0 {
				t.Error("nothing was killed: the test proves nothing")
			}
			for range 2 {
				if out, killed := life(); killed || !strings.Contains(out, "serves "+string(v1)) {
					t.Errorf("it does not stay: %s", out)
				}
			}
			t.Logf("%d kills", kills)
		})
	}
}

// aloneLife is a life of a device that has nothing but v2: the first one installs it, later ones have no network.
func aloneLife(w *world, v2 channel.Target) {
	_, err := os.Stat("var/lib/waybill")
	w.reg.down = err == nil
	d, err := w.boot(fsx.OS{}, w.reg)
	if !w.reg.down {
		w.publish(w.change(v2))
		err = errors.Join(err, d.pollOnce())
	}
	fmt.Printf("serves %s, %v\n", d.server.current(), err)
}

// The only artifact of a device, whose loading is killed (kill -9) three times: what loads it then serves it, in the start, without a
// network. Killed once more it waits, and tells so.
func TestKilledWithNothingElse(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v2 := newWorld(t).model("2.0 good").Digest
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/var/lib", 0o700); err != nil {
		t.Fatal(err)
	}
	arm := func(on bool) {
		err := os.Remove(dir + "/armed")
		if on {
			err = os.WriteFile(dir+"/armed", nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	life := func(want string) {
		t.Helper()
		cmd := exec.Command(exe, "-test.run=^TestKilledAgainAndAgain$")
		cmd.Env, cmd.Dir = append(os.Environ(), "WAYBILL_AGENT_LIFE=alone"), dir
		b, err := cmd.CombinedOutput()
		if killed := err != nil && strings.TrimSpace(string(b)) == ""; killed != (want == "") || !strings.Contains(string(b), want) {
			t.Fatalf("want %q: %v\n%s", want, err, b)
		}
	}
	serves := "serves " + string(v2) + ", <nil>"
	life(serves)
	for range 2 { // what is over does not count
		arm(true)
		for range 3 {
			life("")
		}
		arm(false)
		life(serves)
	}
	arm(true)
	for range 4 {
		life("")
	}
	life("is loaded again in")
	arm(false)
	life("is loaded again in")
}

// The same for a rollback by hand whose target ends the process: it is given up, and what was current serves.
func TestKilledInRollback(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	var last artifact.Digest
	for _, v := range []string{"1.0 good", "2.0 good"} {
		target := w.model(v)
		last = target.Digest
		w.publish(w.change(target))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	crash := func(do func()) (crashed bool) {
		defer func() { crashed = recover() != nil }()
		do()
		return false
	}
	d.Agent.Runtime = crashing{}
	if !crash(func() { _, _ = d.Rollback(context.Background(), "", "") }) {
		t.Fatal("no crash")
	}
	v1 := w.model("1.0 good").Digest
	for n := 1; ; n++ {
		w.runtime = pick{&fakeRuntime{}, v1}
		var again *device
		if crash(func() { again, _ = w.boot(m, w.reg) }) {
			if n > 4 {
				t.Fatal("a boot loop")
			}
			continue
		}
		if again.server.current() != last || again.channel().Intent != nil || n < 2 {
			t.Errorf("start %d: %s serves, %+v", n, again.server.current().Short(), again.channel().Intent)
		}
		verifyJournal(t, w, m, again)
		return
	}
}

// pick panics for one digest.
type pick struct {
	*fakeRuntime
	victim artifact.Digest
}

func (p pick) Load(ctx context.Context, b Bundle) (Model, error) {
	if b.Slot.Digest == p.victim {
		panic("the process dies here")
	}
	return p.fakeRuntime.Load(ctx, b)
}

// A channel that is followed no longer gives its artifacts back and keeps its numbers; one whose model is another does too.
func TestLeftChannels(t *testing.T) {
	base, ls, edit := lines(t, 2)
	m := newDeviceFS(t)
	d := base.mustBoot(m, edit)
	for _, l := range ls {
		l.publish("1.0 good " + l.name)
		if err := d.look(l.channel); err != nil {
			t.Fatal(err)
		}
	}
	left := artifact.DigestOf([]byte("1.0 good m2"))
	if !d.blobs.Has(left, int64(len("1.0 good m2"))) {
		t.Fatal("it is not there")
	}
	only := func(c *Config) {
		edit(c)
		c.Channels = c.Channels[:1]
	}
	d = base.mustBoot(m, only)
	ls[0].publish("2.0 good m1") // its sweep takes what is left
	if err := d.look("c1"); err != nil {
		t.Fatal(err)
	}
	c2 := d.Store.Doc().Channel("c2")
	if c2.Current != nil || c2.Seq != 1 || c2.Record == "" || d.blobs.Has(left, int64(len("1.0 good m2"))) {
		t.Errorf("a channel that was left: %+v", c2)
	}
	if !strings.Contains(kinds(t, d), KindLeft) {
		t.Error("the journal does not say so")
	}
	// Followed again: the record of before is taken anew, and an older one is not.
	d = base.mustBoot(m, edit)
	if err := d.look("c2"); err != nil || d.server.serving("m2") == "" {
		t.Errorf("followed again: %v", err)
	}
	// The channel is given another model: what it had is not served under the new name.
	renamed := func(c *Config) {
		edit(c)
		c.Channels[1].Model = "m3"
	}
	d = base.mustBoot(m, renamed)
	if c := d.Store.Doc().Channel("c2"); d.server.serving("m3") != "" || c.Current != nil || c.Seq != 1 {
		t.Errorf("renamed: %+v", c)
	}
	if err := d.look("c2"); !IsRefused(err) {
		t.Errorf("a record of the other model: %v", err)
	}
	verifyJournal(t, base, m, d)
}
