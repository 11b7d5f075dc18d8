package state

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// A document that was altered is passed over for the one before it, by its checksum. The checksum is no secret: whoever may write
// as the agent computes it anew, and the altered document counts. That is the limit which docs/threat-model.md names.
func TestAlteredDocument(t *testing.T) {
	good, evil := artifact.DigestOf([]byte("good")), artifact.DigestOf([]byte("evil"))
	for name, c := range map[string]struct {
		was, now string
		got      func(d *Doc) bool // the alteration counts
	}{
		"seq":         {`"seq":7`, `"seq":3`, func(d *Doc) bool { return d.Channel("prod").Seq == 3 }},
		"epoch floor": {`"epochFloor":5`, `"epochFloor":1`, func(d *Doc) bool { return d.Channel("prod").EpochFloor == 1 }},
		"pointer":     {good.Hex(), evil.Hex(), func(d *Doc) bool { return d.Channel("prod").Current.Digest == evil }},
		"quarantine":  {`"reason":"wrong answers"`, `"reason":""`, func(d *Doc) bool { return d.Channel("prod").Quarantine[string(good)].Reason == "" }},
		"trust":       {`"version":4`, `"version":2`, func(d *Doc) bool { return d.Trust.Version == 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				m := newFS(t)
				s, err := Open(m, dir)
				if err != nil {
					t.Fatal(err)
				}
				for range 2 { // so that a whole document is left
					err := s.Update(func(d *Doc) error {
						x := d.Channel("prod")
						x.Seq, x.EpochFloor = 7, 5
						x.Current = &Slot{Digest: good, Name: "churn"}
						x.Quarantine = map[string]Quarantine{string(good): {Seq: 7, Reason: "wrong answers"}}
						d.Trust.Version = 4
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				file := s.file(s.Doc().Serial)
				raw, err := fsx.ReadFile(m, file, maxDoc)
				if err != nil {
					t.Fatal(err)
				}
				sum, body, _ := strings.Cut(string(raw), "\n")
				altered := strings.ReplaceAll(body, c.was, c.now)
				if altered == body {
					t.Fatalf("%s holds no %s: %s", file, c.was, body)
				}
				if open {
					h := sha256.Sum256([]byte(altered))
					sum = hex.EncodeToString(h[:])
				}
				if err := fsx.WriteFileAtomic(m, file, []byte(sum+"\n"+altered), 0o600); err != nil {
					t.Fatal(err)
				}
				again, err := Open(m, dir)
				if err != nil {
					t.Fatal(err)
				}
				if got := c.got(again.Doc()); got != open || (len(again.Notes()) == 0) != open {
					t.Errorf("checksum made anew %v: the alteration counts %v, notes %q", open, got, again.Notes())
				}
			}
		})
	}
}
