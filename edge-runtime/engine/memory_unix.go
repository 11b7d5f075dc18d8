//go:build unix

package engine

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/waybill-ml/waybill/internal/diag"
)

// newMemory reserves max bytes of address space, none of it backed, so that growing never moves the base.
// Where the reservation is refused (32-bit address space, a strict limit) it falls back to ordinary memory.
func newMemory(max uint64, weights *weightsImage) (linearMemory, error) {
	if uint64(int(max)) == max {
		p, err := unix.MmapPtr(-1, 0, nil, uintptr(max), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			m := &mappedMemory{base: p, max: max}
			if weights == nil || weights.file == nil {
				return m, nil
			}
			if err := m.mapFile(weights.file, weights.base, weights.size); err != nil {
				m.Free()
				return nil, diag.Errorf("map the weights: %w", err)
			}
			m.mapped = true
			return m, nil
		}
	}
	return &plainMemory{max: max}, nil
}

// mappedMemory is a reserved range whose first size bytes are usable.
type mappedMemory struct {
	base   unsafe.Pointer
	size   uint64
	max    uint64
	mapped bool
	// weights range, which commit must leave alone
	wBase, wEnd uint64
}

// hasWeights tells that the weights are already in place.
func (m *mappedMemory) hasWeights() bool { return m.mapped }

// mapFile puts a private, writable mapping of the file over [base, base+size): a stray store of the guest then copies
// the page instead of killing the process.
func (m *mappedMemory) mapFile(f *os.File, base, size uint64) error {
	if base+size > m.max {
		return diag.Errorf("they end at %d, beyond the memory limit of %d bytes", base+size, m.max)
	}
	if size == 0 {
		return nil
	}
	if base%uint64(os.Getpagesize()) != 0 {
		return diag.Errorf("address %d is no multiple of the page size %d", base, os.Getpagesize())
	}
	_, err := unix.MmapPtr(int(f.Fd()), 0, unsafe.Add(m.base, base), uintptr(size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		return err
	}
	m.wBase, m.wEnd = base, base+size
	return nil
}

// Reallocate implements experimental.LinearMemory. It returns nil when size is more than the reservation.
func (m *mappedMemory) Reallocate(size uint64) []byte {
	if size > m.max || m.base == nil {
		return nil
	}
	if size > m.size {
		if err := m.commit(m.size, size); err != nil {
			return nil
		}
		m.size = size
	}
	return unsafe.Slice((*byte)(m.base), int(size))
}

// commit makes [from, to) usable, except for what is already mapped from the file.
func (m *mappedMemory) commit(from, to uint64) error {
	for _, r := range [][2]uint64{{from, min(to, m.wBase)}, {max(from, m.wEnd), to}} {
		if r[0] >= r[1] {
			continue
		}
		b := unsafe.Slice((*byte)(unsafe.Add(m.base, r[0])), int(r[1]-r[0]))
		if err := unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return err
		}
	}
	return nil
}

// Free implements experimental.LinearMemory.
func (m *mappedMemory) Free() {
	if m.base == nil {
		return
	}
	_ = unix.MunmapPtr(m.base, uintptr(m.max))
	m.base = nil
}
