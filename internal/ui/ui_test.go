package ui

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 214_300: "214 kB", 999_600: "1.0 MB", 1_234_567: "1.2 MB", -5: "-5 B", 3e12: "3.0 TB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0 s", 640: "640 ns", 5600: "5.6 us", 400 * time.Microsecond: "0.4 ms", 12 * time.Millisecond: "12 ms",
		3100 * time.Millisecond: "3.1 s", 245 * time.Second: "4 min 5 s", 76 * time.Hour: "3 d 4 h", -time.Second: "-1.0 s", 90 * time.Minute: "1 h 30 min",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%d) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{7: "7", 1234: "1,234", -1234567: "-1,234,567"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q", n, got)
		}
	}
	if Plural(1, "file") != "1 file" || Plural(2000, "file") != "2,000 files" {
		t.Error("Plural")
	}
}

// Talk goes to stderr, data to stdout; --quiet silences talk but no warning; colour is where it is wanted.
func TestStreams(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string // stderr
	}{
		{Options{Color: "never", Verbose: true}, "talk\n  label      text\nwhy\nwarning: careful\n"},
		{Options{Color: "auto", ErrTTY: true, NoColor: true}, "talk\n  label      text\nwarning: careful\n"},
		{Options{Color: "auto"}, "talk\n  label      text\nwarning: careful\n"},
		{Options{Color: "always", Quiet: true, Verbose: true}, "\x1b[33mwarning:\x1b[0m careful\n"},
		{Options{Color: "auto", ErrTTY: true, Quiet: true}, "\x1b[33mwarning:\x1b[0m careful\n"},
		{Options{Color: "auto", ForceColor: true, Quiet: true}, "\x1b[33mwarning:\x1b[0m careful\n"},
	} {
		var out, errb bytes.Buffer
		c.o.Out, c.o.Err = &out, &errb
		u := New(c.o)
		u.Say("talk")
		u.Field("label", "text")
		u.Why("why")
		u.Warn("careful")
		u.Data("data")
		if errb.String() != c.want || out.String() != "data\n" {
			t.Errorf("%+v: %q, %q", c.o, errb.String(), out.String())
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	u := New(Options{Out: &b, Err: &b, Color: "always"})
	Table(u.Out, true, [][]string{{"a", "long header"}, {u.Out.Green("größer"), "x"}, {"b"}})
	if got, want := b.String(), "\x1b[2ma       long header\x1b[0m\n\x1b[32mgrößer\x1b[0m  x\nb\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	u := New(Options{Out: &b, Err: &b})
	if err := u.PrintJSON(map[string]string{"a": "<b>"}); err != nil || b.String() != "{\n  \"a\": \"<b>\"\n}\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// A progress line appears on a terminal only, and leaves nothing behind.
func TestProgress(t *testing.T) {
	clock := time.Unix(1000, 0)
	for _, tty := range []bool{false, true} {
		var b bytes.Buffer
		p := New(Options{Out: &b, Err: &b, ErrTTY: tty, Color: "never"}).Progress("pull", 2000, func() time.Time { return clock })
		p.Add(1000)
		if shown := strings.Contains(b.String(), "1.0 kB of 2.0 kB (50 %)"); shown != tty {
			t.Errorf("terminal %t: %q", tty, b.String())
		}
		p.Done()
		if tty != strings.HasSuffix(b.String(), "\r\x1b[2K") {
			t.Errorf("terminal %t: %q", tty, b.String())
		}
	}
}

// The rate is that of the last span: neither what a resumed transfer began with nor a pause long ago is in it.
func TestProgressRate(t *testing.T) {
	clock := time.Unix(1000, 0)
	var b bytes.Buffer
	p := New(Options{Err: &b, ErrTTY: true, Color: "never"}).Progress("hashing", 0, func() time.Time { return clock })
	p.Begin(40e6)
	for _, c := range []struct {
		after time.Duration
		n     int64
		want  string
	}{
		{0, 10e6, "10 MB of 40 MB (25 %)"},
		{500 * time.Millisecond, 5e6, "15 MB of 40 MB (37 %)"},
		{1500 * time.Millisecond, 5e6, "20 MB of 40 MB (50 %)  10 MB/s"},
		{50 * time.Millisecond, 1e6, ""}, // too soon to be shown
		{950 * time.Millisecond, 2e6, "23 MB of 40 MB (57 %)  3.0 MB/s"},
		{500 * time.Millisecond, 17e6, "40 MB of 40 MB (100 %)  3.0 MB/s"},
		{time.Second, -1e6, "39 MB of 40 MB (97 %)  11 MB/s"},
		{time.Second, -1e6, "38 MB of 40 MB (95 %)"},
	} {
		b.Reset()
		clock = clock.Add(c.after)
		p.Add(c.n)
		want := ""
		if c.want != "" {
			want = "\r\x1b[2K  hashing    " + c.want
		}
		if b.String() != want {
			t.Errorf("%q, want %q", b.String(), want)
		}
	}
}
