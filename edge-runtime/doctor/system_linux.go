package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func thisSystem() System {
	return System{Disk: diskOf, Write: tryWrite, Synced: clockSynced, RTC: hasRTC, Limits: limitsOf, Engine: tryEngine, Total: totalMemory}
}

// fileSystems names the types that matter here, by their magic number (statfs(2)).
var fileSystems = map[int64]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0xf2f52010: "f2fs", 0x01021994: "tmpfs", 0x858458f6: "ramfs", 0x794c7630: "overlay",
	0x4d44: "vfat", 0x2011bab0: "exfat", 0x5346544e: "ntfs", 0x6969: "nfs", 0xff534d42: "cifs", 0xfe534d42: "smb2", 0x517b: "smb", 0x65735546: "fuse",
	0x24051905: "ubifs", 0x72b6: "jffs2", 0x2fc12fc1: "zfs", 0x73717368: "squashfs", 0xe0f5e1e2: "erofs",
}

func diskOf(dir string) (DiskFacts, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return DiskFacts{}, fmt.Errorf("file system of %s: %w", dir, err)
	}
	kind := fileSystems[int64(uint32(s.Type))]
	size := uint64(s.Bsize)
	return DiskFacts{
		Kind: kind, ReadOnly: s.Flags&unix.ST_RDONLY != 0,
		Free: uint64(s.Bavail) * size, Total: uint64(s.Blocks) * size, Inodes: uint64(s.Ffree), InodesTotal: uint64(s.Files),
		VolatileMemory: kind == "tmpfs" || kind == "ramfs",
		Network:        kind == "nfs" || kind == "cifs" || kind == "smb" || kind == "smb2",
		NoLocks:        kind == "vfat" || kind == "exfat",
	}, nil
}

// tryWrite makes a file without a name, so that nothing is left and nothing is seen by others.
func tryWrite(dir string) (err error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return unix.Access(dir, unix.W_OK|unix.X_OK) // a file system that has no such files
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	page := make([]byte, 4096)
	page[0] = 1
	if n, err := unix.Write(fd, page); err != nil || n < len(page) {
		return errors.Join(err, fmt.Errorf("%d of %d bytes were written", n, len(page)))
	}
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	m, err := unix.Mmap(fd, 0, len(page), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	return unix.Munmap(m)
}

func clockSynced() (ok, known bool) {
	var t unix.Timex // modes 0: look only
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, false
	}
	const unsynced, failed = 0x40, 5 // STA_UNSYNC, TIME_ERROR
	return state != failed && t.Status&unsynced == 0, true
}

func hasRTC() (there, known bool) {
	es, err := os.ReadDir("/sys/class/rtc")
	if errors.Is(err, os.ErrNotExist) {
		_, serr := os.Stat("/sys/class")
		return false, serr == nil
	}
	return len(es) > 0, err == nil
}

func limitsOf(pid int) LimitFacts {
	var l LimitFacts
	proc := "/proc/" + strconv.Itoa(pid)
	if raw, err := os.ReadFile(proc + "/limits"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
				l.Descriptors = firstNumber(rest)
			}
			if rest, ok := strings.CutPrefix(line, "Max address space"); ok {
				if n := firstNumber(rest); n > 0 {
					l.Memory, l.MemoryBy = n, "the limit on address space"
				}
			}
		}
	}
	raw, err := os.ReadFile(proc + "/cgroup")
	if err != nil {
		return l
	}
	group, unit := parseCgroup(raw)
	l.unit = unit
	for g := group; g != "" && g != "." && g != "/"; g = path.Dir(g) {
		b, err := os.ReadFile("/sys/fs/cgroup" + g + "/memory.max")
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64); err == nil && (l.Memory == 0 || n < l.Memory) {
			l.Memory, l.MemoryBy = n, "the control group "+g
		}
	}
	return l
}

// parseCgroup finds the group of the unified hierarchy, and the systemd unit in it.
func parseCgroup(raw []byte) (group, unit string) {
	for line := range strings.Lines(string(raw)) {
		if g, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			group = g
		}
	}
	for part := range strings.SplitSeq(group, "/") {
		if strings.HasSuffix(part, ".service") {
			unit = part
		}
	}
	return group, unit
}

// firstNumber reads the soft limit; "unlimited" is 0.
func firstNumber(s string) uint64 {
	f := strings.Fields(s)
	if len(f) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func totalMemory() (uint64, bool) {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return 0, false
	}
	return uint64(s.Totalram) * uint64(s.Unit), true
}
