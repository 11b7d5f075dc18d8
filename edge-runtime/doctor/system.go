package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/owner"
	"github.com/waybill-ml/waybill/internal/ui"
)

// DiskFacts are those of the file system that holds the state.
type DiskFacts struct {
	Kind           string // its type, "" when not known
	ReadOnly       bool
	Free, Total    uint64 // bytes
	Inodes         uint64 // free; total 0: the file system does not count them
	InodesTotal    uint64
	VolatileMemory bool // it is gone after a restart
	Network        bool
	NoLocks        bool // FAT and its like: neither modes nor atomic renames can be relied on
}

// LimitFacts are those of a process.
type LimitFacts struct {
	Descriptors uint64 // 0: not known
	Memory      uint64 // bytes it may use, by its control groups and its limits; 0: no limit known
	MemoryBy    string // what sets that
	unit        string // systemd unit, "" when none
}

// System is what the checks ask of the machine: a seam for tests.
type System struct {
	Disk   func(dir string) (DiskFacts, error)
	Write  func(dir string) error // writes, syncs and maps a file without a name there
	Synced func() (ok, known bool)
	RTC    func() (there, known bool)
	Limits func(pid int) LimitFacts
	Engine func(ctx context.Context, mode engine.Mode) (engine.Mode, error)
	Total  func() (uint64, bool) // memory of the machine
}

// tryEngine makes an engine of the mode, which tries whether compiled code may run, and tells what became of it.
func tryEngine(ctx context.Context, mode engine.Mode) (engine.Mode, error) {
	e, err := engine.New(ctx, engine.Config{Mode: mode})
	if err != nil {
		return mode, err
	}
	return e.Mode(), e.Close(ctx)
}

// leastFree is the space below which updates will soon fail, beside what the ballast holds.
const leastFree = 32 << 20

func (d *Doctor) checkStateDir() {
	dir := d.cfg.State
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.add("state dir", Skipped, "", "%s is made by the first start", dir)
		return
	}
	if err != nil {
		d.add("state dir", Bad, "", "%v", err)
		return
	}
	if perm := info.Mode().Perm(); os.PathSeparator == '/' && perm&0o077 != 0 {
		d.add("state dir", Bad, "chmod 700 "+dir, "%s is open to others (mode %04o)", dir, perm)
	} else if who := owner.Name(dir); who != "" && os.Getuid() != 0 {
		d.add("state dir", Bad, "sudo -u "+who+" waybill-edge doctor --config "+d.file, "%s belongs to user %s", dir, who)
		return
	} else {
		d.ok("state dir", "%s", dir)
	}
	disk, err := d.Sys.Disk(dir)
	if err != nil {
		d.add("disk", Bad, "", "%v", err)
		return
	}
	kind := cmp.Or(disk.Kind, "of an unknown type")
	switch {
	case disk.ReadOnly:
		d.add("disk", Bad, "mount -o remount,rw "+dir, "the file system (%s) is read-only", kind)
	case disk.NoLocks:
		d.add("disk", Bad, "put \"state\" on ext4, xfs, btrfs or f2fs", "%s keeps no file modes and does not replace files safely when the power goes", kind)
	case disk.Network:
		d.add("disk", Doubt, "put \"state\" on a disk of this device", "%s is a network file system: locks and durability are what its server makes of them", kind)
	case disk.VolatileMemory:
		d.add("disk", Doubt, "put \"state\" on a disk", "%s is memory: after a restart the device knows nothing of what it accepted", kind)
	default:
		d.ok("disk", "%s", kind)
	}
	if err := d.Sys.Write(dir); err != nil && !disk.ReadOnly {
		d.add("disk write", Bad, "df "+dir, "a file can't be written and made durable there: %v", err)
	} else if err == nil {
		d.ok("disk write", "a file without a name was written, synced and mapped")
	}
	switch {
	case disk.Free < 4<<20:
		d.add("disk space", Bad, "df "+dir, "%s free of %s: updates fail, a rollback lives on the reserve", ui.Bytes(int64(disk.Free)), ui.Bytes(int64(disk.Total)))
	case disk.Free < leastFree:
		d.add("disk space", Doubt, "df "+dir, "%s free of %s", ui.Bytes(int64(disk.Free)), ui.Bytes(int64(disk.Total)))
	default:
		d.ok("disk space", "%s free of %s", ui.Bytes(int64(disk.Free)), ui.Bytes(int64(disk.Total)))
	}
	if disk.InodesTotal > 0 {
		v, help := Good, ""
		if disk.Inodes < 64 {
			v, help = Bad, "df -i "+dir
		} else if disk.Inodes < 1024 {
			v, help = Doubt, "df -i "+dir
		}
		d.add("disk inodes", v, help, "%s free of %s", ui.Count(int64(disk.Inodes)), ui.Count(int64(disk.InodesTotal)))
	}
}

