package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Transfers is what this machine remembers about registries, so that less has to be sent: where uploads that did not end
// may be taken up, and in which repositories a blob was seen. All of it may be wrong or missing: the registry is asked
// before anything is relied on, and what turns out wrong is dropped. So nothing here returns an error, and a nil Transfers
// remembers nothing. It is safe for use by several processes.
//
// The address of an upload lets its holder write to it, so the files are private (0600 in a folder 0700).
type Transfers struct{ dir string }

// NewTransfers keeps the memory in dir, which is made when something is to be remembered.
func NewTransfers(dir string) *Transfers {
	if dir == "" {
		return nil
	}
	return &Transfers{dir}
}

const (
	sessionSchema = "https://github.com/waybill-ml/waybill/schema/upload/v1"
	seenSchema    = "https://github.com/waybill-ml/waybill/schema/seen/v1"
	maxRecord     = 64 << 10
	maxSessions   = 256
	maxSeen       = 4096 // blobs
	maxPlaces     = 8    // of one blob
	sessionLife   = 7 * 24 * time.Hour
)

// uploadRecord is the file of an upload.
type uploadRecord struct {
	Schema   string          `json:"schema"`
	Host     string          `json:"host"`
	Repo     string          `json:"repo"`
	Digest   artifact.Digest `json:"digest"`
	Size     int64           `json:"size"`
	Location string          `json:"location"`
	Offset   int64           `json:"offset"` // that was answered last
}

// session is the record of one upload, held by this process alone until close. A nil session keeps nothing.
type session struct {
	path    string
	rec     uploadRecord
	release func() error
}

// session takes the record of an upload. It is nil when another process, or another upload of this one, has it.
func (t *Transfers) session(ctx context.Context, host, repo string, d artifact.Descriptor) *session {
	if t == nil {
		return nil
	}
	dir := filepath.Join(t.dir, "uploads")
	if os.MkdirAll(dir, 0o700) != nil {
		return nil
	}
	sum := sha256.Sum256([]byte(host + "\x00" + repo + "\x00" + string(d.Digest)))
	base := filepath.Join(dir, hex.EncodeToString(sum[:16]))
	tidy(dir, 2*maxSessions, sessionLife) // a record and a lock each
	// One attempt: who comes second sends on its own.
	now, cancel := context.WithCancel(ctx)
	cancel()
	release, err := fsx.Lock(now, base+".lock", false)
	if err != nil {
		return nil
	}
	s := &session{path: base + ".json", release: release, rec: uploadRecord{Schema: sessionSchema, Host: host, Repo: repo, Digest: d.Digest, Size: d.Size}}
	b, err := fsx.ReadFile(fsx.OS{}, s.path, maxRecord)
	if err != nil {
		return s
	}
	var old uploadRecord
	if r, err := parseUpload(b); err == nil {
		old = r
	}
	if want := s.rec; old.Host == want.Host && old.Repo == want.Repo && old.Digest == want.Digest && old.Size == want.Size {
		s.rec = old
	}
	return s
}

func parseUpload(b []byte) (uploadRecord, error) {
	var r uploadRecord
	if err := strictjson.Decode(b, &r); err != nil {
		return uploadRecord{}, err
	}
	if r.Schema != sessionSchema || !strings.HasPrefix(r.Location, "https://") && !strings.HasPrefix(r.Location, "http://") {
		return uploadRecord{}, os.ErrInvalid
	}
	return r, nil
}

func (s *session) location() string {
	if s == nil {
		return ""
	}
	return s.rec.Location
}

func (s *session) put(location string, offset int64) {
	if s == nil {
		return
	}
	s.rec.Location, s.rec.Offset = location, offset
	if b, err := json.Marshal(s.rec); err == nil {
		_ = fsx.WriteFileAtomic(fsx.OS{}, s.path, b, 0o600)
	}
}

// drop forgets the address.
func (s *session) drop() {
	if s == nil {
		return
	}
	s.rec.Location = ""
	_ = os.Remove(s.path)
}

