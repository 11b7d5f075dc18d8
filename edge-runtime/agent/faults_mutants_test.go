package agent

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
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// mutant is a defect put into the product through a seam; the zero value is the product.
type mutant struct {
	name   string
	lazy   bool                // syncs do nothing
	fs     func(fsx.FS) fsx.FS // between the agent and the disk, for each process
	agent  func(*Agent)        // hooks
	signer interface {         // of the journal
		ID() string
		Sign([]byte) ([]byte, error)
	}
	sound bool        // no defect: the harness must find nothing
	kinds []fsx.Fault // only these, and
	only  []string    // only these scenarios, where the defect shows in few of all
}

// layer is a file system with some operations replaced.
type layer struct {
	fsx.FS
	syncFile func(f fsx.File) error
	syncDir  func(name string) error
	write    func(name string, p []byte) []byte // the bytes to write instead
	read     func(name string, b []byte) []byte // the content to read instead
	rename   func(oldname, newname string) error
	remove   func(name string) error
}

type layerFile struct {
	fsx.File
	l *layer
}

func (l *layer) wrap(f fsx.File, err error) (fsx.File, error) {
	if err != nil {
		return nil, err
	}
	return &layerFile{f, l}, nil
}

// Create implements fsx.FS.
func (l *layer) Create(name string, perm fs.FileMode) (fsx.File, error) {
	return l.wrap(l.FS.Create(name, perm))
}

// OpenAppend implements fsx.FS.
func (l *layer) OpenAppend(name string, perm fs.FileMode) (fsx.File, error) {
	return l.wrap(l.FS.OpenAppend(name, perm))
}