func (d *Doctor) checkEngine(ctx context.Context) {
	mode := engine.Auto
	if d.cfg != nil {
		m, err := engine.ParseMode(d.cfg.Engine.Mode)
		if err != nil {
			d.add("engine", Bad, "set engine.mode to auto, compiler or interpreter", "%v", err)
			return
		}
		mode = m
	}
	got, err := d.Sys.Engine(ctx, mode)
	switch {
	case err != nil:
		d.add("engine", Bad, "set engine.mode to interpreter, or allow memory that is written and then executed (MemoryDenyWriteExecute=no)", "%v", err)
	case got == engine.Interpreter && mode == engine.Auto:
		d.add("engine", Doubt, "allow memory that is written and then executed (MemoryDenyWriteExecute=no, SELinux execmem)", "this process may not run compiled code: models are interpreted, some fifty times slower")
	default:
		d.ok("engine", "%s", got)
	}
}

// fewDescriptors is what a busy server with a few models needs.
const fewDescriptors = 1024

func (d *Doctor) checkLimits() {
	pid := d.pid
	if pid == 0 {
		pid = os.Getpid()
	}
	l := d.Sys.Limits(pid)
	of := "this shell"
	if d.status != nil {
		of = "the agent"
	}
	if l.Descriptors > 0 && l.Descriptors < fewDescriptors {
		d.add("descriptors", Doubt, "LimitNOFILE=65536 in the unit", "%s may open %d files and connections", of, l.Descriptors)
	} else if l.Descriptors > 0 {
		d.ok("descriptors", "%s may open %s", of, ui.Count(int64(min(l.Descriptors, 1<<40))))
	}
	want := uint64(1) << 30 // the engine's default for one instance
	if d.cfg != nil && d.cfg.Engine.MemoryLimit != 0 {
		want = d.cfg.Engine.MemoryLimit
	}
	most, by := l.Memory, l.MemoryBy
	if total, known := d.Sys.Total(); known && (most == 0 || total < most) {
		most, by = total, "the machine"
	}
	switch {
	case most == 0:
		d.add("memory", Skipped, "", "no limit is known")
	case most < 64<<20:
		d.add("memory", Bad, "MemoryMax= in the unit", "%s gives %s %s", by, of, ui.Bytes(int64(most)))
	case most < want:
		d.add("memory", Doubt, "set engine.memory_limit below it: a model that grows is then refused, and the agent is not killed", "%s gives %s %s, one instance of a model may take %s", by, of, ui.Bytes(int64(most)), ui.Bytes(int64(min(want, 1<<62))))
	default:
		d.ok("memory", "%s of %s", ui.Bytes(int64(min(most, 1<<62))), by)
	}
	switch {
	case d.status == nil:
	case d.status.WatchdogSeconds > 0:
		d.ok("watchdog", "the service manager restarts the agent after %g s of silence", d.status.WatchdogSeconds)
	case l.unit != "":
		d.add("watchdog", Doubt, "Type=notify and WatchdogSec=60 in the unit", "%s does not watch the agent", l.unit)
	default:
		d.add("watchdog", Doubt, "run it as the unit in examples/systemd", "nothing restarts the agent when it hangs")
	}
}
