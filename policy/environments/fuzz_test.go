package environments

import (
	"bytes"
	"testing"
)

// Whatever YAML is accepted has a canonical form that reads back as itself, and differs from itself in nothing.
func FuzzForms(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("version: 1\nenvironments: {a: {namespace: ml, data: {x: [1, 2.5, true, y]}, dataFiles: [x.json]}}\n"))
	f.Add([]byte("version: 1\nenvironments: {}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := ParseFiles("e.yaml", raw, func(string) ([]byte, error) { return raw, nil })
		if err != nil {
			return
		}
		b, err := d.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseJSON(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		b2, err := again.Canonical()
		if err != nil || !bytes.Equal(b, b2) {
			t.Fatalf("%v\n%s\n%s", err, b, b2)
		}
		if c := Diff(d, again); len(c) != 0 {
			t.Fatalf("differs from itself: %+v", c)
		}
	})
}

func FuzzSignedForm(f *testing.F) {
	d, err := ParseYAML("e.yaml", []byte(good))
	if err != nil {
		f.Fatal(err)
	}
	b, err := d.Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := ParseJSON(raw)
		if err != nil {
			return
		}
		for _, n := range d.Names() {
			if _, err := d.Facts(n); err != nil {
				t.Fatal(err)
			}
		}
		if c := Diff(d, d); len(c) != 0 {
			t.Fatalf("differs from itself: %+v", c)
		}
	})
}
