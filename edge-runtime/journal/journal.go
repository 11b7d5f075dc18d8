// Package journal is the device's log of decisions: append-only, hash-chained, with checkpoints signed by the device
// key. Each line of the file is
//
//	<hash> <entry as JSON>\n      hash = hex sha256(previous hash as hex, the JSON bytes)
//
// so that an entry cannot be changed, dropped or moved without breaking every later hash, and not even the whole file
// rewritten without the device key. What it cannot show is that the newest entries after the last head seen
// elsewhere (state document, status report) were cut off; Open and Verify therefore take that head.
package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// MaxEntry bounds one line, in bytes.
const MaxEntry = 64 << 10

// KindCheckpoint marks an entry whose data is a Checkpoint.
const KindCheckpoint = "checkpoint"

// KindDamaged is the first entry of a journal that replaces a damaged one.
const KindDamaged = "journal-damaged"

// Entry is one decision. N counts from 1 without gaps.
type Entry struct {
	N       int64           `json:"n"`
	At      time.Time       `json:"at"`
	Kind    string          `json:"kind"`
	Channel string          `json:"channel,omitempty"`
	Digest  artifact.Digest `json:"digest,omitempty"`
	From    artifact.Digest `json:"from,omitempty"`
	Seq     int64           `json:"seq,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	// Serial is the state document that decided this; entries of one journal never repeat or lower it. 0: none.
	Serial uint64          `json:"serial,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// Head names a prefix of the journal: its length and the hash of its last entry ("" when empty).
type Head struct {
	Entries int64  `json:"entries"`
	Hash    string `json:"hash"`
}

// Digest gives the hash in the form that status/v1 uses.
func (h Head) Digest() artifact.Digest {
	if h.Hash == "" {
		return artifact.DigestOf(nil)
	}
	return artifact.Digest("sha256:" + h.Hash)
}

// Checkpoint signs all entries before it.
type Checkpoint struct {
	Device    string          `json:"device"`
	Entries   int64           `json:"entries"`
	Hash      string          `json:"hash"`
	Signature artifact.Base64 `json:"signature"` // over Message
}

// Message is what the device key signs for a checkpoint.
func (c Checkpoint) Message() []byte {
	return fmt.Appendf(nil, "waybill journal checkpoint v1\n%s\n%d\n%s\n", c.Device, c.Entries, c.Hash)
}

// Signer is the device key. ID is the hash of its public key.
type Signer interface {
	ID() string
	Sign(message []byte) ([]byte, error)
}

// Checker verifies a signature of the device key with that id.
type Checker interface {
	Check(device string, message, signature []byte) error
}

// ErrDamaged is in the chain of every error that says the file was altered or truncated.
var ErrDamaged = errors.New("the journal is damaged")

// Journal appends to one file. Safe for concurrent use.
type Journal struct {
	fs     fsx.FS
	path   string
	signer Signer

	mu     sync.Mutex
	file   fsx.File
	head   Head
	size   int64  // bytes of good entries
	serial uint64 // highest Entry.Serial
	torn   bool   // the file may hold bytes past size
	named  bool   // the file's name is durable
	signed int64  // number of the newest checkpoint
	first  int64  // number of the first entry of the file
	moved  bool   // the file is full and has another name, or is not there; the next append begins one
	due    bool   // the file that is there has no entry yet
	most   int64  // bytes before the next file begins
	files  int    // kept at most
}

// Open opens or creates the journal at path and recovers a torn tail: an entry that was being appended when the power
// went is cut off, since nobody was told that it was stored. When the file does not hold known as a prefix, or is damaged
// before its tail, it is moved aside to path.damaged-N and a new journal begins with an entry that says so; damaged
// then tells what was wrong. signer may be nil, then Checkpoint fails.
func Open(fsys fsx.FS, path string, known Head, signer Signer, now time.Time) (j *Journal, damaged error, err error) {
	j = &Journal{fs: fsys, path: path, signer: signer, most: segmentBytes, files: segmentsKept, first: 1}
	var scan scanned
	for try := range 3 { // a read may fail, or give a wrong byte, once
		if scan, err = scanEnd(fsys, path, known); err == nil {
			damaged = scan.damage
			// Cutting a torn tail off is for good too, so it must be seen twice.
			if damaged == nil && (!scan.tail || try > 0) {
				break
			}
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if damaged != nil {
		aside, err := j.moveAside()
		if err != nil {
			return nil, nil, diag.Errorf("move the damaged journal aside: %w", err)
		}
		data, err := json.Marshal(map[string]any{"kept": aside, "goodEntries": scan.head.Entries, "goodHead": scan.head.Hash})
		if err != nil {
			return nil, nil, err
		}
		if _, err := j.Append(Entry{At: now, Kind: KindDamaged, Reason: damaged.Error(), Data: data, Serial: scan.serial}); err != nil {
			return nil, nil, err
		}
		return j, damaged, nil
	}
	j.head, j.size, j.serial, j.torn, j.signed = scan.head, scan.good, scan.serial, scan.tail, scan.signed
	j.first, j.moved = max(scan.first, 1), scan.moved
	return j, nil, nil
}

// scanEnd reads the file that is appended to, and the one before it as far as that is needed to know where the journal ends and
// that it holds known.
func scanEnd(fsys fsx.FS, path string, known Head) (scanned, error) {
	all, err := segments(fsys, path)
	if err != nil {
		return scanned{}, err
	}
	live := all[len(all)-1]
	scan, err := scanAt(fsys, live, nil, nil)
	if err != nil || scan.damage != nil {
		return scan, err
	}
	if scan.lines == 0 && len(all) > 1 { // it was to begin: what was before it counts
		before, err := scanAt(fsys, all[len(all)-2], nil, nil)
		if err != nil || before.damage != nil {
			return before, err
		}
		if before.tail {
			before.damage = diag.Errorf("%w: %s ends in an unfinished line", ErrDamaged, all[len(all)-2].name())
			return before, nil
		}
		before.moved, before.good, before.tail = true, 0, scan.tail
		scan = before
	}
	if known.Entries >= scan.first-1 {
		scan.damage = scan.holds(known)
		return scan, nil
	}
	// It ends in an older file; when that is gone, only what was reported can tell.
	for i, s := range all[:len(all)-1] {
		if s.first <= known.Entries && (all[i+1].first == 0 || known.Entries < all[i+1].first) {
			older, err := scanAt(fsys, s, nil, nil)
			if err != nil {
				return scan, err
			}
			if scan.damage = older.damage; scan.damage == nil {
				scan.damage = older.holds(known)
			}
		}
	}
	return scan, nil
}

// Head returns the current head.
func (j *Journal) Head() Head {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Serial is the highest Entry.Serial.
func (j *Journal) Serial() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.serial
}

// Unsigned is the number of entries after the newest checkpoint.
func (j *Journal) Unsigned() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head.Entries - j.signed
}

// Append numbers e, chains it and makes it durable. After an error the entry is not part of the journal; the next
// Append first removes whatever the failed one left.
func (j *Journal) Append(e Entry) (Head, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(e)
}

func (j *Journal) append(e Entry) (Head, error) {
	if err := j.rotate(e.At); err != nil {
		return Head{}, err
	}
	return j.put(e)
}

// put writes one entry to the file as it is.
func (j *Journal) put(e Entry) (Head, error) {
	if e.Serial < j.serial {
		e.Serial = j.serial
	}
	e.N, e.At = j.head.Entries+1, e.At.UTC()
	body, err := json.Marshal(e)
	if err != nil {
		return Head{}, diag.Errorf("journal entry: %w", err)
	}
	hash := chain(j.head.Hash, body)
	line := append(append([]byte(hash+" "), body...), '\n')
	if len(line) > MaxEntry {
		return Head{}, diag.Errorf("journal entry of %d bytes: the limit is %d", len(line), MaxEntry)
	}
	if err := j.write(line); err != nil {
		j.torn = true
		if j.file != nil {
			_ = j.file.Close()
			j.file = nil
		}
		return Head{}, diag.Errorf("append to the journal: %w", err)
	}
	j.size += int64(len(line))
	j.head = Head{Entries: e.N, Hash: hash}
	j.serial = e.Serial
	if e.Kind == KindCheckpoint {
		j.signed = e.N
	}
	return j.head, nil
}

func (j *Journal) write(line []byte) error {
	if j.file == nil {
		f, err := j.fs.OpenAppend(j.path, 0o600)
		if err != nil {
			return err
		}
		j.file = f
	}
	if j.torn {
		if err := j.file.Truncate(j.size); err != nil {
			return err
		}
		if err := j.file.Sync(); err != nil {
			return err
		}
		j.torn = false
	}
	if n, err := j.file.Write(line); err != nil {
		return err
	} else if n < len(line) {
		return io.ErrShortWrite
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	if !j.named {
		if err := j.fs.SyncDir(filepath.Dir(j.path)); err != nil {
			return err
		}
		j.named = true
	}
	return nil
}

// Checkpoint appends an entry that signs all before it.
func (j *Journal) Checkpoint(at time.Time) (Head, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.signer == nil {
		return Head{}, errors.New("journal checkpoint: no device key")
	}
	if err := j.rotate(at); err != nil {
		return Head{}, err
	}
	c := Checkpoint{Device: j.signer.ID(), Entries: j.head.Entries, Hash: j.head.Hash}
	sig, err := j.signer.Sign(c.Message())
	if err != nil {
		return Head{}, diag.Errorf("sign a journal checkpoint: %w", err)
	}
	c.Signature = sig
	data, err := json.Marshal(c)
	if err != nil {
		return Head{}, err
	}
	return j.put(Entry{At: at, Kind: KindCheckpoint, Data: data})
}

// Close closes the file. Everything appended is durable already.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// Tail returns up to max of the newest entries, oldest first.
func (j *Journal) Tail(max int) ([]Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Read(j.fs, j.path, max)
}

// readOne is Read of one file.
func readOne(fsys fsx.FS, path string, max int) ([]Entry, error) {
	var out []Entry
	_, err := walk(fsys, path, func(l line) error {
		if l.err == nil {
			out = append(out, l.entry)
			if max > 0 && len(out) > 2*max {
				out = append(out[:0], out[len(out)-max:]...)
			}
		}
		return nil
	})
	if max > 0 && len(out) > max {
		out = out[len(out)-max:]
	}
	return out, err
}

// Report is the outcome of Verify.
type Report struct {
	Head        Head
	Checkpoints int   // signed checkpoints that verified
	Signed      int64 // entries covered by the newest of them
	Torn        bool  // the file ends in an unfinished entry, which the next start removes
	Oldest      int64 // number of the first entry that is still kept
	Files       int   // that the journal consists of
}

func chain(prev string, body []byte) string {
	h := sha256.New()
	io.WriteString(h, prev)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// scanned is what a file holds.
type scanned struct {
	head   Head
	good   int64 // bytes up to and with the last good entry
	serial uint64
	signed int64 // number of the newest checkpoint
	tail   bool  // bytes past good that are an unfinished last entry
	damage error // altered before the tail
	first  int64 // number of the first entry, 0 when there is none
	lines  int   // good ones
	moved  bool  // the file that is appended to has no entry yet; head is that of the one before
	hashes func(n int64) (string, bool)
}

func (s scanned) holds(known Head) error {
	if known.Entries == 0 {
		return nil
	}
	got, ok := s.hashes(known.Entries)
	switch {
	case !ok:
		return diag.Errorf("%w: it has %d entries, at least %d were written", ErrDamaged, s.head.Entries, known.Entries)
	case got != known.Hash:
		return diag.Errorf("%w: entry %d is not the one that was written", ErrDamaged, known.Entries)
	}
	return nil
}

type line struct {
	hash  string
	body  []byte
	entry Entry
	size  int64
	err   error // malformed
}

// scanAt walks the chain of one file. after is the head that its first entry must follow; nil: whatever that says, the
// beginning or an anchor. A line that does not hold is the torn tail when nothing but bad lines follow it, else damage.
func scanAt(fsys fsx.FS, seg segment, after *Head, visit func(Entry, Head) error) (scanned, error) {
	var s scanned
	var bad error
	var hashes []string
	var start int64 // entries before the file
	s.hashes = func(n int64) (string, bool) {
		if n < start || n-start >= int64(len(hashes)) {
			return "", false
		}
		return hashes[n-start], true
	}
	fail := func(format string, args ...any) error {
		return diag.Errorf("%w: %s:%d: "+format, append([]any{ErrDamaged, seg.name(), s.lines + 1}, args...)...)
	}
	begin := func(l line) error {
		switch {
		case after != nil:
			s.head = *after
			if l.entry.N > after.Entries+1 {
				return fail("entries %d to %d are missing", after.Entries+1, l.entry.N-1)
			}
		case l.entry.N > 1:
			a, err := parseAnchor(l.entry)
			if err != nil {
				return fail("%w", err)
			}
			s.head = Head{a.Entries, a.Hash}
		}
		start, s.first = s.head.Entries, s.head.Entries+1
		hashes = append(hashes, s.head.Hash)
		return nil
	}
	unfinished, err := walk(fsys, seg.path, func(l line) error {
		if bad != nil {
			if l.err == nil && s.damage == nil {
				s.damage = bad
			}
			return nil
		}
		if l.err == nil && s.first == 0 {
			if bad = begin(l); bad != nil {
				s.damage = bad
				return nil
			}
		}
		switch want := s.head.Entries + 1; {
		case l.err != nil:
			bad = fail("after entry %d: %w", s.head.Entries, l.err)
		case l.hash != chain(s.head.Hash, l.body):
			bad = fail("entry %d does not follow the one before it", want)
			// A whole line whose own bytes are in order is no half-written one.
			s.damage = bad
		case l.entry.N != want:
			bad = fail("entry %d is numbered %d", want, l.entry.N)
			s.damage = bad
		default:
			s.head = Head{Entries: want, Hash: l.hash}
			s.good += l.size
			s.serial = max(s.serial, l.entry.Serial)
			if l.entry.Kind == KindCheckpoint || l.entry.Kind == KindSegment {
				s.signed = want
			}
			hashes = append(hashes, l.hash)
			if visit != nil {
				if err := visit(l.entry, s.head); err != nil {
					s.damage = fail("%w", err)
					bad = s.damage
					return nil
				}
			}
			s.lines++
		}
		return nil
	})
	if len(hashes) == 0 {
		hashes = append(hashes, "")
	}
	if errors.Is(err, ErrDamaged) {
		s.damage, err = err, nil
	}
	s.tail = s.damage == nil && (unfinished || bad != nil)
	return s, err
}

// walk calls fn for each finished line and tells whether bytes without a line end follow.
func walk(fsys fsx.FS, path string, fn func(line) error) (unfinished bool, err error) {
	f, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, diag.Errorf("open the journal: %w", err)
	}
	defer f.Close()
	var pending []byte
	buf := make([]byte, 64<<10)
	for {
		n, rerr := f.Read(buf)
		pending = append(pending, buf[:n]...)
		for {
			i := bytes.IndexByte(pending, '\n')
			if i < 0 {
				break
			}
			if err := fn(parseLine(pending[:i])); err != nil {
				return false, err
			}
			pending = pending[i+1:]
		}
		if len(pending) > 16*MaxEntry {
			return false, diag.Errorf("%w: a line of more than %d bytes", ErrDamaged, 16*MaxEntry)
		}
		if errors.Is(rerr, io.EOF) {
			return len(pending) > 0, nil
		}
		if rerr != nil {
			return false, diag.Errorf("read the journal: %w", rerr)
		}
	}
}

func parseLine(b []byte) line {
	l := line{size: int64(len(b)) + 1}
	hash, body, ok := strings.Cut(string(b), " ")
	if _, err := hex.DecodeString(hash); !ok || len(hash) != 64 || err != nil {
		l.err = errors.New("a line without a hash") // zeros, when a power cut lost one block of it
		return l
	}
	l.hash, l.body = hash, []byte(body)
	if err := json.Unmarshal(l.body, &l.entry); err != nil {
		l.err = diag.Errorf("a line that is no entry: %w", err)
	}
	return l
}
