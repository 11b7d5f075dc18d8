package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// A lease says which blobs a process counts on although no manifest in the index names them yet. It is a file below leaseDir
// on which the process holds a lock, with one line for each digest. The kernel takes the lock away when the process ends in
// whichever way, so a lease whose lock can be had is stale: no process number is recorded that another process might
// have by now, and no clock decides. (The lock is on a file beside it: Windows lets nobody read a locked file.) Over NFS the locks hold between machines, except with the mount options nolock and
// local_lock; then a store must be written to by one machine only.
//
// What must not happen is that prune deletes a blob between a writer's look at it and the manifest that names it. So:
//   - a lease is made under the index lock, which prune holds throughout: prune never takes a lease in the making for a stale one;
//   - a writer puts a digest into its lease before the blob gets its name, and prune lists the blobs before it reads leases;
//   - who counts on a blob that is there already asks Keep, which looks under the index lock, after the digest is in the lease.
type lease struct {
	name    string
	release func() error
	pins    map[artifact.Digest]bool // what the file says; guarded by Store.leaseMu
	f       fsx.File
}

const (
	leaseDir = ".leases"
	maxLease = 256 << 20
)

const lockSuffix = ".lock"

// Hold keeps prune, in whichever process, away from the blobs that this Store puts from now on, until Close.
func (s *Store) Hold(ctx context.Context) error {
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	if s.lease != nil {
		return nil
	}
	return s.locked(ctx, true, func() error {
		l, err := s.newLease(ctx)
		s.lease = l
		return err
	})
}

func (s *Store) newLease(ctx context.Context) (*lease, error) {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails, by its contract
	l := &lease{name: hex.EncodeToString(raw[:]), pins: map[artifact.Digest]bool{}}
	p := s.path(leaseDir, l.name)
	var err error
	if l.release, err = s.lock(ctx, p+lockSuffix, false); errors.Is(err, fs.ErrNotExist) {
		if err = s.mkdir(s.path(leaseDir)); err == nil {
			l.release, err = s.lock(ctx, p+lockSuffix, false)
		}
	}
	if err != nil {
		return nil, s.writeError(err, "write to store")
	}
	if l.f, err = s.fs.OpenAppend(p, 0o644); errors.Is(err, fs.ErrNotExist) { // locks that make no file do not see that the folder is missing
		if err = s.mkdir(s.path(leaseDir)); err == nil {
			l.f, err = s.fs.OpenAppend(p, 0o644)
		}
	}
	if err == nil {
		host, _ := os.Hostname() // for people only
		_, err = fmt.Fprintf(l.f, "# process %d on %q, %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	}
	if err != nil {
		if l.f != nil {
			_ = l.f.Close()
		}
		_ = l.release()
		_ = s.fs.Remove(p) // what stays is a stale lease
		_ = s.fs.Remove(p + lockSuffix)
		return nil, s.writeError(err, "write to store")
	}
	return l, nil
}

// pin notes that this process counts on d. The Store is held.
func (s *Store) pin(d artifact.Digest) error {
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	if s.lease == nil {
		return diag.New(diag.Failure, "store %s was closed while it was written to", s.dir)
	}
	if s.lease.pins[d] {
		return nil
	}
	if _, err := s.lease.f.Write([]byte(d.Hex() + "\n")); err != nil { // one write to a file open for appending: whole lines
		return s.writeError(err, "write to store")
	}
	s.lease.pins[d] = true
	return nil
}

// Keep tells whether the store has d, and keeps it from prune until Close if it does. It does not hash.
func (s *Store) Keep(ctx context.Context, d artifact.Digest) (size int64, ok bool, err error) {
	if err := checkDigest(d); err != nil {
		return 0, false, err
	}
	if err := s.Hold(ctx); err != nil {
		return 0, false, err
	}
	err = s.locked(ctx, true, func() error {
		if err := s.pin(d); err != nil {
			return err
		}
		size, ok, err = s.Has(d)
		return err
	})
	return size, ok && err == nil, err
}

// lockWait is how long to wait for an index lock that others hold for milliseconds, or seconds while they prune: longer
// means that one of them stands still.
const lockWait = 2 * time.Minute

// locked runs f under the index lock.
func (s *Store) locked(ctx context.Context, shared bool, f func() error) error {
	wait, cancel := context.WithTimeout(ctx, lockWait)
	release, err := s.lock(wait, s.path(lockFile), shared)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return diag.New(diag.Failure, "store %s: another process has held its lock for %s", s.dir, lockWait).
			Hint("end or resume the process that has %s open", s.path(lockFile))
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", s.dir, err)
	}
	err = f()
	if rerr := release(); err == nil && rerr != nil {
		err = diag.Wrap(diag.Failure, rerr, "store %s: let go of its lock", s.dir)
	}
	return err
}

// dropLease is called with leaseMu held.
func (s *Store) dropLease() error {
	l := s.lease
	if l == nil {
		return nil
	}
	s.lease = nil
	err := errors.Join(l.f.Close(), l.release())
	p := s.path(leaseDir, l.name)
	_ = s.fs.Remove(p) // what stays is a stale lease, which the next prune removes
	_ = s.fs.Remove(p + lockSuffix)
	return err
}

func (s *Store) leaseName() string {
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	if s.lease == nil {
		return ""
	}
	return s.lease.name
}

// leases is what all running writers count on.
type leases struct {
	live  map[string]bool          // by name
	pins  map[artifact.Digest]bool // of the live ones
	stale []string
}

// readLeases is called under the exclusive index lock; own is the name of this Store's lease, taken before.
func (s *Store) readLeases(own string) (leases, error) {
	out := leases{live: map[string]bool{}, pins: map[artifact.Digest]bool{}}
	fail := func(err error) (leases, error) {
		return out, diag.Wrap(diag.Failure, err, "read the leases of store %s", s.dir)
	}
	es, err := s.fs.ReadDir(s.path(leaseDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	now, cancel := context.WithCancel(context.Background())
	cancel() // a lock that is not free at once is held
	seen := map[string]bool{}
	for _, e := range es {
		name := strings.TrimSuffix(e.Name(), lockSuffix)
		if e.IsDir() || seen[name] {
			continue
		}
		seen[name] = true
		if name != own {
			release, err := s.lock(now, s.path(leaseDir, name+lockSuffix), false)
			if err == nil {
				out.stale = append(out.stale, name)
				if err := release(); err != nil {
					return fail(err)
				}
				continue
			}
			if !errors.Is(err, context.Canceled) {
				return fail(err)
			}
		}
		out.live[name] = true
		b, err := fsx.ReadFile(s.fs, s.path(leaseDir, name), maxLease)
		if errors.Is(err, fs.ErrNotExist) { // its process has just finished
			continue
		}
		if err != nil {
			return fail(err)
		}
		for line := range strings.Lines(string(b)) {
			if d, err := artifact.ParseDigest("sha256:" + strings.TrimSpace(line)); err == nil {
				out.pins[d] = true
			}
		}
	}
	return out, nil
}
