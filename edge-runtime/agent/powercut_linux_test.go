package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// goingDown is EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN and F2FS_IOC_SHUTDOWN; noLogFlush forgets the journal that was not written.
const (
	goingDown  = 0x8004587d
	noLogFlush = 2
)

// disk is a file system in a file.
type disk struct {
	t          *testing.T
	kind       string
	image, dir string
	mounted    bool
}

// newDisk makes and mounts one, or skips the test.
func newDisk(t *testing.T, kind string) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a loop mount")
	}
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skipf("needs mkfs.%s", kind)
	}
	tmp := t.TempDir()
	d := &disk{t: t, kind: kind, image: filepath.Join(tmp, "image"), dir: filepath.Join(tmp, "mnt")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.unmount)
	d.make(mkfs)
	if err := d.mount(); err != nil {
		t.Skipf("no loop mount of %s here: %v", kind, err)
	}
	d.prepare()
	if err := d.cut(); err != nil {
		t.Skipf("%s has no forced shutdown here: %v", kind, err)
	}
	d.unmount()
	d.make(mkfs)
	if err := d.mount(); err != nil {
		t.Fatal(err)
	}
	d.prepare()
	return d
}

func (d *disk) make(mkfs string) {
	d.t.Helper()
	size := map[string]int64{"xfs": 320 << 20, "f2fs": 128 << 20, "btrfs": 128 << 20}[d.kind]
	if size == 0 {
		size = 48 << 20
	}
	f, err := os.Create(d.image)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	_ = f.Close()
	force := map[string]string{"ext4": "-F", "xfs": "-f", "f2fs": "-f", "btrfs": "-f"}[d.kind]
	if out, err := exec.Command(mkfs, "-q", force, d.image).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
}

func (d *disk) prepare() {
	d.t.Helper()
	err := os.MkdirAll(filepath.Join(d.dir, "var/lib"), 0o755)
	if err != nil {
		d.t.Fatal(err)
	}
	unix.Sync()
}

func (d *disk) mount() error {
	out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	d.mounted = true
	return nil
}

func (d *disk) unmount() {
	for try := 0; d.mounted; try++ {
		out, err := exec.Command("umount", d.dir).CombinedOutput()
		if err == nil {
			d.mounted = false
		} else if try == 3000 {
			d.t.Errorf("umount: %s", out)
			return
		} else {
			time.Sleep(20 * time.Millisecond) // a process that was killed still lets go of its files
		}
	}
}

// cut ends the file system as if the power was gone: nothing more is written, the journal in memory neither.
func (d *disk) cut() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), goingDown, noLogFlush)
}

// device starts the test binary as the device on this disk.
func (d *disk) device(feed, mode string, lazy bool, ask *powerAsk) *exec.Cmd {
	d.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Dir = d.dir
	c.Env = append(os.Environ(), "WAYBILL_POWER_CHILD="+mode, "WAYBILL_POWER_FEED="+feed)
	if lazy {
		c.Env = append(c.Env, "WAYBILL_POWER_LAZY=1")
	}
	if ask != nil {
		b, err := json.Marshal(ask)
		if err != nil {
			d.t.Fatal(err)
		}
		c.Env = append(c.Env, "WAYBILL_POWER_ASK="+string(b))
	}
	return c
}

// powerCuts cuts the power cuts times at random moments and returns what was wrong afterwards, and how long restarts took, process
// start included.
func powerCuts(t *testing.T, kind string, cuts int, lazy bool) (violations []string, restarts []time.Duration, acked int) {
	d := newDisk(t, kind)
	rng := rand.New(rand.NewPCG(uint64(cuts), 5))
	f := newPowerFeed(t, 120)
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	feed := filepath.Join(t.TempDir(), "feed.json")
	if err := os.WriteFile(feed, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ask := powerAsk{Allowed: []artifact.Digest{""}}
	for n := range cuts {
		dev := d.device(feed, "update", lazy, nil)
		out, err := dev.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dev.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := dev.Start(); err != nil {
			t.Fatal(err)
		}
		lines, end := make(chan int, 1024), make(chan struct{})
		before := ask.Last.Seq
		go func() {
			powerRead(out, &ask, lines)
			close(end)
		}()
		// The moment: somewhere in the start and its recovery, or after some lines in the middle of the next thing.
		if rng.IntN(4) == 0 {
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		} else {
			for range rng.IntN(12) + 1 {
				if step, ok := <-lines; !ok || step < 0 {
					break
				}
			}
			time.Sleep(time.Duration(rng.IntN(8000)) * time.Microsecond)
		}
		if err := d.cut(); err != nil {
			t.Fatal(err)
		}
		_ = dev.Process.Kill()
		<-end
		_ = dev.Wait() // it was killed
		acked += int(max(ask.Last.Seq-before, 0))
		d.unmount()
		if err := d.mount(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		check := d.device(feed, "check", lazy, &ask)
		res, err := check.CombinedOutput()
		restarts = append(restarts, time.Since(began))
		if err != nil {
			for line := range strings.Lines(string(res)) {
				if strings.HasPrefix(line, "bad: ") {
					violations = append(violations, fmt.Sprintf("cut %d: %s", n, strings.TrimSpace(line)))
				}
			}
			if len(violations) == 0 {
				t.Fatalf("check: %v\n%s", err, res)
			}
		}
		var now powerAck
		if i := bytes.LastIndexByte(bytes.TrimSpace(res), '\n'); json.Unmarshal(res[i+1:], &now) == nil {
			now.Step = int(now.Seq)
			ask = powerAsk{Allowed: []artifact.Digest{now.Serving}, Last: now}
		}
		if lazy && len(violations) > 0 {
			return violations, restarts, acked
		}
		if err != nil || int(now.Seq) >= len(f.Tags)-3 { // the records are used up, or the state is lost: a new device
			d.unmount()
			mkfs, err := exec.LookPath("mkfs." + kind)
			if err != nil {
				t.Fatal(err)
			}
			d.make(mkfs)
			if err := d.mount(); err != nil {
				t.Fatal(err)
			}
			d.prepare()
			ask = powerAsk{Allowed: []artifact.Digest{""}}
		}
	}
	return violations, restarts, acked
}

// TestPowerCuts cuts the power of real file systems under a running agent: all that was not synced is gone. WAYBILL_POWER_CUTS is
// the number of cuts.
func TestPowerCuts(t *testing.T) {
	cuts := faultEnv(t, "WAYBILL_POWER_CUTS", 4)
	if testing.Short() {
		cuts = min(cuts, 3)
	}
	for _, kind := range []string{"ext4", "xfs", "f2fs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			violations, restarts, acked := powerCuts(t, kind, cuts, false)
			for _, v := range violations {
				t.Error(v)
			}
			slices.Sort(restarts)
			t.Logf("%s: %d power cuts, %d records acknowledged, %d violations; start of a process and recovery p50 %s, p99 %s", kind, cuts, acked, len(violations),
				restarts[len(restarts)/2].Round(time.Millisecond), restarts[len(restarts)*99/100].Round(time.Millisecond))
		})
	}
}

// TestPowerCutsCatchMissingFsync does the same to an agent whose syncs do nothing.
func TestPowerCutsCatchMissingFsync(t *testing.T) {
	violations, restarts, _ := powerCuts(t, "ext4", 40, true)
	if len(violations) == 0 {
		t.Fatal("the mutant without fsync was not caught by 40 power cuts")
	}
	t.Logf("caught by cut %d: %s", len(restarts), violations[0])
}