// done removes the record of an upload that ended well.
func (s *session) done() {
	if s == nil {
		return
	}
	s.drop()
	_ = os.Remove(strings.TrimSuffix(s.path, ".json") + ".lock") // two that hold it now harm each other's upload, not the content
}

func (s *session) close() {
	if s != nil {
		_ = s.release()
	}
}

// tidy removes the oldest files of a folder that has more than most, and those that are older than life.
func tidy(dir string, most int, life time.Duration) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	type aged struct {
		path string
		mod  time.Time
	}
	var files []aged
	for _, e := range es {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			files = append(files, aged{filepath.Join(dir, e.Name()), fi.ModTime()})
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].mod.Before(files[j].mod) })
	for i, f := range files {
		if len(files)-i > most || time.Since(f.mod) > life {
			_ = os.Remove(f.path)
		}
	}
}

// seenRecord is the file of a blob that is in registries.
type seenRecord struct {
	Schema string          `json:"schema"`
	Digest artifact.Digest `json:"digest"`
	Places []seenPlace     `json:"places"` // newest first
}

type seenPlace struct {
	Host string `json:"host"`
	Repo string `json:"repo"`
}

func (t *Transfers) seenPath(d artifact.Digest) string {
	return filepath.Join(t.dir, "seen", d.Hex()+".json")
}

func (t *Transfers) places(d artifact.Digest) []seenPlace {
	if _, err := artifact.ParseDigest(string(d)); t == nil || err != nil {
		return nil
	}
	b, err := fsx.ReadFile(fsx.OS{}, t.seenPath(d), maxRecord)
	if err != nil {
		return nil
	}
	r, err := parseSeen(b)
	if err != nil || r.Digest != d {
		return nil
	}
	return r.Places
}

func parseSeen(b []byte) (seenRecord, error) {
	var r seenRecord
	if err := strictjson.Decode(b, &r); err != nil {
		return seenRecord{}, err
	}
	if r.Schema != seenSchema || len(r.Places) > maxPlaces {
		return seenRecord{}, os.ErrInvalid
	}
	for _, p := range r.Places {
		if !hostRE.MatchString(p.Host) || !ValidRepo(p.Repo) {
			return seenRecord{}, os.ErrInvalid
		}
	}
	return r, nil
}

// known lists the repositories of a registry in which a blob was seen, the last one first.
func (t *Transfers) known(d artifact.Digest, host string) []string {
	var out []string
	for _, p := range t.places(d) {
		if p.Host == host {
			out = append(out, p.Repo)
		}
	}
	return out
}

// seen notes that a blob is in a repository.
func (t *Transfers) seen(d artifact.Digest, host, repo string) {
	if t == nil {
		return
	}
	now := t.places(d)
	if len(now) > 0 && now[0] == (seenPlace{host, repo}) {
		return
	}
	t.write(d, append([]seenPlace{{host, repo}}, slices.DeleteFunc(now, func(p seenPlace) bool { return p == seenPlace{host, repo} })...))
}

// forget notes that it is not.
func (t *Transfers) forget(d artifact.Digest, host, repo string) {
	if t == nil {
		return
	}
	t.write(d, slices.DeleteFunc(t.places(d), func(p seenPlace) bool { return p == seenPlace{host, repo} }))
}

func (t *Transfers) write(d artifact.Digest, places []seenPlace) {
	if _, err := artifact.ParseDigest(string(d)); err != nil {
		return
	}
	path := t.seenPath(d)
	if len(places) == 0 {
		_ = os.Remove(path)
		return
	}
	b, err := json.Marshal(seenRecord{seenSchema, d, places[:min(len(places), maxPlaces)]})
	if err != nil {
		return
	}
	if _, err := os.Stat(path); err != nil { // a new file: the folder stays bounded
		if os.MkdirAll(filepath.Dir(path), 0o700) != nil {
			return
		}
		tidy(filepath.Dir(path), maxSeen-1, 365*24*time.Hour)
	}
	_ = fsx.WriteFileAtomic(fsx.OS{}, path, b, 0o600)
}
