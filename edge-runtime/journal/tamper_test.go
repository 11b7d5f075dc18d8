package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// forge rewrites the history of a journal as somebody does who knows everything but the device key: entries are changed, numbered
// anew and hashed anew, and checkpoints say what they should, under a signature that is made up.
func forge(t *testing.T, b []byte, edit func([]Entry) []Entry) []byte {
	t.Helper()
	var es []Entry
	for _, l := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		p := parseLine([]byte(l))
		if p.err != nil {
			t.Fatal(p.err)
		}
		es = append(es, p.entry)
	}
	var out []byte
	prev := Head{}
	for i, e := range edit(es) {
		e.N = int64(i + 1)
		if e.Kind == KindCheckpoint {
			var c Checkpoint
			if err := json.Unmarshal(e.Data, &c); err != nil {
				t.Fatal(err)
			}
			c.Entries, c.Hash, c.Signature = prev.Entries, prev.Hash, bytes.Repeat([]byte{1}, 64)
			raw, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			e.Data = raw
		}
		body, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		prev = Head{e.N, chain(prev.Hash, body)}
		out = append(out, prev.Hash+" "+string(body)+"\n"...)
	}
	return out
}

// A forged history is found by the head that is known from elsewhere, and by the device's signatures: by each of the two alone.
// Without both, another story is told and nobody sees it. A history that is changed without new hashes is found without either.
func TestForgedHistory(t *testing.T) {
	change := func(es []Entry) []Entry { es[2].Reason = "all was well"; return es }
	for name, edit := range map[string]func([]Entry) []Entry{
		"an entry says something else": change,
		"an entry is gone":             func(es []Entry) []Entry { return slices.Delete(es, 2, 3) },
		"an entry is invented": func(es []Entry) []Entry {
			return slices.Insert(es, 2, Entry{At: t0, Kind: "test", Reason: "all was well"})
		},
		"two entries change places": func(es []Entry) []Entry { es[1], es[2] = es[2], es[1]; return es },
	} {
		t.Run(name, func(t *testing.T) {
			m := newFS(t)
			head := fill(t, m, 5)
			whole := slurp(t, m)
			story := func() (s string) {
				es, err := Read(m, path, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range es {
					s += e.Reason + ";"
				}
				return s
			}
			before := story()
			replace(t, m, forge(t, whole, edit))
			if story() == before {
				t.Fatal("nothing was forged")
			}
			for _, c := range []struct {
				without string
				known   Head
				checker Checker
				found   bool
			}{
				{"nothing", head, newKey(), true},
				{"the known head", Head{}, newKey(), true},
				{"the signatures", head, acceptAll{}, true},
				{"both", Head{}, acceptAll{}, false},
			} {
				if _, err := Verify(m, path, c.known, c.checker); errors.Is(err, ErrDamaged) != c.found || !c.found && err != nil {
					t.Errorf("without %s: %v", c.without, err)
				}
			}
			// An agent that starts has no signature to go by, but the head in its document.
			if _, damaged := open(t, clone(t, m), head); damaged == nil {
				t.Error("with the known head the forged journal is taken for whole")
			}
			if _, damaged := open(t, clone(t, m), Head{}); damaged != nil {
				t.Errorf("without the known head it is found all the same: %v", damaged)
			}
		})
	}
	m := newFS(t)
	fill(t, m, 5)
	replace(t, m, bytes.Replace(slurp(t, m), []byte(`"reason":"2"`), []byte(`"reason":"9"`), 1))
	if _, err := Verify(m, path, Head{}, acceptAll{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("changed without new hashes: %v", err)
	}
}

// clone is a file system with the same journal.
func clone(t *testing.T, m *fsx.Mem) *fsx.Mem {
	t.Helper()
	other := newFS(t)
	replace(t, other, slurp(t, m))
	return other
}
