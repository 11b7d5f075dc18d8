package targettest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Wire stands between the client and the platform's server. It is safe for concurrent use.
type Wire struct {
	fail    func(w http.ResponseWriter, r *http.Request, cause error, message string)
	serving func() map[artifact.Digest]int

	mu     sync.Mutex
	armed  *fault
	calls  int      // since the fault was armed
	trace  []string // of these calls
	fired  bool
	at     map[artifact.Digest]int // that served when it fired
	watch  func(shares map[artifact.Digest]int)
	active sync.WaitGroup // requests that the server works on
}

// kind is what happens to a call.
type kind int

const (
	none  kind = iota
	cut        // the connection ends before the platform has seen the request
	lost       // the platform acts, the connection ends before the answer
	says       // the platform answers with cause and does nothing
	hook       // run is called, then the call goes on
	after      // the platform acts, run is called, then the answer goes out
)

// fault is one plan of what goes wrong.
type fault struct {
	kind  kind
	nth   int // call, from 1
	on    bool
	cause error  // of says
	run   func() // of hook and after
}

// arm sets what goes wrong from now on and begins to count anew; nil: nothing.
func (w *Wire) arm(f *fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed, w.calls, w.fired, w.at, w.trace = f, 0, false, nil, nil
}

// hit tells whether the fault happened, what served then, and the calls so far. It waits for requests that the platform still works
// on although their client gave up: what they do belongs to the move that is over.
func (w *Wire) hit() (bool, map[artifact.Digest]int, string) {
	w.active.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fired, w.at, strings.Join(slices.Clone(w.trace), ", ")
}

// watching calls f with what serves after each call from now on.
func (w *Wire) watching(f func(shares map[artifact.Digest]int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch = f
}

// next decides about a call.
func (w *Wire) next(r *http.Request) *fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.trace = append(w.trace, r.Method+" "+r.URL.Path)
	f := w.armed
	if f == nil || w.calls < f.nth || w.calls > f.nth && !f.on {
		return nil
	}
	if !w.fired {
		w.fired, w.at = true, w.serving()
	}
	if f.kind == hook || f.kind == after {
		w.armed = nil // what run does is not counted, and does not call itself
	}
	return f
}

// Handler puts the wire in front of the platform's server. A harness uses it for every server that the target's client talks to.
func (w *Wire) Handler(platform http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.active.Add(1)
		defer w.active.Done()
		f := w.next(r)
		k := none
		if f != nil {
			k = f.kind
		}
		switch k {
		case cut:
			panic(http.ErrAbortHandler)
		case says:
			// What a careless platform, or a proxy before it, quotes of the request.
			var quoted []string
			for name, v := range r.Header {
				quoted = append(quoted, fmt.Sprintf("%s: %s", name, strings.Join(v, ", ")))
			}
			slices.Sort(quoted)
			w.fail(rw, r, f.cause, "request was "+r.Method+" "+r.URL.String()+" with "+strings.Join(quoted, "; "))
			return
		case hook:
			f.run()
		}
		if k == lost || k == after {
			rec := httptest.NewRecorder()
			platform.ServeHTTP(rec, r)
			w.looked()
			if k == lost {
				panic(http.ErrAbortHandler)
			}
			f.run()
			for name, v := range rec.Header() {
				rw.Header()[name] = v
			}
			rw.WriteHeader(rec.Code)
			_, _ = rw.Write(rec.Body.Bytes())
			return
		}
		platform.ServeHTTP(rw, r)
		w.looked()
	})
}

// looked shows what serves to who watches.
func (w *Wire) looked() {
	w.mu.Lock()
	watch := w.watch
	w.mu.Unlock()
	if watch != nil {
		watch(w.serving())
	}
}
