package registry

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const testDigest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

// FuzzParseUpload: what is taken from the file of an upload has an address of the web, and is written as it was read.
func FuzzParseUpload(f *testing.F) {
	good, err := json.Marshal(uploadRecord{sessionSchema, "registry.example:5000", "ml/churn", testDigest, 9 << 20, "https://registry.example:5000/u?_state=x", 1 << 20})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		string(good), strings.Replace(string(good), "https://", "file://", 1), strings.Replace(string(good), "https://", "http://", 1),
		strings.Replace(string(good), "upload/v1", "upload/v2", 1), strings.Replace(string(good), `"size":`, `"size":-`, 1),
		strings.Replace(string(good), `{`, `{"more":1,`, 1), strings.Replace(string(good), `{`, `{"host":"thief.test",`, 1),
		string(good) + "{}", string(good[:len(good)/2]), "null", "[]", "{}", "", "\x00", `{"schema":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseUpload(b)
		if err != nil {
			if r != (uploadRecord{}) {
				t.Fatalf("%q: an error, and %+v", b, r)
			}
			return
		}
		if r.Schema != sessionSchema || !strings.HasPrefix(r.Location, "http") || !strings.Contains(r.Location, "://") {
			t.Fatalf("%q: took %+v", b, r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseUpload(again); err != nil || back != r {
			t.Fatalf("%q: %+v came back as %+v (%v)", b, r, back, err)
		}
	})
}

// FuzzParseSeen: every place that is taken can stand in a request, and there are not many.
func FuzzParseSeen(f *testing.F) {
	good, err := json.Marshal(seenRecord{seenSchema, testDigest, []seenPlace{{"registry.example:5000", "ml/churn"}, {"127.0.0.1:1", "a/b"}}})
	if err != nil {
		f.Fatal(err)
	}
	many, err := json.Marshal(seenRecord{seenSchema, testDigest, make([]seenPlace, maxPlaces+1)})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		string(good), string(many), strings.Replace(string(good), "ml/churn", "../../x", 1), strings.Replace(string(good), "ml/churn", "a&from=b", 1),
		strings.Replace(string(good), "registry.example", "user@registry.example", 1), strings.Replace(string(good), "seen/v1", "seen/v2", 1),
		strings.Replace(string(good), `{`, `{"more":1,`, 1), string(good) + " x", string(good[:len(good)/2]), `{"schema":"x","places":null}`, "null", "[]", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseSeen(b)
		if err != nil {
			if r.Places != nil {
				t.Fatalf("%q: an error, and %+v", b, r)
			}
			return
		}
		if r.Schema != seenSchema || len(r.Places) > maxPlaces {
			t.Fatalf("%q: took %+v", b, r)
		}
		for _, p := range r.Places {
			if !ValidRepo(p.Repo) || p.Host == "" || strings.ContainsAny(p.Host, "/@?#& \n") {
				t.Fatalf("%q: took the place %+v", b, p)
			}
		}
	})
}

// Records that lie: of another upload, of another blob, too long, or not readable. Nothing is taken from them. What is
// written is for its owner alone.
func TestRecordsThatLie(t *testing.T) {
	tr := NewTransfers(filepath.Join(t.TempDir(), "transfers"))
	d := artifact.Descriptor{Digest: testDigest, Size: 9 << 20}
	other := artifact.DigestOf([]byte("other"))
	const host, repo = "registry.example:5000", "ml/churn"
	tr.seen(d.Digest, host, repo)
	path := tr.seenPath(d.Digest)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := tr.session(t.Context(), host, repo, d)
	s.put("https://registry.example:5000/u", 1)
	upload := s.path
	s.close()
	record, err := os.ReadFile(upload)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		for p, want := range map[string]os.FileMode{path: 0o600, upload: 0o600, filepath.Dir(path): 0o700, filepath.Dir(upload): 0o700} {
			if st, err := os.Stat(p); err != nil || st.Mode().Perm() != want {
				t.Errorf("%s: mode %v (%v), want %v", p, st.Mode(), err, want)
			}
		}
	}
	replace := func(b []byte, old, new string) []byte {
		if !strings.Contains(string(b), old) {
			t.Fatalf("%s does not hold %s", b, old)
		}
		return []byte(strings.ReplaceAll(string(b), old, new))
	}
	for _, c := range []struct {
		name         string
		seen, upload []byte
		taken        bool
	}{
		{"as written", good, record, true},
		{"of another digest", replace(good, testDigest, string(other)), replace(record, testDigest, string(other)), false},
		{"of another repository", replace(good, repo, "../../x"), replace(record, repo, "ml/other"), false},
		{"of another host", replace(good, host, "a/b"), replace(record, `"host":"`+host, `"host":"thief.test`), false},
		{"too long", append(good, strings.Repeat(" ", maxRecord)...), append(record, strings.Repeat(" ", maxRecord)...), false},
		{"cut off", good[:20], record[:20], false},
		{"of a later version", replace(good, "/v1", "/v2"), replace(record, "/v1", "/v2"), false},
	} {
		for p, b := range map[string][]byte{path: c.seen, upload: c.upload} {
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := tr.known(d.Digest, host); (len(got) == 1) != c.taken {
			t.Errorf("seen, %s: %q", c.name, got)
		}
		s := tr.session(t.Context(), host, repo, d)
		if s == nil {
			t.Fatalf("upload, %s: no session", c.name)
		}
		if (s.location() != "") != c.taken {
			t.Errorf("upload, %s: %q", c.name, s.location())
		}
		s.close()
	}
}

// A planted record says that an upload goes on at somebody else's address. He is asked, and hears nothing that he could
// use; the upload starts anew at the registry. Without the rule that credentials are for the registry's origin he has them.
func TestPlantedUploadRecord(t *testing.T) {
	content := []byte("weights")
	for _, careless := range []bool{false, true} {
		x := newThief(t, nil)
		var got []byte // by the registry; its requests come one after the other
		reg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			switch r.Method {
			case http.MethodHead:
				w.WriteHeader(http.StatusNotFound)
			case http.MethodPost:
				w.Header().Set("Location", "/upload")
				w.WriteHeader(http.StatusAccepted)
			case http.MethodPatch:
				got, _ = io.ReadAll(r.Body)
				w.Header().Set("Location", "/upload")
				w.WriteHeader(http.StatusAccepted)
			case http.MethodPut:
				w.WriteHeader(http.StatusCreated)
			}
		}))
		host := strings.TrimPrefix(reg.URL, "http://")
		tr := NewTransfers(t.TempDir())
		s := tr.session(t.Context(), host, "ml/churn", artifact.Descriptor{Digest: artifact.DigestOf(content), Size: int64(len(content))})
		s.put(x.URL+"/upload", 3)
		s.close()
		r, err := NewRemote(host, "ml/churn", RemoteOptions{
			Keychain: Credentials{Host: host, Username: "robot", Password: "secret"}, Transfers: tr, Retry: RetryPolicy{Attempts: 1},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.SetChunks(1, 64)
		if careless {
			r.gate.rules.own = func(_, _ *url.URL) bool { return true }
			r.http = r.gate.client()
		}
		_, err = PushBytes(t.Context(), r, "application/octet-stream", content)
		r.http.CloseIdleConnections()
		reg.Close()
		if err != nil || string(got) != string(content) {
			t.Errorf("careless %v: the registry has %q (%v)", careless, got, err)
		}
		if x.asked() == 0 || (len(x.stolen()) > 0) != careless {
			t.Errorf("careless %v: %d requests, loot %q", careless, x.asked(), x.stolen())
		}
		if _, err := os.Stat(s.path); err == nil {
			t.Errorf("careless %v: the record is still there", careless)
		}
	}
}

// A token server may send a megabyte and no more; a longer answer ends in an error that shows nothing of it.
func TestTokenAnswerIsBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		pad  int
		ok   bool
	}{{"at the limit", 0, true}, {"one byte more", 1, false}, {"endless", 64 << 20, false}} {
		var sent int64
		var hs *httptest.Server
		hs = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				const head, tail = `{"token":"secret-of-the-server","pad":"`, `"}`
				body := io.MultiReader(strings.NewReader(head), io.LimitReader(filler{}, int64(maxToken-len(head)-len(tail)+c.pad)), strings.NewReader(tail))
				sent, _ = io.Copy(w, body)
			case r.Header.Get("Authorization") == "":
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+hs.URL+`/token",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			default:
				_, _ = io.WriteString(w, `{"name":"ml/churn","tags":["1"]}`)
			}
		}))
		r, err := NewRemote(strings.TrimPrefix(hs.URL, "http://"), "ml/churn", RemoteOptions{Keychain: Credentials{}, Retry: RetryPolicy{Attempts: 1}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Tags(t.Context())
		r.http.CloseIdleConnections()
		hs.Close() // waits for the handler
		if (err == nil) != c.ok || err != nil && (diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "token server") || strings.Contains(diag.Render(err), "secret-of")) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.pad > 32<<20 && sent > 32<<20 {
			t.Errorf("%s: %d bytes were taken", c.name, sent)
		}
	}
}

type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
