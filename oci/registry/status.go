package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// StatusError is an answer that was not wanted. It holds no header, no query and no more of the body than the error codes
// of the distribution specification, so it can be shown: no token, no upload state, no password is in it.
type StatusError struct {
	Status  int
	Method  string
	Place   string        // scheme, host and path of the request
	Codes   []string      // MANIFEST_UNKNOWN, ...; may be empty
	Message string        // of the first code, in one line
	Wait    time.Duration // that Retry-After asks for; 0: nothing. It is the server's word and may be a century.
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.Place, e.Status, http.StatusText(e.Status))
	if len(e.Codes) > 0 {
		s += ": " + strings.Join(e.Codes, ", ")
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// maxErrorBody bounds what is read of an error's text.
const maxErrorBody = 64 << 10

// statusError reads the rest of an answer, which it leaves to the caller to close.
func statusError(resp *http.Response) *StatusError {
	e := &StatusError{Status: resp.StatusCode}
	e.Wait, _ = retryAfter(resp.Header, time.Now())
	if q := resp.Request; q != nil {
		u := *q.URL
		u.RawQuery, u.Fragment, u.User = "", "", nil
		e.Method, e.Place = q.Method, u.String()
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what cannot be read is not shown
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(b, &body) != nil {
		return e
	}
	for i, x := range body.Errors[:min(len(body.Errors), 4)] {
		e.Codes = append(e.Codes, plainText(x.Code, 64))
		if i == 0 {
			e.Message = plainText(x.Message, 200)
		}
	}
	return e
}

// plainText makes a server's words fit for a terminal.
func plainText(s string, most int) string {
	var b strings.Builder
	for _, c := range s {
		if b.Len() >= most {
			b.WriteString("...")
			break
		}
		if !unicode.IsPrint(c) {
			c = ' '
		}
		b.WriteRune(c)
	}
	return b.String()
}

// statusOf returns the HTTP status of an error, or 0.
func statusOf(err error) int {
	var e *StatusError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// Paced tells what a server's answer said about the next request: how long to wait before it (0: nothing was said), and
// whether this one was refused because there were too many. A token server's answer counts like the registry's.
func Paced(err error) (wait time.Duration, limited bool) {
	var l *loginFailure
	if errors.As(err, &l) {
		return l.wait, l.limited
	}
	var e *StatusError
	if errors.As(err, &e) {
		return e.Wait, e.Status == http.StatusTooManyRequests
	}
	return 0, false
}

// loginFailure is what a login ends with when that says nothing about the request.
type loginFailure struct {
	text    string
	wait    time.Duration
	limited bool
}

func (e *loginFailure) Error() string { return "log in: " + e.text }
