package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Broken tells where raw stops being one JSON value: line and column, from 1, the column in bytes. ok is false for a
// well-formed value.
func Broken(raw []byte) (line, col int, ok bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	var v json.RawMessage
	err := d.Decode(&v)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		line, col = position(raw, max(syntax.Offset-1, 0))
		return line, col, true
	case err != nil: // it ends early
		line, col = position(raw, int64(len(raw)))
		return line, col, true
	}
	end := d.InputOffset()
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		rest := len(raw[end:]) - len(bytes.TrimLeft(raw[end:], " \t\r\n"))
		line, col = position(raw, end+int64(rest))
		return line, col, true
	}
	return 0, 0, false
}

// Locate finds the member with a path like metrics[0].direction, as the errors of this package write it: line and column
// of its key, or of a list element's first byte. A member that is missing is looked up by its parent.
func Locate(raw []byte, path string) (line, col int, ok bool) {
	for p := path; p != ""; {
		f := finder{d: json.NewDecoder(bytes.NewReader(raw)), raw: raw, want: p}
		f.d.UseNumber()
		if err := f.value("", 0); err == nil && f.found {
			line, col = position(raw, f.at)
			return line, col, true
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return 0, 0, false
}

type finder struct {
	d     *json.Decoder
	raw   []byte
	want  string
	at    int64
	found bool
}

// next is the offset of the next token's first byte.
func (f *finder) next() int64 {
	o := f.d.InputOffset()
	for o < int64(len(f.raw)) && strings.IndexByte(" \t\r\n,:", f.raw[o]) >= 0 {
		o++
	}
	return o
}

func (f *finder) mark(path string, at int64) {
	if path == f.want { // of a key that is given twice the later one, where the reader stopped
		f.at, f.found = at, true
	}
}

func (f *finder) value(path string, depth int) error {
	if depth > maxDepth {
		return errors.New("too deep")
	}
	tok, err := f.d.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		for f.d.More() {
			at := f.next()
			k, err := f.d.Token()
			if err != nil {
				return err
			}
			p := strings.TrimPrefix(path+"."+k.(string), ".")
			f.mark(p, at)
			if err := f.value(p, depth+1); err != nil {
				return err
			}
		}
		_, err = f.d.Token()
	case json.Delim('['):
		for i := 0; f.d.More(); i++ {
			p := fmt.Sprintf("%s[%d]", path, i)
			f.mark(p, f.next())
			if err := f.value(p, depth+1); err != nil {
				return err
			}
		}
		_, err = f.d.Token()
	}
	return err
}

func position(raw []byte, off int64) (line, col int) {
	head := raw[:min(off, int64(len(raw)))]
	return bytes.Count(head, []byte("\n")) + 1, len(head) - bytes.LastIndexByte(head, '\n')
}
