package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
)

// The journal is a row of files: path, to which is appended, and before it path.<number of its first entry> for each one that was
// full. The numbering and the chain of hashes go on over them. Each but the very first begins with an entry of kind "segment",
// whose Anchor signs the history before it, so that the row still verifies when its oldest files were removed; and since the
// anchor also says which entry is the oldest one kept, it shows when more than that is gone.

// KindSegment marks the first entry of a file whose data is an Anchor.
const KindSegment = "segment"

// Limits of a journal; see Bound.
const (
	segmentBytes = 1 << 20
	segmentsKept = 4
	damagedKept  = 3 // sets of files that were moved aside
)

// Anchor signs all entries before a file. Oldest is the first entry that is kept on the device from here on.
type Anchor struct {
	Checkpoint
	Oldest int64 `json:"oldest"`
}

// Message is what the device key signs for an anchor.
func (a Anchor) Message() []byte {
	return fmt.Appendf(nil, "waybill journal segment v1\n%s\n%d\n%s\n%d\n", a.Device, a.Entries, a.Hash, a.Oldest)
}

// Bound sets how many bytes a file has before the next one begins, and how many files there are at most. Without a call it is
// 1 MiB and 4.
func (j *Journal) Bound(bytes int64, files int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.most, j.files = bytes, max(files, 1)
}

// segment is one file of a journal.
type segment struct {
	path  string
	first int64 // number of its first entry, by its name; 0: the file that is appended to
}

func (s segment) name() string { return filepath.Base(s.path) }

// segments lists the files of a journal, oldest first; the last is path, whether or not it is there.
func segments(fsys fsx.FS, path string) ([]segment, error) {
	es, err := fsys.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, diag.Errorf("list the journal: %w", err)
	}
	var out []segment
	for _, e := range es {
		digits, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok || len(digits) != 16 {
			continue
		}
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil && n > 0 {
			out = append(out, segment{filepath.Join(filepath.Dir(path), e.Name()), n})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].first < out[j].first })
	return append(out, segment{path: path}), nil
}

func segmentPath(path string, first int64) string { return fmt.Sprintf("%s.%016d", path, first) }

// rotate begins a new file when the present one is full. Failing to is no failure of the append that asks for it, as long as the
// present file is still there.
func (j *Journal) rotate(at time.Time) error {
	if !j.moved {
		if j.size < j.most || j.signer == nil {
			return nil
		}
		if j.torn {
			return nil // the append that follows repairs it
		}
		if j.file != nil {
			_ = j.file.Close() // all of it is durable
			j.file = nil
		}
		if err := j.fs.Rename(j.path, segmentPath(j.path, j.first)); err != nil {
			_, serr := j.fs.Stat(j.path)
			if serr == nil {
				return nil
			}
			if !errors.Is(serr, fs.ErrNotExist) {
				return fmt.Errorf("append to the journal: %w", errors.Join(err, serr))
			}
			// It has its new name all the same; an append would begin a file that says nothing of what was before.
		}
		j.moved, j.size, j.named = true, 0, false
	}
	if !j.due {
		// The old file's new name must be durable before the old name is given to another one.
		if err := j.fs.SyncDir(filepath.Dir(j.path)); err != nil {
			return diag.Errorf("append to the journal: %w", err)
		}
		j.due = true
	}
	return j.anchor(at)
}

// anchor writes the first entry of a file, then removes files that are no longer kept.
func (j *Journal) anchor(at time.Time) error {
	if j.signer == nil {
		return errors.New("begin a file of the journal: no device key")
	}
	all, err := segments(j.fs, j.path)
	if err != nil {
		return err
	}
	old := all[:len(all)-1]
	kept := old[max(0, len(old)-(j.files-1)):]
	a := Anchor{Checkpoint: Checkpoint{Device: j.signer.ID(), Entries: j.head.Entries, Hash: j.head.Hash}, Oldest: j.head.Entries + 1}
	if len(kept) > 0 {
		a.Oldest = kept[0].first
	}
	sig, err := j.signer.Sign(a.Message())
	if err != nil {
		return diag.Errorf("sign a file of the journal: %w", err)
	}
	a.Signature = sig
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	first := j.head.Entries + 1
	if _, err := j.put(Entry{At: at, Kind: KindSegment, Data: data}); err != nil {
		return err
	}
	j.first, j.signed, j.moved, j.due = first, first, false, false
	for _, s := range old[:len(old)-len(kept)] {
		_ = j.fs.Remove(s.path) // the next time, or never: it does no harm
	}
	return nil
}

