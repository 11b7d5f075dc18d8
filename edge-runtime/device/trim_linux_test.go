package device

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestCleanMappings(t *testing.T) {
	block := func(head string, dirty int) string {
		return head + fmt.Sprintf("\nSize: 4 kB\nRss: 4 kB\nShared_Dirty: 0 kB\nPrivate_Dirty: %d kB\nAnonymous: %d kB\nVmFlags: rd ex mr\n", dirty, dirty)
	}
	smaps := block("00400000-00500000 r-xp 00000000 fe:00 12 /usr/bin/waybill-edge", 0) +
		block("00500000-00600000 r--p 00100000 fe:00 12 /usr/bin/waybill-edge", 0) +
		block("00600000-00700000 rw-p 00200000 fe:00 12 /usr/bin/waybill-edge", 0) +
		block("00700000-00800000 r--p 00300000 fe:00 12 /usr/bin/waybill-edge", 4) + // relocated
		block("00800000-00900000 r-xp 00000000 fe:00 13 /usr/lib/other.so", 0) +
		block("00900000-00a00000 r-xp 00000000 00:00 0", 0)
	got := cleanMappings(strings.NewReader(smaps), "/usr/bin/waybill-edge")
	if want := [][2]uintptr{{0x400000, 0x500000}, {0x500000, 0x600000}}; !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	dropText() // and this program runs on
}
