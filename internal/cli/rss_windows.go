package cli

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

type memoryCounters struct {
	size              uint32
	pageFaults        uint32
	peakWorkingSet    uintptr
	workingSet        uintptr
	quotaPeakPaged    uintptr
	quotaPaged        uintptr
	quotaPeakNonPaged uintptr
	quotaNonPaged     uintptr
	pagefileUsage     uintptr
	peakPagefileUsage uintptr
}

// peakRSS is the largest working set that this process has had, in bytes.
func peakRSS() int64 {
	var m memoryCounters
	m.size = uint32(unsafe.Sizeof(m))
	p := windows.NewLazySystemDLL("psapi.dll").NewProc("GetProcessMemoryInfo")
	if r, _, _ := p.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&m)), uintptr(m.size)); r == 0 {
		return 0
	}
	return int64(m.peakWorkingSet)
}