// moveAside gives the files of a damaged journal other names, and keeps the newest sets of such.
func (j *Journal) moveAside() (string, error) {
	all, err := segments(j.fs, j.path)
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(j.path)
	es, err := j.fs.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	n := 0
	number := func(name string) int {
		rest, ok := strings.CutPrefix(name, filepath.Base(j.path))
		_, digits, found := strings.Cut(rest, ".damaged-")
		v, err := strconv.Atoi(digits)
		if !ok || !found || err != nil {
			return 0
		}
		return v
	}
	for _, e := range es {
		n = max(n, number(e.Name()))
	}
	n++
	suffix := fmt.Sprintf(".damaged-%d", n)
	for _, s := range all {
		if err := j.fs.Rename(s.path, s.path+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	for _, e := range es {
		if v := number(e.Name()); v > 0 && v <= n-damagedKept {
			_ = j.fs.Remove(filepath.Join(dir, e.Name())) // it is only kept for people
		}
	}
	return filepath.Base(j.path) + suffix, nil
}

// parseAnchor reads the anchor in the first entry of a file.
func parseAnchor(e Entry) (Anchor, error) {
	var a Anchor
	if e.Kind != KindSegment {
		return a, diag.Errorf("%w: entry %d begins a file and says nothing of what was before", ErrDamaged, e.N)
	}
	if err := json.Unmarshal(e.Data, &a); err != nil {
		return a, diag.Errorf("%w: entry %d: %w", ErrDamaged, e.N, err)
	}
	if a.Entries != e.N-1 || a.Entries < 1 || a.Oldest < 1 || a.Oldest > e.N {
		return a, diag.Errorf("%w: entry %d begins a file after entry %d", ErrDamaged, e.N, a.Entries)
	}
	return a, nil
}

// Verify checks all files of the journal at path: every hash, the numbering, every signature, that none is missing that should
// be there, and that known is a prefix. Errors name the file and the line.
func Verify(fsys fsx.FS, path string, known Head, checker Checker) (Report, error) {
	all, err := segments(fsys, path)
	if err != nil {
		return Report{}, err
	}
	r, _, err := verifyFiles(fsys, all, known, checker, nil)
	return r, err
}

// verifyFiles is Verify of some files that follow each other. each, unless nil, is called with every entry whose hash, and signature if
// it has one, holds. at is the file in which err was found.
func verifyFiles(fsys fsx.FS, all []segment, known Head, checker Checker, each func(Entry)) (r Report, at int, err error) {
	v := verifying{report: &r, checker: checker, known: known, each: each}
	for i, s := range all {
		last := i == len(all)-1
		scan, err := scanAt(fsys, s, v.next(), v.visit)
		if err != nil {
			return r, i, err
		}
		if scan.lines == 0 && last && scan.damage == nil { // not begun yet
			r.Torn = scan.tail
			break
		}
		r.Files++
		r.Head = scan.head
		switch {
		case scan.damage != nil:
			return r, i, scan.damage
		case scan.tail && !last:
			return r, i, diag.Errorf("%w: %s:%d: it ends in an unfinished line, and another file follows", ErrDamaged, s.name(), scan.lines+1)
		case s.first != 0 && scan.first != s.first:
			return r, i, diag.Errorf("%w: %s begins with entry %d", ErrDamaged, s.name(), scan.first)
		}
		r.Torn = scan.tail
	}
	at = len(all) - 1
	if r.Oldest > v.oldest && v.oldest > 0 {
		return r, at, diag.Errorf("%w: entries %d to %d are missing: they were kept when the newest file began", ErrDamaged, v.oldest, r.Oldest-1)
	}
	switch {
	case known.Entries == 0 || v.found || known.Entries < r.Oldest-1:
		return r, at, nil // before the oldest file only reports, kept elsewhere, can tell
	case known.Entries > r.Head.Entries:
		return r, at, diag.Errorf("%w: it has %d entries, at least %d were written", ErrDamaged, r.Head.Entries, known.Entries)
	}
	return r, at, diag.Errorf("%w: entry %d is not the one that was written", ErrDamaged, known.Entries)
}

// verifying is the state of Verify over the files.
type verifying struct {
	report  *Report
	checker Checker
	known   Head
	found   bool // known is in the chain
	oldest  int64
	begun   bool
	prev    Head
	each    func(Entry)
}

// next is the head that the next file must follow; nil for the first one.
func (v *verifying) next() *Head {
	if !v.begun {
		return nil
	}
	h := v.prev
	return &h
}

func (v *verifying) visit(e Entry, h Head) error {
	err := v.check(e, h)
	if err == nil && v.each != nil {
		v.each(e)
	}
	return err
}

func (v *verifying) check(e Entry, h Head) error {
	r := v.report
	if !v.begun {
		v.begun = true
		r.Oldest = e.N
		if e.N > 1 {
			a, err := parseAnchor(e)
			if err != nil {
				return err
			}
			v.prev = Head{a.Entries, a.Hash}
			v.found = v.known == v.prev
		}
	}
	before := v.prev
	v.prev = h
	v.found = v.found || v.known == h
	var c Checkpoint
	var message []byte
	switch e.Kind {
	default:
		return nil
	case KindCheckpoint:
		if err := json.Unmarshal(e.Data, &c); err != nil {
			return diag.Errorf("%w: checkpoint in entry %d: %w", ErrDamaged, e.N, err)
		}
		message = c.Message()
	case KindSegment:
		a, err := parseAnchor(e)
		if err != nil {
			return err
		}
		c, message, v.oldest = a.Checkpoint, a.Message(), a.Oldest
	}
	if c.Entries != before.Entries || c.Hash != before.Hash {
		return diag.Errorf("%w: checkpoint in entry %d signs another history", ErrDamaged, e.N)
	}
	if err := v.checker.Check(c.Device, message, c.Signature); err != nil {
		return diag.Errorf("%w: checkpoint in entry %d: %w", ErrDamaged, e.N, err)
	}
	r.Checkpoints++
	r.Signed = c.Entries
	return nil
}

// Read returns up to max of the newest entries of the journal at path, oldest first, whether or not their hashes hold;
// max <= 0 means all. A missing file has none. For showing; use Verify to trust them.
func Read(fsys fsx.FS, path string, max int) ([]Entry, error) {
	all, err := segments(fsys, path)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, s := range slices.Backward(all) {
		es, err := readOne(fsys, s.path, max-len(out))
		if err != nil {
			return nil, err
		}
		out = append(es, out...)
		if max > 0 && len(out) >= max {
			break
		}
	}
	return out, nil
}