// Open implements fsx.FS.
func (l *layer) Open(name string) (fsx.File, error) {
	f, err := l.FS.Open(name)
	if err != nil || l.read == nil {
		return f, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &readFile{f, bytes.NewReader(l.read(name, b))}, nil
}

// SyncDir implements fsx.FS.
func (l *layer) SyncDir(name string) error {
	if l.syncDir != nil {
		return l.syncDir(name)
	}
	return l.FS.SyncDir(name)
}

// Rename implements fsx.FS.
func (l *layer) Rename(oldname, newname string) error {
	if l.rename != nil {
		return l.rename(oldname, newname)
	}
	return l.FS.Rename(oldname, newname)
}

// Remove implements fsx.FS.
func (l *layer) Remove(name string) error {
	if l.remove != nil {
		return l.remove(name)
	}
	return l.FS.Remove(name)
}

// readFile reads other content than the file has.
type readFile struct {
	fsx.File
	r *bytes.Reader
}

func (f *readFile) Read(p []byte) (int, error) { return f.r.Read(p) }

func (f *layerFile) Sync() error {
	if f.l.syncFile != nil {
		return f.l.syncFile(f.File)
	}
	return f.File.Sync()
}

func (f *layerFile) Write(p []byte) (int, error) {
	if f.l.write == nil {
		return f.File.Write(p)
	}
	q := f.l.write(f.Name(), p)
	n, err := f.File.Write(q)
	if err == nil && n == len(q) {
		n = len(p)
	}
	return min(n, len(p)), err
}

// isDoc tells whether a file holds a state document, under its final or its temporary name.
func isDoc(name string) bool {
	base := strings.TrimPrefix(filepath.Base(filepath.ToSlash(name)), ".")
	return strings.HasPrefix(base, "state.0")
}

// edited changes the document in the bytes of a state file; what is no document stays.
func edited(b []byte, change func(*state.Doc)) []byte {
	var d state.Doc
	_, body, ok := bytes.Cut(b, []byte("\n"))
	if !ok || json.Unmarshal(body, &d) != nil {
		return b
	}
	change(&d)
	body, err := json.Marshal(&d)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(body)
	return append(append([]byte(hex.EncodeToString(sum[:])), '\n'), body...)
}

// writesDoc is a file system to which another document is written than the agent means.
func writesDoc(change func(*state.Doc)) func(fsx.FS) fsx.FS {
	return func(inner fsx.FS) fsx.FS {
		return &layer{FS: inner, write: func(name string, p []byte) []byte {
			if !isDoc(name) {
				return p
			}
			return edited(p, change)
		}}
	}
}

// eachChannel changes every channel of a document.
func eachChannel(change func(*state.Channel)) func(*state.Doc) {
	return func(d *state.Doc) {
		for _, c := range d.Channels {
			change(c)
		}
	}
}

// commitInTwo writes the rollback's commit with its intent still there, to be cleared by the next save, as a design does that
// moves the pointer first. A resumed rollback then begins after its pointer has moved. recompute works its target out
// again from the state it finds, instead of reading the copy in the intent.
func commitInTwo(recompute bool) func(fsx.FS) fsx.FS {
	return func(inner fsx.FS) fsx.FS {
		var mu sync.Mutex
		last := map[string]*state.Intent{}
		l := &layer{FS: inner}
		l.write = func(name string, p []byte) []byte {
			if !isDoc(name) {
				return p
			}
			mu.Lock()
			defer mu.Unlock()
			return edited(p, eachChannel(func(c *state.Channel) {
				in := c.Intent
				if was := last[c.Name]; in == nil && was != nil && was.Kind == state.Rollback && c.Current != nil && c.Current.Digest == was.Candidate.Digest {
					c.Intent = was
				}
				last[c.Name] = in
			}))
		}
		if recompute {
			l.read = func(name string, b []byte) []byte {
				if !isDoc(name) {
					return b
				}
				return edited(b, eachChannel(func(c *state.Channel) {
					if c.Intent != nil && c.Intent.Kind == state.Rollback && c.Previous != nil {
						c.Intent.Candidate = *c.Previous
					}
				}))
			}
		}
		return l
	}
}

type noSigner struct{ journalSigner }

func (noSigner) Sign([]byte) ([]byte, error) { return nil, errors.New("no checkpoint") }

// mutants are the defects that the harness must find.
func mutants(key journalSigner) []mutant {
	return slices.Concat([]mutant{
		{name: "no fsync at all", lazy: true},
		{name: "no fsync of files", fs: func(inner fsx.FS) fsx.FS {
			return &layer{FS: inner, syncFile: func(fsx.File) error { return nil }}
		}},
		{name: "no fsync of directories", fs: func(inner fsx.FS) fsx.FS {
			return &layer{FS: inner, syncDir: func(string) error { return nil }}
		}},
		{name: "a copy in place of a rename", fs: func(inner fsx.FS) fsx.FS {
			return &layer{FS: inner, rename: func(oldname, newname string) error {
				b, err := fsx.ReadFile(inner, oldname, 1<<30)
				if err == nil {
					_ = inner.Remove(newname)
					var f fsx.File
					if f, err = inner.Create(newname, 0o600); err == nil {
						_, err = f.Write(b)
						err = errors.Join(err, f.Close(), inner.Remove(oldname))
					}
				}
				return err
			}}
		}},
		{name: "a download whose fsync failed is taken up again", kinds: []fsx.Fault{fsx.LostSync}, only: []string{"update", "trust-next"}, fs: func(inner fsx.FS) fsx.FS {
			l := &layer{FS: inner}
			failed := map[string]bool{}
			l.syncFile = func(f fsx.File) error {
				err := f.Sync()
				failed[f.Name()] = err != nil
				return err
			}
			l.remove = func(name string) error {
				if failed[name] {
					return errors.New("not removed")
				}
				return inner.Remove(name)
			}
			return l
		}},
		{name: "no intent before a step", fs: writesDoc(eachChannel(func(c *state.Channel) { c.Intent = nil }))},
		{name: "the pointer moves before the trial", fs: writesDoc(eachChannel(func(c *state.Channel) {
			if in := c.Intent; in != nil && in.Step == state.Trial {
				c.Previous, c.Current, c.Intent = c.Current, &in.Candidate, nil
			}
		}))},
		{name: "the rollback target is worked out again after a restart", fs: commitInTwo(true)},
		{name: "the security floor rises before the commit", fs: writesDoc(eachChannel(func(c *state.Channel) {
			if c.Intent != nil {
				c.EpochFloor = max(c.EpochFloor, c.Intent.EpochFloor)
			}
		}))},
		{name: "seq is written with the commit only", fs: writesDoc(eachChannel(func(c *state.Channel) {
			if c.Current != nil && c.Seq > c.Current.Seq {
				c.Seq = c.Current.Seq
			}
		}))},
		{name: "quarantine lives in memory", fs: writesDoc(eachChannel(func(c *state.Channel) { c.Quarantine = nil }))},
		{name: "the pin of a rollback by hand lives in memory", only: []string{"rollback-by-hand"}, fs: writesDoc(eachChannel(func(c *state.Channel) { c.Pinned = nil }))},
		{name: "trust documents live in memory", fs: writesDoc(func(d *state.Doc) { d.Trust = state.TrustPin{} })},
		{name: "journal entries are not part of the document's write", fs: writesDoc(func(d *state.Doc) { d.Outbox = nil })},
		{name: "a journal without checkpoints", signer: noSigner{key}},
		{name: "a sweep that ignores intents", only: []string{"two-channels-at-once"}, agent: func(a *Agent) {
			a.checks.needs = func(c *state.Channel) []state.Slot {
				x := c.Clone()
				x.Intent = nil
				return x.Slots()
			}
		}},
		{name: "a sweep that keeps only what serves", agent: func(a *Agent) {
			a.checks.needs = func(c *state.Channel) []state.Slot {
				x := state.Channel{Current: c.Current, Intent: c.Intent}
				return x.Slots()
			}
		}},
		{name: "a sweep that never removes anything", agent: func(a *Agent) {
			a.checks.needs = func(c *state.Channel) []state.Slot {
				return append(c.Slots(), state.Slot{Digest: artifact.DigestOf([]byte("nowhere"))}) // not there: it gives up
			}
		}},
	}, moreMutants(), []mutant{
		{name: "none: a commit in two steps whose target was copied", fs: commitInTwo(false), sound: true},
		{name: "none: the product", sound: true},
	})
}

// TestFaultsCatchMutants runs the same plan on products with a defect: each must be found. The table says after how many runs.
func TestFaultsCatchMutants(t *testing.T) {
	ss := allScenarios(t)
	const most, sound = 1500, 50
	var table strings.Builder
	for _, mu := range mutants(journalSigner{ss[0].world.key}) {
		kinds, in := fsx.Faults(), ss
		if mu.kinds != nil {
			kinds = mu.kinds
		}
		if mu.only != nil {
			in = nil
			for _, s := range ss {
				if slices.Contains(mu.only, s.name) {
					in = append(in, s)
				}
			}
		}
		p, n := planOf(in, kinds, 1), most
		if mu.sound {
			n = sound
		}
		runs, found := 0, ""
		p.each(t.Context(), n, mu, func(_ int, r faultRun, out outcome) bool {
			runs++
			if len(out.violations) > 0 && found == "" {
				found = fmt.Sprintf("%.60s in %s", out.violations[0], r)
			}
			return found == ""
		})
		fmt.Fprintf(&table, "%-60s %5d runs: %s\n", mu.name, runs, found)
		switch {
		case mu.sound && found != "":
			t.Errorf("%s: %s", mu.name, found)
		case !mu.sound && found == "":
			t.Errorf("%s: not found in %d runs", mu.name, runs)
		}
	}
	t.Logf("defect, and the run that found it\n%s", &table)
}
