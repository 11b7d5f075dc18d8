package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/ui"
)

// diskFacts are those of the file system that holds the state.
type diskFacts struct {
	kind           string // its type, "" when not known
	readOnly       bool
	free, total    uint64 // bytes
	inodes         uint64 // free; total 0: the file system does not count them
	inodesTotal    uint64
	volatileMemory bool // it is gone after a restart
	network        bool
	noLocks        bool // FAT and its like: neither modes nor atomic renames can be relied on
}

// limitFacts are those of a process.
type limitFacts struct {
	descriptors uint64 // 0: not known
	memory      uint64 // bytes it may use, by its control groups and its limits; 0: no limit known
	memoryBy    string // what sets that
	unit        string // systemd unit, "" when none
}

// system is what the checks ask of the machine: a seam for tests.
type system struct {
	disk   func(dir string) (diskFacts, error)
	write  func(dir string) error // writes, syncs and maps a file without a name there
	synced func() (ok, known bool)
	rtc    func() (there, known bool)
	limits func(pid int) limitFacts
	engine func(ctx context.Context, mode engine.Mode) (engine.Mode, error)
	total  func() (uint64, bool) // memory of the machine
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

func (d *doctor) checkStateDir() {
	dir := d.cfg.State
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.add("state dir", skipped, "", "%s is made by the first start", dir)
		return
	}
	if err != nil {
		d.add("state dir", bad, "", "%v", err)
		return
	}
	if perm := info.Mode().Perm(); os.PathSeparator == '/' && perm&0o077 != 0 {
		d.add("state dir", bad, "chmod 700 "+dir, "%s is open to others (mode %04o)", dir, perm)
	} else if who := ownerName(dir); who != "" && os.Getuid() != 0 {
		d.add("state dir", bad, "sudo -u "+who+" waybill-edge doctor --config "+d.file, "%s belongs to user %s", dir, who)
		return
	} else {
		d.ok("state dir", "%s", dir)
	}
	disk, err := d.sys.disk(dir)
	if err != nil {
		d.add("disk", bad, "", "%v", err)
		return
	}
	kind := first(disk.kind, "of an unknown type")
	switch {
	case disk.readOnly:
		d.add("disk", bad, "mount -o remount,rw "+dir, "the file system (%s) is read-only", kind)
	case disk.noLocks:
		d.add("disk", bad, "put \"state\" on ext4, xfs, btrfs or f2fs", "%s keeps no file modes and does not replace files safely when the power goes", kind)
	case disk.network:
		d.add("disk", doubt, "put \"state\" on a disk of this device", "%s is a network file system: locks and durability are what its server makes of them", kind)
	case disk.volatileMemory:
		d.add("disk", doubt, "put \"state\" on a disk", "%s is memory: after a restart the device knows nothing of what it accepted", kind)
	default:
		d.ok("disk", "%s", kind)
	}
	if err := d.sys.write(dir); err != nil && !disk.readOnly {
		d.add("disk write", bad, "df "+dir, "a file can't be written and made durable there: %v", err)
	} else if err == nil {
		d.ok("disk write", "a file without a name was written, synced and mapped")
	}
	switch {
	case disk.free < 4<<20:
		d.add("disk space", bad, "df "+dir, "%s free of %s: updates fail, a rollback lives on the reserve", ui.Bytes(int64(disk.free)), ui.Bytes(int64(disk.total)))
	case disk.free < leastFree:
		d.add("disk space", doubt, "df "+dir, "%s free of %s", ui.Bytes(int64(disk.free)), ui.Bytes(int64(disk.total)))
	default:
		d.ok("disk space", "%s free of %s", ui.Bytes(int64(disk.free)), ui.Bytes(int64(disk.total)))
	}
	if disk.inodesTotal > 0 {
		v, help := good, ""
		if disk.inodes < 64 {
			v, help = bad, "df -i "+dir
		} else if disk.inodes < 1024 {
			v, help = doubt, "df -i "+dir
		}
		d.add("disk inodes", v, help, "%s free of %s", ui.Count(int64(disk.inodes)), ui.Count(int64(disk.inodesTotal)))
	}
}

func (d *doctor) checkEngine(ctx context.Context) {
	mode := engine.Auto
	if d.cfg != nil {
		m, err := engine.ParseMode(d.cfg.Engine.Mode)
		if err != nil {
			d.add("engine", bad, "set engine.mode to auto, compiler or interpreter", "%v", err)
			return
		}
		mode = m
	}
	got, err := d.sys.engine(ctx, mode)
	switch {
	case err != nil:
		d.add("engine", bad, "set engine.mode to interpreter, or allow memory that is written and then executed (MemoryDenyWriteExecute=no)", "%v", err)
	case got == engine.Interpreter && mode == engine.Auto:
		d.add("engine", doubt, "allow memory that is written and then executed (MemoryDenyWriteExecute=no, SELinux execmem)", "this process may not run compiled code: models are interpreted, some fifty times slower")
	default:
		d.ok("engine", "%s", got)
	}
}

// fewDescriptors is what a busy server with a few models needs.
const fewDescriptors = 1024

func (d *doctor) checkLimits() {
	pid := d.pid
	if pid == 0 {
		pid = os.Getpid()
	}
	l := d.sys.limits(pid)
	of := "this shell"
	if d.status != nil {
		of = "the agent"
	}
	if l.descriptors > 0 && l.descriptors < fewDescriptors {
		d.add("descriptors", doubt, "LimitNOFILE=65536 in the unit", "%s may open %d files and connections", of, l.descriptors)
	} else if l.descriptors > 0 {
		d.ok("descriptors", "%s may open %s", of, ui.Count(int64(min(l.descriptors, 1<<40))))
	}
	want := uint64(1) << 30 // the engine's default for one instance
	if d.cfg != nil && d.cfg.Engine.MemoryLimit != 0 {
		want = d.cfg.Engine.MemoryLimit
	}
	most, by := l.memory, l.memoryBy
	if total, known := d.sys.total(); known && (most == 0 || total < most) {
		most, by = total, "the machine"
	}
	switch {
	case most == 0:
		d.add("memory", skipped, "", "no limit is known")
	case most < 64<<20:
		d.add("memory", bad, "MemoryMax= in the unit", "%s gives %s %s", by, of, ui.Bytes(int64(most)))
	case most < want:
		d.add("memory", doubt, "set engine.memory_limit below it: a model that grows is then refused, and the agent is not killed", "%s gives %s %s, one instance of a model may take %s", by, of, ui.Bytes(int64(most)), ui.Bytes(int64(min(want, 1<<62))))
	default:
		d.ok("memory", "%s of %s", ui.Bytes(int64(min(most, 1<<62))), by)
	}
	switch {
	case d.status == nil:
	case d.status.WatchdogSeconds > 0:
		d.ok("watchdog", "the service manager restarts the agent after %g s of silence", d.status.WatchdogSeconds)
	case l.unit != "":
		d.add("watchdog", doubt, "Type=notify and WatchdogSec=60 in the unit", "%s does not watch the agent", l.unit)
	default:
		d.add("watchdog", doubt, "run it as the unit in examples/systemd", "nothing restarts the agent when it hangs")
	}
}
